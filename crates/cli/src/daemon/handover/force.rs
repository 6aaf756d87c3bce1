//! The end of a daemon that does not answer: only of the very process that has written itself into the lock.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use wharf_model::{ErrorKind, Failure};
use wharf_server::holder;
use wharf_sys::pidfd;

/// For one that only lacks a handover, or is slow: it ends its last calls.
const ASKED_FOR: Duration = Duration::from_secs(3);
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Ends it: asked first, then killed. Services go on.
pub(super) fn end_holder(folder: &Path) -> Result<(), Failure> {
    let unknown = || {
        Failure::new(ErrorKind::Conflict, "the lock does not say for certain which process holds it")
            .hint(format!("fuser -v {}/daemon.lock names it", folder.display()))
    };
    let holder = holder(folder).ok_or_else(unknown)?;
    let identity = holder.identity.ok_or_else(unknown)?;
    let process = match pidfd::open_exact(holder.pid, identity) {
        Ok(process) => process,
        // It ended by itself.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    tracing::warn!("the daemon (pid {}) does not hand over and is ended; services go on", holder.pid);
    if ended(&process, Signal::TERM, ASKED_FOR)? || ended(&process, Signal::KILL, KILLED_WITHIN)? {
        return Ok(());
    }
    let text = format!("the daemon (pid {}) does not end, not even by SIGKILL", holder.pid);
    Err(Failure::new(ErrorKind::Timeout, text).hint("the kernel holds it, often for a disk: `dmesg` may say why"))
}

fn ended(process: &OwnedFd, signal: Signal, within: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + within;
    match pidfd::signal(process, signal.as_raw()) {
        // It has ended.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(true),
        other => other?,
    }
    while Instant::now() < until {
        if pidfd::has_exited(process) {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}
