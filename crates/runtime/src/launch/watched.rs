//! A process that is not our child, watched through its pidfd.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::io::{Interest, unix::AsyncFd};
use wharf_sys::pidfd::{self, Ended};

/// One exact process. It may end at any time; it never turns into another.
#[derive(Debug)]
pub struct Watched {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// Opens the process with this pid if it is the one with this identity. None: it has gone.
    pub fn open(pid: i32, identity: u64) -> Option<Self> {
        let fd = pidfd::open_exact(pid, identity).ok()?;
        // Deprecated for types whose descriptor can change under it; an OwnedFd's cannot, and its
        // successor is unsafe.
        #[allow(deprecated)]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).ok()?;
        Some(Self { pid, fd })
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
        while !self.has_exited() {
            match self.fd.readable().await {
                // Readiness is kept set: an ended process stays ended, for every waiter.
                Ok(mut ready) if self.has_exited() => ready.retain_ready(),
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
