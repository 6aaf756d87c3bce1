//! Ending one exact process by its pidfd: asked first, then made to.
//!
//! It refuses to know why. A number alone is never signalled.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wharf_sys::pidfd;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// After SIGKILL, so long at most: a process that the kernel cannot end waits for a disk or a driver.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was gone already.
    Gone,
    /// When it was asked.
    Asked,
    /// When it was made to.
    Killed,
    /// Not at all, in that time.
    Lives,
}

/// Ends the process with this pid, if it is the one with this identity. It blocks for `grace` and 5 s at most.
///
/// # Errors
/// Where it may not be signalled.
pub fn end(pid: i32, identity: u64, grace: Duration) -> io::Result<Ended> {
    let process = match pidfd::open_exact(pid, identity) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ended::Gone),
        opened => opened?,
    };
    if pidfd::has_exited(&process) {
        return Ok(Ended::Gone);
    }
    gone_is_fine(pidfd::signal(&process, SIGTERM))?;
    if waited(&process, grace)? {
        return Ok(Ended::Asked);
    }
    gone_is_fine(pidfd::signal(&process, SIGKILL))?;
    Ok(if waited(&process, KILL_WAIT)? { Ended::Killed } else { Ended::Lives })
}

fn waited(process: impl AsFd, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn gone_is_fine(sent: io::Result<()>) -> io::Result<()> {
    const ESRCH: i32 = 3;
    match sent {
        Err(e) if e.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn child(script: &str) -> (std::process::Child, u64) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = child.id().cast_signed();
        let identity = pidfd::identity(pidfd::open(pid).unwrap(), pid).unwrap();
        (child, identity)
    }

    #[test]
    fn it_is_asked_first_and_another_one_of_that_number_is_left_alone() {
        let (mut child, identity) = child("sleep 60");
        let pid = child.id().cast_signed();
        assert_eq!(end(pid, identity + 1, Duration::ZERO).unwrap(), Ended::Gone);
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(end(pid, identity, Duration::from_secs(5)).unwrap(), Ended::Asked);
        child.wait().unwrap();
    }

    #[test]
    fn who_does_not_hear_is_killed() {
        let (mut child, identity) = child("trap '' TERM; while :; do sleep 0.05; done");
        std::thread::sleep(Duration::from_millis(200));
        let pid = child.id().cast_signed();
        assert_eq!(end(pid, identity, Duration::from_millis(100)).unwrap(), Ended::Killed);
        child.wait().unwrap();
    }
}
