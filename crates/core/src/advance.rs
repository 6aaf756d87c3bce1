//! Making an operation's first step true, and the moves that every path shares: launch, stop, over, death.

use wharf_model::{EndReason, ErrorKind, Exit, Failure, GivenUp, OpKind, OpOutcome, RunId, UnitName, Want};

use crate::{
    Act, Cause, Core, DeathVerdict, Effects, Life, Notice, Now, Timer, Unit,
    needs::Needs,
    unit::{Op, Step},
};

/// What `advance` found to be done. Deciding is apart from doing.
enum Move {
    Nothing,
    NextAsk,
    StepIsTrue,
    OpIsDone,
    Place,
    Remove,
    ClearAway,
    Stop,
    /// What needs it is stopped first.
    StopDependents,
    /// What it needs is being stopped.
    Leave,
    /// Its GPU is needed by another.
    Evict,
    Launch,
    /// It sleeps, and is to be ready.
    Wake,
    Follow(RunId),
}

fn next_move(op: &Op, unit: &Unit, needed_by_live: bool) -> Move {
    match (op.steps.front(), &unit.life) {
        (None, _) => Move::OpIsDone,
        (Some(Step::Place { begun: false, .. }), _) => Move::Place,
        (Some(Step::Remove { begun: false, .. }), _) => Move::Remove,
        (Some(Step::Place { begun: true, .. } | Step::Remove { begun: true, .. }), _) => Move::Nothing,

        (Some(Step::Stop { .. }), Life::Idle) => Move::StepIsTrue,
        (
            Some(Step::Stop { .. }),
            Life::Backoff { .. } | Life::Blocked { .. } | Life::Waiting { .. } | Life::Failed { .. },
        ) => Move::ClearAway,
        (Some(Step::Stop { with_dependents: true }), Life::Starting { .. } | Life::Up { .. }) if needed_by_live => {
            Move::StopDependents
        }
        (Some(Step::Stop { .. }), Life::Starting { .. } | Life::Up { .. }) => Move::Stop,
        (Some(Step::Stop { .. }), Life::Stopping { cause: Cause::Death { .. } | Cause::Final { .. }, .. }) => {
            Move::Stop
        }
        (
            Some(Step::Stop { .. }),
            Life::Stopping {
                cause: Cause::Asked | Cause::Need { .. } | Cause::Idle | Cause::Evicted { .. } | Cause::Done,
                ..
            }
            | Life::Unknown { .. },
        ) => Move::Nothing,

        (Some(Step::Start { .. }), Life::Up { .. }) => Move::StepIsTrue,
        // A job that was quick: what was asked for has happened.
        (Some(Step::Start { run: Some(_) }), Life::Idle) if unit.done => Move::StepIsTrue,
        (Some(Step::Start { run: None }), Life::Starting { run, .. }) => Move::Follow(*run),
        (
            Some(Step::Start { run: None }),
            Life::Idle | Life::Backoff { .. } | Life::Blocked { .. } | Life::Waiting { .. } | Life::Failed { .. },
        ) => Move::Launch,
        // A run of ours that ends tells the operation itself.
        (
            Some(Step::Start { .. }),
            Life::Idle
            | Life::Starting { .. }
            | Life::Backoff { .. }
            | Life::Blocked { .. }
            | Life::Waiting { .. }
            | Life::Failed { .. }
            | Life::Stopping { .. }
            | Life::Unknown { .. },
        ) => Move::Nothing,
    }
}

/// Whoever asked for it waits until it can be used.
fn wants_it_ready(op: &Op, unit: &Unit) -> bool {
    matches!(op.steps.front(), Some(Step::Start { .. })) && matches!(unit.life, Life::Up { .. })
}

