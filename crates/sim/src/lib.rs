//! The core in a world that is simulated: processes, answers that are late or bad, crashes of
//! services and of the daemon. After every step the rules of `Core::check` hold, every caller is
//! answered once, a run is recorded before it is launched, and no unit is started beside itself.
//!
//! It owns what is true in that world; it refuses to know why the core does what it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use wharf_core::*;
use wharf_model::{ErrorKind, Exit, Failure, Health, Installed, Phase, Policy, RunId, UnitName};

/// The units of the world; the last needs no install, and the first two share no port with each other.
pub const NAMES: [&str; 3] = ["a", "b", "c@x"];

/// The world as far as the core can tell: processes that live, and acts that are not answered yet.
#[derive(Default)]
pub struct World {
    /// What is tried.
    pub core: Core,
    now: u64,
    /// Runs that live.
    pub live: BTreeMap<RunId, UnitName>,
    /// Of those, the ones whose main process has ended.
    headless: BTreeSet<RunId>,
    /// Acts that are not answered yet.
    pub pending: Vec<Act>,
    /// Callers that are not answered yet.
    pub asked: BTreeSet<Ticket>,
    ops: u64,
}

/// Something that happens.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Deed {
    /// A caller asks.
    Ask { unit: usize, goal: Goal, wait: bool },
    /// Answer one pending act well (true) or badly.
    Answer { which: usize, well: bool },
    /// A main process ends by itself.
    Crash { which: usize, code: i32, leftover: bool },
    /// Time passes.
    Wait { ms: u64 },
    /// The daemon dies and a new one starts.
    Reincarnate,
}

fn declared(unit: usize) -> Declared {
    Declared {
        with: Arc::new(Value::Null),
        policy: Policy::default(),
        wishes: [("main".to_owned(), Some(7000 + (unit as u16 % 2)))].into(),
        needs_install: unit != 2,
    }
}

fn installed() -> Installed {
    let (version, digest) = ("1".to_owned(), "d".to_owned());
    Installed { version, digest, path: "/s".into(), binaries: BTreeMap::new(), source: "test".into() }
}

impl World {
    /// One step of the core, and everything that must hold after it.
    pub fn step(&mut self, event: Event) {
        let fx = self.core.step(Now { boot_ms: self.now, wall_ms: self.now as i64 }, event);
        self.core.check().unwrap();
        for answer in &fx.answers {
            assert!(self.asked.remove(&answer.ticket), "answered twice: {answer:?}");
        }
        for act in fx.acts {
            match &act {
                // An act whose run the journal does not know could be lost by a crash.
                Act::Launch { unit, run } => {
                    let known = fx
                        .records
                        .iter()
                        .any(|r| matches!(r, Record::Unit(s) if s.name == *unit && s.run == Some(*run)));
                    assert!(known, "{unit}: run {run} is launched and not recorded");
                    assert!(!self.live.values().any(|u| u == unit), "{unit} is started beside itself");
                    self.pending.push(act);
                }
                Act::Forget { run, .. } => assert!(!self.live.contains_key(run), "run {run} lives and is forgotten"),
                Act::Terminate { .. } => {}
                Act::Kill { run, .. } => {
                    if let Some(unit) = self.live.remove(run) {
                        let run = *run;
                        self.pending.retain(|a| !matches!(a, Act::Probe { run: r, .. } if *r == run));
                        let fact = Fact::Exited {
                            unit,
                            run,
                            exit: Exit::Signaled { signal: 9 },
                            empty: true,
                            last_words: vec![],
                        };
                        self.step(Event::Fact(fact));
                    }
                }
                Act::Place { .. } | Act::Probe { .. } | Act::Look { .. } | Act::Remove { .. } => self.pending.push(act),
            }
        }
    }

