//! Deadlines. Each carries the run that it was made for, so an old one changes nothing.

use wharf_model::{EndReason, ErrorKind, Failure, RunId, UnitName};

use crate::{Act, Cause, Core, Effects, Life, Now, needs::Needs, unit::Step};

/// After SIGKILL, how long until the callers are told that it does not help.
const UNKILLABLE_MS: u64 = 5_000;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next probe.
    Probe,
    /// It has lived long enough to count as ready: nothing of it can be asked.
    Ready,
    /// It should be ready by now.
    StartTimeout,
    /// It should have said by now that it is alive.
    Watchdog,
    /// It should have ended by now: SIGKILL.
    Kill,
    /// It should be gone by now, SIGKILL was sent.
    Unkillable,
    /// A wait for the next start is over.
    Retry,
}

impl Timer {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = Self::Retry as usize + 1;
}

impl Core {
    pub(crate) fn on_deadline(&mut self, now: Now, fx: &mut Effects) {
        self.gpu_due(now, fx);
        while let Some(first) = self.deadlines.first() {
            if first.0 > now.boot_ms {
                break;
            }
            let Some((_, name, run, timer)) = self.deadlines.pop_first() else { break };
            if let Some(unit) = self.units.get_mut(&name) {
                unit.timers[timer as usize] = None;
            }
            self.due(now, &name, run, timer, fx);
        }
    }

    pub(crate) fn due(&mut self, now: Now, name: &UnitName, run: RunId, timer: Timer, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if timer != Timer::Retry && unit.life.run() != Some(run) {
            return;
        }
        if timer != Timer::Probe {
            // That it is asked changes nothing that anybody sees.
            fx.touched.insert(name.clone());
        }
        match (timer, &mut unit.life) {
            (Timer::Probe, Life::Starting { .. } | Life::Up { .. }) if !unit.probing => {
                unit.probing = true;
                fx.acts.push(Act::Probe { unit: name.clone(), run });
            }
            (Timer::Ready, Life::Starting { pid: Some(pid), .. }) => {
                let pid = *pid;
                self.got_ready(now, name, run, pid, false, fx);
            }
            (Timer::StartTimeout, Life::Starting { since_ms, until_ms, .. }) if *until_ms <= now.boot_ms => {
                let seconds = (*until_ms - *since_ms) / 1000;
                let last = unit.last_health.as_ref().map(|(_, h)| h.detail.clone());
                let mut reason = Failure::new(ErrorKind::Timeout, format!("{name} was not ready within {seconds} s"))
                    .hint(format!("see what it does: wharf logs {name}"));
                reason.causes.extend(last.map(|l| format!("last probe: {l}")));
                let end = EndReason::ReadyTimeout;
                self.begin_stop(now, name, Cause::Death { reason, end, healthy_for_ms: 0 }, fx);
            }
            (Timer::Watchdog, Life::Up { .. }) => self.watchdog_due(now, name, run, fx),
            (Timer::Kill, Life::Stopping { killed, until_ms, .. }) if *until_ms <= now.boot_ms => {
                *killed = true;
                fx.acts.push(Act::Kill { unit: name.clone(), run });
                self.schedule(now.boot_ms.saturating_add(UNKILLABLE_MS), name, run, Timer::Unkillable);
            }
            (Timer::Unkillable, Life::Stopping { until_ms, .. }) => {
                let message = format!("{name} does not end, not even by SIGKILL (a process waits inside the kernel)");
                unit.last_error = Some(message.clone());
                *until_ms = now.boot_ms + UNKILLABLE_MS;
                // Whoever waits for something else, as for an install, is not concerned.
                let concerned = |step: &Step| matches!(step, Step::Stop { .. } | Step::Start { .. });
                let told = unit.op.as_ref().and_then(|op| op.steps.front()).is_some_and(concerned);
                self.schedule(now.boot_ms + UNKILLABLE_MS, name, run, Timer::Kill);
                if told {
                    self.fail(now, name, Failure::new(ErrorKind::Timeout, message), fx);
                }
            }
            (Timer::Retry, Life::Backoff { until_ms, .. } | Life::Blocked { until_ms, .. })
                if *until_ms <= now.boot_ms =>
            {
                if let Life::Backoff { .. } = unit.life {
                    unit.restart_count += 1;
                    unit.last_restart_ms = Some(now.wall_ms);
                }
                self.retry(now, name, fx);
            }
            (Timer::Retry, Life::Failed { retry_at_ms: Some(at), .. }) if *at <= now.boot_ms => {
                unit.restart_count += 1;
                unit.last_restart_ms = Some(now.wall_ms);
                self.retry(now, name, fx);
            }
            // The unit has moved on since the deadline was made.
            (
                Timer::Probe
                | Timer::Ready
                | Timer::StartTimeout
                | Timer::Watchdog
                | Timer::Kill
                | Timer::Unkillable
                | Timer::Retry,
                _,
            ) => {}
        }
    }

    /// A wait is over: it starts, if what it needs is there. `advance` sees to that.
    pub(crate) fn retry(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        self.use_needs(name);
        let (reason, hopeless) = match self.needs_of(name) {
            Needs::Met if !self.has_gpu(now, name, fx) => return,
            Needs::Met => {
                self.launch(now, name, fx);
                return;
            }
            Needs::Coming(reason) => (reason, false),
            Needs::Missing(reason) => (reason, true),
        };
        if let Some(unit) = self.units.get_mut(name) {
            unit.hopeless = hopeless;
            unit.life = Life::Waiting { reason };
        }
    }

    fn watchdog_due(&mut self, now: Now, name: &UnitName, run: RunId, fx: &mut Effects) {
        let asleep = self.is_asleep(name);
        let Some(unit) = self.units.get_mut(name) else { return };
        let Some((seen_ms, period_ms)) = unit.watchdog else { return };
        // Nobody says anything in their sleep.
        let seen_ms = if asleep { now.boot_ms } else { seen_ms };
        let due_ms = seen_ms.saturating_add(period_ms);
        if due_ms > now.boot_ms {
            self.schedule(due_ms, name, run, Timer::Watchdog);
            return;
        }
        let message = format!("{name} has not said that it is alive for {period_ms} ms (watchdog)");
        let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name);
        let end = EndReason::WatchdogTimeout;
        self.begin_stop(now, name, Cause::Death { reason, end, healthy_for_ms: 0 }, fx);
    }
}
