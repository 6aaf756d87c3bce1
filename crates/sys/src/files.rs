//! Locks, pipes, and names that are given once.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::checked;

/// Flags for opening a file that must be where its name says: no symbolic link as its last part, and
/// a terminal does not become ours.
pub const NOT_ELSEWHERE: i32 = libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Takes the whole file's exclusive lock, or says at once that it is held (`false`).
///
/// The lock belongs to the open file: forks and duplicates share it, and it lives as long as any of them.
pub fn lock_exclusive(file: impl AsFd) -> io::Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Takes the file's shared lock, or says at once that somebody holds it exclusively (`false`).
pub fn lock_shared(file: impl AsFd) -> io::Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockShared)
}

fn try_lock(file: impl AsFd, how: FlockOperation) -> io::Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Renames, and fails with `AlreadyExists` where the new name is taken. One atomic step, so that a
/// name can be a claim.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system lacks the flag: a hard link refuses a taken name just as atomically.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

/// A pipe, read end first. Both ends are close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Makes `target` (0, 1 or 2) another name of `fd`, open across exec.
pub fn become_standard(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    debug_assert!((0..=2).contains(&target), "only the three standard streams");
    if fd.as_raw_fd() == target {
        return keep_across_exec(fd);
    }
    // SAFETY: dup2 reads no memory of ours; `fd` is open, and 0..=2 are owned by nobody as an OwnedFd.
    checked(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Clears close-on-exec.
pub fn keep_across_exec(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

/// Marks every descriptor above standard error close-on-exec. A kernel before 5.11 cannot, and says so.
pub fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: with the CLOEXEC flag nothing is closed now; only descriptor flags change.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Gives an open file to a user and group.
pub fn give_to(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    use rustix::fs::{Gid, Uid, fchown};
    Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Enters a folder.
pub fn enter(dir: &CStr) -> io::Result<()> {
    Ok(rustix::process::chdir(dir)?)
}
