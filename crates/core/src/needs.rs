//! What units need of each other: whether a start may go ahead, and who is stopped before whom.
//!
//! A required need must be ready; one that nobody wants is wanted with the unit that needs it. A soft
//! need is only waited for while it is on its way. Waiting has no clock: a unit is woken when one
//! that it needs changes, since [`Core::settle`] touches the neighbours of whatever changed.

use std::collections::BTreeSet;

use wharf_model::{ErrorKind, Failure, Phase, UnitName, Want};

use crate::{Cause, Core, Effects, Life, Notice, Now};

/// Whether what a unit needs is there.
pub(crate) enum Needs {
    /// All of it.
    Met,
    /// Not yet; it is on its way.
    Coming(Failure),
    /// No, and waiting alone will not bring it.
    Missing(Failure),
}

impl Core {
    /// Whether the unit may start as far as others are concerned.
    pub(crate) fn needs_of(&self, name: &UnitName) -> Needs {
        let Some(unit) = self.units.get(name) else { return Needs::Met };
        let mut coming = None;
        for need in &unit.policy.needs {
            let other = self.units.get(&need.unit);
            match self.need(name, &need.unit, other) {
                Needs::Met => {}
                Needs::Coming(reason) => coming = coming.or(Some(reason)),
                Needs::Missing(_) if need.soft => {}
                Needs::Missing(reason) => return Needs::Missing(reason),
            }
        }
        coming.map_or(Needs::Met, Needs::Coming)
    }

    fn need(&self, name: &UnitName, need: &UnitName, other: Option<&crate::Unit>) -> Needs {
        let wait = |state: &dyn std::fmt::Display, hint: String| {
            Failure::new(ErrorKind::Precondition, format!("{name} needs {need}, which is {state}"))
                .hint(hint)
                .about(name)
        };
        let Some(other) = other.filter(|other| other.is_placed()) else {
            return Needs::Missing(wait(&Phase::NotInstalled, format!("wharf install {need}")));
        };
        if other.is_going() {
            return Needs::Coming(wait(&"being stopped", format!("wharf why {need}")));
        }
        if other.serves() {
            return Needs::Met;
        }
        let phase = other.phase();
        let see = format!("wharf why {need}");
        match &other.life {
            Life::Starting { .. } | Life::Up { .. } | Life::Backoff { .. } | Life::Unknown { .. } => {
                Needs::Coming(wait(&phase, see))
            }
            Life::Idle | Life::Stopping { .. } | Life::Waiting { .. } if other.op.is_some() => {
                Needs::Coming(wait(&phase, see))
            }
            // Nobody wants it, it is kept down, or its work is done: its operator must say so first.
            Life::Idle | Life::Stopping { .. } if !other.is_wanted() || other.held || other.rests() => {
                Needs::Missing(wait(&phase, format!("wharf start {need}")))
            }
            // Asleep, and nobody is waking it.
            Life::Idle | Life::Stopping { cause: Cause::Idle, .. } if other.want == Want::OnDemand && !other.used => {
                Needs::Missing(wait(&phase, format!("wharf start {need}")))
            }
            Life::Idle | Life::Stopping { .. } => Needs::Coming(wait(&phase, see)),
            // It has looked at its own needs, and looks again whenever one of them moves.
            Life::Waiting { reason } if other.hopeless => Needs::Missing(wait(&phase, see).cause(&reason.message)),
            Life::Waiting { .. } => Needs::Coming(wait(&phase, see)),
            Life::Blocked { reason, .. } | Life::Failed { reason, .. } => {
                Needs::Missing(wait(&phase, see).cause(&reason.message))
            }
        }
    }

    /// Wants what it needs, and what that needs. Names the unit that stands in the way.
    pub(crate) fn pull(&mut self, name: &UnitName) -> Result<(), Failure> {
        // First all are looked at: a refusal leaves nothing behind.
        let mut all: Vec<UnitName> = self.required(name);
        let mut known: BTreeSet<UnitName> = all.iter().cloned().collect();
        let mut at = 0;
        while let Some(need) = all.get(at).cloned() {
            if self.units.get(&need).is_some_and(|unit| unit.want == Want::Retired) {
                return Err(Failure::new(ErrorKind::Conflict, format!("{name} needs {need}, which is retired"))
                    .hint(format!("wharf install {need} takes it back")));
            }
            all.extend(self.required(&need).into_iter().filter(|next| known.insert(next.clone())));
            at += 1;
        }
        for need in all {
            let Some(unit) = self.units.get_mut(&need) else { continue };
            if unit.want == Want::Down && unit.is_placed() {
                unit.want = if unit.policy.on_demand.is_some() { Want::OnDemand } else { Want::Up };
            }
            unit.held = false;
            // A job that is done serves; another's work is wanted again.
            unit.done &= unit.serves();
            // What was given up is tried again for whoever needs it now, as a start by hand would do.
            if matches!(unit.life, Life::Failed { .. }) && unit.op.is_none() {
                unit.deaths.forgive();
                unit.life = Life::Idle;
            }
            unit.used |= unit.want == Want::OnDemand && unit.life == Life::Idle;
            self.woken.push(need);
        }
        Ok(())
    }

