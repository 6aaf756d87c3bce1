//! A file that grows by whole lines: opened for append, rotated by size, mended where it was torn.
//!
//! It knows bytes and lines. A line is written by one call, or not at all: what was written by half
//! on a full disk is cut off again. What was torn by a power cut gets its line's end at the next open.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// One file and its predecessors: `audit.jsonl`, before it `audit.1.jsonl`, then `audit.2.jsonl` …
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    open: Option<(File, u64)>,
    most_bytes: u64,
    kept: usize,
}

impl Lines {
    /// Nothing is opened before the first line. A file of `most_bytes` makes room for the next one;
    /// `kept` of its predecessors stay.
    pub fn new(path: PathBuf, most_bytes: u64, kept: usize) -> Self {
        Self { path, open: None, most_bytes, kept }
    }

    /// Adds a line, without its end.
    ///
    /// # Errors
    /// Where it could not be written whole; then nothing of it is there.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size > 0 && size + line.len() as u64 >= self.most_bytes) {
            self.rotate();
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            none => none.insert(open(&self.path)?),
        };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        if let Err(e) = file.write_all(&bytes) {
            // A shorter file needs no room.
            let _ = file.set_len(*size);
            return Err(e);
        }
        *size += bytes.len() as u64;
        Ok(())
    }

    /// The files that there are, the newest first. A device is none.
    pub fn files(&self) -> Vec<PathBuf> {
        (0..=self.kept).map(|n| self.numbered(n)).filter(|path| path.is_file()).collect()
    }

    /// A file's lines, oldest first; what is no text is left out.
    pub fn read(path: &Path) -> io::Result<Vec<String>> {
        let text = fs::read(path)?;
        Ok(text
            .split(|b| *b == b'\n')
            .filter_map(|line| String::from_utf8(line.to_vec()).ok())
            .filter(|l| !l.is_empty())
            .collect())
    }

    /// Where renaming fails the present file goes on growing: nothing is lost for tidiness.
    fn rotate(&mut self) {
        for n in (0..self.kept).rev() {
            let _ = fs::rename(self.numbered(n), self.numbered(n + 1));
        }
        if !self.path.exists() {
            self.open = None;
        }
    }

    fn numbered(&self, n: usize) -> PathBuf {
        if n == 0 { self.path.clone() } else { self.path.with_extension(format!("{n}.jsonl")) }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(size - 1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn all(lines: &Lines) -> Vec<String> {
        lines.files().iter().rev().flat_map(|path| Lines::read(path).unwrap()).collect()
    }

    #[test]
    fn it_is_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = Lines::new(dir.path().join("a.jsonl"), 100, 2);
        for n in 0..100 {
            lines.append(&format!("line number {n}")).unwrap();
        }
        let kept = all(&lines);
        assert_eq!(lines.files().len(), 3);
        assert_eq!(kept.last().unwrap(), "line number 99");
        let first: usize = kept[0].rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(kept, (first..100).map(|n| format!("line number {n}")).collect::<Vec<_>>(), "none is missing");
        for path in lines.files() {
            let meta = fs::metadata(path).unwrap();
            assert!(meta.len() <= 100);
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_torn_line_stays_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, "{\"a\":1}\n{\"a\":").unwrap();
        let mut lines = Lines::new(path.clone(), 1000, 1);
        lines.append("{\"a\":2}").unwrap();
        assert_eq!(Lines::read(&path).unwrap(), ["{\"a\":1}", "{\"a\":", "{\"a\":2}"]);
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_next_line_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut lines = Lines::new(path.clone(), 1000, 1);
        assert_eq!(lines.append("x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
