//! What programs say of themselves, and what use and schedules ask for.

use wharf_model::{EndReason, ErrorKind, Failure, RunId, UnitName, Want};

use crate::{Cause, Core, Effects, Life, News, Notice, Now, Timer};

impl Core {
    pub(crate) fn notified(&mut self, now: Now, name: &UnitName, run: RunId, news: News, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        match news {
            News::Ready => {
                unit.notified = true;
                if let (true, Life::Starting { pid: Some(pid), .. }) = (unit.policy.notify, &unit.life) {
                    let pid = *pid;
                    self.got_ready(now, name, run, pid, false, fx);
                }
            }
            // It ends by its own decision: its exit says the rest.
            News::Stopping => unit.status_text = Some("it says that it is stopping".into()),
            News::Status(text) => unit.status_text = Some(text).filter(|text| !text.is_empty()),
            News::Alive => {
                if let Some((seen_ms, _)) = &mut unit.watchdog {
                    *seen_ms = now.boot_ms;
                }
            }
            News::Trigger => {
                if let Life::Starting { .. } | Life::Up { .. } = unit.life {
                    let reason =
                        Failure::new(ErrorKind::ServiceFailed, format!("{name} says that it is not well (watchdog)"))
                            .about(name);
                    let end = EndReason::WatchdogTimeout;
                    self.begin_stop(now, name, Cause::Death { reason, end, healthy_for_ms: 0 }, fx);
                }
            }
            News::WatchdogPeriod(period_ms) => {
                unit.watchdog = Some((now.boot_ms, period_ms));
                if let Life::Up { .. } = unit.life {
                    self.schedule(now.boot_ms.saturating_add(period_ms), name, run, Timer::Watchdog);
                }
            }
            News::Extend(ms) => self.extend(now, name, run, ms),
            News::MainPid(new) => match &mut unit.life {
                Life::Starting { pid, .. } | Life::Stopping { pid, .. } => *pid = Some(new),
                Life::Up { pid, .. } => *pid = new,
                Life::Idle
                | Life::Backoff { .. }
                | Life::Blocked { .. }
                | Life::Waiting { .. }
                | Life::Failed { .. }
                | Life::Unknown { .. } => {}
            },
        }
    }

    /// A start or a stop may take so much longer, from now on. Never shorter than it was to be.
    fn extend(&mut self, now: Now, name: &UnitName, run: RunId, ms: u64) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let later = now.boot_ms.saturating_add(ms);
        let (until_ms, timer) = match &mut unit.life {
            Life::Starting { until_ms, .. } => (until_ms, Timer::StartTimeout),
            Life::Stopping { until_ms, killed: false, .. } => (until_ms, Timer::Kill),
            Life::Stopping { killed: true, .. }
            | Life::Idle
            | Life::Up { .. }
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Unknown { .. } => return,
        };
        if later > *until_ms {
            *until_ms = later;
            self.schedule(later, name, run, timer);
        }
    }

    /// A unit that runs on demand is wanted by somebody now.
    pub(crate) fn used(&mut self, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.want == Want::OnDemand && !unit.held {
            unit.used = matches!(unit.life, Life::Idle | Life::Stopping { cause: Cause::Idle, .. });
            fx.touched.insert(name.clone());
            // What it needs is wanted with it. A need that cannot come is told by the wait for it.
            let _ = self.pull(name);
        }
    }

    pub(crate) fn unused(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get(name) else { return };
        let free = unit.op.is_none() && unit.want == Want::OnDemand;
        let needed = self.dependents(name).any(|by| self.units.get(by).is_some_and(|by| by.life.run().is_some()));
        if free && !needed && matches!(unit.life, Life::Up { .. }) {
            self.begin_stop(now, name, Cause::Idle, fx);
        }
    }

    /// A schedule came due. Two runs of a job never live at once: the later one is passed over.
    pub(crate) fn due_by_schedule(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.want != Want::Up || unit.held || unit.policy.schedule.is_none() {
            return;
        }
        let busy = unit.op.is_some();
        match unit.life {
            Life::Idle | Life::Backoff { .. } | Life::Blocked { .. } | Life::Waiting { .. } | Life::Failed { .. }
                if !busy =>
            {
                // A new day: what went wrong the last time is not held against this one.
                unit.deaths.forgive();
                fx.touched.insert(name.clone());
                self.retry(now, name, fx);
            }
            Life::Idle
            | Life::Starting { .. }
            | Life::Up { .. }
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. } => fx.notices.push(Notice::Skipped { unit: name.clone() }),
        }
    }
}
