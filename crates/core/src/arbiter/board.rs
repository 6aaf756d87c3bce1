//! What the planner looks at: the devices and who is on them, in numbers only.
//!
//! A board is made anew from the ledger for each decision. It holds no time and no rule of who may send whom away:
//! that has been decided for each resident before (`Leave`), so that a plan is geometry and nothing else. The same
//! board and the same need give the same plan.

use wharf_model::{DeviceId, GpuNeed, LeaseId, MakeRoom, UnitName};

/// Why a device is not for this request just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bar {
    /// A taint, or its health; nothing that waiting brings.
    Tainted(String),
    /// It is cut up: its parts are handed out, not itself.
    CutUp,
    /// Its last measurement is too old to trust.
    Stale,
    /// Somebody without a lease has so much of it that "all of it" would mean little.
    Foreign,
    /// Somebody else loads a model there: one at a time.
    WarmingUp(LeaseId),
    /// It is kept for a request that has been passed over often enough.
    Kept(LeaseId),
}

impl Bar {
    /// Waiting can take it away.
    pub fn passes(&self) -> bool {
        match self {
            Self::Tainted(_) | Self::CutUp => false,
            Self::Stale | Self::Foreign | Self::WarmingUp(_) | Self::Kept(_) => true,
        }
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub id: DeviceId,
    /// What could be handed out if nobody had a lease and nobody foreign were there, in bytes.
    pub capacity: u64,
    /// What can be handed out now, in bytes. 0 where more is in use than there should be.
    pub free: u64,
    /// How much more is in use than there should be, in bytes: so much must come back before anything is free.
    pub over: u64,
    /// What others than holders of leases have taken, in bytes.
    pub foreign: u64,
    /// Why it is not for this request just now.
    pub bar: Option<Bar>,
    /// Devices of one number reach each other directly.
    pub island: Option<u32>,
    /// The memory node of the machine that it is near to.
    pub numa: Option<u32>,
}

/// Whether a resident could be sent away for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// No, and why not: `pinned`, `matters more`, `has been there for 3 s of 10 s`.
    No(String),
    /// Yes.
    May {
        /// What its going costs: seconds to load it again × how often it is used × how much it matters.
        value: u64,
        /// It can go on with so many bytes on each of its devices instead.
        downsize: Option<u64>,
        /// It can sleep instead, and keeps so many bytes on each of its devices.
        park: Option<u64>,
        /// How long until its memory is back, in milliseconds, as far as is known.
        est_ms: u64,
        /// How long it takes to load again, in milliseconds, as far as is known.
        reload_ms: u64,
    },
    /// It goes already, or makes room: its memory comes back by itself.
    Going {
        /// In so many milliseconds, as far as is known.
        est_ms: u64,
        /// So many bytes on each of its devices do not: it stays. 0: it ends.
        keeps: u64,
    },
}

/// Who is on the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Its lease.
    pub lease: LeaseId,
    /// The unit, where it is one.
    pub unit: Option<UnitName>,
    /// What it counts for on which place (by number in [`Board::places`]), in bytes.
    pub shares: Vec<(usize, u64)>,
    /// It has its devices alone.
    pub alone: bool,
    /// Units that it must not share a device with.
    pub never_with: Vec<UnitName>,
    /// The only units that it shares a device with; empty: with any.
    pub only_with: Vec<UnitName>,
    /// Whether it could be sent away.
    pub leave: Leave,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Board {
    /// The devices, by id.
    pub places: Vec<Place>,
    /// Who is on them, by lease.
    pub residents: Vec<Resident>,
}

/// Somebody who makes room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// Whose lease.
    pub lease: LeaseId,
    /// How.
    pub how: MakeRoom,
    /// What it keeps on each of its devices, in bytes.
    pub keeps: u64,
}

/// Devices for a need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The places, and how many bytes on each.
    pub on: Vec<(usize, u64)>,
    /// Who makes room first. Empty: it fits as it is.
    pub victims: Vec<Victim>,
    /// The sum of what their going costs.
    pub cost: u64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It fits, now or after the victims have gone.
    Fits(Placement),
    /// It would fit if those in the way left, and none of them may be sent away now, or some go already.
    Waits {
        /// Where it would go: those that stand in the way there are few and cheap.
        on: Vec<usize>,
        /// How much is missing there, in bytes, on the device that lacks most.
        short_by: u64,
        /// The leases in the way there.
        behind: Vec<LeaseId>,
    },
    /// It fits into no device of this machine, even if all were empty; or not into enough of them.
    Never {
        /// The most that any allowed device could give, in bytes.
        largest: u64,
        /// How much is missing, in bytes. 0: it is a matter of how many devices, or of which.
        short_by: u64,
        /// Why, in words: `wants 3 devices, there are 2`.
        why: String,
    },
}

/// Who asks, as far as the geometry is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker<'a> {
    /// What is needed.
    pub need: &'a GpuNeed,
    /// The unit that asks, for who shares with whom.
    pub unit: Option<&'a UnitName>,
    /// Its own lease, left out of the residents' reckoning.
    pub lease: Option<LeaseId>,
}
