//! The end of a daemon and the beginning of the next: what is left, what is looked at, what is adopted.
//!
//! It does what the engine's `start` and `boot` do, in the same order.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::{Act, Core, Effects, Fact, FoundRun, Record, Saved};
use wharf_model::{Operation, Phase, RunId, UnitName};

use crate::{
    chance::mixed,
    counts::Seen,
    daemon::Daemon,
    deed::How,
    journal::Journal,
    world::{Broken, World},
};

impl World {
    /// The daemon dies after so many more effects.
    pub(crate) fn crash(&mut self, after: u32, salt: u32) -> Result<(), Broken> {
        if let Some(daemon) = &mut self.daemon {
            daemon.fuse = Some((after, salt));
        }
        Ok(())
    }

    /// The daemon dies. What it was just starting is made all the same, or never.
    pub(crate) fn die(&mut self, salt: u32) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let launches = std::mem::take(&mut daemon.tasks);
        let made_alone: Vec<_> = launches
            .into_values()
            .filter_map(|(_, act)| match act {
                Act::Launch { unit, run } => Some((unit, run)),
                Act::Place { .. }
                | Act::Abandon { .. }
                | Act::Probe { .. }
                | Act::Terminate { .. }
                | Act::Kill { .. }
                | Act::Look { .. }
                | Act::PostStart { .. }
                | Act::Change { .. }
                | Act::Forget { .. }
                | Act::Remove { .. } => None,
            })
            .filter(|(_, run)| !daemon.cancelled.contains(run) && mixed(run.0 ^ u64::from(salt)).is_multiple_of(2))
            .collect();
        self.daemon = Some(daemon);
        for (unit, run) in made_alone {
            // What would break a rule here was told when the act began.
            let made = self.make(&unit, run, &How::Well);
            if let (Ok(Ok(_)), Some(body), true) =
                (&made, self.machine.bodies.get_mut(&run), mixed(run.0 + u64::from(salt)).is_multiple_of(2))
            {
                body.beside = None;
            }
        }
        self.daemon = None;
        for body in self.machine.bodies.values_mut() {
            body.watcher = None;
        }
        self.judge.daemon_died();
    }

    /// A daemon is started: it reads what was recorded, and looks at every run.
    pub(crate) fn boot(&mut self) -> Result<(), Broken> {
        if self.daemon.is_some() {
            return Ok(());
        }
        self.daemons += 1;
        let mut units = self.journal.units.clone();
        let recovered = self.recover(&mut units);
        let newest_dir = self.machine.bodies.keys().last().map_or(0, |run| run.0);
        let next_run = self.journal.counters.0.max(newest_dir).max(self.machine.newest_log);
        let (mut core, mut first) =
            Core::restore(units.into_values().collect(), ops(&self.journal), next_run, self.journal.counters.1);
        let rebooted = std::mem::replace(&mut self.journal.boot, self.machine.boot) != self.machine.boot;
        let leases = self.journal.leases.values().cloned().collect();
        core.restore_gpus(self.machine.now, self.journal.book.clone(), leases, rebooted, &mut first);
        self.judge.restored(&core, &self.journal)?;
        first.acts.iter().for_each(|act| self.counts.act(act));
        let looks: Vec<_> = first.acts.into_iter().filter_map(looked_at).collect();
        let known: BTreeSet<RunId> = looks.iter().map(|(_, run)| *run).collect();
        let strangers = self.machine.bodies.iter().filter(|(run, _)| !known.contains(run));
        let strangers = strangers.map(|(run, body)| (body.unit.clone(), *run)).collect();
        self.daemon = Some(Daemon { life: self.daemons, core, looks: looks.into(), strangers, ..Daemon::default() });
        if let Some(daemon) = &mut self.daemon {
            // Restoring only writes down what was broken off. The looks begin below, one after another.
            let records = first.records.into_iter().chain(recovered).collect();
            daemon.held.push(Effects { records, gpu_acts: first.gpu_acts, ..Effects::default() });
        }
        self.flush()
    }

    /// Units of runs that are newer than the database: as they stand beside their newest run.
    fn recover(&mut self, units: &mut BTreeMap<UnitName, Saved>) -> Vec<Record> {
        let mut recovered = BTreeMap::new();
        for (run, body) in self.machine.bodies.iter().rev() {
            // A run is recorded before it is made: what the database handed out, it knows of.
            if run.0 <= self.journal.counters.0 || recovered.contains_key(&body.unit) {
                continue;
            }
            // Made in the instant before its daemon died, it has nothing beside it but its number.
            let known = || units.get(&body.unit).map(|known| Saved { phase: Phase::Starting, ..known.clone() });
            if let Some(newer) = body.beside.clone().or_else(known) {
                self.counts.saw(Seen::Recovered);
                let saved = Saved { run: Some(*run), ..newer };
                units.insert(body.unit.clone(), saved.clone());
                recovered.insert(body.unit.clone(), Record::Unit(Box::new(saved)));
            }
        }
        recovered.into_values().collect()
    }

    /// The next recorded run is looked at; after the last, what stands in no record is ended.
    pub(crate) fn look(&mut self) -> Result<(), Broken> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if let Some((unit, run)) = daemon.looks.pop_front() {
            let found = self.machine.look(run);
            if let (FoundRun::Alive { .. } | FoundRun::Draining { .. }, Some(body)) =
                (&found, self.machine.bodies.get_mut(&run))
            {
                body.watcher = Some(daemon.life);
            }
            daemon.mail.push_back(Fact::Found { unit, run, found });
        } else if let Some((_, run)) = daemon.strangers.pop_front() {
            if self.machine.bodies.get(&run).is_some_and(crate::machine::Body::lives) {
                self.counts.saw(Seen::RunOfNoRecord);
            }
            self.kill(run);
            if self.machine.bodies.get(&run).is_some_and(|body| !body.lives()) {
                self.machine.forget(run);
            }
        } else if !daemon.booted && !daemon.has_findings() {
            daemon.booted = true;
            return self.fact(Fact::Booted);
        }
        Ok(())
    }
}

fn looked_at(act: Act) -> Option<(UnitName, RunId)> {
    match act {
        Act::Look { unit, run } => Some((unit, run)),
        Act::Place { .. }
        | Act::Abandon { .. }
        | Act::Launch { .. }
        | Act::Probe { .. }
        | Act::Terminate { .. }
        | Act::Kill { .. }
        | Act::PostStart { .. }
        | Act::Change { .. }
        | Act::Forget { .. }
        | Act::Remove { .. } => None,
    }
}

/// Operations of all units, oldest first.
fn ops(journal: &Journal) -> Vec<Operation> {
    let mut ops: Vec<Operation> = journal.ops.values().flatten().cloned().collect();
    ops.sort_by_key(|op| op.id);
    ops
}
