//! Who may use which GPU: the ledger, the queue, and who leaves for whom.
//!
//! ```text
//!   acquire ──> QUEUED ──> RESERVED(its devices are chosen, others leave them) ──> STARTING ──> ACTIVE <──> PARKED
//!                  │            │ all fits                          ready │             │
//!                  └────────────┴──────────> granted ───────────────────> ┘             │ asked to leave
//!                                                                                       v
//!   GONE <── memory seen back ── RECLAIMING <── nothing of its holder lives ──────── DRAINING
//!                  │                 └── not back in time ──> QUARANTINED (charged as measured)
//!                  └ EXPIRED: nobody renewed it, its holder lives: charged, and the first to be asked to leave
//! ```
//!
//! It owns what each device counts as taken (`ledger.rs`), whose turn it is (`queue.rs`), and the life of every lease
//! (`flow.rs`). Geometry is the planner's (`plan.rs`), which sees numbers only. It refuses to know how a device is
//! measured, how a process is ended, and what a unit is beyond its name.
//!
//! Two rules carry the rest. Memory counts as taken from the grant until it was *seen* to be back, whatever its
//! holder says. And nobody is asked to leave before a whole plan exists in which that makes the request fit.

mod adopt;
mod asks;
pub mod board;
mod ease;
mod explain;
mod flow;
mod lease;
mod ledger;
mod limit;
mod news;
pub mod plan;
mod queue;
#[cfg(test)]
mod tests;
pub mod value;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wharf_model::{Device, DeviceId, Failure, Holder, LeaseId, LeaseState, Taint, UnitName};

pub use asks::{Hint, PASSING, Terms};
pub use lease::{Asked, Change, Lease};
pub use ledger::Count;

use crate::Ticket;
use value::Learned;

/// By which figures it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Kept free on every device: what a driver cannot hand out to the last byte.
    pub safety_bytes: u64,
    /// A measurement older than this grants nothing.
    pub stale_ms: u64,
    /// Younger than this, a measurement is good enough to grant by.
    pub fresh_ms: u64,
    /// How long memory may take to come back after its holder's end.
    pub reclaim_ms: u64,
    /// Waiting this long counts as one step of priority.
    pub age_step_ms: u64,
    /// How often a waiting request may be passed over on devices that it waits for.
    pub bypass_limit: u32,
    /// Memory that counts as noise: a driver's own comings and goings.
    pub slack_bytes: u64,
    /// Only one holder loads on a device at a time.
    pub one_warm_up: bool,
    /// A holder that never says that it is ready counts as ready after so long.
    pub warm_up_ms: u64,
    /// Requests that may wait, of one user.
    pub queue_limit: usize,
    /// Search nodes of one decision.
    pub budget: u32,
}

impl Settings {
    /// For a plan: it asks nobody for a new measurement.
    fn is_dry(&self) -> bool {
        self.fresh_ms == u64::MAX
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            safety_bytes: 256 << 20,
            stale_ms: 15_000,
            fresh_ms: 1_500,
            reclaim_ms: 30_000,
            age_step_ms: 60_000,
            bypass_limit: 4,
            slack_bytes: 64 << 20,
            one_warm_up: true,
            warm_up_ms: 600_000,
            queue_limit: 256,
            budget: plan::BUDGET,
        }
    }
}

/// What survives the daemon beside the leases themselves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    /// The last lease number that was handed out.
    pub last_lease: u64,
    /// The last epoch that was handed out.
    pub last_epoch: u64,
    /// Kept free by hand, in bytes.
    pub reserves: BTreeMap<DeviceId, u64>,
    /// Set by hand.
    pub taints: BTreeMap<DeviceId, Taint>,
    /// What was taken on a device and belonged to no process and no lease, in bytes: a driver's own, as a rule.
    pub loose: BTreeMap<DeviceId, u64>,
    /// What holders were seen to do, by [`Lease::label`].
    pub learned: BTreeMap<String, Learned>,
    /// Processes without a lease that are no news, by hand: while they live.
    pub ignored: BTreeSet<(i32, u64)>,
}

