//! What becomes of acts, and what processes do: the half of the world that the engine's hands reach.

use std::collections::BTreeMap;

use wharf_core::{Act, Event, Fact, Placing, Saved};
use wharf_model::{ErrorKind, Exit, Failure, Health, Installed, Phase, RunId, UnitName};

use crate::{
    chance::mixed,
    counts::Seen,
    deed::{How, TaskKind},
    machine::{Body, pid},
    world::{Broken, World, broken},
};

/// An install is broken off after this long.
const PLACE_LIMIT_MS: u64 = 600_000;
/// Putting memory away is broken off after this long.
const CHANGE_LIMIT_MS: u64 = 20_000;
/// So many deadlines at one instant are no work but a circle.
const SPINS: u32 = 10_000;

/// What an install leaves behind.
pub fn installed(version: &str) -> Installed {
    let (version, digest) = (version.to_owned(), format!("sha-{version}"));
    Installed { version, digest, path: "/s".into(), binaries: BTreeMap::new(), source: "sim".into() }
}

impl World {
    /// An act begins. It never waits here.
    pub(crate) fn perform(&mut self, act: Act) -> Result<(), Broken> {
        self.counts.act(&act);
        let now = self.machine.now.boot_ms;
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let policy = |unit: &UnitName| daemon.core.unit(unit).map(|u| u.policy.clone());
        match &act {
            Act::Place { unit, .. } => daemon.begin(TaskKind::Place, unit.clone(), now + PLACE_LIMIT_MS, act),
            Act::Abandon { unit, op } => {
                let its = |act: &Act| matches!(act, Act::Place { op: of, .. } if of == op);
                let key =
                    daemon.tasks.iter().find(|(key, (_, act))| key.0 == *unit && its(act)).map(|(key, _)| key.clone());
                key.and_then(|key| daemon.take(&key));
            }
            Act::Remove { unit, .. } => daemon.begin(TaskKind::Remove, unit.clone(), now + PLACE_LIMIT_MS, act),
            Act::Launch { unit, .. } => {
                let limit = policy(unit).map_or(0, |p| p.start_timeout_ms);
                daemon.begin(TaskKind::Launch, unit.clone(), now.saturating_add(limit), act);
            }
            Act::Probe { unit, run } => {
                let out = daemon.oldest(unit, TaskKind::Probe).and_then(|key| daemon.tasks.get(&key));
                if matches!(out, Some((_, Act::Probe { run: other, .. })) if other == run) {
                    return broken("probes", format!("{unit}: two probes of run {run} at once"));
                }
                let limit = policy(unit).map_or(0, |p| p.probe_timeout_ms);
                daemon.begin(TaskKind::Probe, unit.clone(), now.saturating_add(limit), act);
            }
            Act::Terminate { unit, run } => {
                if daemon.is_launching(unit, *run) {
                    daemon.cancelled.insert(*run);
                } else if let Some(body) = self.machine.bodies.get_mut(run) {
                    body.asked = true;
                }
            }
            Act::Kill { unit, run } => {
                if daemon.is_launching(unit, *run) {
                    daemon.cancelled.insert(*run);
                } else {
                    self.kill(*run);
                }
            }
            Act::Look { unit, run } => daemon.looks.push_back((unit.clone(), *run)),
            Act::PostStart { .. } => {}
            Act::Change { unit, .. } => daemon.begin(TaskKind::Change, unit.clone(), now + CHANGE_LIMIT_MS, act),
            Act::Forget { unit, run } => {
                if self.machine.bodies.get(run).is_some_and(Body::lives) {
                    return broken("forgets", format!("{unit}: run {run} lives and is forgotten"));
                }
                self.machine.forget(*run);
            }
        }
        Ok(())
    }