    /// What became of an act.
    pub fn answer(&mut self, act: Act, well: bool) {
        let bad = || Failure::new(ErrorKind::PortTaken, "taken");
        let fact = match act {
            Act::Place { unit, op, .. } => {
                let result =
                    if well { Ok(Some(installed())) } else { Err(Failure::new(ErrorKind::InstallFailed, "no")) };
                Fact::Placed { unit, op, result }
            }
            Act::Launch { unit, run } if well => {
                self.live.insert(run, unit.clone());
                Fact::Launched { unit, run, pid: 1, ports: BTreeMap::new() }
            }
            Act::Launch { unit, run } => Fact::NotLaunched { unit, run, failure: bad() },
            Act::Probe { unit, run } => {
                let health = if well { Health::healthy("ok") } else { Health::unhealthy("no") };
                Fact::Probed { unit, run, health }
            }
            Act::Look { unit, run } => {
                let found = match (self.live.contains_key(&run), self.headless.contains(&run)) {
                    (true, false) => FoundRun::Alive { pid: 1 },
                    (true, true) => FoundRun::Draining { exit: Exit::Unknown },
                    (false, _) => FoundRun::Ended { exit: Exit::Unknown },
                };
                Fact::Found { unit, run, found }
            }
            Act::Remove { unit, op, .. } => Fact::Removed { unit, op, result: if well { Ok(()) } else { Err(bad()) } },
            Act::Terminate { .. } | Act::Kill { .. } | Act::Forget { .. } => return,
        };
        self.step(Event::Fact(fact));
    }

    /// A run's main process ends; once more: the rest of it.
    pub fn end(&mut self, run: RunId, exit: Exit, leftover: bool) {
        let Some(unit) = self.live.get(&run).cloned() else { return };
        if !leftover {
            self.live.remove(&run);
        }
        if !self.headless.insert(run) {
            self.step(Event::Fact(Fact::Emptied { unit, run }));
            return;
        }
        self.step(Event::Fact(Fact::Exited { unit, run, exit, empty: !leftover, last_words: vec![] }));
    }

    /// Something happens.
    pub fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Ask { unit, goal, wait } => {
                self.ops += 1;
                let ticket = Ticket(self.ops);
                self.asked.insert(ticket);
                let declared = (!matches!(goal, Goal::Stop { .. } | Goal::Delete(_))).then(|| declared(unit));
                let ask = Ask { unit: NAMES[unit].parse().unwrap(), goal, declared, wait };
                self.step(Event::Ask(ticket, ask));
            }
            Deed::Answer { which, well } if !self.pending.is_empty() => {
                let act = self.pending.remove(which % self.pending.len());
                self.answer(act, well);
            }
            Deed::Crash { which, code, leftover } if !self.live.is_empty() => {
                let run = *self.live.keys().nth(which % self.live.len()).unwrap();
                let leftover = leftover && !self.headless.contains(&run);
                self.end(run, Exit::Exited { code }, leftover);
            }
            Deed::Wait { ms } => {
                self.now += ms;
                self.step(Event::Deadline);
            }
            Deed::Reincarnate => self.reincarnate(),
            Deed::Answer { .. } | Deed::Crash { .. } => {}
        }
    }

    /// The daemon dies: only what was recorded, and what lives, is left.
    fn reincarnate(&mut self) {
        let saved: Vec<Saved> = self.core.units().map(Unit::saved).collect();
        let (run, op) = self.core.counters();
        self.asked.clear();
        self.pending.clear();
        let (core, fx) = Core::restore(saved, vec![], run, op);
        self.core = core;
        self.pending = fx.acts;
        // The new daemon looks at everything before it takes anything on.
        for act in std::mem::take(&mut self.pending) {
            self.answer(act, true);
        }
        self.step(Event::Fact(Fact::Booted));
    }

    /// Faults stop: everything is answered well, time passes.
    pub fn calm(&mut self) {
        for _ in 0..400 {
            while let Some(act) = self.pending.pop() {
                self.answer(act, true);
            }
            let stopping: Vec<RunId> =
                self.core.units().filter(|u| u.phase() == Phase::Stopping).filter_map(|u| u.life.run()).collect();
            for run in stopping {
                self.end(run, Exit::Exited { code: 0 }, false);
            }
            self.now += 700;
            self.step(Event::Deadline);
        }
    }
}