/// What is to be done in the world for a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuAct {
    /// Measure the devices soon.
    Measure,
    /// Ask an outside holder to end: SIGTERM.
    Leave {
        /// Whose lease.
        lease: LeaseId,
        /// Who.
        holder: Holder,
    },
    /// End an outside holder and what it started: SIGKILL.
    Kill {
        /// Whose lease.
        lease: LeaseId,
        /// Who.
        holder: Holder,
        /// Its other processes that were seen on devices.
        members: BTreeSet<(i32, u64)>,
    },
}

/// News of a lease or a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuNotice {
    /// A lease has gone from one state to the next.
    Lease {
        /// Which.
        lease: LeaseId,
        /// Whose.
        holder: Holder,
        /// To.
        state: LeaseState,
        /// On which devices.
        devices: Vec<DeviceId>,
        /// Why, for people.
        why: String,
    },
    /// A holder was asked to make room and stay, or to wake up.
    Asked {
        /// Which.
        lease: LeaseId,
        /// Whose.
        holder: Holder,
        /// What.
        change: Change,
        /// For whom; none: by hand.
        by: Option<String>,
    },
    /// Its holder takes more than it declared.
    OverDeclared {
        /// Which.
        lease: LeaseId,
        /// Whose.
        holder: Holder,
        /// Where.
        device: DeviceId,
        /// What was declared, in bytes.
        declared_bytes: u64,
        /// What it takes, in bytes.
        measured_bytes: u64,
    },
    /// Somebody without a lease has taken memory.
    Foreign {
        /// Where.
        device: DeviceId,
        /// How much those without a lease have there now, in bytes.
        bytes: u64,
        /// Who, as far as is known.
        who: Vec<String>,
    },
    /// A device came, went, or is not to be used any more.
    Device {
        /// Which.
        device: DeviceId,
        /// What has happened.
        what: String,
    },
    /// Its holder is gone, and its memory did not come back.
    Leak {
        /// Which.
        lease: LeaseId,
        /// Whose it was.
        holder: Holder,
        /// Where.
        device: DeviceId,
        /// How much is missing, in bytes.
        bytes: u64,
    },
    /// A device is nearly full.
    Headroom {
        /// Which.
        device: DeviceId,
        /// What can be handed out there, in bytes.
        headroom_bytes: u64,
        /// All its memory, in bytes.
        total_bytes: u64,
    },
}

/// What follows from a step of the arbiter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Leases to be recorded as they are now; those that are over are to be forgotten.
    pub leases: BTreeSet<LeaseId>,
    /// The book is to be recorded.
    pub book: bool,
    /// To be begun when that is durable.
    pub acts: Vec<GpuAct>,
    /// Units that are to be stopped for a lease.
    pub leave: Vec<(UnitName, LeaseId)>,
    /// Units that are to do something, and stay.
    pub changes: Vec<(UnitName, Change)>,
    /// Units whose request stands otherwise than before.
    pub woken: Vec<UnitName>,
    /// Units whose request was refused.
    pub refused: Vec<(UnitName, Failure)>,
    /// To be told.
    pub notices: Vec<GpuNotice>,
    /// To be answered.
    pub answers: Vec<(Ticket, Result<LeaseId, Failure>)>,
}

/// A device, as last measured, and what is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// As last measured.
    pub device: Device,
    /// When, by the boot clock.
    pub measured_ms: u64,
    /// Whose each of its processes is, in their order.
    owners: Vec<Option<LeaseId>>,
    told: news::Told,
}

/// The arbiter.
#[derive(Debug, Clone, Default)]
pub struct Arbiter {
    /// By which figures it decides.
    pub settings: Settings,
    book: Book,
    slots: BTreeMap<DeviceId, Slot>,
    /// It was measured at least once.
    seen: bool,
    /// What was free of the machine's own memory when that was last measured, in bytes.
    free_ram_bytes: Option<u64>,
    leases: BTreeMap<LeaseId, Lease>,
    keys: BTreeMap<(u32, String), LeaseId>,
    units: BTreeMap<UnitName, LeaseId>,
    tickets: BTreeMap<LeaseId, Vec<Ticket>>,
    /// Nobody is sent away before the first whole measurement of a new daemon.
    settled: bool,
    /// When the queue was last gone through.
    passed_ms: u64,
    /// Moves with every change: a plan names the one that it was made for.
    version: u64,
}

