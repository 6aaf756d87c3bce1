//! A process that copies a run's output from a pipe into its log.
//!
//! For programs that open /dev/stdout again: through a pipe that wipes nothing. It belongs to neither
//! the service nor the shim's fate: both may be killed, and it goes on until the last writer has gone
//! and the pipe is empty. The shim keeps the reading end too and replaces a pump that was killed, so
//! that no death but that of both gives the service SIGPIPE.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use wharf_shim::PUMP;
use wharf_sys::{
    files,
    memory::Mapped,
    pidfd::Ended,
    process::{self, Fork},
};

/// As much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// The shim's side of it.
pub struct Pump {
    pid: i32,
    pipe: OwnedFd,
    log: File,
    /// Rung when no writer of the run is left, in case that a stranger has the pipe.
    bell: OwnedFd,
}

impl Pump {
    /// Forks it.
    pub fn start(pipe: OwnedFd, log: File) -> io::Result<Self> {
        let bell = files::bell()?;
        let pid = fork(&pipe, &log, &bell)?;
        Ok(Self { pid, pipe, log, bell })
    }

    /// Looks after it: `pid` has just been reaped.
    pub fn after_a_death(&mut self, pid: i32, how: Ended) {
        if pid == self.pid {
            // By itself it only ends when it is done.
            self.pid = match how {
                Ended::Exited(_) => 0,
                Ended::Signaled(_) => fork(&self.pipe, &self.log, &self.bell).unwrap_or(0),
            };
        }
        if self.pid != 0 && self.is_alone() {
            let _ = rung(&self.bell);
        }
    }

    /// Whether it is the shim's only child: then no process of the run can write any more.
    fn is_alone(&self) -> bool {
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        children.trim() == self.pid.to_string()
    }
}

fn rung(bell: &OwnedFd) -> io::Result<()> {
    File::from(bell.try_clone()?).write_all(&1_u64.to_ne_bytes())
}

fn fork(pipe: &OwnedFd, log: &File, bell: &OwnedFd) -> io::Result<i32> {
    match process::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let done = copy(pipe, log, bell);
            process::exit_now(i32::from(done.is_err()))
        }
    }
}

/// What it cannot write it drops: a full disk must not stop a service.
fn copy(pipe: &OwnedFd, log: &File, bell: &OwnedFd) -> io::Result<()> {
    process::set_name(PUMP);
    for (fd, number) in [(pipe.as_fd(), 0), (log.as_fd(), 1), (bell.as_fd(), 2)] {
        files::become_standard(fd, number)?;
    }
    // The lock most of all: the run must not seem to live because we do.
    files::close_from(3);
    let (input, output) = (io::stdin(), io::stdout());
    let mut pipe = File::from(files::above(input.as_fd(), 3)?);
    let mut log = File::from(files::above(output.as_fd(), 3)?);
    let mut buffer = Mapped::new(BUFFER)?;
    let mut is_last = false;
    loop {
        if !is_last {
            let (_, is_rung) = files::wait_for_two(input.as_fd(), io::stderr().as_fd())?;
            if is_rung {
                is_last = true;
                files::never_wait(&pipe)?;
            }
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => drop(log.write_all(&buffer[..length])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
