//! Who may have which port: what is declared, written down, leased or reserved, and what differs from that.
//!
//! ```text
//!   lease ──> the same key again: the same lease, a new epoch where the holder is another
//!             a number, or a place in a range ── free of units, leases, reserves and (asked outside) of the kernel
//!   renew ──> still its holder's        released, expired, its holder dead ──> gone; the sticky number stays
//! ```
//!
//! It owns one rule above all: a port has at most one holder, whether that is a unit or a program outside. It refuses
//! to know how a socket is looked at: what listens is given to it, and whether a port is free in the kernel is asked of
//! whoever calls. Ports of different networks have nothing to do with each other (a port of a container network is
//! bookkeeping only).

mod choose;
mod drift;
mod ledger;
mod range;
mod terms;
#[cfg(test)]
mod tests;

pub use drift::{Declared, Observed, Owner, Said, drift};
pub use ledger::Ledger;
pub use range::{Lint, Ranges, Span};
pub use terms::{Claim, Outside, PortLease, Row, Terms, Want};

/// The network of the machine itself: the only one whose sockets are looked at.
pub const HOST: &str = "host";
