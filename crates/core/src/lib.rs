//! The decisions of Wharf, without clock, IO or chance.
//!
//! ```text
//!   Ask      ─┐                     ┌─ Record   to the journal, durable before anything else happens
//!   Fact     ─┼─>  Core::step  ──>  ├─ Act      to the world; its result comes back as a Fact
//!   Deadline ─┘   (now, event)      ├─ Notice   to whoever listens
//!                                   └─ Answer   to the caller that asked
//! ```
//!
//! The core owns the state of every unit and the operation that is being done on it. It refuses
//! to know what a service is, how a process is made, or where a record is kept. Old news changes
//! nothing: every fact and deadline of a run carries its RunId, and one that is not the unit's
//! present run is dropped.
//!
//! A unit has one [`Life`] (what its processes do) and at most one operation (what somebody waits
//! for). Facts and deadlines change the life; `advance` then asks of the operation's first step
//! whether it is true already, and does the next thing if it is not. So an operation never has to
//! know on which of many paths its step became true.

mod adopt;
mod advance;
pub mod arbiter;
mod ask;
mod cancel;
mod deadline;
mod deaths;
mod effects;
mod event;
mod fact;
mod gpu;
mod life;
mod needs;
mod notified;
pub mod ports;
mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wharf_model::{ErrorKind, Failure, OpId, OpOutcome, Operation, RunId, UnitName};

pub use deadline::Timer;
pub use deaths::{Deaths, Verdict as DeathVerdict};
pub use effects::{Act, Answer, Effects, Notice, Record};
pub use event::{Ask, Declared, Event, Fact, FoundRun, Goal, News, Now, Placing, Removal, Ticket, Wishes};
pub use gpu::{GpuAsk, GpuFact};
pub use life::{Cause, Life};
pub use unit::{Saved, Unit};

use unit::Op;

/// How many asks may wait behind a unit's operation.
const MAX_WAITING: usize = 16;
/// How many ended operations a unit remembers.
const OPS_KEPT: usize = 32;

/// All units and what is being done on them.
#[derive(Debug, Clone, Default)]
pub struct Core {
    units: BTreeMap<UnitName, Unit>,
    /// Of a unit: those that need it.
    dependents: BTreeMap<UnitName, BTreeSet<UnitName>>,
    /// Units that a move of another has made look again; empty between steps.
    woken: Vec<UnitName>,
    deadlines: BTreeSet<(u64, UnitName, RunId, Timer)>,
    /// Who may use which GPU.
    arbiter: arbiter::Arbiter,
    next_run: u64,
    next_op: u64,
}

impl Core {
    /// From what the journal holds. Live runs come back as `unknown`; a [`Act::Look`] for each is in the effects.
    pub fn restore(saved: Vec<Saved>, ops: Vec<Operation>, next_run: u64, next_op: u64) -> (Self, Effects) {
        let mut core = Self { next_run, next_op, ..Self::default() };
        let mut fx = Effects::default();
        for one in saved {
            let unit = Unit::restored(one);
            if let Some(run) = unit.life.run() {
                fx.acts.push(Act::Look { unit: unit.name.clone(), run });
            }
            fx.touched.insert(unit.name.clone());
            core.index_needs(&unit.name, &[], &unit.policy.needs);
            core.units.insert(unit.name.clone(), unit);
        }
        let on_trial: BTreeSet<UnitName> = core
            .units
            .values()
            .filter(|unit| unit.last_saved.as_ref().is_some_and(|s| s.on_trial))
            .map(|u| u.name.clone())
            .collect();
        for mut op in ops {
            let running = op.outcome == OpOutcome::Running;
            let Some(unit) = core.units.get_mut(&op.name) else {
                if running {
                    fx.records.push(Record::Op(Operation { outcome: OpOutcome::Interrupted, ..op }));
                }
                continue;
            };
            if running && on_trial.contains(&op.name) && unit.resume(&op) {
                continue;
            }
            if running {
                op.outcome = OpOutcome::Interrupted;
                fx.records.push(Record::Op(op.clone()));
            }
            unit.remember(op);
        }
        (core, fx)
    }

    /// One step: what has happened, and what follows from it.
    pub fn step(&mut self, now: Now, event: Event) -> Effects {
        let mut fx = Effects::default();
        match event {
            Event::Ask(ticket, ask) => self.on_ask(now, ticket, ask, &mut fx),
            Event::Fact(fact) => self.on_fact(now, fact, &mut fx),
            Event::Cancel(ticket, op) => self.cancel(now, ticket, op, &mut fx),
            Event::AskGpu(ticket, ask) => self.on_gpu_ask(now, ticket, ask, &mut fx),
            Event::Gpu(fact) => self.on_gpu_fact(now, fact, &mut fx),
            Event::Deadline => self.on_deadline(now, &mut fx),
        }
        self.settle(now, &mut fx);
        fx
    }

