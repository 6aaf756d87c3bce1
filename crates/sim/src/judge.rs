//! Whoever looks on: what must hold after every step, by what can be seen from outside the core.
//!
//! It keeps its own account of phases, deaths and callers, and refuses to trust the core's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wharf_core::{Act, Cause, Core, Effects, Event, Fact, Life, Notice, Record, Ticket, Unit};
use wharf_model::{Installed, OpId, OpKind, OpOutcome, Phase, Policy, RunId, UnitName};

use crate::{
    account::Account,
    counts::Counts,
    journal::Journal,
    machine::Machine,
    told::rival,
    world::{Broken, broken},
};

/// Above so many units, what concerns all of them is looked at now and then only.
pub(crate) const FEW: usize = 40;
/// How often, in steps.
const NOW_AND_THEN: u64 = 128;
/// Deadlines of one unit that may be under way at once.
const DEADLINES_EACH: usize = 8;
/// Ended operations that a unit may remember.
const OPS_EACH: usize = 32;

/// A unit as it was after the last step.
#[derive(Debug, Clone)]
pub(crate) struct Shadow {
    phase: Phase,
    run: Option<RunId>,
    serves: bool,
    /// It was starting or up.
    pub(crate) goes: bool,
    policy: Arc<Policy>,
}

impl Shadow {
    fn of(unit: &Unit) -> Self {
        Self {
            phase: unit.phase(),
            run: unit.life.run(),
            serves: unit.serves(),
            goes: matches!(unit.life, Life::Starting { .. } | Life::Up { .. }),
            policy: unit.policy.clone(),
        }
    }
}

/// What the next step must bring.
#[derive(Debug, Default)]
struct Expected {
    /// The last process of this run has ended.
    end: Option<(UnitName, RunId)>,
    /// A unit can end by its own doing in this step; none: any can.
    own: Option<UnitName>,
    /// No unit can.
    asked: bool,
    /// The port that this unit asks for belongs to another.
    rival: Option<(UnitName, UnitName)>,
}

/// The account that is kept.
#[derive(Debug, Default)]
pub struct Judge {
    pub(crate) shadows: BTreeMap<UnitName, Shadow>,
    required_by: BTreeMap<UnitName, BTreeSet<UnitName>>,
    /// Callers that were not answered yet, and for which unit.
    pub asked: BTreeMap<Ticket, UnitName>,
    /// Callers whose answer waits for its commit.
    pub untold: BTreeMap<Ticket, UnitName>,
    /// Callers whose daemon died.
    pub lost: BTreeMap<Ticket, UnitName>,
    pub(crate) account: Account,
    /// Of operations that change the version: the one that must be there again if they fail.
    pub(crate) before: BTreeMap<OpId, Installed>,
    expected: Expected,
    steps: u64,
    /// Everything is looked at after every step, however much there is.
    pub thorough: bool,
    /// Nothing is looked at: for who measures the core alone.
    pub blind: bool,
}

impl Judge {
    /// What is going to happen.
    pub fn before(&mut self, core: &Core, machine: &Machine, event: &Event) {
        self.expected = Expected::default();
        match event {
            Event::Ask(ticket, ask) => {
                self.asked.insert(*ticket, ask.unit.clone());
                self.expected.asked = true;
                self.forgive(core, &ask.unit);
                self.expected.rival = rival(core, machine, ask);
            }
            Event::Fact(Fact::Exited { unit, run, empty: true, .. } | Fact::Emptied { unit, run }) => {
                self.expected.own = Some(unit.clone());
                if self.shadows.get(unit).is_some_and(|shadow| shadow.run == Some(*run)) {
                    self.expected.end = Some((unit.clone(), *run));
                }
            }
            Event::Fact(Fact::Due { unit } | Fact::Used { unit }) => self.forgive(core, unit),
            Event::Cancel(ticket, op) => {
                let unit = core.units().find(|unit| unit.busy_with().is_some_and(|(busy, _)| busy == *op));
                let name = unit.map_or_else(|| crate::crowd::name(0), |unit| unit.name.clone());
                self.asked.insert(*ticket, name.clone());
                self.expected.asked = true;
                self.forgive(core, &name);
            }
            Event::Fact(_) | Event::AskGpu(..) | Event::Gpu(_) | Event::Deadline => {}
        }
    }

