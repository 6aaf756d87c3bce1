//! Lines out of bytes, in bounded memory. Refuses to know what they say.

use std::io;

use super::reader::{Piece, Reader};

/// So much of a longer line is shown, in bytes.
pub const SHOWN: usize = 64 << 10;
/// A longer line is given as several of this many bytes each: nobody waits for an end that never comes.
pub const PIECE: u64 = 1 << 20;
const BLOCK: usize = 64 << 10;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Its first byte.
    pub from: u64,
    /// The byte after its end: what comes next begins there.
    pub next: u64,
    /// Its end was written, or it is a piece that is long enough.
    pub ended: bool,
    /// A line's end was written.
    pub whole: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A line that was ended. Its bytes are in [`Lines::text`].
    Line(Line),
    /// So many bytes are no longer there.
    Gap(u64),
    /// Nothing more was written yet. What has no end is in [`Lines::rest`].
    End,
}

/// A reader of lines.
pub struct Lines {
    reader: Reader,
    block: Vec<u8>,
    /// The part of the block that was not looked at.
    unread: std::ops::Range<usize>,
    /// The present line: as much of it as is shown.
    text: Vec<u8>,
    from: u64,
    length: u64,
    is_new: bool,
    /// To be told after the piece that lies before it.
    gap: Option<u64>,
}

impl Lines {
    /// The lines from an offset on, which is taken for the start of one.
    pub fn new(reader: Reader, from: u64) -> Self {
        let block = vec![0; BLOCK];
        Self { reader, block, unread: 0..0, text: vec![], from, length: 0, is_new: true, gap: None }
    }

    /// The bytes of the line that was given last, without its end, [`SHOWN`] at most.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where the next line begins.
    pub fn at(&self) -> u64 {
        self.from + if self.is_new { self.length } else { 0 }
    }

    /// Reads on.
    pub fn read(&mut self) -> io::Result<Next> {
        if let Some(gap) = self.gap.take() {
            self.from += gap;
            return Ok(Next::Gap(gap));
        }
        if self.is_new {
            (self.from, self.length, self.is_new) = (self.at(), 0, false);
            self.text.clear();
        }
        loop {
            if let Some(line) = self.take() {
                return Ok(Next::Line(line));
            }
            match self.reader.read(&mut self.block)? {
                Piece::Bytes(size) => self.unread = 0..size,
                Piece::End => return Ok(Next::End),
                Piece::Gap(size) if self.length == 0 => {
                    self.from += size;
                    return Ok(Next::Gap(size));
                }
                Piece::Gap(size) => {
                    let line = self.given(false);
                    // The next line begins behind the gap.
                    self.gap = Some(size);
                    (self.from, self.length) = (line.next, 0);
                    return Ok(Next::Line(line));
                }
            }
        }
    }

    /// What was written behind the last line's end, once the end was reached.
    pub fn rest(&mut self) -> Option<Line> {
        (!self.is_new && self.length > 0).then(|| self.given(false))
    }

    /// A line out of the block, where it has one.
    fn take(&mut self) -> Option<Line> {
        let unread = &self.block[self.unread.clone()];
        let room = usize::try_from(PIECE - self.length).unwrap_or(0).min(unread.len());
        let end = memchr::memchr(b'\n', &unread[..room]);
        let size = end.unwrap_or(room);
        let shown = size.min(SHOWN - self.text.len());
        self.text.extend_from_slice(&unread[..shown]);
        let used = size + usize::from(end.is_some());
        self.unread.start += used;
        self.length += used as u64;
        (end.is_some() || self.length == PIECE).then(|| self.given(end.is_some()))
    }

    fn given(&mut self, whole: bool) -> Line {
        self.is_new = true;
        Line { from: self.from, next: self.from + self.length, ended: whole || self.length == PIECE, whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::files::{RunLog, Span};
    use std::{fs, path::Path};
    use wharf_model::RunId;

    fn lines(dir: &Path, from: u64) -> Lines {
        Lines::new(Reader::new(RunLog::new(dir, RunId(1)), from).unwrap(), from)
    }

    fn all(lines: &mut Lines) -> (Vec<(u64, String)>, u64) {
        let (mut found, mut gaps) = (vec![], 0);
        loop {
            match lines.read().unwrap() {
                Next::Line(line) => found.push((line.from, String::from_utf8_lossy(lines.text()).into_owned())),
                Next::Gap(size) => gaps += size,
                Next::End => return (found, gaps),
            }
        }
    }

    #[test]
    fn lines_are_whole_and_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        fs::write(&path, "a\n\nb").unwrap();
        let mut reader = lines(dir.path(), 0);
        assert_eq!(all(&mut reader).0, [(0, "a".into()), (2, String::new())]);
        assert_eq!(reader.at(), 3);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"c\nd").unwrap();
        assert_eq!(all(&mut reader).0, [(3, "bc".into())]);
        let rest = reader.rest().unwrap();
        assert_eq!((rest, reader.text()), (Line { from: 6, next: 7, ended: false, whole: false }, &b"d"[..]));
    }

    #[test]
    fn a_line_without_end_is_given_in_pieces_and_shown_in_part() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1.log"), [vec![b'x'; 2_500_000], b"\nafter\n".to_vec()].concat()).unwrap();
        let mut reader = lines(dir.path(), 0);
        for n in 0..3 {
            let Next::Line(line) = reader.read().unwrap() else { panic!("piece {n}") };
            assert_eq!((line.from, line.ended, reader.text().len()), (n * PIECE, true, SHOWN));
        }
        assert_eq!(all(&mut reader).0, [(2_500_001, "after".into())]);
    }

    #[test]
    fn what_is_gone_is_a_gap_of_so_many_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::new(dir.path(), RunId(1));
        fs::write(log.live(), "0123456\nb\n").unwrap();
        log.mark(&log.gone(8)).unwrap();
        assert_eq!(all(&mut lines(dir.path(), 0)), (vec![(8, "b".into())], 8));
        assert_eq!(all(&mut lines(dir.path(), 3)), (vec![(8, "b".into())], 5));
        // An archive that nobody can read costs its own bytes and no more.
        log.mark(&log.archive(Span { from: 0, to: 4 })).unwrap();
        assert_eq!(all(&mut lines(dir.path(), 0)), (vec![(8, "b".into())], 8));
    }
}