    /// When `Event::Deadline` is next due, on the clock of [`Now::boot_ms`].
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|d| d.0).into_iter().chain(self.arbiter.next_deadline()).min()
    }

    /// Takes over the leases of an earlier daemon. `rebooted`: the machine was started since.
    pub fn restore_gpus(
        &mut self,
        now: Now,
        book: arbiter::Book,
        leases: Vec<arbiter::Lease>,
        rebooted: bool,
        fx: &mut Effects,
    ) {
        let (arbiter, outcome) = arbiter::Arbiter::restore(book, leases, rebooted);
        self.arbiter = arbiter;
        self.absorb(now, outcome, fx);
        let idle = |unit: &UnitName| self.units.get(unit).is_none_or(|unit| unit.life.run().is_none());
        let over: Vec<UnitName> =
            self.arbiter.leases().filter_map(|lease| lease.unit().filter(|unit| idle(unit)).cloned()).collect();
        for unit in over {
            self.gpu_gone(now, &unit, true, fx);
        }
    }

    /// Who may use which GPU.
    pub fn arbiter(&self) -> &arbiter::Arbiter {
        &self.arbiter
    }

    /// How many deadlines are under way: a few for each unit, however often they are moved.
    pub fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// The last run and the last operation number that were handed out.
    pub fn counters(&self) -> (u64, u64) {
        (self.next_run, self.next_op)
    }

    /// A unit by name.
    pub fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.units.get(name)
    }

    /// All units, in order of their names.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.units.values()
    }

    /// Brings every touched unit's operation forward until nothing moves, then records what changed.
    fn settle(&mut self, now: Now, fx: &mut Effects) {
        // Each pass either ends a step, answers an ask, or is the last: bounded by what waits.
        let mut todo: Vec<UnitName> = fx.touched.iter().rev().cloned().collect();
        while let Some(name) = todo.pop() {
            fx.touched.insert(name.clone());
            while self.advance(now, &name, fx) {}
            self.leave_queue(now, &name, fx);
            if let Some(unit) = self.units.get_mut(&name) {
                let phase = unit.phase();
                if unit.told != phase {
                    let why = unit.last_error.clone().unwrap_or_default();
                    let (run, from) = (unit.life.run(), unit.told);
                    fx.notices.push(Notice::Phase { unit: name.clone(), run, from, to: phase, why });
                    unit.told = phase;
                }
                let shown = unit.to_others();
                if unit.shown != shown {
                    unit.shown = shown;
                    self.wake_neighbours(&name);
                }
            }
            todo.append(&mut self.woken);
        }
        for name in &fx.touched {
            let Some(unit) = self.units.get_mut(name) else { continue };
            let saved = unit.saved();
            if unit.last_saved.as_deref() != Some(&saved) {
                unit.last_saved = Some(Arc::new(saved.clone()));
                fx.records.push(Record::Unit(Box::new(saved)));
            }
        }
    }

    fn new_run(&mut self) -> RunId {
        self.next_run += 1;
        RunId(self.next_run)
    }

    fn new_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    /// One deadline of each kind for each unit: a later word moves it.
    fn schedule(&mut self, at: u64, name: &UnitName, run: RunId, timer: Timer) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Some((old, of)) = unit.timers[timer as usize].replace((at, run)) {
            self.deadlines.remove(&(old, name.clone(), of, timer));
        }
        self.deadlines.insert((at, name.clone(), run, timer));
    }

    /// The unit that has, or will have, one of these ports while `name` wants it.
    fn port_rival(&self, name: &UnitName) -> Option<(String, u16, UnitName)> {
        let unit = self.units.get(name)?;
        for (port_name, number) in unit.fixed_ports() {
            let rival = self.units.values().find(|other| {
                other.name != *name && other.is_up_or_wanted() && other.fixed_ports().any(|(_, n)| n == number)
            });
            if let Some(rival) = rival {
                return Some((port_name.to_owned(), number, rival.name.clone()));
            }
        }
        None
    }

    /// The rules that hold after every step. A text names the first that is broken.
    pub fn check(&self) -> Result<(), String> {
        let mut runs = BTreeMap::new();
        for unit in self.units.values() {
            if let Some(run) = unit.life.run() {
                if run.0 > self.next_run {
                    return Err(format!("{}: run {run} was never handed out", unit.name));
                }
                if let Some(other) = runs.insert(run, &unit.name) {
                    return Err(format!("run {run} belongs to {other} and to {}", unit.name));
                }
            }
            let live = unit.life.run().is_some() && !matches!(unit.life, Life::Unknown { .. });
            let leased = self.arbiter.of_unit(&unit.name).is_some_and(|lease| lease.state.is_charged());
            if leased && unit.life.run().is_none() {
                return Err(format!("{}: has a lease, and does not run", unit.name));
            }
            if live && unit.leased && !leased {
                return Err(format!("{}: runs without its lease", unit.name));
            }
            unit.check().map_err(|e| format!("{}: {e}", unit.name))?;
            let runs = matches!(unit.life, Life::Starting { .. } | Life::Up { .. });
            if runs && unit.op.is_none() && !unit.is_wanted() && !self.has_live_dependents(&unit.name) {
                return Err(format!("{}: it runs and nobody wants it", unit.name));
            }
            if let (Life::Waiting { reason }, None, needs::Needs::Met) =
                (&unit.life, &unit.op, self.needs_of(&unit.name))
                && unit.is_wanted()
                && !unit.held
                && !self.arbiter.of_unit(&unit.name).is_some_and(arbiter::Lease::waits)
            {
                return Err(format!("{}: waits for what is there: {}", unit.name, reason.message));
            }
            if unit.retry_at_ms().is_some() {
                let timer = Timer::Retry;
                let awaited = unit.timers[timer as usize]
                    .is_some_and(|(at, run)| self.deadlines.contains(&(at, unit.name.clone(), run, timer)));
                if !awaited {
                    return Err(format!("{}: waits for a retry that nothing will bring", unit.name));
                }
            }
        }
        self.arbiter.check()
    }
}

/// Says that a unit is busy with something that must end first.
fn busy(unit: &Unit, op: &Op) -> Failure {
    Failure::new(ErrorKind::Conflict, format!("{} is busy: {} (operation {})", unit.name, op.kind, op.id))
        .hint(format!("wait for it to end: wharf status {}", unit.name))
        .about(&unit.name)
}