    /// Somebody looked at it: its deaths are forgiven, and those of what it needs.
    fn forgive(&mut self, core: &Core, name: &UnitName) {
        let mut todo = vec![name.clone()];
        let mut known = BTreeSet::new();
        while let Some(name) = todo.pop() {
            if known.insert(name.clone()) {
                self.account.forgive(&name);
                todo.extend(core.unit(&name).into_iter().flat_map(|u| u.policy.required().cloned()));
            }
        }
    }

    /// What has happened.
    pub fn after(&mut self, core: &Core, machine: &Machine, fx: &Effects, counts: &mut Counts) -> Result<(), Broken> {
        self.steps += 1;
        self.answers(core, machine, fx, counts)?;
        self.notices(machine, fx)?;
        self.records(core, fx, counts)?;
        for act in &fx.acts {
            if let Act::Launch { unit, run } = act {
                self.launch(core, fx, unit, *run)?;
            } else if let Act::Terminate { unit, .. } = act {
                self.terminate(core, unit)?;
            }
        }
        for name in &fx.touched {
            self.unit(core, name, counts)?;
        }
        let few = self.thorough || self.shadows.len() <= FEW;
        if few || self.steps.is_multiple_of(NOW_AND_THEN) {
            core.check().or_else(|why| broken("check", why))?;
        }
        if self.thorough || self.steps.is_multiple_of(if few { 16 } else { 1024 }) {
            self.all(core, machine)?;
        }
        Ok(())
    }

    fn records(&mut self, core: &Core, fx: &Effects, counts: &mut Counts) -> Result<(), Broken> {
        for record in &fx.records {
            let Record::Op(op) = record else { continue };
            // Who waited may have changed it again in the same step.
            if !fx.records.iter().any(|r| crate::told::is_next(r, op)) {
                self.way_back(core, op, counts)?;
            }
            let waits = core.unit(&op.name).is_some_and(|u| matches!(u.life, Life::Waiting { .. }));
            if waits && (matches!(op.kind, OpKind::Start | OpKind::Restart) || op.kind.changes_version()) {
                // Its caller was told what it waits for; that it is wanted stays.
                self.account.invited(&op.name);
            }
            if op.outcome != OpOutcome::Running {
                continue;
            }
            counts.op(op.kind);
            self.forgive(core, &op.name);
            if let (OpKind::Start | OpKind::Restart, Some((_, other))) =
                (op.kind, self.expected.rival.as_ref().filter(|(name, _)| *name == op.name))
            {
                return broken("ports", format!("{} is started on a port of {other}", op.name));
            }
        }
        if let Some((unit, run)) = &self.expected.end {
            let told = |n: &Notice| matches!(n, Notice::Ended { unit: u, run: r, .. } if u == unit && r == run);
            if !fx.notices.iter().any(told) {
                return broken("ends", format!("{unit}: the end of run {run} is not told"));
            }
        }
        Ok(())
    }

    /// Recorded first, beside nothing, and with what it needs.
    fn launch(&mut self, core: &Core, fx: &Effects, name: &UnitName, run: RunId) -> Result<(), Broken> {
        let known = |r: &Record| matches!(r, Record::Unit(s) if s.name == *name && s.run == Some(run));
        if !fx.records.iter().any(known) {
            return broken("recorded", format!("{name}: run {run} is launched and not recorded"));
        }
        let before = self.shadows.get(name).and_then(|shadow| shadow.run);
        let over = |old| fx.notices.iter().any(|n| matches!(n, Notice::Ended { run, .. } if *run == old));
        let never = |old| fx.acts.iter().any(|a| matches!(a, Act::Forget { run, .. } if *run == old));
        if let Some(old) = before.filter(|old| !over(*old) && !never(*old)) {
            return broken("one instance", format!("{name}: run {run} is launched beside run {old}"));
        }
        let Some(unit) = core.unit(name) else {
            return broken("launch", format!("{name} is launched and not there"));
        };
        if unit.busy_with().is_some() {
            self.account.invited(name);
        }
        // Launched by its old habits, it can get new ones in the same step, by an ask that waited.
        let before = self.shadows.get(name).map(|shadow| shadow.policy.clone());
        let needed = |need: &&UnitName| before.as_ref().is_none_or(|b| b.required().any(|n| n == *need));
        for need in unit.policy.required().filter(needed) {
            let was = self.shadows.get(need).is_some_and(|shadow| shadow.serves);
            let is = core.unit(need).is_some_and(Unit::serves);
            if !was && !is {
                return broken("needs", format!("{name} is launched and {need} is not ready"));
            }
        }
        Ok(())
    }

