//! Deadlines. Each carries the run that it was made for, so an old one changes nothing.

use wharf_model::{ErrorKind, Failure, RunId, UnitName};

use crate::{Act, Cause, Core, Effects, Life, Now};

/// After SIGKILL, how long until the callers are told that it does not help.
const UNKILLABLE_MS: u64 = 5_000;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The next probe.
    Probe,
    /// It should be ready by now.
    StartTimeout,
    /// It should have ended by now: SIGKILL.
    Kill,
    /// It should be gone by now, SIGKILL was sent.
    Unkillable,
    /// A wait for the next start is over.
    Retry,
}

impl Core {
    pub(crate) fn on_deadline(&mut self, now: Now, fx: &mut Effects) {
        while let Some(first) = self.deadlines.first() {
            if first.0 > now.boot_ms {
                break;
            }
            let Some((_, name, run, timer)) = self.deadlines.pop_first() else { break };
            self.due(now, &name, run, timer, fx);
        }
    }

    fn due(&mut self, now: Now, name: &UnitName, run: RunId, timer: Timer, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if timer != Timer::Retry && unit.life.run() != Some(run) {
            return;
        }
        fx.touched.insert(name.clone());
        match (timer, &mut unit.life) {
            (Timer::Probe, Life::Starting { .. } | Life::Up { .. }) if !unit.probing => {
                unit.probing = true;
                fx.acts.push(Act::Probe { unit: name.clone(), run });
            }
            (Timer::StartTimeout, Life::Starting { .. }) => {
                let seconds = unit.policy.start_timeout_ms / 1000;
                let last = unit.last_health.as_ref().map(|(_, h)| h.detail.clone());
                let mut reason = Failure::new(ErrorKind::Timeout, format!("{name} was not ready within {seconds} s"))
                    .hint(format!("see what it does: wharf logs {name}"));
                reason.causes.extend(last.map(|l| format!("last probe: {l}")));
                self.begin_stop(now, name, Cause::Death { reason, healthy_for_ms: 0 }, fx);
            }
            (Timer::Kill, Life::Stopping { killed, .. }) => {
                *killed = true;
                fx.acts.push(Act::Kill { unit: name.clone(), run });
                self.schedule(now.boot_ms.saturating_add(UNKILLABLE_MS), name, run, Timer::Unkillable);
            }
            (Timer::Unkillable, Life::Stopping { .. }) => {
                let message = format!("{name} does not end, not even by SIGKILL (a process waits inside the kernel)");
                unit.last_error = Some(message.clone());
                self.schedule(now.boot_ms + UNKILLABLE_MS, name, run, Timer::Kill);
                self.fail(now, name, Failure::new(ErrorKind::Timeout, message), fx);
            }
            (Timer::Retry, Life::Backoff { until_ms, .. } | Life::Blocked { until_ms, .. })
                if *until_ms <= now.boot_ms =>
            {
                if let Life::Backoff { .. } = unit.life {
                    unit.restart_count += 1;
                    unit.last_restart_ms = Some(now.wall_ms);
                }
                self.launch(now, name, fx);
            }
            // The unit has moved on since the deadline was made.
            (Timer::Probe | Timer::StartTimeout | Timer::Kill | Timer::Unkillable | Timer::Retry, _) => {}
        }
    }
}
