//! The kernel calls that Wharf needs and that no safe crate offers in the shape it needs.
//!
//! Owns every `unsafe` of the house: small functions, each with its reason and a test against
//! the real kernel. It refuses to know what they are for: no units, no runs, no policy.
#![allow(unsafe_code)]

pub mod child;
pub mod clock;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod datagram;
pub mod files;
pub mod library;
pub mod memory;
pub mod nvml;
pub mod passed;
pub mod pidfd;
pub mod process;
pub mod socket;

#[cfg(test)]
mod tests;

use std::io;

/// Turns the kernel's `-1` into the error that it means.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
