//! The server over real sockets, as clients good and bad see it.

#[path = "../support/mod.rs"]
mod support;

mod envelope;
mod handover;
mod http;
mod limits;
mod socket;
mod streams;
