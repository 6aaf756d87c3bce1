//! Whether a run has written a line: its log is read once, bit by bit, and how far is kept.
//!
//! It owns cursors and how much is read at a time. It refuses to know how logs are kept: a hole in
//! the file is passed over, a file that became shorter is begun anew.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use regex::bytes::{Regex, RegexBuilder};
use wharf_model::{ErrorKind, Failure, Health, RunId};

use super::quoted;

/// How much is read for one question. Of a longer log the rest is read for the next ones.
const READ_BYTES: u64 = 1 << 20;
/// A longer line is looked at in pieces.
const LINE_BYTES: usize = 64 * 1024;
/// A compiled expression takes no more, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// How far the log of one run was read for one expression.
pub(crate) type Cursor = Arc<Mutex<Seen>>;

/// The cursors of all runs that were asked.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    // A HashMap, because nothing is decided by its order.
    cursors: Mutex<HashMap<RunId, HashMap<String, Cursor>>>,
}

impl LogLines {
    /// The cursor of a run that lives.
    pub(crate) fn cursor(&self, run: RunId, pattern: &str) -> Cursor {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let of_run = cursors.entry(run).or_default();
        of_run.entry(pattern.to_owned()).or_insert_with(|| Arc::new(Mutex::new(Seen::new(pattern)))).clone()
    }

    /// The run is over.
    pub(crate) fn forget(&self, run: RunId) {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}

/// An expression, bounded in what it takes.
pub(super) fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().map_err(|e| e.to_string())
}

#[derive(Debug)]
pub(crate) struct Seen {
    pattern: Result<Regex, String>,
    written: String,
    offset: u64,
    /// A line whose end was not there yet.
    rest: Vec<u8>,
    found: Option<String>,
}

impl Seen {
    fn new(pattern: &str) -> Self {
        Self { pattern: compiled(pattern), written: pattern.into(), offset: 0, rest: vec![], found: None }
    }

    /// Reads on. `true`: there is more to read than was read.
    fn read(&mut self, log: &Path) -> io::Result<bool> {
        let file = match File::open(log) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let length = file.metadata()?.size();
        if length < self.offset {
            (self.offset, self.rest) = (0, vec![]);
        }
        let end = length.min(self.offset + READ_BYTES);
        let mut block = [0; 64 * 1024];
        while self.offset < end && self.found.is_none() {
            // What was put away from the front of the file is a hole now.
            match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(self.offset)) {
                Ok(data) if data > self.offset => {
                    (self.offset, self.rest) = (data, vec![]);
                    continue;
                }
                Ok(_) | Err(_) => {}
            }
            let want = block.len().min(usize::try_from(end - self.offset).unwrap_or(block.len()));
            let Some(block) = block.get_mut(..want) else { break };
            let read = file.read_at(block, self.offset)?;
            if read == 0 {
                break;
            }
            self.offset += read as u64;
            self.look(&block[..read]);
        }
        Ok(self.offset < length)
    }

    fn look(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            // A line without its end counts too: a prompt, or what a program writes before it waits.
            if let Ok(pattern) = &self.pattern
                && pattern.is_match(self.rest.trim_ascii_end())
            {
                self.found = Some(quoted(&self.rest));
                self.rest = vec![];
                return;
            }
            if piece.ends_with(b"\n") || self.rest.len() >= LINE_BYTES {
                self.rest.clear();
            }
        }
    }

    fn health(&mut self, log: &Path) -> Result<Health, Failure> {
        if let Err(why) = &self.pattern {
            let text = format!("{:?} is no regular expression: {why}", self.written);
            return Err(Failure::new(ErrorKind::InvalidParams, text).hint("correct the unit's health question"));
        }
        let more = if self.found.is_none() { self.read(log)? } else { false };
        Ok(match (&self.found, more) {
            (Some(line), _) => Health::healthy(format!("it wrote {line}")),
            (None, true) => Health::unhealthy(format!("its log is still being read for {:?}", self.written)),
            (None, false) => Health::unhealthy(format!("it has not written {:?} yet", self.written)),
        })
    }
}

/// Reads on from where the cursor stands.
pub(super) async fn ask(log: PathBuf, cursor: Cursor) -> Result<Health, Failure> {
    let read = move || cursor.lock().unwrap_or_else(PoisonError::into_inner).health(&log);
    tokio::task::spawn_blocking(read).await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn a_line_is_found_when_it_is_there_however_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("1.log");
        let mut seen = Seen::new("listening on .*:80");
        assert!(!seen.health(&log).unwrap().is_ready(), "there is no log yet");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        file.write_all(b"listening\non nothing:80\nnow \xff listening on 1").unwrap();
        assert_eq!(seen.health(&log).unwrap().detail, "it has not written \"listening on .*:80\" yet");
        file.write_all(b"27.0.0.1:8").unwrap();
        assert!(!seen.health(&log).unwrap().is_ready());
        file.write_all(b"0").unwrap();
        let health = seen.health(&log).unwrap();
        assert!(health.is_ready() && health.detail.contains("listening on 127.0.0.1:80"), "{health:?}");
        fs::write(&log, "").unwrap();
        assert!(seen.health(&log).unwrap().is_ready(), "once is enough");
    }

    #[test]
    fn a_large_log_is_read_in_pieces_once_and_holes_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("1.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        // 8 GiB of nothing: reading it would take seconds.
        file.set_len(8 << 30).unwrap();
        let mut file = file;
        file.write_all(&b"0123456789abcde\n".repeat(200_000)).unwrap();
        file.write_all(b"ready\n").unwrap();
        let mut seen = Seen::new("^ready$");
        let (mut asked, began) = (0, std::time::Instant::now());
        while !seen.health(&log).unwrap().is_ready() {
            asked += 1;
            assert!(asked < 20, "it stands at {}", seen.offset);
        }
        assert!(asked >= 3, "3.2 MB are read in {asked} pieces");
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("1.log");
        fs::write(&log, vec![b'x'; 900_000]).unwrap();
        let mut seen = Seen::new("ready");
        assert!(!seen.health(&log).unwrap().is_ready());
        assert!(seen.rest.len() <= 2 * LINE_BYTES, "{}", seen.rest.len());
    }
}
