//! Units and the arbiter: no run of a unit that needs a GPU begins without a lease, and none keeps one that it does
//! not use.
//!
//! The arbiter knows names only. Here its wishes become stops, its grants become starts, and what happens to a run is
//! told to it. It refuses to know who is right: that is the arbiter's.

use serde::{Deserialize, Serialize};
use wharf_model::{
    DeviceId, Enforced, ErrorKind, Failure, GpuRequest, Holder, Inventory, LeaseId, LeaseState, OpKind, Preempt, RunId,
    Taint, UnitName, Want,
};

use crate::{
    Act, Core, Effects, FoundRun, Life, Now, Record, Ticket, Timer,
    arbiter::{GpuAct, Hint, Outcome, Terms},
    needs::Needs,
    unit::Step,
};

/// After a refusal that nobody is told, when it is tried again.
const AGAIN_MS: u64 = 30_000;

/// What a caller asks of the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Each is the method of the same name of `arbiter::Arbiter`.
pub enum GpuAsk {
    Acquire { owner: u32, holder: Holder, request: Box<GpuRequest>, terms: Terms },
    Renew { lease: LeaseId, epoch: u64 },
    Hint { lease: LeaseId, epoch: u64, hint: Hint },
    Update { lease: LeaseId, epoch: u64, vram_bytes: u64 },
    Release { lease: LeaseId, epoch: u64 },
    Cancel { lease: LeaseId },
    Revoke { lease: LeaseId, force: bool, drain_ms: Option<u64> },
    KeepFree { device: DeviceId, bytes: u64 },
    Taint { device: DeviceId, taint: Option<Taint> },
    Pin { lease: LeaseId, for_ms: u64 },
    Park { lease: LeaseId, epoch: Option<u64>, keeps_bytes: Option<u64> },
    Unpark { lease: LeaseId, epoch: Option<u64>, wait_ms: Option<u64> },
    Adopt { owner: u32, holder: Holder, vram_bytes: Option<u64>, evictable: bool },
    Ignore { pid: i32, identity: u64, ignored: bool },
}

/// News of devices and their users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuFact {
    /// The devices were measured.
    Measured(Box<Inventory>),
    /// The first process of an outside holder is gone.
    HolderGone(LeaseId),
    /// So many requests are open at a unit's ports.
    Busy(UnitName, u32),
    /// Somebody wants to use a unit that may sleep.
    Wanted(UnitName),
    /// A process that was ignored is gone: its number, and which one of that number.
    IgnoredGone(i32, u64),
    /// By what a unit's present run is kept to what it declared.
    Limited(UnitName, Enforced),
}

impl Core {
    /// A caller's ask of the arbiter.
    pub(crate) fn on_gpu_ask(&mut self, now: Now, ticket: Ticket, ask: GpuAsk, fx: &mut Effects) {
        let arbiter = &mut self.arbiter;
        let (of, (mut outcome, result)) = match ask {
            GpuAsk::Acquire { owner, holder, request, terms } => {
                let outcome = arbiter.acquire(now, Some(ticket), owner, holder, *request, terms);
                self.absorb(now, outcome, fx);
                return;
            }
            GpuAsk::Renew { lease, epoch } => (lease, arbiter.renew(now, lease, epoch)),
            GpuAsk::Hint { lease, epoch, hint } => (lease, arbiter.hint(now, lease, epoch, hint)),
            GpuAsk::Update { lease, epoch, vram_bytes } => (lease, arbiter.update(now, lease, epoch, vram_bytes)),
            GpuAsk::Release { lease, epoch } => (lease, arbiter.release(now, lease, epoch)),
            GpuAsk::Cancel { lease } => (lease, arbiter.cancel(now, lease)),
            GpuAsk::Revoke { lease, force, drain_ms } => (lease, arbiter.revoke(now, lease, force, drain_ms)),
            GpuAsk::KeepFree { device, bytes } => (LeaseId::default(), arbiter.keep_free(now, &device, bytes)),
            GpuAsk::Taint { device, taint } => (LeaseId::default(), arbiter.taint(now, &device, taint)),
            GpuAsk::Pin { lease, for_ms } => (lease, arbiter.pin(now, lease, for_ms)),
            GpuAsk::Park { lease, epoch, keeps_bytes } => (lease, arbiter.park(now, lease, epoch, keeps_bytes)),
            GpuAsk::Unpark { lease, epoch, wait_ms } => {
                let outcome = arbiter.unpark(now, Some(ticket), lease, epoch, wait_ms);
                self.absorb(now, outcome, fx);
                return;
            }
            GpuAsk::Adopt { owner, holder, vram_bytes, evictable } => {
                let (mut outcome, result) = arbiter.adopt(now, owner, holder, vram_bytes, evictable);
                outcome.answers.push((ticket, result));
                self.absorb(now, outcome, fx);
                return;
            }
            GpuAsk::Ignore { pid, identity, ignored } => {
                (LeaseId::default(), arbiter.ignore(now, pid, identity, ignored))
            }
        };
        outcome.answers.push((ticket, result.map(|()| of)));
        self.absorb(now, outcome, fx);
    }

