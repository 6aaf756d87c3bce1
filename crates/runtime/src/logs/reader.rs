//! The bytes of a run from any offset on: archives first, then the live file, as if nothing had
//! ever been put away.
//!
//! A rotation may run meanwhile. It makes the archive's name before it makes the hole, so bytes that
//! were read from the live file are sound unless the head has moved beyond them by then; and a hole
//! reads as NULs, so only bytes with a NUL among them need that second look.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use super::{
    archive::Unpacked,
    files::{RunLog, Span, Survey},
};

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes were read.
    Bytes(usize),
    /// So many bytes are no longer there.
    Gap(u64),
    /// Nothing more was written yet.
    End,
}

/// A reader of a run's log.
pub struct Reader {
    log: RunLog,
    survey: Survey,
    at: u64,
    open: Open,
}

enum Open {
    Nothing,
    Archive(Box<Unpacked>, Span),
    Live(File),
}

impl Reader {
    /// From an offset on.
    pub fn new(log: RunLog, at: u64) -> io::Result<Self> {
        let survey = log.survey()?;
        Ok(Self { log, survey, at, open: Open::Nothing })
    }

    /// Reads on.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Piece> {
        loop {
            let piece = if self.at < self.survey.head { self.read_archive(buffer) } else { self.read_live(buffer)? };
            if let Some(piece) = piece {
                self.at += match piece {
                    Piece::Bytes(size) => size as u64,
                    Piece::Gap(size) => size,
                    Piece::End => 0,
                };
                return Ok(piece);
            }
        }
    }

    /// Nothing where the survey was too old.
    fn read_archive(&mut self, buffer: &mut [u8]) -> Option<Piece> {
        let at = self.at;
        let Some(span) = self.survey.archives.iter().find(|a| a.from <= at && at < a.to).copied() else {
            let next = self.survey.archives.iter().map(|a| a.from).find(|from| *from > at);
            return Some(Piece::Gap(next.unwrap_or(self.survey.head) - at));
        };
        if !matches!(&self.open, Open::Archive(_, opened) if *opened == span) {
            let path = self.log.archive(span);
            match Unpacked::open(&path, at - span.from) {
                Ok(unpacked) => self.open = Open::Archive(Box::new(unpacked), span),
                // Retention was faster than we.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.survey.archives.retain(|a| *a != span);
                    return None;
                }
                Err(e) => return Some(self.spoiled(span, &e)),
            }
        }
        let Open::Archive(unpacked, _) = &mut self.open else { return None };
        let most = usize::try_from(span.to - at).unwrap_or(usize::MAX).min(buffer.len());
        match unpacked.read(&mut buffer[..most]) {
            Ok(0) => Some(self.spoiled(span, &io::ErrorKind::UnexpectedEof.into())),
            Ok(size) => Some(Piece::Bytes(size)),
            Err(e) => Some(self.spoiled(span, &e)),
        }
    }

    /// What cannot be unpacked is as good as gone, and the rest is not.
    fn spoiled(&mut self, span: Span, e: &io::Error) -> Piece {
        tracing::warn!("{}: {e}", self.log.archive(span).display());
        self.open = Open::Nothing;
        Piece::Gap(span.to - self.at)
    }

    /// Nothing where something was put away meanwhile.
    fn read_live(&mut self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        if !matches!(self.open, Open::Live(_)) {
            match File::open(self.log.live()) {
                Ok(file) => self.open = Open::Live(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Piece::End)),
                Err(e) => return Err(e),
            }
        }
        let Open::Live(file) = &self.open else { return Ok(None) };
        let size = file.read_at(buffer, self.at - self.survey.base)?;
        if size > 0 && memchr::memchr(0, &buffer[..size]).is_none() {
            return Ok(Some(Piece::Bytes(size)));
        }
        let seen = (self.survey.base, self.survey.head);
        self.survey = self.log.survey()?;
        if seen.0 != self.survey.base || self.survey.head > self.at {
            self.open = Open::Nothing;
            return Ok(None);
        }
        Ok(Some(if size == 0 { Piece::End } else { Piece::Bytes(size) }))
    }
}
