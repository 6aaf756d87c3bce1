//! What runs wrote: kept, put away, and read again.
//!
//! A run writes straight into a file of its own (O_APPEND), so that neither a slow nor a dead
//! daemon is ever in its way. Wharf looks after that file from outside: when it grows (inotify, no
//! poll), the time is noted beside it; its old part is copied into archives and becomes a hole;
//! lines that repeat an error are told of. Offsets never change, so a place is
//! (unit, run, offset) for ever: a [`Cursor`].
//!
//! Owns the files below `logs/`. Refuses to know units beyond their names, and what becomes of
//! what it tells.

mod archive;
mod cursor;
mod faults;
mod files;
mod gone;
mod keeper;
mod lines;
mod query;
mod reader;
mod retain;
mod rotate;
mod said;
mod time;

pub use cursor::{BadCursor, Cursor};
pub use files::{RunLog, highest_run, runs};
pub use keeper::{LogKeeper, News, Target};
pub use query::{Entry, Page, Query, UnitLog, expression};
pub use said::Said;
pub use time::Bound;