    /// By request, nothing is stopped under what cannot do without it.
    fn terminate(&self, core: &Core, name: &UnitName) -> Result<(), Broken> {
        let (Some(unit), Some(before)) = (core.unit(name), self.shadows.get(name)) else { return Ok(()) };
        let Life::Stopping { cause, .. } = &unit.life else { return Ok(()) };
        let by_request = match cause {
            Cause::Asked => unit.busy_with().is_some_and(|(_, kind)| matches!(kind, OpKind::Stop | OpKind::Delete)),
            Cause::Need { .. } | Cause::Idle | Cause::Evicted { .. } => true,
            Cause::Done | Cause::Death { .. } | Cause::Final { .. } => false,
        };
        // Sickness and death come first, and a stop that waits joins them.
        let own = !self.expected.asked && self.expected.own.as_ref().is_none_or(|own| own == name);
        if !by_request || !before.goes || own {
            return Ok(());
        }
        for by in self.required_by.get(name).into_iter().flatten() {
            let lived = self.shadows.get(by).and_then(|shadow| shadow.run);
            let lives = |u: &Unit| u.life.run() == lived && u.policy.required().any(|n| n == name);
            let lives = core.unit(by).is_some_and(lives);
            if lived.is_some() && lives {
                return broken("needs", format!("{name} is stopped while {by} lives, which needs it"));
            }
        }
        Ok(())
    }

    fn notices(&mut self, machine: &Machine, fx: &Effects) -> Result<(), Broken> {
        let now = machine.now.boot_ms;
        for notice in &fx.notices {
            match notice {
                Notice::Phase { unit, from, to, .. } => {
                    let was = self.shadows.get(unit).map_or(Phase::NotInstalled, |shadow| shadow.phase);
                    if was != *from || from == to {
                        return broken("notices", format!("{unit}: {from} -> {to} is told, it was {was}"));
                    }
                    if let Some(shadow) = self.shadows.get_mut(unit) {
                        shadow.phase = *to;
                        self.account.phase(unit, *to, now, &shadow.policy);
                    } else {
                        let blank = Shadow::of(&Unit::blank(unit.clone(), None));
                        self.shadows.insert(unit.clone(), Shadow { phase: *to, ..blank });
                    }
                }
                Notice::Ended { unit, reason, exit, .. } => {
                    if let Some(shadow) = self.shadows.get(unit) {
                        self.account.ended(unit, (*reason, exit), now, &shadow.policy);
                    }
                }
                Notice::Skipped { .. } | Notice::Retry { .. } => {}
            }
        }
        Ok(())
    }