impl Arbiter {
    /// From what was recorded. `rebooted`: the machine was started since, so no holder lives.
    pub fn restore(book: Book, leases: Vec<Lease>, rebooted: bool) -> (Self, Outcome) {
        let mut arbiter = Self { book, ..Self::default() };
        // Nobody of the machine's last life is alive: another process may have its number and its identity.
        let forgotten = rebooted && !std::mem::take(&mut arbiter.book.ignored).is_empty();
        let mut fx = Outcome { book: forgotten, ..Outcome::default() };
        for lease in leases {
            // Whoever waited has lost the connection that it waited on: it comes back by its key, or not at all. A unit
            // asks again by itself.
            let waits_on = lease.state == LeaseState::Reserved || lease.waits() && !lease.at_once;
            let comes_back = waits_on && lease.unit().is_none() && lease.is_kept_for_its_asker();
            if rebooted || lease.waits() && !comes_back || lease.state == LeaseState::Gone {
                fx.leases.insert(lease.id);
                continue;
            }
            let mut lease = lease;
            if lease.waits() {
                // Its place is kept; who left for it is looked for anew.
                lease.go(LeaseState::Queued, lease.since_ms);
                lease.shares.clear();
                fx.leases.insert(lease.id);
            }
            if lease.state == LeaseState::Draining {
                // It was asked by a daemon that is gone, and whether it heard that nobody knows.
                match &lease.holder {
                    Holder::Unit { name } => fx.leave.push((name.clone(), lease.id)),
                    holder @ Holder::Process { .. } => {
                        fx.acts.push(GpuAct::Leave { lease: lease.id, holder: holder.clone() });
                    }
                }
            }
            if lease.makes_room().is_some() {
                // Whom it was for is looked at anew; it is asked again, if need be.
                lease.asked = None;
                lease.leaves_for = None;
                fx.leases.insert(lease.id);
            }
            arbiter.index(&lease);
            arbiter.leases.insert(lease.id, lease);
        }
        arbiter.drop_lost_wakes(&mut fx);
        if !arbiter.leases.is_empty() {
            fx.acts.push(GpuAct::Measure);
        }
        (arbiter, fx)
    }

    fn index(&mut self, lease: &Lease) {
        if let Some(key) = &lease.key {
            self.keys.insert((lease.owner, key.clone()), lease.id);
        }
        if let Some(unit) = lease.unit().filter(|_| !lease.is_reclaimed() && lease.wakes.is_none()) {
            self.units.insert(unit.clone(), lease.id);
        }
    }

    /// A lease.
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// The lease that a unit has or waits for. One whose memory is still awaited is not it any more.
    pub fn of_unit(&self, name: &UnitName) -> Option<&Lease> {
        self.units.get(name).and_then(|id| self.leases.get(id))
    }

    /// All leases, oldest first.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// All devices, by id.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    /// What survives beside the leases.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// A number that moves with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The devices were looked at, and there is none.
    pub fn is_bare(&self) -> bool {
        self.seen && self.slots.is_empty()
    }

    /// How often the devices are to be measured just now, in milliseconds; none: not at all.
    pub fn pace_ms(&self) -> Option<u64> {
        let pace = |lease: &Lease| match lease.state {
            _ if lease.asked.is_some() => 250,
            LeaseState::Queued | LeaseState::Reserved | LeaseState::Draining | LeaseState::Reclaiming => 250,
            LeaseState::Starting | LeaseState::Expired => 1_000,
            LeaseState::Active | LeaseState::Parked | LeaseState::Quarantined => 5_000,
            LeaseState::Gone => u64::MAX,
        };
        self.leases.values().map(pace).min().filter(|ms| *ms < u64::MAX)
    }

