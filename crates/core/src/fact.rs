//! Facts: what the world says, and what it means for the run that it is about.

use wharf_model::{ErrorKind, Exit, Failure, Health, Phase, RunId, UnitName, Verdict, Want};

use crate::{Act, Cause, Core, Effects, Fact, FoundRun, Life, Now, Record, Timer};

impl Core {
    pub(crate) fn on_fact(&mut self, now: Now, fact: Fact, fx: &mut Effects) {
        match fact {
            Fact::Placed { unit, op, result } => {
                if self.op_is(&unit, op) {
                    fx.touched.insert(unit.clone());
                    self.placed(now, &unit, result, fx);
                }
            }
            Fact::Removed { unit, op, result } => {
                if self.op_is(&unit, op) {
                    fx.touched.insert(unit.clone());
                    self.removed(now, &unit, result, fx);
                }
            }
            Fact::Launched { unit, run, pid, ports } => {
                if let Some(u) = self.of_run(&unit, run, fx) {
                    u.ports = ports;
                    self.launched(now, &unit, run, pid, fx);
                }
            }
            Fact::NotLaunched { unit, run, failure } => {
                if let Some(u) = self.of_run(&unit, run, fx) {
                    if let Life::Stopping { .. } = u.life {
                        self.over(now, &unit, fx);
                    } else {
                        self.not_launched(now, &unit, run, failure, fx);
                    }
                }
            }
            Fact::Probed { unit, run, health } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.probed(now, &unit, run, health, fx);
                }
            }
            Fact::Exited { unit, run, exit, empty, last_words } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.exited(now, &unit, exit, last_words, fx);
                    if empty {
                        self.over(now, &unit, fx);
                    }
                }
            }
            Fact::Emptied { unit, run } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.over(now, &unit, fx);
                }
            }
            Fact::Found { unit, run, found } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.found(now, &unit, run, found, fx);
                }
            }
            // Settling starts what is wanted and does not run.
            Fact::Booted => fx.touched.extend(self.units.keys().cloned()),
        }
    }

    /// The unit, if this is its present run.
    fn of_run(&mut self, name: &UnitName, run: RunId, fx: &mut Effects) -> Option<&mut crate::Unit> {
        let unit = self.units.get_mut(name)?;
        if unit.life.run() != Some(run) {
            return None;
        }
        fx.touched.insert(name.clone());
        Some(unit)
    }

    fn placed(
        &mut self,
        now: Now,
        name: &UnitName,
        result: Result<Option<wharf_model::Installed>, Failure>,
        fx: &mut Effects,
    ) {
        let Some(unit) = self.units.get_mut(name) else { return };
        match result {
            Ok(installed) => {
                self.step_is_true(name);
                let Some(unit) = self.units.get_mut(name) else { return };
                if let Some(op) = unit.op.as_mut()
                    && op.fallback.is_some()
                    && op.fallback == installed
                {
                    // Nothing newer: what runs goes on running.
                    op.steps.clear();
                }
                if installed.is_some() {
                    unit.installed = installed;
                }
            }
            Err(failure) => {
                if let Some(op) = unit.op.as_mut() {
                    op.fallback = None;
                }
                self.fail(now, name, failure, fx);
                let never_was = self.units.get(name).is_some_and(|u| {
                    u.installed.is_none() && u.needs_install && matches!(u.life, Life::Idle) && u.waiting.is_empty()
                });
                if never_was {
                    self.units.remove(name);
                    fx.records.push(Record::Gone(name.clone()));
                }
            }
        }
    }

    fn removed(&mut self, now: Now, name: &UnitName, result: Result<(), Failure>, fx: &mut Effects) {
        if let Err(failure) = result {
            self.fail(now, name, failure, fx);
            return;
        }
        self.finish(now, name, wharf_model::OpOutcome::Done, fx);
        let waiting = self.units.remove(name).map(|u| u.waiting).unwrap_or_default();
        fx.records.push(Record::Gone(name.clone()));
        for (ticket, ask) in waiting {
            self.on_ask(now, ticket, ask, fx);
        }
    }

    fn launched(&mut self, now: Now, name: &UnitName, run: RunId, made: i32, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        match &mut unit.life {
            Life::Starting { pid, .. } => {
                *pid = Some(made);
                unit.probing = true;
                fx.acts.push(Act::Probe { unit: name.clone(), run });
            }
            Life::Stopping { pid, killed, .. } => {
                // It was asked to end before there was anything to ask: its time begins now.
                *pid = Some(made);
                *killed = false;
                let until = now.boot_ms.saturating_add(unit.policy.stop_timeout_ms);
                fx.acts.push(Act::Terminate { unit: name.clone(), run });
                self.schedule(until, name, run, Timer::Kill);
            }
            Life::Idle
            | Life::Up { .. }
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Failed { .. }
            | Life::Unknown { .. } => {}
        }
    }

    fn probed(&mut self, now: Now, name: &UnitName, run: RunId, health: Health, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let policy = unit.policy.clone();
        unit.probing = false;
        if health.verdict == Verdict::Healthy {
            unit.last_healthy_at_ms = Some(now.wall_ms);
        }
        unit.last_health = Some((now.wall_ms, health.clone()));
        let next_ms = match &mut unit.life {
            // What cannot be asked must at least have lived for a while.
            Life::Starting { since_ms, .. } if health.is_ready() && now.boot_ms - *since_ms < policy.ready_after_ms => {
                policy.ready_after_ms - (now.boot_ms - *since_ms)
            }
            Life::Starting { pid: Some(pid), .. } if health.is_ready() => {
                let (pid, degraded) = (*pid, health.verdict == Verdict::Degraded);
                let now_ms = now.boot_ms;
                unit.life = Life::Up { run, pid, since_ms: now_ms, healthy_since_ms: now_ms, fails: 0, degraded };
                unit.last_error = None;
                policy.probe_early_ms
            }
            Life::Starting { since_ms, .. } => start_gap_ms(now.boot_ms - *since_ms),
            Life::Up { since_ms, healthy_since_ms, fails, degraded, .. } => {
                *degraded = health.verdict == Verdict::Degraded;
                if health.is_ready() {
                    if *fails > 0 {
                        *healthy_since_ms = now.boot_ms;
                        unit.last_error = None;
                    }
                    *fails = 0;
                    let stable_ms = policy.restart.stable_s.saturating_mul(1000);
                    if unit.deaths.count() > 0 && now.boot_ms - *healthy_since_ms >= stable_ms {
                        unit.deaths.forgive();
                    }
                    let early = now.boot_ms - *since_ms < policy.early_ms;
                    if early { policy.probe_early_ms } else { policy.probe_steady_ms }
                } else {
                    let healthy_for_ms = if *fails == 0 { now.boot_ms - *healthy_since_ms } else { 0 };
                    *fails += 1;
                    unit.last_error = Some(format!("unhealthy: {}", health.detail));
                    if *fails >= policy.failure_threshold {
                        let message = format!("{name} failed {fails} health probes in a row: {}", health.detail);
                        let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name);
                        self.begin_stop(now, name, Cause::Death { reason, healthy_for_ms }, fx);
                        return;
                    }
                    policy.probe_early_ms
                }
            }
            Life::Idle
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Failed { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. } => return,
        };
        self.schedule(now.boot_ms.saturating_add(next_ms), name, run, Timer::Probe);
    }

    /// The main process has ended: the run is over as soon as nothing else of it lives.
    fn exited(&mut self, now: Now, name: &UnitName, how: Exit, last_words: Vec<String>, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let (message, healthy_for_ms) = match &unit.life {
            Life::Starting { .. } if how == (Exit::Exited { code: 0 }) => {
                (format!("{name} exited with code 0 before it was ready: its command must go on running"), 0)
            }
            Life::Starting { .. } => (format!("{name} {how} before it was ready"), 0),
            Life::Up { fails, healthy_since_ms, .. } => {
                let healthy_for_ms = if *fails == 0 { now.boot_ms - *healthy_since_ms } else { 0 };
                (format!("{name} {how}"), healthy_for_ms)
            }
            Life::Stopping { .. }
            | Life::Idle
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Failed { .. }
            | Life::Unknown { .. } => (String::new(), 0),
        };
        if let Life::Starting { .. } | Life::Up { .. } = unit.life {
            let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name).causes(last_words);
            self.begin_stop(now, name, Cause::Death { reason, healthy_for_ms }, fx);
        }
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Life::Stopping { exit, pid, .. } = &mut unit.life {
            *exit = Some(how);
            *pid = None;
        }
    }

    /// A new daemon looked at a recorded run: start, look, adopt, go on.
    fn found(&mut self, now: Now, name: &UnitName, run: RunId, found: FoundRun, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let Life::Unknown { was, .. } = unit.life else { return };
        let unwanted = unit.want != Want::Up;
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
            FoundRun::Alive { pid } if unwanted => {
                unit.life = up(pid);
                self.begin_stop(now, name, Cause::Asked, fx);
            }
            FoundRun::Alive { pid } if half_stopped => {
                unit.life = up(pid);
                let message = format!("{name} was being stopped when the daemon ended");
                let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name);
                self.begin_stop(now, name, Cause::Death { reason, healthy_for_ms: 0 }, fx);
            }
            FoundRun::Alive { pid } if was == Phase::Starting && unit.wishes.values().any(Option::is_none) => {
                // Which port it was given was not recorded yet: nobody could ask it anything.
                unit.life = up(pid);
                self.begin_stop(now, name, Cause::Asked, fx);
            }
            FoundRun::Alive { pid } => {
                unit.life = up(pid);
                if was == Phase::Starting {
                    unit.life = Life::Starting { run, pid: Some(pid), since_ms: now.boot_ms };
                    let until = now.boot_ms.saturating_add(unit.policy.start_timeout_ms);
                    self.schedule(until, name, run, Timer::StartTimeout);
                }
                if let Some(unit) = self.units.get_mut(name) {
                    unit.probing = true;
                }
                fx.acts.push(Act::Probe { unit: name.clone(), run });
            }
            FoundRun::Draining { exit } => {
                unit.life = up(0);
                self.exited(now, name, exit, vec![], fx);
                if unwanted {
                    self.begin_stop(now, name, Cause::Asked, fx);
                }
            }
            FoundRun::Ended { exit } => {
                let rebooted = exit == Exit::HostRebooted;
                let reason = Failure::new(ErrorKind::ServiceFailed, format!("{name} {exit}")).about(name);
                let cause = if unwanted || rebooted || half_stopped {
                    Cause::Asked
                } else {
                    Cause::Death { reason, healthy_for_ms: 0 }
                };
                unit.life = Life::Stopping { run, pid: None, cause, exit: Some(exit), killed: false };
                if rebooted {
                    unit.deaths.forgive();
                }
                self.over(now, name, fx);
            }
            FoundRun::NeverStarted => {
                unit.life = Life::Idle;
                unit.started_at_ms = None;
                fx.acts.push(Act::Forget { unit: name.clone(), run });
            }
        }
    }
}

/// Between start probes: close together while most servers get ready, then slower.
fn start_gap_ms(since_start_ms: u64) -> u64 {
    match since_start_ms {
        0..60 => 4,
        60..2_000 => 25,
        _ => 100,
    }
}
