//! What the daemon and the shim say to each other: one spec on a pipe, two records in files.
//!
//! Owns the bytes of the frozen interface and the names of the files in a run's folder. A shim
//! may outlive many versions of the daemon, so what is written here is only ever added to. It
//! refuses to know units, policies and how either side acts on what it reads.
//!
//! ```text
//! <runs>/<unit>/<run>/   0700
//!     lock      held (flock) by the shim and by every process of the run
//!     start     StartRecord, before the program begins. Empty: void, this run never starts
//!     running   empty, once exec has happened
//!     exit      ExitRecord, once the main process has ended or could not begin
//! ```

mod codec;
mod record;
mod spec;

pub use codec::BadBytes;
pub use record::{ExitRecord, Outcome, Stage, StartRecord};
pub use spec::{RunAs, Spec};

/// The lock's file name.
pub const LOCK: &str = "lock";
/// The start record's file name.
pub const START: &str = "start";
/// The file that says that exec has happened.
pub const RUNNING: &str = "running";
/// The exit record's file name.
pub const EXIT: &str = "exit";

/// How the shim itself ends. A run whose shim ended with anything but `HELD` never began.
pub mod ends {
    /// The run is over, or its failed start is in the exit record.
    pub const HELD: u8 = 0;
    /// No whole spec arrived: the daemon died while writing it.
    pub const NO_SPEC: u8 = 65;
    /// The run's folder cannot be written.
    pub const NO_RECORD: u8 = 74;
    /// Another shim holds the lock, or the run is void.
    pub const NOT_OURS: u8 = 75;
}
