//! Descriptors that whoever started this process has left open for it, from number 3 on; and leaving some for another.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::checked;

/// The first number that is not a standard stream.
const FIRST: i32 = 3;

/// Takes the descriptors 3, 4, … that were passed, and makes them close-on-exec.
///
/// Once a process, and before it opens files of its own: a second call gets none, and so does one
/// that asks for a number that is not open.
pub fn descriptors(count: u16) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("passed descriptors are taken once"));
    }
    let numbers = FIRST..FIRST + i32::from(count);
    for fd in numbers.clone() {
        // SAFETY: reads and writes descriptor flags only; a number that is not open is an error.
        let flags = checked(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
        let flags = i32::try_from(flags).unwrap_or(0) | libc::FD_CLOEXEC;
        // SAFETY: as above.
        checked(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) }.into())?;
    }
    // SAFETY: each is open, as was just seen, and was passed to this process to own; the flag above
    // keeps a second owner from being made here.
    Ok(numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Becomes another program, which finds these open as 3, 4, … and is told so by LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES
/// (`name` of each of them). It keeps this process's number. Comes back only where that failed.
///
/// Whoever comes back has lost what it had open under those numbers, and had better end.
pub fn become_with(command: &mut Command, passed: Vec<OwnedFd>, name: &str) -> io::Error {
    let Ok(count) = i32::try_from(passed.len()) else { return io::ErrorKind::InvalidInput.into() };
    let names: Vec<&str> = passed.iter().map(|_| name).collect();
    command
        .env("LISTEN_FDS", count.to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    // Above where they will be: putting one into its place must not close the next.
    let moved: io::Result<Vec<OwnedFd>> =
        passed.iter().map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST + count)?)).collect();
    let moved = match moved {
        Ok(moved) => moved,
        Err(e) => return e,
    };
    let places = move || {
        for (place, fd) in (FIRST..).zip(&moved) {
            // SAFETY: plain numbers, both open or about to be; what was open under the place is not used any more, since
            // this process becomes another one in the next step, or ends, as the caller was told.
            checked(unsafe { libc::dup2(fd.as_raw_fd(), place) }.into())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls alone: no memory is taken, and no lock.
    unsafe { command.pre_exec(places) };
    command.exec()
}
