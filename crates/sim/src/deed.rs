//! What can happen in the world, each as a value that can be written down and done again.
//!
//! A deed names what it concerns by the unit, never by a run or a position in memory: so it still
//! means something when other deeds before it are left out. Where it means nothing it does nothing.

use serde::{Deserialize, Serialize};
use wharf_core::{Ask, News};
use wharf_model::{ErrorKind, Exit, UnitName};

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A caller asks.
    Ask(Box<Ask>),
    /// A caller cancels what is being done on the unit.
    Cancel {
        /// The unit.
        unit: UnitName,
    },
    /// The oldest act of this kind that is under way for the unit ends like this.
    Answer {
        /// The unit.
        unit: UnitName,
        /// Of which kind.
        task: TaskKind,
        /// How.
        how: How,
    },
    /// A letter that lies in the daemon's mailbox is read: the `nth`, counted round.
    Tell {
        /// Which.
        nth: u32,
    },
    /// A letter that was read before comes once more.
    Echo {
        /// Which, counted back from the last.
        nth: u32,
    },
    /// The GPUs are measured, if anybody wants to know.
    Measure,
    /// The main process of the unit's run ends.
    Ends {
        /// The unit.
        unit: UnitName,
        /// How.
        exit: Exit,
        /// So many helpers of it live on.
        helpers: u8,
    },
    /// What is left of the run ends.
    HelpersEnd {
        /// The unit.
        unit: UnitName,
    },
    /// A process that waited inside the kernel comes out of it.
    Unstick {
        /// The unit.
        unit: UnitName,
    },
    /// The shim of the unit's run is killed.
    ShimDies {
        /// The unit.
        unit: UnitName,
    },
    /// The program says something of itself.
    Says {
        /// The unit.
        unit: UnitName,
        /// What.
        news: News,
    },
    /// Its log shows an error again and again, or no longer.
    LogFault {
        /// The unit.
        unit: UnitName,
        /// The line.
        line: Option<String>,
    },
    /// Somebody wants to use it.
    Used {
        /// The unit.
        unit: UnitName,
    },
    /// Nobody has used it for long.
    Unused {
        /// The unit.
        unit: UnitName,
    },
    /// Its schedule says: now.
    Due {
        /// The unit.
        unit: UnitName,
    },
    /// Its schedule says when.
    Scheduled {
        /// The unit.
        unit: UnitName,
    },
    /// Time passes, and the daemon wakes whenever something is due.
    Wait {
        /// Milliseconds.
        ms: u64,
    },
    /// Time passes and nothing runs: a suspended machine, or a daemon that was stopped.
    Lag {
        /// Milliseconds.
        ms: u64,
    },
    /// Somebody sets the wall clock.
    WallStep {
        /// Milliseconds.
        ms: i64,
    },
    /// So many of the next letters share one commit.
    Hold {
        /// How many.
        letters: u8,
    },
    /// The daemon dies after so many more effects: commits, acts, answers. 0: now, before the next commit.
    Crash {
        /// How many.
        after: u32,
        /// What it was just starting is made all the same, or not: by this number and the run's.
        salt: u32,
    },
    /// A daemon is started.
    Boot,
    /// The daemon that was started looks at the next recorded run.
    Look,
    /// The machine is started anew.
    Reboot,
    /// The database is lost.
    LoseDatabase,
    /// The database is copied.
    KeepCopy,
    /// The database is replaced by the copy.
    OldDatabase,
    /// A stranger takes a port, or leaves it.
    Port {
        /// Which.
        number: u16,
        /// Taken or left.
        taken: bool,
    },
    /// Everything that is under way ends well, in no time.
    Work,
    /// Faults stop and time passes: what is wanted must become true.
    Calm,
}

/// What a daemon can have under way for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// An install or a build.
    Place,
    /// The making of a run.
    Launch,
    /// A probe.
    Probe,
    /// Memory put away, or fetched again.
    Change,
    /// The removal of files.
    Remove,
}

/// How an act ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// As it should: placed, made, healthy, removed.
    Well,
    /// A run is made that does not listen to polite signals, or (`stuck`) to none.
    Stubborn {
        /// Not even to SIGKILL.
        stuck: bool,
    },
    /// Degraded; nothing to build.
    Partly,
    /// It fails like this.
    Badly(ErrorKind),
}
