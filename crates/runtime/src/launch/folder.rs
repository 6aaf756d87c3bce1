//! A run's folder, as the daemon reads it. The shim writes the records; only the void is ours.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use wharf_shim::{EXIT, ExitRecord, LOCK, RUNNING, START, StartRecord};

/// The file with the process that a run has named as its main one. It is the daemon's, not the shim's.
const MAIN: &str = "main";

/// One run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

/// What the name `start` holds.
pub enum Start {
    /// The shim's record: the program began, or was about to.
    Recorded(StartRecord),
    /// Nothing yet.
    Missing,
    /// A daemon's claim: this run never starts.
    Void,
    /// Part of a record. A rename shows it whole or not at all, so a power cut took the rest: it is of
    /// another boot, like a program that ran and whose record is empty.
    Torn,
}

impl RunFolder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, for us alone. A folder that is there belongs to an earlier launch: `AlreadyExists`.
    pub fn make(&self) -> io::Result<()> {
        let make = || match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(unit) = self.0.parent() {
                    make_private(unit)?;
                }
                DirBuilder::new().mode(0o700).create(&self.0)
            }
            other => other,
        };
        once_more(&self.0, make)
    }

    /// Removes it, and its unit's folder where this was the last run.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Some(unit) = self.0.parent() {
            // Fails as it should while there are other runs.
            let _ = fs::remove_dir(unit);
        }
        Ok(())
    }

    pub fn read_start(&self) -> Start {
        self.look_at_start().unwrap_or(Start::Missing)
    }

    /// The same for whoever must know why nothing was seen.
    pub fn look_at_start(&self) -> io::Result<Start> {
        match fs::read(self.0.join(START)) {
            Ok(bytes) if bytes.is_empty() && !self.is_running_marked() => Ok(Start::Void),
            Ok(bytes) => Ok(StartRecord::decode(&bytes).map_or(Start::Torn, Start::Recorded)),
            Err(e) => Err(e),
        }
    }

    pub fn start(&self) -> Option<StartRecord> {
        match self.read_start() {
            Start::Recorded(record) => Some(record),
            Start::Missing | Start::Void | Start::Torn => None,
        }
    }

    pub fn exit(&self) -> Option<ExitRecord> {
        ExitRecord::decode(&fs::read(self.0.join(EXIT)).ok()?).ok()
    }

    pub fn is_running_marked(&self) -> bool {
        self.0.join(RUNNING).exists()
    }

    /// The process that the run has named as its main one, as (pid, identity).
    pub fn named_main(&self) -> Option<(i32, u64)> {
        let text = fs::read_to_string(self.0.join(MAIN)).ok()?;
        let (pid, identity) = text.trim_end().split_once(' ')?;
        Some((pid.parse().ok()?, identity.parse().ok()?))
    }

    /// Remembers it, for daemons to come.
    pub fn name_main(&self, pid: i32, identity: u64) -> io::Result<()> {
        let draft = self.0.join("main.tmp");
        fs::write(&draft, format!("{pid} {identity}\n"))?;
        fs::rename(draft, self.0.join(MAIN))
    }

    /// Claims the name `start`, so that a late shim finds it taken. `false`: the shim was first. It needs
    /// no descriptor: a daemon that has none left must not leave a run undecided.
    pub fn make_void(&self) -> io::Result<bool> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let mode = Mode::RUSR | Mode::WUSR;
        match mknodat(CWD, self.0.join(START), FileType::RegularFile, mode, 0) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the shim or a process of the run holds the lock. The question takes a shared lock for
    /// an instant, so that two who ask do not see each other.
    pub fn is_locked(&self) -> bool {
        match File::open(self.lock_path()) {
            // What cannot be asked (no descriptor left, say) is taken for held: nothing is started beside it.
            Ok(file) => !matches!(wharf_sys::files::lock_shared(&file), Ok(true)),
            Err(e) => e.kind() != io::ErrorKind::NotFound,
        }
    }

    pub fn lock_path(&self) -> PathBuf {
        self.0.join(LOCK)
    }
}

/// The end of a unit's last run removes the unit's folder, which the next run may be making at
/// that moment: what is lost to that race is made once more. It shows as `NotFound`, and as
/// `AlreadyExists` where the folder went between the two looks of `create_dir_all`.
pub fn once_more(folder: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut made = make();
    for _ in 0..20 {
        match &made {
            Err(e) if e.kind() == io::ErrorKind::NotFound => made = make(),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !folder.exists() => made = make(),
            Ok(()) | Err(_) => break,
        }
    }
    made
}

/// A folder for us alone, with all above it.
pub fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The names in a folder; none where it is missing.
pub fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(vec![]),
        other => other?,
    };
    entries
        .map(|entry| entry.map(|e| e.file_name()))
        .filter_map(|n| n.map(|n| n.into_string().ok()).transpose())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_run_does_not_hinder_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("redis");
        std::thread::scope(|scope| {
            for n in 0..4 {
                let unit = &unit;
                scope.spawn(move || {
                    for run in 0..2_000 {
                        let folder = RunFolder::new(unit.join(format!("{}", n * 10_000 + run)));
                        folder.make().unwrap_or_else(|e| panic!("run {run}: {e}"));
                        folder.remove().unwrap();
                    }
                });
            }
        });
        let folder = RunFolder::new(unit.join("1"));
        folder.make().unwrap();
        assert_eq!(folder.make().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
