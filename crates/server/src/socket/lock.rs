//! One daemon a folder: `flock` on a file that also says, as text, who has it: the pid, and in the
//! second line what tells that process from every other one with this pid.
//!
//! The file is never removed and never emptied: whoever opens it always finds the holder's pid, and
//! two daemons never hold locks on two files of the same name. The lock belongs to the open file, so
//! that a daemon can give it to its successor without letting go of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use wharf_model::{ErrorKind, Failure};

use super::folder;

/// The right to be the daemon of a folder, as long as it lives. The kernel takes it back when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// The lock that another daemon holds and gives away: both hold it until one of them ends.
    /// It is refused if it is not this folder's.
    pub fn received(descriptor: OwnedFd, folder: &Path) -> Result<Self, Failure> {
        let file = File::from(descriptor);
        let path = folder.join(NAME);
        let (given, there) = (file.metadata()?, std::fs::symlink_metadata(&path)?);
        if (given.dev(), given.ino()) != (there.dev(), there.ino()) {
            let failure = Failure::new(ErrorKind::Conflict, format!("the other daemon has not {}", path.display()));
            return Err(failure.hint("its folders are other ones: compare WHARF_HOME and the XDG variables of both"));
        }
        Ok(Self { file, path })
    }

    /// Writes down that this process has it now.
    pub fn sign(&self) -> Result<(), Failure> {
        sign(&self.file).map_err(|e| Failure::from(e).while_doing(format_args!("write {}", self.path.display())))
    }

    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const NAME: &str = "daemon.lock";
/// A daemon that is killed while it makes a process leaves its locks to that one until its exec, which
/// takes milliseconds: no reason to refuse the next daemon.
const LET_GO: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Who has written itself into a lock's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its pid then.
    pub pid: i32,
    /// What `wharf_sys::pidfd::identity` said; a process of another boot has none.
    pub identity: Option<u64>,
}

/// Who holds the lock of a folder by its own account; `None` where nobody has ever, or it cannot be read.
pub fn holder(folder: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(folder.join(NAME)).ok()?.take(256).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let identity = lines.next().and_then(|line| line.split_once(' ')).filter(|(boot, _)| *boot == boot_id());
    Some(Holder { pid, identity: identity.and_then(|(_, identity)| identity.parse().ok()) })
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Takes the lock of a folder, which is made or checked as for `bind`.
pub fn lock(folder: impl AsRef<Path>) -> Result<Lock, Failure> {
    let folder = std::path::absolute(folder.as_ref())?;
    folder::prepare(&folder)?;
    let path = folder.join(NAME);
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
    let until = Instant::now() + LET_GO;
    loop {
        match attempt() {
            Ok(file) => return Ok(Lock { file, path }),
            Err(failure) if failure.kind != ErrorKind::Conflict => {
                return Err(failure.while_doing(format_args!("lock {}", path.display())));
            }
            Err(_) if is_left_by_the_dead(&folder) && Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            Err(taken) => return Err(taken),
        }
    }
}

/// Whoever has signed has ended: what holds the lock is a process that it was just making.
fn is_left_by_the_dead(folder: &Path) -> bool {
    let Some(Holder { pid, identity }) = holder(folder) else { return false };
    let process = match identity {
        Some(identity) => wharf_sys::pidfd::open_exact(pid, identity),
        None => wharf_sys::pidfd::open(pid),
    };
    process.map_or_else(|e| e.kind() == io::ErrorKind::NotFound, wharf_sys::pidfd::has_exited)
}

/// Writes the pid over what was there, and only then cuts off what was longer.
fn sign(file: &File) -> io::Result<()> {
    let pid = std::process::id();
    let identity = i32::try_from(pid)
        .ok()
        .and_then(|pid| wharf_sys::pidfd::open(pid).and_then(|process| wharf_sys::pidfd::identity(process, pid)).ok());
    let text = match identity {
        Some(identity) => format!("{pid}\n{} {identity}\n", boot_id()),
        None => format!("{pid}\n"),
    };
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

fn taken(file: File, path: &Path) -> Failure {
    let mut text = String::new();
    let read = file.take(256).read_to_string(&mut text);
    let pid = read.ok().and_then(|_| text.lines().next()?.trim().parse::<u32>().ok());
    let (who, stop) = match pid {
        Some(pid) => (format!(" (pid {pid})"), format!("kill {pid}")),
        None => (String::new(), format!("fuser -k -TERM {}", path.display())),
    };
    Failure::new(ErrorKind::Conflict, format!("a Wharf daemon runs already{who}"))
        .hint(format!("talk to it with `wharf status`; take over from it: wharf daemon --replace; or stop it: {stop}"))
}