    /// When [`Arbiter::due`] is to be called, by the boot clock.
    pub fn next_deadline(&self) -> Option<u64> {
        let queue = self.leases.values().any(Lease::waits);
        let of = |lease: &Lease| {
            let at = match lease.state {
                LeaseState::Queued | LeaseState::Reserved => lease.wait_until_ms,
                LeaseState::Draining => lease.drain_until_ms,
                LeaseState::Reclaiming => Some(lease.since_ms.saturating_add(self.settings.reclaim_ms)),
                LeaseState::Starting => Some(lease.since_ms.saturating_add(self.settings.warm_up_ms)),
                LeaseState::Active if queue => {
                    // Its time in peace ends: somebody may have been waiting for that.
                    let ready_ms = lease.ready_ms.unwrap_or(lease.since_ms);
                    let at = ready_ms.saturating_add(lease.request.min_residency_ms);
                    Some(at).filter(|at| *at > self.passed_ms)
                }
                LeaseState::Active
                | LeaseState::Parked
                | LeaseState::Expired
                | LeaseState::Quarantined
                | LeaseState::Gone => None,
            };
            let expires = lease.expires_ms.filter(|_| lease.is_granted());
            let asked = lease.asked.map(|asked| asked.until_ms);
            at.into_iter().chain(expires).chain(asked).min()
        };
        self.leases.values().filter_map(of).min()
    }

    /// When the devices were last measured: everything before that has been reckoned with.
    fn looked_ms(&self) -> u64 {
        self.slots.values().map(|slot| slot.measured_ms).max().unwrap_or(0)
    }
}

impl Arbiter {
    /// The rules that hold after every step. A text names the first that is broken.
    pub fn check(&self) -> Result<(), String> {
        for (name, id) in &self.units {
            let Some(lease) = self.leases.get(id) else { return Err(format!("{name}: {id} is no lease")) };
            if lease.unit() != Some(name) || lease.is_reclaimed() {
                return Err(format!("{name}: {id} is not its present lease"));
            }
        }
        let mut epochs = BTreeSet::new();
        for lease in self.leases.values() {
            if lease.id.0 > self.book.last_lease || lease.epoch > self.book.last_epoch {
                return Err(format!("{}: its number was never handed out", lease.id));
            }
            if lease.state == LeaseState::Gone {
                return Err(format!("{}: over, and still kept", lease.id));
            }
            if lease.epoch > 0 && !epochs.insert(lease.epoch) {
                return Err(format!("{}: another lease has its epoch {}", lease.id, lease.epoch));
            }
            if lease.state.is_charged() != (lease.epoch > 0) {
                return Err(format!("{}: {:?} with epoch {}", lease.id, lease.state, lease.epoch));
            }
            if lease.state.is_charged() && lease.shares.len() != lease.need().devices as usize {
                return Err(format!("{}: {} devices of {}", lease.id, lease.shares.len(), lease.need().devices));
            }
            self.check_ease(lease)?;
            if lease.bypassed > self.settings.bypass_limit {
                return Err(format!("{}: passed over {} times", lease.id, lease.bypassed));
            }
        }
        self.check_devices()
    }

    fn check_devices(&self) -> Result<(), String> {
        for slot in self.slots.values() {
            let on = |lease: &&Lease| lease.shares.iter().any(|share| share.device == slot.device.id);
            let holders: Vec<&Lease> = self.leases.values().filter(|l| l.state.is_charged()).filter(on).collect();
            let live: Vec<&&Lease> = holders.iter().filter(|l| !l.is_reclaimed()).collect();
            let awake = |l: &&&&Lease| l.awake.is_empty();
            if let Some(alone) = live.iter().filter(awake).find(|l| l.need().is_alone())
                && live.iter().filter(awake).count() > 1
            {
                return Err(format!("{}: {} has it alone, and others are there", slot.device.id, alone.id));
            }
            let declared: u64 = live
                .iter()
                .flat_map(|l| &l.shares)
                .filter(|share| share.device == slot.device.id)
                .map(|share| share.declared_bytes)
                .sum();
            if declared > slot.device.total_bytes {
                return Err(format!("{}: {declared} of {} promised", slot.device.id, slot.device.total_bytes));
            }
        }
        Ok(())
    }
}
