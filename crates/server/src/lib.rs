//! Sockets, HTTP/1.1, the strict JSON-RPC 2.0 envelope, and the files of the dashboard.
//!
//! Owns everything between a client's bytes and a [`wharf_api::Methods`]: who may connect,
//! how much may be sent and how slowly, what is a request, and how an answer is framed. It refuses
//! to know what any method means: it hands over a name and raw params, and gets raw JSON back.
//!
//! ```text
//! socket    a folder of mode 0700, a socket of mode 0600, one lock a daemon
//! serve     accepts, checks who calls, makes room, drains at the end
//! handover  what it leaves for another process instead
//!  roster   every connection, and what it is doing: one word of atomics each
//!  wire     the bytes of one connection, on their way to hyper
//! offer     what a socket has: calls for programs, or pages for people
//! http      routes, header rules, bodies, streams
//! dispatch  runs the calls of one body
//! envelope  bytes -> calls, outcomes -> bytes; pure
//! ```

pub mod envelope;
pub mod socket;

mod dispatch;
mod handover;
mod http;
mod limits;
mod offer;
mod pages;
mod roster;
mod serve;
mod wire;

pub use handover::{Carried, Door, Leave};
pub use limits::Limits;
pub use offer::Offer;
pub use pages::Pages;
pub use serve::{Server, serve};
pub use socket::{Holder, Keeper, Listener, Lock, bind, holder, lock};
