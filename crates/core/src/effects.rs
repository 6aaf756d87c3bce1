//! What comes out of the core: acts to the world, records to the journal, notices, answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wharf_model::{EndReason, Exit, Failure, LeaseId, OpId, Operation, Phase, RunId, UnitName};

use crate::{
    Placing, Removal, Saved, Ticket,
    arbiter::{Book, Change, GpuAct, GpuNotice, Lease},
};

/// What is to be done in the world. Its result comes back as a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Have the run put its GPU memory away, or fetch it again. Answered by `Changed`.
    Change {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// What.
        change: Change,
    },
    /// Install or build. Answered by `Placed`.
    Place {
        /// The unit.
        unit: UnitName,
        /// The operation that it is for.
        op: OpId,
        /// What.
        what: Placing,
    },
    /// What is being placed for this operation is not wanted any more. Nothing answers.
    Abandon {
        /// The unit.
        unit: UnitName,
        /// The operation that it was for.
        op: OpId,
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
    /// The run has got ready: what its policy runs then.
    PostStart {
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A unit as it is now.
    Unit(Box<Saved>),
    /// A unit is forgotten.
    Gone(UnitName),
    /// An operation as it is now.
    Op(Operation),
    /// A lease as it is now.
    Lease(Box<Lease>),
    /// A lease is over.
    LeaseGone(LeaseId),
    /// What the arbiter knows beside its leases.
    Book(Box<Book>),
}

/// News for whoever listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A unit's phase changed.
    Phase {
        /// The unit.
        unit: UnitName,
        /// Its run in the phase that it goes to.
        run: Option<RunId>,
        /// From.
        from: Phase,
        /// To.
        to: Phase,
        /// Why, for people.
        why: String,
    },
    /// A run is over.
    Ended {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// How.
        exit: Exit,
        /// Why.
        reason: EndReason,
    },
    /// A schedule came due while the run before it went on, and was passed over.
    Skipped {
        /// The unit.
        unit: UnitName,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Who.
    pub ticket: Ticket,
    /// The operation, ended or (without `wait`) begun; or why not.
    pub result: Result<Operation, Failure>,
}

/// What follows from a step, in the order in which it must be done: records, acts, notices, answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Effects {
    /// To be committed together, first.
    pub records: Vec<Record>,
    /// To be begun after that.
    pub acts: Vec<Act>,
    /// To be told.
    pub notices: Vec<Notice>,
    /// To be answered.
    pub answers: Vec<Answer>,
    /// To be begun with the acts.
    pub gpu_acts: Vec<GpuAct>,
    /// To be told with the notices.
    pub gpu_notices: Vec<GpuNotice>,
    /// To be answered with the answers.
    pub gpu_answers: Vec<(Ticket, Result<LeaseId, Failure>)>,
    /// The units that may have changed.
    pub touched: BTreeSet<UnitName>,
}
