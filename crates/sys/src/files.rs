//! Locks, pipes, and names that are given once.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::checked;

/// Flags for opening a file that must be where its name says: no symbolic link as its last part, and
/// a terminal does not become ours.
pub const NOT_ELSEWHERE: i32 = libc::O_NOFOLLOW | libc::O_NOCTTY;

/// A flag for opening a folder and nothing else.
pub const FOLDER: i32 = libc::O_DIRECTORY;

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

/// A pipe whose writers may be given to another user, so that these can open it by name again.
pub fn pipe_of(owner: Option<(u32, u32)>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    if let Some((uid, gid)) = owner {
        let _ = give_to(&write, uid, gid);
    }
    Ok((read, write))
}

/// A counter that wakes who polls it. Close-on-exec.
pub fn bell() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}

/// An unnamed file in memory. Close-on-exec.
pub fn in_memory(name: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// Makes an empty file in one step. One that is there already is as good.
pub fn make_empty(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends with a zero byte.
    match checked(unsafe { libc::mknod(path.as_ptr(), libc::S_IFREG | 0o600, 0) }.into()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// A copy of `fd` with a number of at least `least`, close-on-exec.
pub fn above(fd: impl AsFd, least: i32) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, least)?)
}

/// Lets reads of what `fd` names come back at once. Everybody who shares it is concerned.
pub fn never_wait(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// Waits until one of two can be read or has ended: whether the first, whether the second.
pub fn wait_for_two(first: impl AsFd, second: impl AsFd) -> io::Result<(bool, bool)> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut asked = [PollFd::new(&first, PollFlags::IN), PollFd::new(&second, PollFlags::IN)];
    loop {
        match poll(&mut asked, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => return Ok((!asked[0].revents().is_empty(), !asked[1].revents().is_empty())),
        }
    }
}

/// Makes `target` another name of `fd`, open across exec, in a child that is about to become a
/// program: whatever had that number in it is gone.
pub fn become_numbered(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    // SAFETY: dup2 reads no memory of ours; the caller gives up what had the number.
    checked(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Moves the inherited descriptor `number` to `place`, close-on-exec, and closes all others from there
/// on: whatever else a parent has leaked to us. For the beginning of a program, which has opened nothing.
pub fn only_kept(number: i32, place: i32) -> io::Result<OwnedFd> {
    // SAFETY: nobody owns any of these numbers yet; dup3 makes `place` ours.
    let kept = unsafe {
        checked(libc::dup3(number, place, libc::O_CLOEXEC).into())?;
        libc::syscall(libc::SYS_close_range, place + 1, u32::MAX, 0);
        OwnedFd::from_raw_fd(place)
    };
    Ok(kept)
}

/// Closes every descriptor from `first` on. What had one must not be used, nor dropped, any more.
pub fn close_from(first: u32) {
    // SAFETY: for a process that goes on with lower ones only.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
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
