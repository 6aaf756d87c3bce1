//! What a unit's processes do, and why they are being ended.

use wharf_model::{EndReason, Exit, Failure, GivenUp, Phase, RunId, UnitName};

/// What a unit's processes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// None lives.
    Idle,
    /// They are being made, or live and are not ready.
    Starting {
        /// The run.
        run: RunId,
        /// The main process, once it is made.
        pid: Option<i32>,
        /// When the start began, by the boot clock.
        since_ms: u64,
        /// When it must be ready, by the boot clock. A program that says so gets longer.
        until_ms: u64,
    },
    /// It was ready, and its main process lives.
    Up {
        /// The run.
        run: RunId,
        /// The main process.
        pid: i32,
        /// When it got ready, by the boot clock.
        since_ms: u64,
        /// Since when it has been healthy without a break, by the boot clock.
        healthy_since_ms: u64,
        /// Failed probes in a row.
        fails: u32,
        /// The last probe said that something is wrong that a restart does not mend.
        degraded: bool,
    },
    /// It will be started again.
    Backoff {
        /// When, by the boot clock.
        until_ms: u64,
        /// Why it ended.
        reason: Failure,
    },
    /// It is wanted, and something outside it stands in the way. Tried again without counting.
    Blocked {
        /// When, by the boot clock.
        until_ms: u64,
        /// What.
        reason: Failure,
    },
    /// It is wanted, and waits for a unit that it needs. Woken by that unit's change, never by a clock.
    Waiting {
        /// For which, and in what state that is.
        reason: Failure,
    },
    /// Given up.
    Failed {
        /// Why.
        reason: Failure,
        /// By which rule.
        rule: GivenUp,
        /// When it is tried once more all the same, by the boot clock.
        retry_at_ms: Option<u64>,
    },
    /// Its processes are being ended.
    Stopping {
        /// The run.
        run: RunId,
        /// The main process, while it lives.
        pid: Option<i32>,
        /// Why.
        cause: Cause,
        /// How the main process ended, once it has.
        exit: Option<Exit>,
        /// SIGKILL was sent.
        killed: bool,
        /// When SIGKILL is due, by the boot clock.
        until_ms: u64,
    },
    /// A run is recorded and has not been looked at.
    Unknown {
        /// The run.
        run: RunId,
        /// What it was when it was recorded.
        was: Phase,
    },
}

/// Why processes are being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked.
    Asked,
    /// A unit that it needs is being stopped.
    Need {
        /// Which.
        unit: UnitName,
    },
    /// Nobody used it.
    Idle,
    /// Its GPU is needed by another.
    Evicted {
        /// By whom, for people.
        by: String,
    },
    /// Its work is done.
    Done,
    /// It died or is sick, and the reason counts as a death.
    Death {
        /// What is said about it.
        reason: Failure,
        /// What Wharf saw.
        end: EndReason,
        /// How long it had been healthy without a break.
        healthy_for_ms: u64,
    },
    /// It ended in a way that its policy calls final.
    Final {
        /// What is said about it.
        reason: Failure,
    },
}

impl Cause {
    /// The word for it, where SIGKILL was not needed.
    pub(crate) fn end(&self) -> EndReason {
        match self {
            Self::Asked => EndReason::Stopped,
            Self::Need { .. } => EndReason::NeedStopped,
            Self::Idle => EndReason::Idle,
            Self::Evicted { .. } => EndReason::LeaseLost,
            Self::Done | Self::Final { .. } => EndReason::ByItself,
            Self::Death { end, .. } => *end,
        }
    }
}

impl Life {
    /// The present run.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Starting { run, .. }
            | Self::Up { run, .. }
            | Self::Stopping { run, .. }
            | Self::Unknown { run, .. } => Some(*run),
            Self::Idle | Self::Backoff { .. } | Self::Blocked { .. } | Self::Waiting { .. } | Self::Failed { .. } => {
                None
            }
        }
    }

    /// The main process, while it lives.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Starting { pid, .. } | Self::Stopping { pid, .. } => *pid,
            Self::Up { pid, .. } => Some(*pid),
            Self::Idle
            | Self::Backoff { .. }
            | Self::Blocked { .. }
            | Self::Waiting { .. }
            | Self::Failed { .. }
            | Self::Unknown { .. } => None,
        }
    }

    /// The rule by which it was given up.
    pub fn given_up(&self) -> Option<GivenUp> {
        match self {
            Self::Failed { rule, .. } => Some(*rule),
            Self::Idle
            | Self::Starting { .. }
            | Self::Up { .. }
            | Self::Backoff { .. }
            | Self::Blocked { .. }
            | Self::Waiting { .. }
            | Self::Stopping { .. }
            | Self::Unknown { .. } => None,
        }
    }

    /// Ready to be used by others.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Up { fails: 0, .. })
    }
}