    pub(crate) fn on_gpu_fact(&mut self, now: Now, fact: GpuFact, fx: &mut Effects) {
        let outcome = match fact {
            GpuFact::Measured(inventory) => {
                let outcome = self.arbiter.measured(now, &inventory);
                self.absorb(now, outcome, fx);
                self.adopt_runs(now, fx);
                return;
            }
            GpuFact::HolderGone(lease) => self.arbiter.holder_gone(now, lease),
            GpuFact::Busy(unit, requests) => self.arbiter.unit_hint(now, &unit, Hint::Busy(requests)),
            GpuFact::Wanted(unit) => self.arbiter.unit_wanted(now, &unit, None),
            GpuFact::IgnoredGone(pid, identity) => self.arbiter.ignored_gone(pid, identity),
            GpuFact::Limited(unit, by) => self.arbiter.limited(&unit, by),
        };
        self.absorb(now, outcome, fx);
    }

    /// A run was found alive that wants a GPU by its policy, and whose lease nobody knows: once it is seen on a device it
    /// has one again.
    pub(crate) fn look_for_its_gpu(&self, name: &UnitName, found: &FoundRun, fx: &mut Effects) {
        let wants = self.units.get(name).is_some_and(|unit| unit.policy.gpu.is_some());
        if wants && matches!(found, FoundRun::Alive { .. }) && self.arbiter.of_unit(name).is_none() {
            fx.gpu_acts.push(GpuAct::Measure);
        }
    }

    /// Runs that live and want a GPU by their policy, and whose lease nobody knows: the journal that had it was lost.
    fn adopt_runs(&mut self, now: Now, fx: &mut Effects) {
        let lives = |unit: &&crate::Unit| matches!(unit.life, Life::Starting { pid: Some(_), .. } | Life::Up { .. });
        let lacks = |unit: &&crate::Unit| unit.policy.gpu.is_some() && self.arbiter.of_unit(&unit.name).is_none();
        let of = |unit: &crate::Unit| Some((unit.name.clone(), unit.policy.gpu.clone()?));
        let found: Vec<_> = self.units.values().filter(lives).filter(lacks).filter_map(of).collect();
        for (name, request) in found {
            let outcome = self.arbiter.adopt_unit(now, &name, &request);
            self.absorb(now, outcome, fx);
        }
    }

    pub(crate) fn gpu_due(&mut self, now: Now, fx: &mut Effects) {
        if self.arbiter.next_deadline().is_some_and(|at| at <= now.boot_ms) {
            let outcome = self.arbiter.due(now);
            self.absorb(now, outcome, fx);
        }
    }

    /// What follows from a step of the arbiter becomes effects of this one.
    pub(crate) fn absorb(&mut self, now: Now, outcome: Outcome, fx: &mut Effects) {
        if outcome.book {
            fx.records.push(Record::Book(Box::new(self.arbiter.book().clone())));
        }
        for id in outcome.leases {
            fx.records.push(match self.arbiter.lease(id) {
                Some(lease) => Record::Lease(Box::new(lease.clone())),
                None => Record::LeaseGone(id),
            });
        }
        fx.gpu_acts.extend(outcome.acts);
        fx.gpu_notices.extend(outcome.notices);
        fx.gpu_answers.extend(outcome.answers);
        for (unit, lease) in outcome.leave {
            let by = self.arbiter.lease(lease).and_then(|lease| lease.leaves_for);
            let by = by.and_then(|id| self.arbiter.lease(id)).map_or_else(|| "by hand".to_owned(), |l| l.called());
            fx.touched.insert(unit.clone());
            if let Some(unit) = self.units.get_mut(&unit) {
                unit.evicted = Some(by);
            }
            self.woken.push(unit);
        }
        for (unit, change) in outcome.changes {
            let run = self.units.get(&unit).and_then(|unit| match unit.life {
                Life::Up { run, .. } => Some(run),
                Life::Idle
                | Life::Starting { .. }
                | Life::Backoff { .. }
                | Life::Blocked { .. }
                | Life::Waiting { .. }
                | Life::Failed { .. }
                | Life::Stopping { .. }
                | Life::Unknown { .. } => None,
            });
            // Whoever is not up ends, or tells again that it is ready.
            fx.acts.extend(run.map(|run| Act::Change { unit, run, change }));
        }
        for (unit, failure) in outcome.refused {
            fx.touched.insert(unit.clone());
            self.gpu_refused(now, &unit, failure, fx);
        }
        for unit in outcome.woken {
            fx.touched.insert(unit.clone());
            self.woken.push(unit);
        }
    }

