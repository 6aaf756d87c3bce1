//! A process that is not our child, watched through its pidfd.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};
use wharf_sys::pidfd::{self, Ended};

/// A descriptor that the runtime watches.
///
/// The constructor is deprecated for types whose descriptor can change under it; an owned one cannot,
/// and its successor is unsafe.
#[allow(deprecated, reason = "see above")]
pub fn async_fd<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

/// One exact process. It may end at any time; it never turns into another.
#[derive(Debug)]
pub struct Watched {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
}

/// While there is no descriptor to look with, it is tried again this often.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Nothing was seen, for want of descriptors or of memory for one: that says nothing of what was looked for.
pub fn saw_nothing(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = Errno::from_io_error(e);
    number.is_some_and(|e| matches!(e, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC))
}

/// Looks until something can be seen. A daemon that has run out of descriptors must not take what
/// lives for dead.
pub async fn seen<T>(mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match look() {
            Err(e) if saw_nothing(&e) => tokio::time::sleep(TRY_AGAIN).await,
            looked => return looked,
        }
    }
}

impl Watched {
    /// Opens the process with this pid if it is the one with this identity. None: it has gone.
    pub async fn open(pid: i32, identity: u64) -> Option<Self> {
        seen(|| Self::of(pid, pidfd::open_exact(pid, identity)?)).await.ok()
    }

    /// Watches the process that the descriptor names.
    pub fn of(pid: i32, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, fd: async_fd(fd, Interest::READABLE)? })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has ended, reaped or not.
    pub fn has_exited(&self) -> bool {
        pidfd::has_exited(&self.fd)
    }

    /// Waits until it has ended.
    pub async fn exited(&self) {
        self.until(Self::has_exited).await;
    }

    /// Waits until its parent has reaped it, and the kernel says how it ended. For ever before Linux 6.15.
    pub async fn reaped(&self) {
        self.until(|watched| pidfd::is_reaped(&watched.fd)).await;
    }

    /// Both are told by an edge each, to all who wait: nobody may clear what another has not seen.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            match self.fd.readable().await {
                Ok(mut ready) if is_so(self) => ready.retain_ready(),
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Sends a signal to it. Having ended is no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        gone_is_fine(pidfd::signal(&self.fd, signal))
    }

    /// Sends a signal to the process group that it leads.
    pub fn signal_group(&self, signal: i32) -> io::Result<()> {
        gone_is_fine(pidfd::signal_group(&self.fd, signal))
    }

    /// How it ended, from the kernel, once its parent has reaped it.
    pub fn exit_seen_by_kernel(&self) -> Option<Ended> {
        pidfd::exit_seen_by_kernel(&self.fd)
    }
}

fn gone_is_fine(sent: io::Result<()>) -> io::Result<()> {
    const ESRCH: i32 = 3;
    match sent {
        Err(e) if e.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other,
    }
}
