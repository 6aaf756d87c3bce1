//! What callers and listeners are told: each caller once and truly, each end of a run once and exactly.

use std::collections::BTreeSet;

use wharf_core::{Ask, Core, Declared, Effects, Goal, Life, Notice, Record, Unit};
use wharf_model::{Exit, OpKind, OpOutcome, Operation, Phase, RunId, UnitName};

use crate::{
    counts::{Counts, Seen},
    judge::{FEW, Judge},
    machine::Machine,
    world::{Broken, World, broken},
};

impl Judge {
    pub(crate) fn answers(
        &mut self,
        core: &Core,
        machine: &Machine,
        fx: &Effects,
        counts: &mut Counts,
    ) -> Result<(), Broken> {
        for answer in &fx.answers {
            let Some(name) = self.asked.remove(&answer.ticket) else {
                return broken("answers", format!("ticket {} is answered twice", answer.ticket.0));
            };
            self.untold.insert(answer.ticket, name.clone());
            let Ok(op) = &answer.result else {
                let ring = answer.result.as_ref().is_err_and(|failure| failure.message.contains("in a ring"));
                if ring {
                    counts.saw(Seen::RingRefused);
                }
                continue;
            };
            if op.outcome != OpOutcome::Done {
                continue;
            }
            let unit = core.unit(&name);
            let honest = match op.kind {
                OpKind::Stop | OpKind::Delete => {
                    machine.all_live(&name).all(|run| unit.is_none_or(|u| u.life.run() != Some(run)))
                }
                OpKind::Start | OpKind::Restart | OpKind::Deploy => unit.is_some_and(|u| {
                    // A job can be done, and the next who waits be served, in one step.
                    let ended = |n: &Notice| matches!(n, Notice::Ended { unit, .. } if *unit == name);
                    let ready =
                        |n: &Notice| matches!(n, Notice::Phase { unit, to: Phase::Running, .. } if *unit == name);
                    let rose =
                        fx.notices.iter().any(|n| ended(n) || ready(n)) || fx.records.iter().any(|r| is_next(r, op));
                    let rests = u.done || u.policy.schedule.is_some();
                    let was = self.shadows.get(&name).is_some_and(|shadow| shadow.goes);
                    was || matches!(u.life, Life::Up { .. }) || rests || rose
                }),
                OpKind::Install => unit.is_some_and(Unit::is_placed),
                OpKind::Build | OpKind::Upgrade | OpKind::Rollback => true,
            };
            if !honest {
                return broken("answers", format!("{} of {name} is answered as done and is not", op.kind));
            }
        }
        Ok(())
    }
}

impl Judge {
    /// An operation that changes a unit's version and fails leaves the one that was there.
    pub(crate) fn way_back(&mut self, core: &Core, op: &Operation, counts: &mut Counts) -> Result<(), Broken> {
        let unit = core.unit(&op.name);
        // A database that was lost hands numbers out again.
        let before = self.before.remove(&op.id);
        if op.outcome == OpOutcome::Running {
            let kept =
                unit.and_then(|u| if op.kind == OpKind::Rollback { u.previous.clone() } else { u.installed.clone() });
            if let Some(kept) = kept.filter(|_| op.kind.changes_version()) {
                self.before.insert(op.id, kept);
            }
            return Ok(());
        }
        let (Some(before), Some(unit)) = (before, unit) else { return Ok(()) };
        if !matches!(op.outcome, OpOutcome::Failed { .. }) {
            return Ok(());
        }
        if unit.on_trial || unit.installed.as_ref() != Some(&before) {
            let (name, kind, has) = (&op.name, op.kind, unit.installed.as_ref().map(|i| &i.version));
            return broken("upgrades", format!("{name}: {kind} has failed, {has:?} is there, not {}", before.version));
        }
        counts.saw(Seen::WentBack);
        Ok(())
    }
}

impl World {
    /// The end of a run is told: once, and as it was.
    pub(crate) fn obituary(&mut self, unit: &UnitName, run: RunId, exit: &Exit) -> Result<(), Broken> {
        let Some(body) = self.machine.bodies.get_mut(&run) else {
            return broken("invented", format!("{unit}: the end of run {run} is told, which was never made"));
        };
        body.obituaries += 1;
        let rebooted = *exit == Exit::HostRebooted && body.boot != self.machine.boot && !body.recorded;
        let exact = body.exit.as_ref() == Some(exit) || (*exit == Exit::Unknown && !body.recorded) || rebooted;
        if body.lives() || !exact || body.obituaries > 1 {
            return broken("ends", format!("{unit}: run {run} is told to have ended ({exit}), it is {body:?}"));
        }
        Ok(())
    }
}

/// Another operation on the same unit begins.
pub(crate) fn is_next(record: &Record, op: &Operation) -> bool {
    matches!(record, Record::Op(next) if next.name == op.name && next.id > op.id)
}

/// The unit that has, or is to have, a port that this ask is going to start on.
pub(crate) fn rival(core: &Core, machine: &Machine, ask: &Ask) -> Option<(UnitName, UnitName)> {
    let starts = matches!(ask.goal, Goal::Start { .. } | Goal::Restart);
    if !starts || machine.bodies.len() > FEW {
        return None;
    }
    // A restart brings new habits only where the parameters are those that it has.
    let brings = |d: &&Declared| ask.goal != Goal::Restart || core.unit(&ask.unit).is_some_and(|u| u.with == d.with);
    let wishes = match ask.declared.as_ref().filter(brings) {
        Some(declared) => declared.wishes.clone(),
        None => core.unit(&ask.unit)?.wishes.clone(),
    };
    let numbers: BTreeSet<u16> = wishes.values().copied().flatten().collect();
    let others =
        core.units().filter(|other| other.name != ask.unit && (other.is_wanted() || other.life.run().is_some()));
    let rival = others.into_iter().find(|other| other.fixed_ports().any(|(_, number)| numbers.contains(&number)))?;
    Some((ask.unit.clone(), rival.name.clone()))
}
