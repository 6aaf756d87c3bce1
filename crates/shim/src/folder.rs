//! The run's folder: its lock, and records that are either whole or not there.
//!
//! Nothing is synced to the disk. A run ends with the machine: its records only have to outlive
//! processes, and what is in the page cache does. After a power cut a record is there with another
//! boot's id, or torn, or missing; all three mean "not of this boot".

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use wharf_shim::{EXIT, ExitRecord, LOCK, START, StartRecord, ends};
use wharf_sys::files;

const START_DRAFT: &str = "start.tmp";
const EXIT_DRAFT: &str = "exit.tmp";

/// The folder, which is also where this process stands, and the lock that the run's processes inherit.
pub struct Folder {
    lock: File,
    exit: File,
}

impl Folder {
    /// Enters the folder and takes the run's lock. The folder is not made here: one that is gone was
    /// given up by the daemon, and one that goes while we stand in it takes no file any more.
    pub fn enter(dir: &std::ffi::CStr) -> Result<Self, u8> {
        files::enter(dir).map_err(|_| ends::NO_RECORD)?;
        let lock = new_file().open(LOCK).map_err(|_| ends::NO_RECORD)?;
        match files::lock_exclusive(&lock) {
            Ok(true) => {}
            Ok(false) => return Err(ends::NOT_OURS),
            Err(_) => return Err(ends::NO_RECORD),
        }
        // The exit record's place on the disk, taken while there is room: a full disk must not hide an exit.
        let exit = new_file().open(EXIT_DRAFT).map_err(|_| ends::NO_RECORD)?;
        exit.write_all_at(&[0; ExitRecord::LEN], 0).map_err(|_| ends::NO_RECORD)?;
        Ok(Self { lock, exit })
    }

    /// The lock, for the child to keep.
    pub fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Claims the name `start` with the record. Taken means void: a daemon has given this run up.
    pub fn publish_start(&self, record: &StartRecord) -> Result<(), u8> {
        let draft = new_file().open(START_DRAFT).and_then(|mut file| file.write_all(&record.encode()));
        draft.map_err(|_| ends::NO_RECORD)?;
        files::rename_new(Path::new(START_DRAFT), Path::new(START)).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => ends::NOT_OURS,
            _ => ends::NO_RECORD,
        })
    }

    /// Says that exec has happened. Nothing depends on it but a new daemon's impatience.
    pub fn mark_running(&self) {
        let _ = files::make_empty(c"running");
    }

    /// Writes down the end. What fails here cannot be told to anybody: the exit is then unknown.
    pub fn publish_exit(&self, record: &ExitRecord) {
        if self.exit.write_all_at(&record.encode(), 0).is_ok() {
            let _ = fs::rename(EXIT_DRAFT, EXIT);
        }
    }
}

fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}
