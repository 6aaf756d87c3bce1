//! Facts: what the world says, and what it means for the run that it is about.

use wharf_model::{
    EndReason, ErrorKind, Exit, Failure, GivenUp, Health, OnExit, OpKind, Policy, RunId, UnitName, Verdict,
};

use crate::{Act, Cause, Core, Effects, Fact, Life, Now, Record, Timer, ask::up, unit::Step};

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
                        self.ended(now, &unit, false, fx);
                    } else {
                        self.not_launched(now, &unit, run, failure, fx);
                    }
                }
            }
            Fact::Changed { unit, run, change, result } => {
                if self.of_run(&unit, run, fx).is_some() {
                    let outcome = self.arbiter.changed(now, &unit, change, result);
                    self.absorb(now, outcome, fx);
                }
            }
            Fact::Probed { unit, run, health } => {
                if self.of_run(&unit, run, fx).is_some() {
                    let asleep = self.is_asleep(&unit) && !health.is_ready();
                    let health = if asleep { Health::healthy("it sleeps: its GPU memory is put away") } else { health };
                    self.probed(now, &unit, run, health, fx);
                }
            }
            Fact::Exited { unit, run, exit, empty, last_words } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.exited(now, &unit, exit, last_words, fx);
                    if empty {
                        // Nobody is left to be asked to end.
                        fx.acts.retain(|act| !matches!(act, Act::Terminate { run: of, .. } if *of == run));
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
            Fact::Learned { unit, run, exit } => self.learned(&unit, run, exit, fx),
            Fact::Notified { unit, run, news } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.notified(now, &unit, run, news, fx);
                }
            }
            Fact::LogFault { unit, run, line } => {
                if let Some(u) = self.of_run(&unit, run, fx) {
                    u.log_fault = line;
                }
            }
            Fact::Used { unit } => self.used(&unit, fx),
            Fact::Unused { unit, run } => {
                if self.of_run(&unit, run, fx).is_some() {
                    self.unused(now, &unit, fx);
                }
            }
            Fact::Scheduled { unit, next_due_ms } => {
                if let Some(u) = self.units.get_mut(&unit) {
                    u.next_due_ms = next_due_ms;
                    fx.touched.insert(unit);
                }
            }
            Fact::Due { unit } => self.due_by_schedule(now, &unit, fx),
            // Settling starts what is wanted and does not run.
            Fact::Booted => {
                self.arm_slow_retries(now);
                fx.touched.extend(self.units.keys().cloned());
            }
        }
    }

    /// The slow retries of units that an earlier daemon gave up: their time is counted anew.
    fn arm_slow_retries(&mut self, now: Now) {
        let mut due = vec![];
        for unit in self.units.values_mut() {
            let slow_ms = unit.policy.restart.slow_retry_s.saturating_mul(1000);
            let wanted = unit.is_wanted() && slow_ms > 0;
            if let Life::Failed { rule: GivenUp::RestartIntensity, retry_at_ms: at @ None, .. } = &mut unit.life
                && wanted
            {
                *at = Some(now.boot_ms.saturating_add(slow_ms));
                due.push((now.boot_ms.saturating_add(slow_ms), unit.name.clone()));
            }
        }
        for (at, name) in due {
            self.schedule(at, &name, RunId(0), Timer::Retry);
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
        self.step_is_true(name);
        let Some(unit) = self.units.get_mut(name) else { return };
        match result {
            Ok(installed) => {
                let deploys = unit.op.as_ref().is_some_and(|op| op.kind == OpKind::Deploy && op.failure.is_none());
                if deploys && (installed.is_some() || unit.is_placed()) {
                    (unit.want, unit.held, unit.done) = (up(unit), false, false);
                }
                let Some(installed) = installed else {
                    let starts = unit.op.as_ref().is_some_and(|op| !op.steps.is_empty());
                    if starts && !unit.is_placed() {
                        let text = format!("nothing was placed that {name} could be started from");
                        self.fail(now, name, Failure::new(ErrorKind::InstallFailed, text), fx);
                        self.forget_if_it_never_was(now, name, fx);
                    }
                    return;
                };
                let Some(op) = unit.op.as_mut() else { return };
                if unit.installed.as_ref() != Some(&installed) {
                    unit.previous = unit.installed.replace(installed);
                    unit.on_trial = op.kind.changes_version() && !op.steps.is_empty() && unit.previous.is_some();
                } else if op.kind == OpKind::Upgrade && !unit.on_trial && op.failure.is_none() {
                    // Nothing newer: what runs goes on running.
                    op.steps.clear();
                }
            }
            // On its way back it needs nothing of the store but what it ran from before.
            Err(_) if unit.op.as_ref().is_some_and(|op| op.failure.is_some()) => {}
            Err(failure) => {
                self.fail(now, name, failure, fx);
                self.forget_if_it_never_was(now, name, fx);
            }
        }
    }

    /// A unit that was to be placed for the first time, and was not, is none.
    pub(crate) fn forget_if_it_never_was(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let never_was = self.units.get(name).is_some_and(|u| {
            u.installed.is_none()
                && u.needs_install
                && matches!(u.life, Life::Idle)
                && u.waiting.is_empty()
                && u.op.is_none()
        });
        if never_was {
            self.drop_unit(now, name, fx);
            fx.records.push(Record::Gone(name.clone()));
        }
    }

    fn removed(&mut self, now: Now, name: &UnitName, result: Result<(), Failure>, fx: &mut Effects) {
        if let Err(failure) = result {
            self.fail(now, name, failure, fx);
            return;
        }
        self.finish(now, name, wharf_model::OpOutcome::Done, fx);
        let waiting = self.drop_unit(now, name, fx).map(|u| u.waiting).unwrap_or_default();
        fx.records.push(Record::Gone(name.clone()));
        for (ticket, ask) in waiting {
            self.on_ask(now, ticket, ask, fx);
        }
    }

    pub(crate) fn launched(&mut self, now: Now, name: &UnitName, run: RunId, made: i32, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        // Told twice, or after its end.
        let ended = matches!(unit.life, Life::Stopping { exit: Some(_), .. });
        if std::mem::replace(&mut unit.launched, true) || ended {
            return;
        }
        match &mut unit.life {
            Life::Starting { pid, since_ms, .. } => {
                // The program may have named its main process before.
                pid.get_or_insert(made);
                let lived_ms = now.boot_ms.saturating_sub(*since_ms);
                let wait_ms = unit.policy.ready_after_ms.saturating_sub(lived_ms);
                match (unit.policy.notify, unit.policy.is_probed()) {
                    // It says itself when it is ready. Perhaps it has already.
                    (true, _) if unit.notified => self.got_ready(now, name, run, made, false, fx),
                    (true, _) => {}
                    (false, true) => {
                        unit.probing = true;
                        fx.acts.push(Act::Probe { unit: name.clone(), run });
                    }
                    (false, false) if wait_ms == 0 || unit.policy.is_job() => {
                        self.got_ready(now, name, run, made, false, fx);
                    }
                    (false, false) => self.schedule(now.boot_ms + wait_ms, name, run, Timer::Ready),
                }
            }
            Life::Stopping { pid, killed, until_ms, .. } => {
                // It was asked to end before there was anything to ask: its time begins now.
                pid.get_or_insert(made);
                *killed = false;
                let until = now.boot_ms.saturating_add(unit.policy.stop_timeout_ms);
                *until_ms = until;
                fx.acts.push(Act::Terminate { unit: name.clone(), run });
                self.schedule(until, name, run, Timer::Kill);
            }
            Life::Idle
            | Life::Up { .. }
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Unknown { .. } => {}
        }
    }

    /// New habits reach a run that lives: whoever waits for it goes on waiting for what can come.
    pub(crate) fn see_to_run(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let policy = unit.policy.clone();
        if matches!(unit.life, Life::Starting { .. }) && !unit.launched {
            return;
        }
        let asked = |unit: &crate::Unit, run| unit.probing || unit.awaits(Timer::Probe, run);
        match unit.life {
            Life::Starting { run, pid: Some(pid), .. } if policy.notify && unit.notified => {
                self.got_ready(now, name, run, pid, false, fx);
            }
            Life::Starting { run, pid: Some(_), .. } if !policy.notify && policy.is_probed() => {
                if !asked(unit, run) {
                    unit.probing = true;
                    fx.acts.push(Act::Probe { unit: name.clone(), run });
                }
            }
            Life::Starting { run, pid: Some(_), since_ms, .. } if !policy.notify => {
                let at = since_ms.saturating_add(policy.ready_after_ms).max(now.boot_ms);
                self.schedule(at, name, run, Timer::Ready);
            }
            Life::Up { run, .. } => {
                let probe = policy.is_probed() && !asked(unit, run);
                let watch = policy.watchdog_ms.filter(|_| unit.watchdog.is_none());
                if let Some(period_ms) = watch {
                    unit.watchdog = Some((now.boot_ms, period_ms));
                    self.schedule(now.boot_ms.saturating_add(period_ms), name, run, Timer::Watchdog);
                }
                if probe {
                    self.schedule(now.boot_ms.saturating_add(policy.probe_early_ms), name, run, Timer::Probe);
                }
            }
            Life::Starting { .. }
            | Life::Idle
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. } => {}
        }
    }

    /// The run can be used from now on.
    pub(crate) fn got_ready(
        &mut self,
        now: Now,
        name: &UnitName,
        run: RunId,
        pid: i32,
        degraded: bool,
        fx: &mut Effects,
    ) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let now_ms = now.boot_ms;
        unit.life = Life::Up { run, pid, since_ms: now_ms, healthy_since_ms: now_ms, fails: 0, degraded };
        unit.last_error = None;
        self.gpu_ready(now, name, fx);
        let Some(unit) = self.units.get_mut(name) else { return };
        if !unit.policy.is_probed() {
            // Nobody asks it: that it lives is its health.
            unit.last_health = Some((now.wall_ms, Health::healthy("its process lives")));
            unit.last_healthy_at_ms = Some(now.wall_ms);
        }
        if !unit.policy.post_start.is_empty() {
            fx.acts.push(Act::PostStart { unit: name.clone(), run });
        }
        let (probed, early_ms) = (unit.policy.is_probed(), unit.policy.probe_early_ms);
        let watchdog_ms = unit.watchdog.map(|(_, period)| period).or(unit.policy.watchdog_ms);
        unit.watchdog = watchdog_ms.map(|period| (now_ms, period));
        if let Some(period) = watchdog_ms {
            self.schedule(now_ms.saturating_add(period), name, run, Timer::Watchdog);
        }
        if probed {
            self.schedule(together(now_ms, spread(early_ms, run, now_ms)), name, run, Timer::Probe);
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
                self.got_ready(now, name, run, pid, degraded, fx);
                return;
            }
            Life::Starting { since_ms, .. } => start_gap_ms(now.boot_ms - *since_ms),
            Life::Up { since_ms, healthy_since_ms, fails, degraded, .. } => {
                *degraded = health.verdict == Verdict::Degraded;
                if !policy.is_probed() {
                    // It is not to be asked any more: that it lives is its health.
                    (*fails, *degraded) = (0, false);
                    return;
                }
                if health.is_ready() {
                    if *fails > 0 {
                        *healthy_since_ms = now.boot_ms;
                        unit.last_error = None;
                    }
                    *fails = 0;
                    let stable_ms = policy.restart.stable_s.saturating_mul(1000);
                    if unit.deaths.count() > 0 && now.boot_ms - *healthy_since_ms >= stable_ms {
                        unit.deaths.heal();
                    }
                    let early = now.boot_ms - *since_ms < policy.early_ms;
                    if early { policy.probe_early_ms } else { policy.probe_steady_ms }
                } else {
                    let healthy_for_ms = if *fails == 0 { now.boot_ms - *healthy_since_ms } else { 0 };
                    *fails += 1;
                    unit.last_error = Some(format!("unhealthy: {}", health.detail));
                    if policy.failure_threshold > 0 && *fails >= policy.failure_threshold {
                        let message = format!("{name} failed {fails} health probes in a row: {}", health.detail);
                        let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name);
                        let end = EndReason::Unhealthy;
                        self.begin_stop(now, name, Cause::Death { reason, end, healthy_for_ms }, fx);
                        return;
                    }
                    policy.probe_early_ms
                }
            }
            Life::Idle
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. } => return,
        };
        let next_ms = spread(next_ms, run, now.boot_ms);
        self.schedule(together(now.boot_ms, next_ms), name, run, Timer::Probe);
    }

    /// The main process has ended: the run is over as soon as nothing else of it lives.
    pub(crate) fn exited(&mut self, now: Now, name: &UnitName, how: Exit, last_words: Vec<String>, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let (before_ready, healthy_for_ms) = match &unit.life {
            Life::Starting { .. } => (true, 0),
            Life::Up { fails, healthy_since_ms, .. } => {
                (false, if *fails == 0 { now.boot_ms - *healthy_since_ms } else { 0 })
            }
            Life::Stopping { .. }
            | Life::Idle
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Unknown { .. } => (false, 0),
        };
        if let Life::Starting { .. } | Life::Up { .. } = unit.life {
            let message = match (before_ready, &how) {
                (true, Exit::Exited { code: 0 }) => {
                    format!("{name} exited with code 0 before it was ready: its command must go on running")
                }
                (true, _) => format!("{name} {how} before it was ready"),
                (false, _) => format!("{name} {how}"),
            };
            let reason = Failure::new(ErrorKind::ServiceFailed, message).about(name).causes(last_words);
            // It was asked to stop, and waits for others to go first: that it goes by itself meanwhile is no death.
            let step = unit.op.as_ref().and_then(|op| op.steps.front());
            let cause = match step {
                Some(Step::Stop { .. }) => Cause::Asked,
                Some(Step::Place { .. } | Step::Start { .. } | Step::Remove { .. }) | None => {
                    after(&unit.policy, &how, reason, healthy_for_ms)
                }
            };
            self.begin_stop(now, name, cause, fx);
        }
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Life::Stopping { exit, pid, .. } = &mut unit.life {
            *exit = Some(how);
            *pid = None;
        }
    }

    /// The code of an end that was told before it was known.
    fn learned(&mut self, name: &UnitName, of: RunId, how: Exit, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Life::Stopping { run, cause, exit: exit @ Some(Exit::Unknown), .. } = &mut unit.life
            && *run == of
        {
            // What follows from an end is decided by how it was: anew, where it ended by itself.
            if let Cause::Death { reason, end: EndReason::ByItself, healthy_for_ms } = cause {
                let mut reason = reason.clone();
                reason.message = reason.message.replace(&Exit::Unknown.to_string(), &how.to_string());
                *cause = after(&unit.policy, &how, reason, *healthy_for_ms);
            }
            *exit = Some(how);
        } else if unit.last_run == Some(of) && unit.last_exit == Some(Exit::Unknown) {
            unit.last_exit = Some(how);
        }
        fx.touched.insert(name.clone());
    }
}

