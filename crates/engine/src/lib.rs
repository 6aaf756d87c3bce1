//! The one task that owns the core.
//!
//! ```text
//!  callers ──Ask──┐                         ┌─ commit records (SQLite, fsynced, one commit a turn)
//!                 ├─> mailbox ─> core.step ─┤  begin acts (tokio tasks; each ends in a Fact)
//!  acts ────Fact──┘      ^                  ├─ publish the state (one pointer swap)
//!                        └── next deadline  └─ answer the callers
//! ```
//!
//! The loop in `turn.rs` is the only place where deciding meets doing. It runs on a thread of its
//! own, so that a commit's fsync never holds up a reader: readers look at what was published last.
//! A store that cannot be written ends the daemon, never a service.

mod acts;
mod api;
mod audit;
mod bus;
mod calendar;
mod clear;
mod clearing;
mod declare;
mod defer;
mod deps;
mod discovery;
pub mod doctor;
mod doorman;
mod engine;
mod fit;
mod fronts;
mod gpu;
mod gpus;
mod graph;
mod habits;
mod hearing;
mod jsonl;
mod keeping;
mod kept;
mod manifests;
mod names;
mod news;
mod offer;
mod operations;
mod ops;
mod own;
mod planning;
mod port;
mod progress;
mod reading;
mod redaction;
mod report;
mod rpc;
mod store;
mod strangers;
mod turn;
mod verify;
mod why;

pub use audit::{Audited, verify as verify_audit};
pub use engine::{End, Engine, Settings};
pub use store::{Store, StoreFailure};