    /// Whether a run may begin as far as GPUs are concerned. If not, the unit waits, or was refused.
    pub(crate) fn has_gpu(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> bool {
        let Some(unit) = self.units.get(name) else { return true };
        let Some(mut request) = unit.policy.gpu.clone() else { return true };
        if self.arbiter.of_unit(name).is_none() {
            let step = unit.op.as_ref().and_then(|op| op.steps.front());
            let asked = matches!(step, Some(Step::Start { .. }));
            if unit.forced {
                request.preempt = Preempt::Force;
            }
            let terms = Terms { wait_ms: asked.then_some(0), ..Terms::default() };
            let holder = Holder::Unit { name: name.clone() };
            let outcome = self.arbiter.acquire(now, None, 0, holder, request, terms);
            self.absorb(now, outcome, fx);
        }
        let Some(lease) = self.arbiter.of_unit(name) else { return false };
        if lease.is_granted() {
            return true;
        }
        let reason = lease.why.clone().unwrap_or_else(|| {
            Failure::new(ErrorKind::GpuBusy, format!("{name} waits until the GPUs are measured")).about(name)
        });
        // Whoever needs it and was asked for by a person is told now: how long a queue takes nobody knows.
        let hopeless = lease.state == LeaseState::Queued && lease.why.is_some();
        if let Some(unit) = self.units.get_mut(name) {
            unit.last_error = Some(reason.message.clone());
            unit.hopeless = hopeless;
            unit.life = Life::Waiting { reason: reason.clone() };
            // It stays in the queue where it was wanted before; whoever asked now does not wait with it.
            if hopeless && unit.op.is_some() {
                self.fail(now, name, on_the_service_socket(reason), fx);
            }
        }
        false
    }

    /// It cannot have what it needs. Whoever asked is told; what is merely wanted is tried again later.
    fn gpu_refused(&mut self, now: Now, name: &UnitName, failure: Failure, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.life.run().is_some() {
            let starts = unit.op.as_ref().is_some_and(|op| matches!(op.steps.front(), Some(Step::Start { .. })));
            if starts && self.is_asleep(name) {
                self.fail(now, name, on_the_service_socket(failure), fx);
            }
            return;
        }
        let failure = on_the_service_socket(failure);
        unit.last_error = Some(failure.message.clone());
        let kind = unit.op.as_ref().filter(|op| matches!(op.steps.front(), Some(Step::Start { .. }))).map(|op| op.kind);
        if kind == Some(OpKind::Start) {
            unit.want = Want::Down;
            unit.life = crate::advance::refused(&failure);
            self.fail(now, name, failure, fx);
            return;
        }
        let until_ms = now.boot_ms.saturating_add(AGAIN_MS);
        unit.life = Life::Blocked { until_ms, reason: failure.clone() };
        self.schedule(until_ms, name, RunId(0), Timer::Retry);
        if kind.is_some() {
            self.fail(now, name, failure, fx);
        }
    }

    /// A unit that does not run keeps a request only while nothing but the GPU holds up its start, and no grant at all:
    /// what it was granted it has begun to use by now.
    pub(crate) fn leave_queue(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let Some(lease) = self.arbiter.of_unit(name) else { return };
        let waits = lease.waits();
        let runs = self.units.get(name).is_some_and(|unit| unit.life.run().is_some());
        let stays = self.units.get(name).is_some_and(|unit| {
            let starts = unit.op.as_ref().is_none_or(|op| matches!(op.steps.front(), Some(Step::Start { .. })));
            matches!(unit.life, Life::Waiting { .. }) && starts && unit.is_wanted() && !unit.held
        });
        let stays = stays && matches!(self.needs_of(name), Needs::Met);
        let idle = !(waits && stays);
        if idle && !runs {
            let outcome = self.arbiter.unit_gone(now, name, false);
            self.absorb(now, outcome, fx);
        }
    }

    /// Nothing of the unit's run lives any more.
    pub(crate) fn gpu_gone(&mut self, now: Now, name: &UnitName, made: bool, fx: &mut Effects) {
        if self.arbiter.of_unit(name).is_some() {
            let outcome = self.arbiter.unit_gone(now, name, made);
            self.absorb(now, outcome, fx);
        }
    }

    /// It runs, and its memory is put away: it cannot be used, and is not expected to answer.
    pub(crate) fn is_asleep(&self, name: &UnitName) -> bool {
        self.arbiter.of_unit(name).is_some_and(crate::arbiter::Lease::is_asleep)
    }

    /// Somebody waits for a unit that sleeps.
    pub(crate) fn wake(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let outcome = self.arbiter.unit_wanted(now, name, Some(0));
        self.absorb(now, outcome, fx);
    }

    /// The unit's run is ready.
    pub(crate) fn gpu_ready(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        if self.arbiter.of_unit(name).is_some() {
            let outcome = self.arbiter.unit_ready(now, name);
            self.absorb(now, outcome, fx);
        }
    }
}

/// The sixteen methods of a service know nine kinds of failure: what is about GPUs is told with the nearest of them.
fn on_the_service_socket(failure: Failure) -> Failure {
    Failure { kind: failure.kind.nearest(), ..failure }
}