    /// A unit is about to start: what it cannot do without, and what sleeps until it is used, is used
    /// now. Not where something else is missing all the same, and not what has done its work and rests.
    pub(crate) fn use_needs(&mut self, name: &UnitName) {
        let mut asleep = vec![];
        for need in self.required(name) {
            let other = self.units.get(&need);
            let sleeps = |unit: &&crate::Unit| {
                let still = matches!(unit.life, Life::Idle | Life::Stopping { cause: Cause::Idle, .. });
                still && unit.want == Want::OnDemand && !unit.used && !unit.held && !unit.done
            };
            if other.filter(sleeps).is_some() {
                asleep.push(need);
            } else if let Needs::Missing(_) = self.need(name, &need, other) {
                return;
            }
        }
        for need in asleep {
            if let Some(unit) = self.units.get_mut(&need) {
                unit.used = true;
                self.woken.push(need);
            }
        }
    }

    fn required(&self, name: &UnitName) -> Vec<UnitName> {
        self.units.get(name).map(|u| u.policy.required().cloned().collect()).unwrap_or_default()
    }

    /// A ring of needs through this unit, were it to have these: `a -> b -> a`.
    pub(crate) fn cycle(&self, name: &UnitName, needs: &[wharf_model::Need]) -> Option<String> {
        let mut seen = BTreeSet::new();
        let mut path = vec![name.clone()];
        needs.iter().find_map(|need| self.way_back(&need.unit, name, &mut path, &mut seen))
    }

    fn way_back(
        &self,
        at: &UnitName,
        goal: &UnitName,
        path: &mut Vec<UnitName>,
        seen: &mut BTreeSet<UnitName>,
    ) -> Option<String> {
        path.push(at.clone());
        if at == goal {
            let names: Vec<&str> = path.iter().map(UnitName::as_str).collect();
            return Some(names.join(" -> "));
        }
        if seen.insert(at.clone()) {
            let needs = self.units.get(at).map(|u| u.policy.needs.clone()).unwrap_or_default();
            for need in needs {
                if let Some(ring) = self.way_back(&need.unit, goal, path, seen) {
                    return Some(ring);
                }
            }
        }
        path.pop();
        None
    }

    /// The units that name this one among their needs.
    pub(crate) fn dependents(&self, name: &UnitName) -> impl Iterator<Item = &UnitName> {
        self.dependents.get(name).into_iter().flatten()
    }

    /// Keeps the way from a unit to those that need it.
    pub(crate) fn index_needs(&mut self, name: &UnitName, before: &[wharf_model::Need], after: &[wharf_model::Need]) {
        for need in before {
            if let Some(by) = self.dependents.get_mut(&need.unit) {
                by.remove(name);
            }
        }
        for need in after {
            self.dependents.entry(need.unit.clone()).or_default().insert(name.clone());
        }
    }

    /// Has those look again that this unit's state may concern.
    pub(crate) fn wake_neighbours(&mut self, name: &UnitName) {
        let needs = self.units.get(name).into_iter().flat_map(|u| u.policy.needs.iter().map(|need| need.unit.clone()));
        let all: Vec<UnitName> = needs.chain(self.dependents(name).cloned()).collect();
        self.woken.extend(all);
    }

    /// What a caller declares, taken over into the unit.
    pub(crate) fn take_over(&mut self, name: &UnitName, declared: &crate::Declared) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let before = unit.policy.clone();
        unit.take_over(declared);
        self.index_needs(name, &before.needs, &declared.policy.needs);
        if before.needs != declared.policy.needs {
            // What it needed may be free to stop now, and what it needs must hear of it.
            self.woken.extend(before.needs.iter().chain(&declared.policy.needs).map(|need| need.unit.clone()));
        }
    }

    /// A unit that is no more. Whoever follows its phases is told.
    pub(crate) fn drop_unit(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> Option<crate::Unit> {
        self.wake_neighbours(name);
        let gone = self.units.remove(name)?;
        self.gpu_gone(now, name, true, fx);
        self.index_needs(name, &gone.policy.needs, &[]);
        self.deadlines.retain(|(_, of, ..)| of != name);
        let (from, to) = (gone.told, Phase::NotInstalled);
        if from != to {
            fx.notices.push(Notice::Phase { unit: name.clone(), run: None, from, to, why: "deleted".into() });
        }
        Some(gone)
    }

    /// One that cannot do without it has processes; or one that could is being stopped just now.
    pub(crate) fn has_live_dependents(&self, name: &UnitName) -> bool {
        self.live_dependents(name).next().is_some()
    }

    fn live_dependents(&self, name: &UnitName) -> impl Iterator<Item = &UnitName> {
        self.dependents(name).filter(move |by| {
            self.units.get(*by).is_some_and(|unit| {
                let required = unit.policy.required().any(|need| need == name);
                let going = matches!(unit.life, Life::Stopping { .. });
                unit.life.run().is_some() && (required || going)
            })
        })
    }

    /// Marks what needs it, directly or through others, to be stopped: each goes when none of its own
    /// dependents lives any more.
    pub(crate) fn stop_dependents(&mut self, name: &UnitName) {
        let mut todo: Vec<UnitName> = self.live_dependents(name).cloned().collect();
        while let Some(by) = todo.pop() {
            let Some(unit) = self.units.get_mut(&by) else { continue };
            if matches!(unit.life, Life::Starting { .. } | Life::Up { .. }) && unit.leaving.is_none() {
                unit.leaving = Some(name.clone());
                self.woken.push(by.clone());
                todo.extend(self.live_dependents(&by).cloned());
            }
        }
    }
}
