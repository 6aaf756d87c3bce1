//! Reading what runs wrote: one append-only file a run, `logs/<unit>/<run>.log`.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use wharf_model::RunId;

/// How much of a file's end is looked at for its last lines.
const MOST_BYTES: u64 = 4 << 20;

/// The end of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The lines, oldest first.
    pub lines: Vec<String>,
    /// There is more before them.
    pub more: bool,
    /// The offset behind the last line.
    pub end: u64,
}

/// The last `count` lines of a file. A last line without its end counts.
pub fn tail(path: &Path, count: usize) -> io::Result<Tail> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut from = end;
    let mut bytes: Vec<u8> = vec![];
    // Backwards in blocks until there are enough line ends, or enough bytes.
    while from > 0 && end - from < MOST_BYTES {
        let size = from.min(64 << 10);
        let mut block = vec![0; size as usize];
        file.read_exact_at(&mut block, from - size)?;
        block.extend_from_slice(&bytes);
        bytes = block;
        from -= size;
        if bytes.iter().filter(|b| **b == b'\n').count() > count {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let skipped = all.len().saturating_sub(count);
    let lines = all[skipped..].iter().map(|l| (*l).to_owned()).collect();
    Ok(Tail { lines, more: skipped > 0 || from > 0, end })
}

/// The runs of a unit that have a log, oldest first.
pub fn runs(dir: &Path) -> Vec<(RunId, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let mut runs: Vec<_> = entries
        .filter_map(|e| {
            let path = e.ok()?.path();
            let run = path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()?;
            Some((RunId(run), path))
        })
        .collect();
    runs.sort();
    runs
}

/// Removes the logs of all but the last runs.
pub fn prune(dir: &Path, keep: usize) {
    let runs = runs(dir);
    for (_, path) in runs.iter().take(runs.len().saturating_sub(keep + 1)) {
        if let Err(e) = fs::remove_file(path) {
            tracing::debug!("{}: {e}", path.display());
        }
    }
}

/// Reads on where it was, whole lines only.
pub struct Follower {
    file: File,
    rest: Vec<u8>,
}

impl Follower {
    /// From an offset.
    pub fn new(path: &Path, from: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file, rest: vec![] })
    }

    /// The lines that were ended since, at most a megabyte of them.
    pub fn read(&mut self) -> io::Result<Vec<String>> {
        (&mut self.file).take(1 << 20).read_to_end(&mut self.rest)?;
        let Some(last) = self.rest.iter().rposition(|b| *b == b'\n') else {
            // A line without end is given in pieces: nobody's memory pays for it.
            let piece = if self.rest.len() >= 1 << 20 { self.finish() } else { None };
            return Ok(piece.into_iter().collect());
        };
        let tail = self.rest.split_off(last + 1);
        let whole = std::mem::replace(&mut self.rest, tail);
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }

    /// What was written without a line end; nothing more will come.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_long_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &text).unwrap();
        let found = tail(&path, 3).unwrap();
        assert_eq!(found.lines, ["line 49997", "line 49998", "line 49999"]);
        assert!(found.more);
        assert_eq!(found.end, text.len() as u64);
        assert_eq!(tail(&path, 60_000).unwrap().lines.len(), 50_000);
    }

    #[test]
    fn a_follower_gives_whole_lines_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        fs::write(&path, "a\nb").unwrap();
        let mut follower = Follower::new(&path, 0).unwrap();
        assert_eq!(follower.read().unwrap(), ["a"]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"c\nd").unwrap();
        assert_eq!(follower.read().unwrap(), ["bc"]);
        assert_eq!(follower.finish().as_deref(), Some("d"));
    }

    #[test]
    fn only_the_last_logs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=9 {
            fs::write(dir.path().join(format!("{n}.log")), "x").unwrap();
        }
        prune(dir.path(), 5);
        let left: Vec<u64> = runs(dir.path()).iter().map(|(r, _)| r.0).collect();
        assert_eq!(left, [4, 5, 6, 7, 8, 9]);
    }
}