    /// A unit that the step has touched is what was told of it.
    fn unit(&mut self, core: &Core, name: &UnitName, counts: &mut Counts) -> Result<(), Broken> {
        let told = self.shadows.get(name).map_or(Phase::NotInstalled, |shadow| shadow.phase);
        let Some(unit) = core.unit(name) else {
            if told != Phase::NotInstalled {
                return broken("notices", format!("{name} is gone, and was last told to be {told}"));
            }
            self.shadows.remove(name);
            self.index(name, None);
            return Ok(());
        };
        if told != unit.phase() {
            return broken("notices", format!("{name} is {}, and was last told to be {told}", unit.phase()));
        }
        if unit.ops.len() > OPS_EACH {
            return broken("bounds", format!("{name} remembers {} operations", unit.ops.len()));
        }
        let asked = unit
            .busy_with()
            .is_some_and(|(_, kind)| matches!(kind, OpKind::Start | OpKind::Restart) || kind.changes_version());
        if asked && matches!(unit.life, Life::Waiting { .. }) {
            // Whatever becomes of the operation, that it is wanted stays.
            self.account.invited(name);
        }
        counts.phase(unit);
        if unit.on_trial {
            counts.saw(crate::counts::Seen::OnTrial);
        }
        self.index(name, Some(&unit.policy));
        self.shadows.insert(name.clone(), Shadow::of(unit));
        Ok(())
    }

    fn index(&mut self, name: &UnitName, now: Option<&Arc<Policy>>) {
        let before = self.shadows.get(name).map(|shadow| shadow.policy.clone());
        if let (Some(before), Some(now)) = (&before, now)
            && Arc::ptr_eq(before, now)
        {
            return;
        }
        for need in before.iter().flat_map(|p| p.required()) {
            if let Some(by) = self.required_by.get_mut(need) {
                by.remove(name);
            }
        }
        for need in now.into_iter().flat_map(|p| p.required()) {
            self.required_by.entry(need.clone()).or_default().insert(name.clone());
        }
    }

    /// Units that no step has touched have not changed; every process is somebody's.
    fn all(&self, core: &Core, machine: &Machine) -> Result<(), Broken> {
        for unit in core.units() {
            let Some(shadow) = self.shadows.get(&unit.name) else {
                return broken("touched", format!("{} is there and was never touched", unit.name));
            };
            if (shadow.phase, shadow.run) != (unit.phase(), unit.life.run()) {
                return broken("touched", format!("{} has changed and was not touched", unit.name));
            }
        }
        let deadlines = core.deadlines();
        if deadlines > self.shadows.len() * DEADLINES_EACH {
            return broken("bounds", format!("{deadlines} deadlines of {} units", self.shadows.len()));
        }
        for (run, body) in machine.bodies.iter().filter(|(_, body)| body.lives() && body.watcher.is_some()) {
            if core.unit(&body.unit).and_then(|u| u.life.run()) != Some(*run) && !body.killed {
                return broken("strangers", format!("run {run} of {} lives and is nobody's", body.unit));
            }
        }
        Ok(())
    }

    /// A run's processes are made.
    pub fn made(&mut self, name: &UnitName, unit: &Unit, now: u64) -> Result<(), Broken> {
        self.account.made(name, unit, now)
    }

    /// The daemon's callers have nobody to answer them any more.
    pub fn daemon_died(&mut self) {
        self.lost.append(&mut self.asked);
        self.lost.append(&mut self.untold);
        self.expected = Expected::default();
    }

    /// The machine was started anew.
    pub fn rebooted(&mut self) {
        self.account = Account::default();
    }

    /// The database is not what it was.
    pub fn other_database(&mut self) {
        self.account = Account::default();
    }

    /// A new daemon knows what was recorded, and only that.
    pub fn restored(&mut self, core: &Core, journal: &Journal) -> Result<(), Broken> {
        self.shadows = core.units().map(|unit| (unit.name.clone(), Shadow::of(unit))).collect();
        self.required_by.clear();
        for unit in core.units() {
            for need in unit.policy.required() {
                self.required_by.entry(need.clone()).or_default().insert(unit.name.clone());
            }
        }
        for (name, was) in &journal.units {
            let Some(unit) = core.unit(name) else {
                return broken("restored", format!("{name} is recorded and not restored"));
            };
            let is = unit.saved();
            let newer = is.run > Some(RunId(journal.counters.0));
            let same = is.want == was.want && is.installed == was.installed && is.policy == was.policy;
            if !newer && (!same || is.run.is_none() && was.run.is_some()) {
                return broken("restored", format!("{name} is recorded as {was:?} and restored as {is:?}"));
            }
        }
        Ok(())
    }
}
