//! Wharf's hands: what is decided elsewhere is done here, on this machine.
//!
//! It owns processes, files, sockets and installs. It refuses to decide: no state machine, no
//! timers of supervision, no knowledge of single services.

mod account;
pub mod calendar;
mod credentials;
pub mod discovery;
mod environment;
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
pub use install::Receipt;
pub use layout::Layout;