    /// The oldest act of a kind that is under way for the unit ends.
    pub(crate) fn answer(&mut self, unit: &UnitName, task: TaskKind, how: &How) -> Result<(), Broken> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let Some(act) = daemon.oldest(unit, task).and_then(|key| daemon.take(&key)) else { return Ok(()) };
        self.ended(act, how)
    }

    fn ended(&mut self, act: Act, how: &How) -> Result<(), Broken> {
        let bad = |kind: ErrorKind| Failure::new(kind, format!("the world says no: {kind:?}"));
        match act {
            Act::Place { unit, op, what } => {
                let known = self.daemon.as_ref().and_then(|d| d.core.unit(&unit));
                let needs = known.is_none_or(|u| u.needs_install);
                let of = |version: Option<String>| installed(&version.unwrap_or_else(|| "1".into()));
                let result = match (how, what) {
                    (How::Badly(kind), _) => Err(bad(*kind)),
                    (_, Placing::Kept) => Ok(known.and_then(|u| u.installed.clone())),
                    (How::Partly, Placing::Built { .. }) => Ok(None),
                    (
                        How::Well | How::Partly | How::Stubborn { .. },
                        Placing::Fetched { version, .. } | Placing::Built { version },
                    ) => Ok(needs.then(|| of(version))),
                };
                self.fact(Fact::Placed { unit, op, result })
            }
            Act::Remove { unit, op, .. } => {
                let result = if let How::Badly(kind) = how { Err(bad(*kind)) } else { Ok(()) };
                self.fact(Fact::Removed { unit, op, result })
            }
            Act::Probe { unit, run } => {
                let health = match how {
                    How::Well | How::Stubborn { .. } => Health::healthy("ok"),
                    How::Partly => Health::degraded("so so"),
                    How::Badly(kind) => Health::unhealthy(format!("{kind:?}")),
                };
                self.fact(Fact::Probed { unit, run, health })
            }
            Act::Launch { unit, run } => {
                let cancelled = self.daemon.as_mut().is_some_and(|d| d.cancelled.remove(&run));
                let refused = match how {
                    _ if cancelled => Some(bad(ErrorKind::Conflict)),
                    How::Badly(kind) => Some(bad(*kind)),
                    How::Well | How::Partly | How::Stubborn { .. } => None,
                };
                match refused.map_or_else(|| self.make(&unit, run, how), |why| Ok(Err(why)))? {
                    Ok(ports) => {
                        let Some(daemon) = &mut self.daemon else { return Ok(()) };
                        let launched = Fact::Launched { unit, run, pid: pid(run), ports };
                        daemon.mail.push_back(launched);
                        let life = daemon.life;
                        if let Some(body) = self.machine.bodies.get_mut(&run) {
                            body.watcher = Some(life);
                        }
                        Ok(())
                    }
                    Err(failure) => self.fact(Fact::NotLaunched { unit, run, failure }),
                }
            }
            Act::Change { unit, run, change } => {
                let result = if let How::Badly(kind) = how { Err(bad(*kind)) } else { Ok(()) };
                if result.is_ok() {
                    self.machine.cards.change(
                        run,
                        change,
                        self.daemon.as_ref().and_then(|d| d.core.arbiter().of_unit(&unit)),
                    );
                }
                self.fact(Fact::Changed { unit, run, change, result })
            }
            Act::Terminate { .. }
            | Act::Kill { .. }
            | Act::Look { .. }
            | Act::PostStart { .. }
            | Act::Abandon { .. }
            | Act::Forget { .. } => Ok(()),
        }
    }

    /// A run's processes are made, on ports that are free; or one is not.
    pub(crate) fn make(
        &mut self,
        unit: &UnitName,
        run: RunId,
        how: &How,
    ) -> Result<Result<BTreeMap<String, u16>, Failure>, Broken> {
        let Some(known) = self.daemon.as_ref().and_then(|d| d.core.unit(unit)) else {
            return Ok(Err(Failure::new(ErrorKind::Internal, "no such unit")));
        };
        let mut ports = BTreeMap::new();
        for (name, wish) in &known.wishes {
            let sticky = || known.ports.get(name).copied().filter(|number| !self.machine.is_taken(*number));
            let free = || 20_000 + (mixed(run.0) % 40_000) as u16;
            let number = wish.unwrap_or_else(|| sticky().unwrap_or_else(free));
            if self.machine.is_taken(number) {
                return Ok(Err(Failure::new(ErrorKind::PortTaken, format!("port {number} is taken"))));
            }
            ports.insert(name.clone(), number);
        }
        if let Some(other) = self.machine.all_live(unit).next() {
            return broken("one instance", format!("{unit}: run {run} is made while run {other} lives"));
        }
        let beside = Saved { phase: Phase::Running, run: Some(run), ports: ports.clone(), ..known.saved() };
        let stuck = matches!(how, How::Stubborn { stuck: true });
        let body = Body {
            unit: unit.clone(),
            main: true,
            helpers: 0,
            shim: true,
            stubborn: matches!(how, How::Stubborn { .. }),
            stuck,
            killed: false,
            asked: false,
            exit: None,
            recorded: false,
            boot: self.machine.boot,
            beside: Some(beside),
            ports: ports.clone(),
            watcher: None,
            obituaries: 0,
        };
        self.machine.make(run, body);
        self.judge.made(unit, known, self.machine.now.boot_ms)?;
        self.load(unit, run)?;
        Ok(Ok(ports))
    }

    /// The daemon is told something, true or not.
    pub fn tell_of(&mut self, fact: Fact) -> Result<(), Broken> {
        self.fact(fact)
    }

    /// A letter is read.
    pub(crate) fn tell(&mut self, nth: u32) -> Result<(), Broken> {
        match self.daemon.as_mut().and_then(|daemon| daemon.letter(nth)) {
            Some(fact) => self.fact(fact),
            None => Ok(()),
        }
    }

    /// A letter that was read before comes once more.
    pub(crate) fn echo(&mut self, nth: u32) -> Result<(), Broken> {
        let read = self.daemon.as_ref().map(|daemon| &daemon.read).filter(|read| !read.is_empty());
        let old = read.and_then(|read| read.iter().rev().nth(nth as usize % read.len()).cloned());
        match old {
            // That all was looked at is said once.
            None | Some(Fact::Booted) => Ok(()),
            Some(fact) => self.fact(fact),
        }
    }

    /// News of the newest run of a unit, dead or not.
    pub(crate) fn of_newest(
        &mut self,
        unit: &UnitName,
        news: impl FnOnce(UnitName, RunId) -> Fact,
    ) -> Result<(), Broken> {
        match self.machine.newest(unit) {
            Some(run) => self.fact(news(unit.clone(), run)),
            None => Ok(()),
        }
    }

    /// The daemon that watches this run is told.
    fn tell_watcher(&mut self, run: RunId, fact: impl FnOnce(UnitName) -> Fact) {
        let (Some(daemon), Some(body)) = (&mut self.daemon, self.machine.bodies.get(&run)) else { return };
        if body.watcher == Some(daemon.life) {
            daemon.mail.push_back(fact(body.unit.clone()));
        }
    }

    pub(crate) fn main_ends(&mut self, unit: &UnitName, how: &Exit, helpers: u8) {
        if let Some(run) = self.machine.live(unit) {
            self.end_main(run, how, helpers);
        }
    }

    fn end_main(&mut self, run: RunId, how: &Exit, helpers: u8) {
        let Some(body) = self.machine.bodies.get_mut(&run).filter(|body| body.main && !body.stuck) else { return };
        body.main = false;
        // Who was sent SIGKILL leaves nobody behind.
        body.helpers = if body.killed { 0 } else { helpers };
        body.exit = Some(how.clone());
        body.recorded = body.shim;
        let (exit, empty) = (body.known_exit(), !body.lives());
        let learned = (!body.recorded && run.0.is_multiple_of(2)).then(|| how.clone());
        self.unload(run);
        self.tell_watcher(run, |unit| Fact::Exited { unit, run, exit, empty, last_words: vec![] });
        if let Some(exit) = learned {
            self.tell_watcher(run, |unit| Fact::Learned { unit, run, exit });
        }
    }

    pub(crate) fn rest_ends(&mut self, unit: &UnitName) {
        if let Some(run) = self.machine.live(unit) {
            self.end_rest(run);
        }
    }

    fn end_rest(&mut self, run: RunId) {
        let Some(body) = self.machine.bodies.get_mut(&run).filter(|body| !body.main && !body.stuck) else { return };
        body.helpers = 0;
        self.unload(run);
        self.tell_watcher(run, |unit| Fact::Emptied { unit, run });
    }

    pub(crate) fn unstick(&mut self, unit: &UnitName) {
        let Some(run) = self.machine.live(unit) else { return };
        let Some(body) = self.machine.bodies.get_mut(&run) else { return };
        body.stuck = false;
        if body.killed {
            self.kill(run);
        }
    }

    pub(crate) fn shim_dies(&mut self, unit: &UnitName) {
        let Some(run) = self.machine.live(unit) else { return };
        if let Some(body) = self.machine.bodies.get_mut(&run) {
            body.shim = false;
        }
    }

    /// SIGKILL to everything of a run.
    pub(crate) fn kill(&mut self, run: RunId) {
        let Some(body) = self.machine.bodies.get_mut(&run) else { return };
        if !body.lives() {
            return;
        }
        body.killed = true;
        if body.stuck {
            return;
        }
        if body.main {
            self.end_main(run, &Exit::Signaled { signal: 9 }, 0);
        } else {
            self.end_rest(run);
        }
    }

    /// Time passes, and the daemon wakes whenever something is due.
    pub(crate) fn wait(&mut self, ms: u64) -> Result<(), Broken> {
        self.flush()?;
        self.measure()?;
        let target = self.machine.now.boot_ms.saturating_add(ms);
        let mut spins = 0;
        loop {
            let now = self.machine.now.boot_ms;
            let daemon = self.daemon.as_ref();
            let deadline = daemon.and_then(|daemon| daemon.core.next_deadline());
            let due = daemon.and_then(crate::daemon::Daemon::next_due);
            let next = [deadline, due].into_iter().flatten().min().unwrap_or(target).clamp(now, target);
            self.machine.pass(next - now);
            spins = if next > now { 0 } else { spins + 1 };
            if spins > SPINS {
                return broken("spins", format!("{SPINS} deadlines at {now} ms"));
            }
            self.break_off()?;
            if self.daemon.as_ref().is_some_and(|daemon| daemon.measure) {
                self.measure()?;
            }
            if deadline.is_some_and(|at| at <= next) {
                self.step(Event::Deadline)?;
            } else if next == target {
                return self.measure();
            }
        }
    }

    /// Time passes and nothing runs.
    pub(crate) fn lag(&mut self, ms: u64) -> Result<(), Broken> {
        self.flush()?;
        self.machine.pass(ms);
        self.wait(0)
    }

    /// What is under way for too long is broken off.
    fn break_off(&mut self) -> Result<(), Broken> {
        let now = self.machine.now.boot_ms;
        while let Some(daemon) = &mut self.daemon {
            let Some(act) = daemon.overdue(now).and_then(|key| daemon.take(&key)) else { break };
            if let Act::Probe { .. } = &act {
                self.counts.saw(Seen::ProbeCutOff);
            } else if let Act::Launch { .. } = &act {
                self.counts.saw(Seen::LaunchCutOff);
            }
            self.ended(act, &How::Badly(ErrorKind::Timeout))?;
        }
        Ok(())
    }
}