impl Core {
    /// One move of the unit's operation; true where another may follow.
    pub(crate) fn advance(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> bool {
        let needed_by_live = self.has_live_dependents(name);
        let asleep = self.is_asleep(name);
        let Some(unit) = self.units.get_mut(name) else { return false };
        let runs = matches!(unit.life, Life::Starting { .. } | Life::Up { .. });
        let found = match &unit.op {
            _ if unit.leaving.is_some() && runs && !needed_by_live => Move::Leave,
            _ if unit.evicted.is_some() && runs && needed_by_live => Move::StopDependents,
            _ if unit.evicted.is_some() && runs => Move::Evict,
            Some(op) if asleep && wants_it_ready(op, unit) => Move::Wake,
            Some(op) => next_move(op, unit, needed_by_live),
            None if matches!(unit.life, Life::Unknown { .. }) => Move::Nothing,
            None if !unit.waiting.is_empty() => Move::NextAsk,
            // A stop that an earlier daemon had begun.
            None if runs && !unit.is_wanted() && needed_by_live => Move::StopDependents,
            None if runs && !unit.is_wanted() => Move::Stop,
            // Nobody has to ask for what is wanted: whatever emptied it, it is filled again.
            None if unit.life == Life::Idle && unit.starts_by_itself() => Move::Launch,
            None if matches!(unit.life, Life::Waiting { .. }) && unit.is_wanted() && !unit.held => Move::Launch,
            None if unit.life == Life::Idle && unit.used && unit.want == Want::OnDemand && !unit.held => Move::Launch,
            None => Move::Nothing,
        };
        match found {
            Move::Nothing => return false,
            Move::NextAsk => {
                if let Some((ticket, ask)) = unit.waiting.pop_front() {
                    self.on_ask(now, ticket, ask, fx);
                }
            }
            Move::StepIsTrue => self.step_is_true(name),
            Move::OpIsDone => {
                let failure = unit.op.as_mut().and_then(|op| op.failure.take());
                let outcome = failure.map_or(OpOutcome::Done, |failure| OpOutcome::Failed { failure });
                self.finish(now, name, outcome, fx);
            }
            Move::Place | Move::Remove => {
                self.begin_step(name, fx);
                return false;
            }
            Move::ClearAway => unit.life = Life::Idle,
            Move::Stop => {
                self.begin_stop(now, name, Cause::Asked, fx);
                return false;
            }
            Move::StopDependents => {
                self.stop_dependents(name);
                return false;
            }
            Move::Leave => {
                if let Some(need) = unit.leaving.take() {
                    self.begin_stop(now, name, Cause::Need { unit: need }, fx);
                }
                return self.has_asks_alone(name);
            }
            Move::Evict => {
                if let Some(by) = unit.evicted.take() {
                    self.begin_stop(now, name, Cause::Evicted { by }, fx);
                }
                return self.has_asks_alone(name);
            }
            Move::Launch => return self.launch_or_wait(now, name, fx),
            Move::Wake => {
                self.wake(now, name, fx);
                return false;
            }
            Move::Follow(run) => {
                self.follow(name, run);
                return false;
            }
        }
        true
    }

    /// Somebody asked while the run was not looked at yet, and nothing is being done for them.
    fn has_asks_alone(&self, name: &UnitName) -> bool {
        self.units.get(name).is_some_and(|unit| unit.op.is_none() && !unit.waiting.is_empty())
    }

    pub(crate) fn step_is_true(&mut self, name: &UnitName) {
        if let Some(op) = self.units.get_mut(name).and_then(|u| u.op.as_mut()) {
            op.steps.pop_front();
        }
    }

    fn follow(&mut self, name: &UnitName, of: RunId) {
        let op = self.units.get_mut(name).and_then(|u| u.op.as_mut());
        if let Some(Step::Start { run }) = op.and_then(|op| op.steps.front_mut()) {
            *run = Some(of);
        }
    }

    fn begin_step(&mut self, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let Some(op) = unit.op.as_mut() else { return };
        let (unit, id) = (name.clone(), op.id);
        match op.steps.front_mut() {
            Some(Step::Place { what, begun }) => {
                *begun = true;
                fx.acts.push(Act::Place { unit, op: id, what: what.clone() });
            }
            Some(Step::Remove { removal, begun }) => {
                *begun = true;
                fx.acts.push(Act::Remove { unit, op: id, removal: *removal });
            }
            Some(Step::Stop { .. } | Step::Start { .. }) | None => {}
        }
    }

    /// Launches where what it needs is there; else it waits, and whoever asked is told what cannot come.
    fn launch_or_wait(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> bool {
        self.use_needs(name);
        let (reason, hopeless) = match self.needs_of(name) {
            Needs::Met if !self.has_gpu(now, name, fx) => {
                // It waits for its devices, or whoever asked was told that it cannot have them.
                return false;
            }
            Needs::Met => {
                let run = self.launch(now, name, fx);
                self.follow(name, run);
                return false;
            }
            Needs::Coming(reason) => (reason, false),
            Needs::Missing(reason) => (reason, true),
        };
        let Some(unit) = self.units.get_mut(name) else { return false };
        unit.last_error = Some(reason.message.clone());
        unit.hopeless = hopeless;
        unit.life = Life::Waiting { reason: reason.clone() };
        if hopeless && unit.op.is_some() {
            self.fail(now, name, reason, fx);
            return true;
        }
        false
    }

    /// A new run. Its intent is in the records of this step, so it is durable before the act.
    pub(crate) fn launch(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> RunId {
        let run = self.new_run();
        let Some(unit) = self.units.get_mut(name) else { return run };
        let until = now.boot_ms.saturating_add(unit.policy.start_timeout_ms);
        unit.life = Life::Starting { run, pid: None, since_ms: now.boot_ms, until_ms: until };
        unit.started_at_ms = Some(now.wall_ms);
        unit.started_boot_ms = Some(now.boot_ms);
        unit.last_health = None;
        unit.probing = false;
        unit.done = false;
        unit.used = false;
        unit.leaving = None;
        unit.evicted = None;
        unit.leased = unit.policy.gpu.is_some();
        unit.forced = false;
        unit.launched = false;
        unit.notified = false;
        unit.status_text = None;
        unit.log_fault = None;
        unit.watchdog = None;
        fx.acts.push(Act::Launch { unit: name.clone(), run });
        self.schedule(until, name, run, Timer::StartTimeout);
        run
    }

    /// Asks the run to end; SIGKILL follows after the policy's time.
    pub(crate) fn begin_stop(&mut self, now: Now, name: &UnitName, cause: Cause, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if let Life::Stopping { cause: present, .. } = &mut unit.life {
            *present = cause;
            return;
        }
        let Some(run) = unit.life.run() else { return };
        unit.probing = false;
        let until = now.boot_ms.saturating_add(unit.policy.stop_timeout_ms);
        unit.life = Life::Stopping { run, pid: unit.life.pid(), cause, exit: None, killed: false, until_ms: until };
        fx.acts.push(Act::Terminate { unit: name.clone(), run });
        self.schedule(until, name, run, Timer::Kill);
    }

    /// No process of the run lives.
    pub(crate) fn over(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        self.ended(now, name, true, fx);
    }

    /// A run is over. One that was never `made` has no end that anybody could tell of.
    pub(crate) fn ended(&mut self, now: Now, name: &UnitName, made: bool, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let life = std::mem::replace(&mut unit.life, Life::Idle);
        let Life::Stopping { run, cause, exit, killed, .. } = life else {
            unit.life = life;
            return;
        };
        unit.probing = false;
        unit.started_at_ms = None;
        self.gpu_gone(now, name, made, fx);
        let Some(unit) = self.units.get_mut(name) else { return };
        let exit = exit.unwrap_or(Exit::Unknown);
        let reason = match (&cause, killed, &exit) {
            (_, _, Exit::HostRebooted) => EndReason::HostRebooted,
            (Cause::Asked, true, _) => EndReason::Killed,
            (
                Cause::Asked
                | Cause::Need { .. }
                | Cause::Idle
                | Cause::Evicted { .. }
                | Cause::Done
                | Cause::Death { .. }
                | Cause::Final { .. },
                _,
                _,
            ) => cause.end(),
        };
        unit.status_text = None;
        unit.log_fault = None;
        fx.acts.push(Act::Forget { unit: name.clone(), run });
        if made {
            unit.last_exit = Some(exit.clone());
            unit.last_run = Some(run);
            unit.last_end = Some(reason);
            fx.notices.push(Notice::Ended { unit: name.clone(), run, exit, reason });
        }
        match cause {
            Cause::Need { unit: need } => {
                unit.last_error = None;
                if self.starts_by(name, run) {
                    let text = format!("{name} needs {need}, which was asked to stop meanwhile");
                    let told = Failure::new(ErrorKind::Conflict, text).hint(format!("wharf start {need}"));
                    self.fail(now, name, told, fx);
                }
            }
            Cause::Evicted { by } => {
                unit.last_error = Some(format!("{name} made room on its GPU for {by}"));
                if self.starts_by(name, run) {
                    let text = format!("{name} had to make room on its GPU for {by}");
                    let told = Failure::new(ErrorKind::Conflict, text).hint("see who has what: wharf gpu");
                    self.fail(now, name, told, fx);
                }
            }
            Cause::Asked | Cause::Idle => unit.last_error = None,
            Cause::Done => {
                unit.last_error = None;
                unit.done = true;
                unit.deaths.heal();
            }
            Cause::Death { reason, healthy_for_ms, .. } => self.death(now, name, run, reason, healthy_for_ms, fx),
            Cause::Final { reason } => {
                if unit.is_wanted() {
                    self.give_up(now, name, run, reason, GivenUp::ExitRule, fx);
                }
            }
        }
    }

    /// An uninvited end: try again later, or give up and say why.
    pub(crate) fn death(
        &mut self,
        now: Now,
        name: &UnitName,
        run: RunId,
        reason: Failure,
        healthy_for_ms: u64,
        fx: &mut Effects,
    ) {
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.last_error = Some(reason.message.clone());
        if !unit.is_wanted() {
            return;
        }
        match unit.deaths.record(now.boot_ms, healthy_for_ms, &unit.policy.restart) {
            DeathVerdict::Again { after_ms, attempt } => {
                let until_ms = now.boot_ms + after_ms;
                unit.life = Life::Backoff { until_ms, reason: reason.clone() };
                fx.notices.push(Notice::Retry { unit: name.clone(), attempt, after_ms });
                if after_ms == 0 {
                    // Nothing to wait for: the next run is in the records of this same step.
                    self.due(now, name, RunId(0), Timer::Retry, fx);
                } else {
                    self.schedule(until_ms, name, RunId(0), Timer::Retry);
                }
                if self.starts_by(name, run) {
                    let mut told = reason;
                    let hint = format!("Wharf tries again in {} s; see: wharf logs {name}", after_ms / 1000);
                    told.hint.get_or_insert(hint);
                    self.fail(now, name, told, fx);
                }
            }
            DeathVerdict::Enough { deaths, rule } => {
                let times = if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") };
                let message = format!("{name} has failed {times}, not restarting: {}", reason.message);
                let hint =
                    format!("check its configuration and dependencies: wharf logs {name}; then: wharf start {name}");
                let told = Failure { message, hint: Some(hint), ..reason };
                self.give_up(now, name, run, told, rule, fx);
            }
        }
    }

    /// It stays down. Where its policy says so it is tried once more after a long time.
    fn give_up(&mut self, now: Now, name: &UnitName, run: RunId, reason: Failure, rule: GivenUp, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.last_error = Some(reason.message.clone());
        let slow_ms = unit.policy.restart.slow_retry_s.saturating_mul(1000);
        let again = slow_ms > 0 && rule == GivenUp::RestartIntensity;
        let retry_at_ms = again.then(|| now.boot_ms.saturating_add(slow_ms));
        unit.life = Life::Failed { reason: reason.clone(), rule, retry_at_ms };
        if let Some(at) = retry_at_ms {
            self.schedule(at, name, RunId(0), Timer::Retry);
        }
        if self.starts_by(name, run) {
            self.fail(now, name, reason, fx);
        }
    }

    /// The unit's operation waits for this run to get ready.
    pub(crate) fn starts_by(&self, name: &UnitName, of: RunId) -> bool {
        let op = self.units.get(name).and_then(|u| u.op.as_ref());
        matches!(op.and_then(|op| op.steps.front()), Some(Step::Start { run: Some(run) }) if *run == of)
    }

    /// The run's process was not made.
    pub(crate) fn not_launched(&mut self, now: Now, name: &UnitName, run: RunId, failure: Failure, fx: &mut Effects) {
        let asked = self.starts_by(name, run);
        let Some(unit) = self.units.get_mut(name) else { return };
        unit.started_at_ms = None;
        unit.last_error = Some(failure.message.clone());
        self.gpu_gone(now, name, false, fx);
        let Some(unit) = self.units.get_mut(name) else { return };
        fx.acts.push(Act::Forget { unit: name.clone(), run });
        let first_start = unit.op.as_ref().is_some_and(|op| match op.kind {
            OpKind::Start => true,
            OpKind::Deploy => matches!(op.was.0, Want::Down | Want::Retired),
            OpKind::Build
            | OpKind::Install
            | OpKind::Stop
            | OpKind::Restart
            | OpKind::Delete
            | OpKind::Upgrade
            | OpKind::Rollback => false,
        });
        if asked && first_start {
            // Refused to whoever asked: it does not stay wanted behind their back.
            unit.want = Want::Down;
            unit.life = refused(&failure);
            self.fail(now, name, failure, fx);
            return;
        }
        if asked {
            // It ran before, so it is tried again; whoever asked is told now.
            unit.life = refused(&failure);
            self.fail(now, name, failure.clone(), fx);
        }
        let Some(unit) = self.units.get_mut(name) else { return };
        // A right that is lacking is given by somebody from outside, as what is missing or lent is.
        let outside = matches!(
            failure.kind,
            ErrorKind::PortTaken | ErrorKind::Precondition | ErrorKind::Permission | ErrorKind::Storage
        );
        if outside || failure.kind.is_of_a_ledger() {
            let until_ms = now.boot_ms + 5_000;
            unit.life = Life::Blocked { until_ms, reason: failure };
            self.schedule(until_ms, name, RunId(0), Timer::Retry);
        } else {
            unit.life = Life::Idle;
            self.death(now, name, run, failure, 0, fx);
        }
    }
}

pub(crate) fn refused(failure: &Failure) -> Life {
    Life::Failed { reason: failure.clone(), rule: GivenUp::StartRefused, retry_at_ms: None }
}
