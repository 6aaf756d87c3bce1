//! What a request for GPUs would come to, and what stands in its way, as data.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, Failure, LeaseId, LeaseState, MakeRoom, Share};

/// A process without a lease that has memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignProcess {
    /// The process.
    pub pid: i32,
    /// Its program.
    pub program: Option<String>,
    /// Whose it is.
    pub uid: Option<u32>,
    /// What it holds; none: the driver does not say.
    pub used_bytes: Option<u64>,
    /// What it belongs to.
    pub belongs_to: Option<String>,
    /// It was said by hand to be baseline: it is taken, and no news.
    pub ignored: bool,
}

impl fmt::Display for ForeignProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}", self.program.as_deref().unwrap_or("a process"), self.pid)?;
        if let Some(belongs_to) = &self.belongs_to {
            write!(f, ", {belongs_to}")?;
        }
        match self.used_bytes {
            Some(bytes) => write!(f, ", {})", size(bytes)),
            None => f.write_str(")"),
        }
    }
}

/// A device that cannot be had now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocker {
    /// Which.
    pub device: DeviceId,
    /// All its memory.
    pub total_bytes: u64,
    /// What can be handed out now.
    pub headroom_bytes: u64,
    /// Why not, where it is not a matter of room.
    pub bar: Option<String>,
    /// What those without a lease have there.
    pub foreign_bytes: u64,
    /// Who they are.
    pub foreign: Vec<ForeignProcess>,
    /// Who has leases there.
    pub leases: Vec<BlockingLease>,
}

/// A lease in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockingLease {
    /// Which.
    pub lease: LeaseId,
    /// Whose, for people.
    pub holder: String,
    /// Where it stands.
    pub state: LeaseState,
    /// What it counts for on this device.
    pub charge_bytes: u64,
    /// How much it matters.
    pub importance: u8,
    /// What it works on, as it says.
    pub busy: Option<u32>,
    /// Why it does not leave for this request; none: it could be asked to.
    pub stays: Option<String>,
}

/// Something that would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// `wait`, `preempt`, `shrink`, `alternative`, `ask`.
    pub r#do: String,
    /// For people.
    pub text: String,
    /// With whom.
    pub holder: Option<String>,
    /// To so many bytes on each device.
    pub to_bytes: Option<u64>,
    /// In so many milliseconds, as far as is known.
    pub est_ms: Option<u64>,
    /// What it costs somebody to load again, in milliseconds.
    pub reload_ms: Option<u64>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStep {
    /// Whose lease.
    pub lease: LeaseId,
    /// Whose, for people.
    pub holder: String,
    /// What it is asked to do.
    pub r#do: MakeRoom,
    /// What that frees.
    pub frees_bytes: u64,
    /// How long it may take, in milliseconds.
    pub est_ms: u64,
    /// What it costs to load it again, or to wake it, in milliseconds.
    pub reload_ms: u64,
}

/// What a request would come to now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// It could be granted: at once, or when the steps are done.
    pub feasible: bool,
    /// It could be granted at once.
    pub at_once: bool,
    /// Where.
    pub placement: Vec<Share>,
    /// Which of the needs: 0 is the first.
    pub alternative: usize,
    /// Who is asked to leave first.
    pub actions: Vec<PlanStep>,
    /// Its place in the queue, where it would have to wait: 1 is the head.
    pub position: Option<usize>,
    /// Why it would wait, or never be granted.
    pub failure: Option<Failure>,
    /// The same in sentences.
    pub explain: Vec<String>,
    /// The state that it was made for.
    pub state_version: u64,
}

/// A size for people: `21.5 GiB`.
pub fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= GIB {
        let tenths = bytes / (GIB / 10);
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}
