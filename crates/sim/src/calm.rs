//! Liveness: when faults stop and time passes, what is wanted is, and nobody waits for what is there.

use wharf_core::{Core, Life, News, Unit};
use wharf_model::{Exit, GivenUp, Phase, UnitName, Want};

use crate::{
    deed::{How, TaskKind},
    machine::Machine,
    world::{Broken, World, broken},
};

/// How long it may take until all is as it is wanted, in milliseconds.
const LIMIT_MS: u64 = 150_000;
/// More rounds at one instant are no work but a circle.
const ROUNDS: usize = 2_000;

impl World {
    /// Faults stop.
    pub(crate) fn calm(&mut self) -> Result<(), Broken> {
        if let Some(daemon) = &mut self.daemon {
            daemon.fuse = None;
        }
        self.flush()?;
        self.boot()?;
        self.machine.strangers.clear();
        let end = self.machine.now.boot_ms + LIMIT_MS;
        while self.machine.now.boot_ms < end {
            self.work()?;
            let watched = self.keep_alive()?;
            let now = self.machine.now.boot_ms;
            let next = self.daemon.as_ref().and_then(|d| d.core.next_deadline()).unwrap_or(end);
            let step = next.saturating_sub(now).clamp(1, end - now);
            let pace = self.daemon.as_ref().and_then(|d| d.core.arbiter().pace_ms()).unwrap_or(step);
            self.wait(if watched { step.min(400) } else { step }.min(pace))?;
        }
        self.work()?;
        self.all_is_well()
    }

    /// Everything that is under way ends well, at once.
    pub(crate) fn work(&mut self) -> Result<(), Broken> {
        for _ in 0..ROUNDS {
            let mut idle = self.finish_booting()?;
            while self.daemon.as_ref().is_some_and(|d| !d.mail.is_empty()) {
                self.tell(0)?;
                idle = false;
            }
            while let Some((unit, task)) = self.first_task() {
                self.answer(&unit, task, &How::Well)?;
                idle = false;
            }
            for unit in self.restless() {
                idle &= !self.behave(&unit)?;
            }
            if idle {
                return Ok(());
            }
        }
        broken("circle", format!("no rest at {} ms", self.machine.now.boot_ms))
    }

    fn first_task(&self) -> Option<(UnitName, TaskKind)> {
        let (key, _) = self.daemon.as_ref()?.tasks.first_key_value()?;
        Some((key.0.clone(), key.1))
    }

    /// Units of live runs that have something to do: whoever is asked to end, says that it is ready, or works a job.
    fn restless(&self) -> Vec<UnitName> {
        let Some(daemon) = &self.daemon else { return vec![] };
        let moves = |body: &&crate::machine::Body| {
            let known = daemon.core.unit(&body.unit);
            body.lives()
                && (!body.main
                    || body.asked
                    || body.stuck
                    || known.is_none_or(|u| u.policy.is_job() || u.policy.notify))
        };
        self.machine.bodies.values().filter(moves).map(|body| body.unit.clone()).collect()
    }

    fn finish_booting(&mut self) -> Result<bool, Broken> {
        let waits = self.daemon.as_ref().is_some_and(|d| !d.booted);
        while self.daemon.as_ref().is_some_and(|d| !d.booted && (!d.looks.is_empty() || !d.has_findings())) {
            self.look()?;
        }
        Ok(!waits)
    }

