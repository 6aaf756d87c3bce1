//! What goes into the core, and what comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use wharf_model::{Exit, Failure, Health, Installed, OpId, Operation, Phase, Policy, RunId, UnitName};

use crate::Saved;

/// The time of a step. The core has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since the machine was started, suspend included. All decisions are made by it.
    pub boot_ms: u64,
    /// Milliseconds since 1970. For display only: it may jump.
    pub wall_ms: i64,
}

/// By which a caller is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The ports of a unit: the number that is asked for, or none for "any free one".
pub type Wishes = BTreeMap<String, Option<u16>>;

/// What the service's code says for these parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The parameters, checked.
    pub with: Arc<Value>,
    /// How it is supervised.
    pub policy: Policy,
    /// The ports that it will listen on.
    pub wishes: Wishes,
    /// Something must be placed before it can start.
    pub needs_install: bool,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Place a version.
    Install {
        /// Which; `None`: the known good one.
        version: Option<String>,
        /// Fetch again.
        reset: bool,
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
}

/// What a delete takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removal {
    /// What was placed in the store.
    pub binaries: bool,
    /// The data folder and the logs.
    pub data: bool,
}

/// A request of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The unit.
    pub unit: UnitName,
    /// What is asked for.
    pub goal: Goal,
    /// What its service says; `None` keeps what was said before.
    pub declared: Option<Declared>,
    /// Answer when it is true; else as soon as it has begun.
    pub wait: bool,
}

/// What became of a recorded run while nobody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// News from the world.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A caller asks.
    Ask(Ticket, Ask),
    /// Something has happened.
    Fact(Fact),
    /// [`crate::Core::next_deadline`] has come.
    Deadline,
}

/// What is to be done in the world. Its result comes back as a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Install or build. Answered by `Placed`.
    Place {
        /// The unit.
        unit: UnitName,
        /// The operation that it is for.
        op: OpId,
        /// Which version.
        version: Option<String>,
        /// Fetch again.
        reset: bool,
        /// Compile from source.
        build: bool,
    },
    /// Make the run. Answered by `Launched` or `NotLaunched`; later by `Exited`, and `Emptied` unless that said empty.
    Launch {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// Ask once how it is. Answered by `Probed`, within the policy's probe time limit.
    Probe {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// Ask its processes to end.
    Terminate {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// SIGKILL to every process of the run.
    Kill {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// See what became of a recorded run. Answered by `Found`.
    Look {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// The run is over and recorded so: its folder can go.
    Forget {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
    },
    /// Remove a unit's files. Answered by `Removed`.
    Remove {
        /// The unit.
        unit: UnitName,
        /// The operation that it is for.
        op: OpId,
        /// What goes.
        removal: Removal,
    },
}

/// What must be durable before any act of the same step.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A unit as it is now.
    Unit(Box<Saved>),
    /// A unit is forgotten.
    Gone(UnitName),
    /// An operation as it is now.
    Op(Operation),
}

/// News for whoever listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A unit's phase changed.
    Phase {
        /// The unit.
        unit: UnitName,
        /// From.
        from: Phase,
        /// To.
        to: Phase,
        /// Why, for people.
        why: String,
    },
    /// A unit will be started again.
    Retry {
        /// The unit.
        unit: UnitName,
        /// How many restarts there were in the window, with this one.
        attempt: u32,
        /// In how many milliseconds.
        after_ms: u64,
    },
}

/// What a caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Who.
    pub ticket: Ticket,
    /// The operation, ended or (without `wait`) begun; or why not.
    pub result: Result<Operation, Failure>,
}

/// What follows from a step, in the order in which it must be done: records, acts, notices, answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effects {
    /// To be committed together, first.
    pub records: Vec<Record>,
    /// To be begun after that.
    pub acts: Vec<Act>,
    /// To be told.
    pub notices: Vec<Notice>,
    /// To be answered.
    pub answers: Vec<Answer>,
    /// The units that may have changed.
    pub touched: BTreeSet<UnitName>,
}
