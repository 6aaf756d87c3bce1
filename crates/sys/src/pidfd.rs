//! A process by a descriptor: it cannot turn into another one, as a bare pid can.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::checked;

/// `PIDFD_SIGNAL_PROCESS_GROUP`, Linux 6.9.
const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
/// `PID_FS_MAGIC`: pidfds have inodes of their own, unique in one boot (Linux 6.9).
const PID_FS_MAGIC: i64 = 0x5049_4446;
/// Set in an identity that is a start time, on kernels whose pidfds have no inode of their own.
const IS_START_TIME: u64 = 1 << 63;
/// `_IOWR(0xFF, 11, struct pidfd_info)` for the first published size, 64 bytes.
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xFF << 8) | 11;
/// `PIDFD_INFO_CGROUPID`, Linux 6.13.
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
/// `PIDFD_INFO_EXIT`, Linux 6.15.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Opens the process that has this pid now. `NotFound` where there is none.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let none = || io::Error::from(io::ErrorKind::NotFound);
    let pid = if pid > 0 { Pid::from_raw(pid).ok_or_else(none)? } else { return Err(none()) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => Err(none()),
        other => Ok(other?),
    }
}

/// What tells this process from every other one of this boot, also from a later one with the same pid.
///
/// The pidfd's inode; on kernels before 6.9 the start time, which has a grain of 10 ms.
pub fn identity(pidfd: impl AsFd, pid: i32) -> io::Result<u64> {
    #[allow(clippy::useless_conversion, reason = "the width differs between architectures")]
    let kind = i64::from(rustix::fs::fstatfs(&pidfd)?.f_type);
    if kind == PID_FS_MAGIC {
        return Ok(rustix::fs::fstat(&pidfd)?.st_ino);
    }
    Ok(start_ticks(pid)? | IS_START_TIME)
}

/// Opens the process with this pid if it is the one with this identity.
pub fn open_exact(pid: i32, wanted: u64) -> io::Result<OwnedFd> {
    let pidfd = open(pid)?;
    if identity(&pidfd, pid)? == wanted { Ok(pidfd) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whether it has ended, reaped or not. Never waits.
pub fn has_exited(pidfd: impl AsFd) -> bool {
    let mut asked = libc::pollfd { fd: pidfd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, valid through the call; the timeout is zero.
    unsafe { libc::poll(&raw mut asked, 1, 0) > 0 }
}

/// Whether its parent has reaped it: then the kernel has said all that it will. Never waits.
/// Kernels before 6.15 do not tell.
pub fn is_reaped(pidfd: impl AsFd) -> bool {
    let mut asked = libc::pollfd { fd: pidfd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, valid through the call; the timeout is zero.
    unsafe { libc::poll(&raw mut asked, 1, 0) > 0 && asked.revents & libc::POLLHUP != 0 }
}

/// A copy of a descriptor that another process has open. Linux 5.6, and the right to look into that process.
pub fn descriptor_of(pidfd: impl AsFd, number: i32) -> io::Result<OwnedFd> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: integers only.
    let copy = checked(unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, number, 0) })?;
    let copy = i32::try_from(copy).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Sends a signal to this one process. A process that has ended gives ESRCH.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Sends a signal to the process group that this process leads; where it leads none, and on kernels
/// before 6.9, to the process alone.
pub fn signal_group(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    match send(&pidfd, signal, SIGNAL_PROCESS_GROUP) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ESRCH)) => send(pidfd, signal, 0),
        other => other,
    }
}

fn send(pidfd: impl AsFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the call, and a null siginfo is allowed.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, flags) }).map(drop)
}

/// How a process ended, as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

/// Reads a wait status.
pub fn ended(status: i32) -> Option<Ended> {
    if libc::WIFEXITED(status) {
        Some(Ended::Exited(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Some(Ended::Signaled(libc::WTERMSIG(status)))
    } else {
        None
    }
}

/// `struct pidfd_info` as first published. The kernel fills what fits and says in `mask` what it filled.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How a process that is no child of ours ended. None before it has been reaped, and on kernels before 6.15.
pub fn exit_seen_by_kernel(pidfd: impl AsFd) -> Option<Ended> {
    const { assert!(size_of::<PidfdInfo>() == 64) };
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request carries the structure's size, 64, and `info` is that large and lives through the call.
    checked(unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) }.into()).ok()?;
    if info.mask & PIDFD_INFO_EXIT == 0 { None } else { ended(info.exit_code) }
}

/// The cgroup that a process is in, or was in when it ended, by the inode of its folder in cgroup2.
/// None on kernels before 6.13, and for an ended one before 6.15.
pub fn cgroup_id(pidfd: impl AsFd) -> Option<u64> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_CGROUPID | PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: as above.
    checked(unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) }.into()).ok()?;
    (info.mask & PIDFD_INFO_CGROUPID != 0).then_some(info.cgroup_id)
}

/// Field 22 of /proc/PID/stat: ticks since boot. The name before it may hold spaces and brackets.
fn start_ticks(pid: i32) -> io::Result<u64> {
    let mut path = String::from("/proc/");
    path.push_str(&pid.to_string());
    path.push_str("/stat");
    let stat = std::fs::read_to_string(path)?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_ascii_whitespace().nth(19).and_then(|t| t.parse().ok());
    ticks.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
