//! Descriptors that whoever started this process has left open for it, from number 3 on.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
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
