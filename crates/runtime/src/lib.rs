//! Wharf's hands: what is decided elsewhere is done here, on this machine.
//!
//! It owns processes, files, sockets and installs. It refuses to decide: no state machine, no
//! timers of supervision, no knowledge of single services.

mod account;
mod addresses;
pub mod calendar;
pub mod compose;
mod credentials;
pub mod discovery;
pub mod docker;
mod environment;
pub mod executables;
pub mod front;
pub mod gpu;
mod hands;
pub mod hosts;
mod install;
pub mod launch;
mod layout;
pub mod logs;
pub mod notify;
pub mod ports;
mod probe;
pub mod redact;
mod requirements;
mod secret;
#[cfg(test)]
mod testing;
mod tool;
mod which;

pub use account::Account;
pub use credentials::{Credentials, Reference};
pub use hands::RealHands;
pub use install::{FAULT_POINTS, Garbage, Kept, LookedUp, Origin, Program, Receipt, Store, bytes_below, unpack};
pub use layout::Layout;
pub use secret::random_hex;
