//! What a new daemon makes of a run that the old one recorded: start, look, adopt, go on.

use wharf_model::{EndReason, ErrorKind, Exit, Failure, Health, OnExit, Phase, RunId, UnitName};

use crate::{Act, Cause, Core, Effects, FoundRun, Life, Now, Timer};

impl Core {
    /// A new daemon looked at a recorded run: start, look, adopt, go on.
    pub(crate) fn found(&mut self, now: Now, name: &UnitName, run: RunId, found: FoundRun, fx: &mut Effects) {
        self.look_for_its_gpu(name, &found, fx);
        let Some(unit) = self.units.get_mut(name) else { return };
        let Life::Unknown { was, .. } = unit.life else { return };
        let unwanted = !unit.is_wanted();
        // A restart, or the end of a sick run, that the old daemon had begun: gone on with here.
        let half_stopped = was == Phase::Stopping;
        let up = |pid| Life::Up {
            run,
            pid,
            // It has been up for longer than this daemon: probed at the steady pace.
            since_ms: now.boot_ms.saturating_sub(unit.policy.early_ms),
            healthy_since_ms: now.boot_ms,
            fails: 0,
            degraded: false,
        };
        match found {
            // It is stopped as any unit is: after those that need it, which may not be looked at yet.
            FoundRun::Alive { pid } if unwanted => unit.life = up(pid),
            // By whom is not recorded. It is ended as if somebody had asked, so that no restart that was asked
            // for becomes a death; what is wanted is started again.
            FoundRun::Alive { pid } if half_stopped => {
                unit.life = up(pid);
                self.begin_stop(now, name, Cause::Asked, fx);
            }
            FoundRun::Alive { pid } if was == Phase::Starting && unit.wishes.values().any(Option::is_none) => {
                // Which port it was given was not recorded yet: nobody could ask it anything.
                unit.life = up(pid);
                self.begin_stop(now, name, Cause::Asked, fx);
            }
            FoundRun::Alive { pid } => {
                unit.life = up(pid);
                let probed = unit.policy.is_probed();
                let period = unit.policy.watchdog_ms;
                unit.watchdog = period.map(|period| (now.boot_ms, period));
                if was == Phase::Starting {
                    let until_ms = now.boot_ms.saturating_add(unit.policy.start_timeout_ms);
                    unit.life = Life::Starting { run, pid: None, since_ms: now.boot_ms, until_ms };
                    self.schedule(until_ms, name, run, Timer::StartTimeout);
                    self.launched(now, name, run, pid, fx);
                } else if probed {
                    unit.probing = true;
                    fx.acts.push(Act::Probe { unit: name.clone(), run });
                } else {
                    unit.last_health = Some((now.wall_ms, Health::healthy("its process lives")));
                }
                if let (Some(period), true) = (period, was != Phase::Starting) {
                    self.schedule(now.boot_ms.saturating_add(period), name, run, Timer::Watchdog);
                }
            }
            FoundRun::Draining { exit } => {
                unit.life = up(0);
                self.exited(now, name, exit, vec![], fx);
                if unwanted || half_stopped {
                    self.begin_stop(now, name, Cause::Asked, fx);
                }
            }
            FoundRun::Ended { exit } => {
                let rebooted = exit == Exit::HostRebooted;
                let reason = Failure::new(ErrorKind::ServiceFailed, format!("{name} {exit}")).about(name);
                let finished = unit.policy.is_job() && exit == (Exit::Exited { code: 0 });
                let cause = match unit.policy.on_exit(&exit) {
                    _ if unwanted || rebooted || half_stopped => Cause::Asked,
                    Some(OnExit::Stop) => Cause::Done,
                    None if finished => Cause::Done,
                    Some(OnExit::Fail) => Cause::Final { reason },
                    Some(OnExit::Restart) | None => {
                        Cause::Death { reason, end: EndReason::ByItself, healthy_for_ms: 0 }
                    }
                };
                let until_ms = now.boot_ms;
                unit.life = Life::Stopping { run, pid: None, cause, exit: Some(exit), killed: false, until_ms };
                if rebooted {
                    unit.deaths.forgive();
                }
                self.over(now, name, fx);
            }
            FoundRun::NeverStarted => {
                unit.life = Life::Idle;
                unit.started_at_ms = None;
                // Its devices may be others' by now: it asks anew.
                self.gpu_gone(now, name, false, fx);
                fx.acts.push(Act::Forget { unit: name.clone(), run });
            }
        }
    }
}