/// What follows from the end of a main process that ended by itself.
fn after(policy: &Policy, how: &Exit, reason: Failure, healthy_for_ms: u64) -> Cause {
    let job_done = (policy.is_job() && *how == (Exit::Exited { code: 0 })).then_some(OnExit::Stop);
    match policy.on_exit(how).or(job_done) {
        Some(OnExit::Stop) => Cause::Done,
        Some(OnExit::Fail) => Cause::Final { reason },
        Some(OnExit::Restart) | None => Cause::Death { reason, end: EndReason::ByItself, healthy_for_ms },
    }
}

/// Jitter without chance: up to a tenth earlier, by run and time, so that a thousand units that began
/// together are not asked together for ever.
fn spread(ms: u64, run: RunId, now_ms: u64) -> u64 {
    let mixed = (run.0 ^ now_ms.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ms - (ms / 10).saturating_mul(mixed & 0xFF) / 0x100
}

/// Probes that are far apart fall due ten times a second at most, several units' at once: a thousand
/// units that are asked one by one wake the daemon for each of them.
fn together(now_ms: u64, gap_ms: u64) -> u64 {
    let due_ms = now_ms.saturating_add(gap_ms);
    if gap_ms < 1_000 { due_ms } else { due_ms - due_ms % 100 }
}

/// Between start probes: close together while most servers get ready, then slower.
fn start_gap_ms(since_start_ms: u64) -> u64 {
    match since_start_ms {
        0..60 => 4,
        60..2_000 => 25,
        _ => 100,
    }
}