    /// A run does as it is told, and what it is there for. True where it did something.
    fn behave(&mut self, unit: &UnitName) -> Result<bool, Broken> {
        self.unstick(unit);
        let Some(run) = self.machine.live(unit) else { return Ok(true) };
        let Some(body) = self.machine.bodies.get(&run) else { return Ok(false) };
        let (main, obeys) = (body.main, body.asked && !body.stubborn);
        let known = self.daemon.as_ref().and_then(|d| d.core.unit(unit)).filter(|u| u.life.run() == Some(run));
        let Some(known) = known else { return Ok(false) };
        let silent = known.policy.notify && matches!(known.life, Life::Starting { pid: Some(_), .. });
        if main && (obeys || (known.policy.is_job() && matches!(known.life, Life::Up { .. }))) {
            self.main_ends(unit, &Exit::Exited { code: 0 }, 0);
        } else if !main && obeys {
            self.rest_ends(unit);
        } else if main && silent {
            self.of_newest(unit, |unit, run| wharf_core::Fact::Notified { unit, run, news: News::Ready })?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Every program with a watchdog says that it is alive; true where there is one.
    fn keep_alive(&mut self) -> Result<bool, Broken> {
        let Some(daemon) = &self.daemon else { return Ok(false) };
        let watched = |unit: &&Unit| unit.is_watched() && matches!(unit.life, Life::Up { .. });
        let names: Vec<UnitName> = daemon.core.units().filter(watched).map(|unit| unit.name.clone()).collect();
        for unit in &names {
            self.of_newest(unit, |unit, run| wharf_core::Fact::Notified { unit, run, news: News::Alive })?;
        }
        Ok(!names.is_empty())
    }

    fn all_is_well(&self) -> Result<(), Broken> {
        if let Some((ticket, unit)) = self.judge.asked.first_key_value() {
            return broken("liveness", format!("ticket {} for {unit} is never answered", ticket.0));
        }
        let Some(daemon) = &self.daemon else { return broken("liveness", "no daemon") };
        for unit in daemon.core.units() {
            if let Some((id, kind)) = unit.busy_with() {
                return broken("liveness", format!("{}: operation {id} ({kind}) never ends", unit.name));
            }
            let lives = self.machine.all_live(&unit.name).count();
            if lives != usize::from(unit.life.run().is_some()) {
                return broken("liveness", format!("{} is {} and has {lives} live runs", unit.name, unit.phase()));
            }
            // Those that may send each other away from a GPU take turns for ever, and with them those that need them.
            if takes_turns(&daemon.core, unit, 0) {
                continue;
            }
            if let Err(why) = settled(&daemon.core, &self.machine, unit, self.judge.account.tries_again(&unit.name)) {
                let (want, phase, life) = (unit.want, unit.phase(), &unit.life);
                return broken("liveness", format!("{} is wanted {want:?} and {phase}: {why} ({life:?})", unit.name));
            }
        }
        Ok(())
    }
}

/// It needs a GPU, or a unit that does.
fn takes_turns(core: &Core, unit: &Unit, depth: u32) -> bool {
    let by_need = || unit.policy.needs.iter().filter_map(|need| core.unit(&need.unit));
    unit.policy.gpu.is_some() || depth < 12 && by_need().any(|need| takes_turns(core, need, depth + 1))
}

/// A unit is what it is wanted to be, or cannot be it.
fn settled(core: &Core, machine: &Machine, unit: &Unit, tries_again: bool) -> Result<(), &'static str> {
    match (unit.want, unit.phase()) {
        (_, Phase::Unknown | Phase::Stopping | Phase::Starting | Phase::Backoff | Phase::Unhealthy) => {
            Err("that passes")
        }
        (Want::Down | Want::Retired, Phase::Stopped | Phase::NotInstalled | Phase::Failed) => Ok(()),
        (Want::Down | Want::Retired, _) => Err("nobody wants it"),
        (Want::Up | Want::OnDemand, Phase::NotInstalled) => Ok(()),
        (Want::Up | Want::OnDemand, Phase::Running | Phase::Degraded) if unit.held => Err("it was stopped for now"),
        (Want::Up | Want::OnDemand, Phase::Running | Phase::Degraded) => Ok(()),
        (Want::Up | Want::OnDemand, Phase::Failed) => {
            let slowly = matches!(unit.life, Life::Failed { rule: GivenUp::RestartIntensity, retry_at_ms: None, .. });
            let again = slowly && tries_again && unit.policy.restart.slow_retry_s > 0;
            if again { Err("its slow retry never came") } else { Ok(()) }
        }
        (Want::Up | Want::OnDemand, Phase::Blocked) => {
            let waits = matches!(unit.life, Life::Waiting { .. });
            // Its GPU is another's, or none would do: that is the arbiter's to say, and judged there.
            if unit.policy.gpu.is_some() {
                return Ok(());
            }
            let taken = || unit.fixed_ports().any(|(_, number)| machine.is_taken(number));
            let hindered = if waits { lacks(core, unit) } else { taken() };
            if hindered { Ok(()) } else { Err("nothing is in its way") }
        }
        (Want::OnDemand, Phase::Stopped) => Ok(()),
        (Want::Up, Phase::Stopped) if unit.held || unit.done || unit.policy.schedule.is_some() => Ok(()),
        (Want::Up, Phase::Stopped) => Err("nothing keeps it down"),
    }
}

/// Something that a unit cannot do without is not there, and nothing brings it.
fn lacks(core: &Core, unit: &Unit) -> bool {
    unit.policy.required().any(|need| {
        let Some(other) = core.unit(need) else { return true };
        let kept_down = !other.is_placed() || !other.is_wanted() || other.held || other.done;
        if other.serves() && other.is_placed() {
            return false;
        }
        match other.phase() {
            Phase::Failed => true,
            Phase::Blocked if other.policy.gpu.is_some() => true,
            Phase::Blocked => !matches!(other.life, Life::Waiting { .. }) || lacks(core, other),
            Phase::NotInstalled
            | Phase::Stopped
            | Phase::Starting
            | Phase::Running
            | Phase::Degraded
            | Phase::Unhealthy
            | Phase::Backoff
            | Phase::Stopping
            | Phase::Unknown => kept_down,
        }
    })
}
