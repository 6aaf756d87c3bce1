//! One daemon a folder: `flock` on a file that also says, as text, who has it.
//!
//! The file is never removed and never emptied: whoever opens it always finds the holder's pid, and
//! two daemons never hold locks on two files of the same name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use wharf_model::{ErrorKind, Failure};

use super::folder;

/// The right to be the daemon of a folder, as long as it lives. The kernel takes it back when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the lock of a folder, which is made or checked as for `bind`.
pub fn lock(folder: impl AsRef<Path>) -> Result<Lock, Failure> {
    let folder = std::path::absolute(folder.as_ref())?;
    folder::prepare(&folder)?;
    let path = folder.join("daemon.lock");
    let attempt = || -> Result<File, Failure> {
        // std opens with O_CLOEXEC: a service must never inherit it, or it would keep the lock.
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).mode(0o600).custom_flags(flags).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(taken(file, &path)),
            Err(e) => return Err(io::Error::from(e).into()),
        }
        sign(&file)?;
        Ok(file)
    };
    let file = attempt().map_err(|failure| match failure.kind {
        ErrorKind::Conflict => failure,
        _ => failure.while_doing(format_args!("lock {}", path.display())),
    })?;
    Ok(Lock { _file: file, path })
}

/// Writes the pid over what was there, and only then cuts off what was longer.
fn sign(file: &File) -> io::Result<()> {
    let pid = format!("{}\n", std::process::id());
    file.write_all_at(pid.as_bytes(), 0)?;
    file.set_len(pid.len() as u64)
}

fn taken(file: File, path: &Path) -> Failure {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let pid = read.ok().and_then(|_| text.lines().next()?.trim().parse::<u32>().ok());
    let (who, stop) = match pid {
        Some(pid) => (format!(" (pid {pid})"), format!("kill {pid}")),
        None => (String::new(), format!("fuser -k -TERM {}", path.display())),
    };
    Failure::new(ErrorKind::Conflict, format!("a Wharf daemon runs already{who}"))
        .hint(format!("talk to it with `wharf status`, or stop it first: {stop}"))
}
