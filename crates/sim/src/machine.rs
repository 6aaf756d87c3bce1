//! The machine below the daemon: clocks, processes, run folders, ports. It outlives every daemon.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::{FoundRun, Now, Saved};
use wharf_model::{Exit, RunId, UnitName};

use crate::cards::Cards;

/// A run as the kernel and its folder know it.
#[derive(Debug, Clone)]
pub struct Body {
    /// Whose it is.
    pub unit: UnitName,
    /// Its main process lives.
    pub main: bool,
    /// Other processes of it that live.
    pub helpers: u8,
    /// The shim lives, or ended after it had written its record.
    pub shim: bool,
    /// It does not listen to polite signals.
    pub stubborn: bool,
    /// It does not listen to SIGKILL either.
    pub stuck: bool,
    /// SIGKILL was sent.
    pub killed: bool,
    /// It was asked to end.
    pub asked: bool,
    /// How the main process ended, as only the world knows.
    pub exit: Option<Exit>,
    /// The shim wrote that down.
    pub recorded: bool,
    /// Between which starts of the machine it lived.
    pub boot: u32,
    /// The unit as it was when the run began, in its folder.
    pub beside: Option<Saved>,
    /// Its ports.
    pub ports: BTreeMap<String, u16>,
    /// The daemon that watches it.
    pub watcher: Option<u32>,
    /// Its end was told to the world so often.
    pub obituaries: u32,
}

impl Body {
    /// Something of it lives.
    pub fn lives(&self) -> bool {
        self.main || self.helpers > 0
    }

    /// How it ended as far as anybody can know now.
    pub fn known_exit(&self) -> Exit {
        match (&self.exit, self.recorded) {
            (Some(exit), true) => exit.clone(),
            (Some(_) | None, _) => Exit::Unknown,
        }
    }
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Its clocks.
    pub now: Now,
    /// How often it was started.
    pub boot: u32,
    /// Runs that have a folder.
    pub bodies: BTreeMap<RunId, Body>,
    /// Of each unit: its runs that have a folder.
    runs: BTreeMap<UnitName, BTreeSet<RunId>>,
    /// Ports that strangers hold.
    pub strangers: BTreeSet<u16>,
    /// Who held a port last.
    holders: BTreeMap<u16, RunId>,
    /// The highest run that ever had a log.
    pub newest_log: u64,
    /// Its GPUs.
    pub cards: Cards,
}

impl Machine {
    /// The newest run of a unit that has a folder.
    pub fn newest(&self, unit: &UnitName) -> Option<RunId> {
        self.runs.get(unit)?.last().copied()
    }

    /// The newest run of a unit of which something lives.
    pub fn live(&self, unit: &UnitName) -> Option<RunId> {
        self.all_live(unit).last()
    }

    /// Every run of a unit of which something lives.
    pub fn all_live<'a>(&'a self, unit: &'a UnitName) -> impl Iterator<Item = RunId> + 'a {
        let runs = self.runs.get(unit).into_iter().flatten();
        runs.filter(|run| self.bodies.get(run).is_some_and(Body::lives)).copied()
    }

    /// Somebody holds this port.
    pub fn is_taken(&self, port: u16) -> bool {
        let held = || self.holders.get(&port).and_then(|run| self.bodies.get(run)).is_some_and(Body::lives);
        self.strangers.contains(&port) || held()
    }

    /// A run is made.
    pub fn make(&mut self, run: RunId, body: Body) {
        self.newest_log = self.newest_log.max(run.0);
        self.runs.entry(body.unit.clone()).or_default().insert(run);
        self.holders.extend(body.ports.values().map(|port| (*port, run)));
        self.bodies.insert(run, body);
    }

    /// Its folder goes.
    pub fn forget(&mut self, run: RunId) {
        let Some(body) = self.bodies.remove(&run) else { return };
        if let Some(runs) = self.runs.get_mut(&body.unit) {
            runs.remove(&run);
        }
    }

    /// What a look at a run shows.
    pub fn look(&self, run: RunId) -> FoundRun {
        match self.bodies.get(&run) {
            None => FoundRun::NeverStarted,
            Some(body) if body.main => FoundRun::Alive { pid: pid(run) },
            Some(body) if body.lives() => FoundRun::Draining { exit: body.known_exit() },
            Some(body) if body.boot != self.boot && !body.recorded => FoundRun::Ended { exit: Exit::HostRebooted },
            Some(body) => FoundRun::Ended { exit: body.known_exit() },
        }
    }

    /// The machine is started anew: nothing lives, the boot clock begins again.
    pub fn reboot(&mut self) {
        self.boot += 1;
        self.now.boot_ms = 5_000;
        self.now.wall_ms = self.now.wall_ms.saturating_add(60_000);
        for body in self.bodies.values_mut() {
            (body.main, body.helpers, body.watcher) = (false, 0, None);
        }
        self.strangers.clear();
        self.cards.clear();
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.now.boot_ms += ms;
        self.now.wall_ms = self.now.wall_ms.saturating_add(ms as i64);
    }
}

/// The number of a run's main process.
pub fn pid(run: RunId) -> i32 {
    1000 + (run.0 % 30_000) as i32
}
