//! How one daemon takes over from another: a private socket, a few words, and the open files with them.
//!
//! ```text
//! taker                                   giver
//! Hello (wish: take) ───────────────────>  same user or root? nobody else at it?
//!             <─────────────────────────── Offer
//! Ready ────────────────────────────────>  holds back what changes something, lets what is in flight
//!                                          end, leaves its sockets open, ends its engine and its tasks
//!             <─────────────────────────── Lock, Listener, Guest … with the open files; Go
//! starts its engine; Taken ─────────────>  keeps copies of everything until here, and else goes on itself
//!             <─────────────────────────── Done: the service manager was told; exits
//! ```
//!
//! The locks go over as open files too: there is no instant without a holder. One record of the
//! socket (`SOCK_SEQPACKET`) is one word, so that no length is ever guessed from its text.

mod channel;
mod force;
mod giver;
mod successor;
mod taker;
mod words;

pub(super) use giver::{Given, Request, Terms, listen};
pub(crate) use successor::become_orphan;
pub(crate) use taker::look;
pub(super) use taker::{Taken, Taking, report_taken, take, take_from_parent};
pub(super) use words::Socket;
