//! What the daemon and its shims say to each other: requests and reports on a socket, records in files.
//!
//! Owns the bytes of both and the names of the files in a run's folder. The files are the frozen
//! interface: a shim may outlive many versions of the daemon, so what is written there is only ever
//! added to. The socket's bytes may change with each version, since a daemon brings its own
//! launcher. It refuses to know units, policies and how either side acts on what it reads.
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
mod report;
mod spec;

pub use codec::{BadBytes, crc32};
pub use record::{ExitRecord, Outcome, Stage, StartRecord};
pub use report::{Began, News, Report};
pub use spec::{Request, RunAs, Spec, SpecView};

/// The lock's file name.
pub const LOCK: &str = "lock";
/// The start record's file name.
pub const START: &str = "start";
/// The file that says that exec has happened.
pub const RUNNING: &str = "running";
/// The exit record's file name.
pub const EXIT: &str = "exit";

/// The word that makes the program a launcher: its standard input is the socket.
pub const LAUNCHER: &str = "launcher";
/// A launcher's second word, as long as the title of any shim: a forked shim writes its own over both.
pub const TITLE_ROOM: usize = 160;
/// The name that a pump's process has (`ps -o comm`): it copies a run's output and is no process of the run.
pub const PUMP: &std::ffi::CStr = c"wharf-pump";

/// Why a run never began, where that is not the program's fault.
pub mod ends {
    /// The run is over, or its failed start is in the exit record.
    pub const HELD: u8 = 0;
    /// The request makes no sense to this launcher.
    pub const NO_SPEC: u8 = 65;
    /// The run's folder cannot be written.
    pub const NO_RECORD: u8 = 74;
    /// Another shim holds the lock, or the run is void.
    pub const NOT_OURS: u8 = 75;
}
