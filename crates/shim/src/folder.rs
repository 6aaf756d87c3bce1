//! The run's folder: its lock, and records that are either whole or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use wharf_shim::{EXIT, ExitRecord, LOCK, RUNNING, START, StartRecord, ends};
use wharf_sys::files;

/// The folder, and the lock that the run's processes inherit.
pub struct Folder {
    dir: PathBuf,
    lock: File,
}

impl Folder {
    /// Takes the run's lock. The folder is not made here: one that is gone was given up by the daemon.
    pub fn lock(dir: &Path) -> Result<Self, u8> {
        let lock = new_file().open(dir.join(LOCK)).map_err(|_| ends::NO_RECORD)?;
        match files::lock_exclusive(&lock) {
            Ok(true) => {}
            Ok(false) => return Err(ends::NOT_OURS),
            Err(_) => return Err(ends::NO_RECORD),
        }
        let folder = Self { dir: dir.to_path_buf(), lock };
        // The exit record's place on the disk, taken while there is room: a full disk must not hide an exit.
        new_file()
            .open(folder.temporary(EXIT))
            .and_then(|mut file| file.write_all(&[0; ExitRecord::LEN]))
            .map_err(|_| ends::NO_RECORD)?;
        Ok(folder)
    }

    /// The lock, for the child to keep.
    pub fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Claims the name `start` with the record. Taken means void: a daemon has given this run up.
    pub fn publish_start(&self, record: &StartRecord) -> Result<(), u8> {
        let temporary = self.temporary(START);
        write_whole(&temporary, &record.encode()).map_err(|_| ends::NO_RECORD)?;
        files::rename_new(&temporary, &self.dir.join(START)).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => ends::NOT_OURS,
            _ => ends::NO_RECORD,
        })
    }

    /// Says that exec has happened. Nothing depends on it but the daemon's impatience.
    pub fn mark_running(&self) {
        let _ = File::create(self.dir.join(RUNNING));
    }

    /// Writes down the end. What fails here cannot be told to anybody: the exit is then unknown.
    pub fn publish_exit(&self, record: &ExitRecord) {
        let temporary = self.temporary(EXIT);
        if write_whole(&temporary, &record.encode()).is_ok() {
            let _ = fs::rename(temporary, self.dir.join(EXIT));
        }
    }

    fn temporary(&self, name: &str) -> PathBuf {
        let mut path = self.dir.join(name);
        path.set_extension("tmp");
        path
    }
}

/// Writes over what is there, without truncation, so that the place taken earlier is used.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = new_file().open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}
