//! What goes into the core: asks, facts, and the time.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{Exit, Failure, Health, Installed, OpId, Policy, RunId, UnitName};

use crate::{GpuAsk, GpuFact, arbiter::Change};

/// The time of a step. The core has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds since the machine was started, suspend included. All decisions are made by it.
    pub boot_ms: u64,
    /// Milliseconds since 1970. For display only: it may jump.
    pub wall_ms: i64,
}

/// By which a caller is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// The ports of a unit: the number that is asked for, or none for "any free one".
pub type Wishes = BTreeMap<String, Option<u16>>;

/// What the service's code says for these parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The parameters, checked.
    pub with: Arc<Value>,
    /// How it is supervised, changes included.
    pub policy: Arc<Policy>,
    /// What its operator changed in the policy of its service.
    pub changes: Arc<Value>,
    /// The ports that it will listen on.
    pub wishes: Wishes,
    /// Something must be placed before it can start.
    pub needs_install: bool,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Place a version.
    Install {
        /// Which; `None`: the known good one.
        version: Option<String>,
        /// Fetch again.
        reset: bool,
        /// A program or an archive of this machine, instead of what the service would fetch.
        from: Option<PathBuf>,
    },
    /// Compile from source and place.
    Build {
        /// Which.
        version: Option<String>,
    },
    /// Run and be ready.
    Start {
        /// Stop first, if it runs.
        reset: bool,
    },
    /// No process of it lives.
    Stop {
        /// It is started again when the daemon next starts.
        keep_want: bool,
        /// It is kept for the record only, and refuses to start.
        retire: bool,
    },
    /// Stop, then run and be ready.
    Restart,
    /// Nothing of it runs, and it is forgotten.
    Delete(Removal),
    /// Run a newer version, or go back.
    Upgrade {
        /// Which; `None`: the known good one.
        version: Option<String>,
    },
    /// Run the version before, or go forward again.
    Rollback,
    /// Place a version and run it, whether it ran before or not; or go back.
    Deploy {
        /// Which; `None`: the known good one.
        version: Option<String>,
        /// Compile it from source.
        build: bool,
    },
}

/// Whence the version comes that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placing {
    /// It is fetched.
    Fetched {
        /// Which; `None`: the known good one.
        version: Option<String>,
        /// Fetch again.
        reset: bool,
        /// A program or an archive of this machine, instead of what the service would fetch.
        from: Option<PathBuf>,
    },
    /// It is compiled from source.
    Built {
        /// Which; `None`: the known good one.
        version: Option<String>,
    },
    /// It lies there: the one that the unit has by now becomes the service's current one again.
    Kept,
}

/// What a delete takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removal {
    /// What was placed in the store.
    pub binaries: bool,
    /// The data folder and the logs.
    pub data: bool,
}

/// A request of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The unit.
    pub unit: UnitName,
    /// What is asked for.
    pub goal: Goal,
    /// What its service says; `None` keeps what was said before.
    pub declared: Option<Declared>,
    /// Answer when it is true; else as soon as it has begun.
    pub wait: bool,
    /// Of a start: whoever holds the GPU that it needs is stopped first.
    #[serde(default)]
    pub force: bool,
}

/// What became of a recorded run while nobody looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundRun {
    /// Its main process lives.
    Alive {
        /// The main process.
        pid: i32,
    },
    /// Its main process ended, others of it live.
    Draining {
        /// How the main process ended.
        exit: Exit,
    },
    /// All over.
    Ended {
        /// How.
        exit: Exit,
    },
    /// The intent was recorded, and no process was ever made.
    NeverStarted,
}

/// What a program says of itself (sd_notify).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// READY=1.
    Ready,
    /// STOPPING=1.
    Stopping,
    /// STATUS=.
    Status(String),
    /// WATCHDOG=1: it is alive.
    Alive,
    /// WATCHDOG=trigger: it is not well.
    Trigger,
    /// WATCHDOG_USEC=: how often it will say so, in milliseconds.
    WatchdogPeriod(u64),
    /// EXTEND_TIMEOUT_USEC=: from now on it needs so many milliseconds more.
    Extend(u64),
    /// MAINPID=, found to be a process of the run.
    MainPid(i32),
}

/// News from the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// An install or a build has ended.
    Placed {
        /// The unit.
        unit: UnitName,
        /// The operation that it was for.
        op: OpId,
        /// What is placed now; `None`: a build that had nothing to build.
        result: Result<Option<Installed>, Failure>,
    },
    /// The run's main process was made.
    Launched {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// Its main process.
        pid: i32,
        /// The ports that it was given.
        ports: BTreeMap<String, u16>,
    },
    /// The run's process was not made, and nothing of it lives.
    NotLaunched {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// Why.
        failure: Failure,
    },
    /// A probe was answered.
    Probed {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// What it found.
        health: Health,
    },
    /// The run's main process has ended.
    Exited {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// How.
        exit: Exit,
        /// No other process of the run lives.
        empty: bool,
        /// The last lines of its log.
        last_words: Vec<String>,
    },
    /// How a run's main process ended, where that was not known when its end was told.
    Learned {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// How.
        exit: Exit,
    },
    /// The run's program says something of itself.
    Notified {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// What.
        news: News,
    },
    /// An error comes again and again in the run's log; `None`: no longer.
    LogFault {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// The line.
        line: Option<String>,
    },
    /// Somebody wants to use a unit that runs on demand.
    Used {
        /// The unit.
        unit: UnitName,
    },
    /// The run has done what it was asked to do with its GPU memory, or could not.
    Changed {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// What it was asked.
        change: Change,
        /// Whether it has.
        result: Result<(), Failure>,
    },
    /// Nobody has used the run for the time that its policy gives.
    Unused {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// When a unit's schedule says that it runs next.
    Scheduled {
        /// The unit.
        unit: UnitName,
        /// In milliseconds since 1970.
        next_due_ms: Option<i64>,
    },
    /// A unit's schedule says: now.
    Due {
        /// The unit.
        unit: UnitName,
    },
    /// No process of the run lives any more.
    Emptied {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// What a look at a recorded run showed.
    Found {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// What it is.
        found: FoundRun,
    },
    /// A unit's files are removed.
    Removed {
        /// The unit.
        unit: UnitName,
        /// The operation that it was for.
        op: OpId,
        /// Whether all went.
        result: Result<(), Failure>,
    },
    /// The daemon has looked at every run: units that are wanted and do not run are started.
    Booted,
}

/// What the core is stepped with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A caller asks.
    Ask(Ticket, Ask),
    /// Something has happened.
    Fact(Fact),
    /// A caller asks that an operation be given up.
    Cancel(Ticket, OpId),
    /// A caller asks for GPUs, or for what concerns them.
    AskGpu(Ticket, GpuAsk),
    /// Something has happened to GPUs or their users.
    Gpu(GpuFact),
    /// [`crate::Core::next_deadline`] has come.
    Deadline,
}
