//! Making an operation's first step true, and the moves that every path shares: launch, stop, over, death.

use wharf_model::{ErrorKind, Exit, Failure, OpOutcome, RunId, UnitName, Want};

use crate::{
    Act, Cause, Core, DeathVerdict, Effects, Life, Notice, Now, Timer,
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
    Launch,
    Follow(RunId),
}

fn next_move(op: &Op, life: &Life) -> Move {
    match (op.steps.front(), life) {
        (None, _) => Move::OpIsDone,
        (Some(Step::Place { begun: false, .. }), _) => Move::Place,
        (Some(Step::Remove { begun: false, .. }), _) => Move::Remove,
        (Some(Step::Place { begun: true, .. } | Step::Remove { begun: true, .. }), _) => Move::Nothing,

        (Some(Step::Stop), Life::Idle) => Move::StepIsTrue,
        (Some(Step::Stop), Life::Backoff { .. } | Life::Blocked { .. } | Life::Failed { .. }) => Move::ClearAway,
        (Some(Step::Stop), Life::Starting { .. } | Life::Up { .. }) => Move::Stop,
        (Some(Step::Stop), Life::Stopping { cause: Cause::Death { .. }, .. }) => Move::Stop,
        (Some(Step::Stop), Life::Stopping { cause: Cause::Asked, .. } | Life::Unknown { .. }) => Move::Nothing,

        (Some(Step::Start { .. }), Life::Up { .. }) => Move::StepIsTrue,
        (Some(Step::Start { run: None }), Life::Starting { run, .. }) => Move::Follow(*run),
        (
            Some(Step::Start { run: None }),
            Life::Idle | Life::Backoff { .. } | Life::Blocked { .. } | Life::Failed { .. },
        ) => Move::Launch,
        // A run of ours that ends tells the operation itself.
        (Some(Step::Start { .. }), _) => Move::Nothing,
    }
}

impl Core {
    /// One move of the unit's operation; true where another may follow.
    pub(crate) fn advance(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> bool {
        let Some(unit) = self.units.get_mut(name) else { return false };
        let found = match &unit.op {
            Some(op) => next_move(op, &unit.life),
            None if matches!(unit.life, Life::Unknown { .. }) => Move::Nothing,
            None if !unit.waiting.is_empty() => Move::NextAsk,
            // Nobody has to ask for what is wanted: whatever emptied it, it is filled again.
            None if unit.want == Want::Up && !unit.held && unit.life == Life::Idle && unit.is_placed() => Move::Launch,
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
            Move::Launch => {
                let run = self.launch(now, name, fx);
                self.follow(name, run);
                return false;
            }
            Move::Follow(run) => {
                self.follow(name, run);
                return false;
            }
        }
        true
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
            Some(Step::Place { version, reset, build, begun }) => {
                *begun = true;
                let (version, reset, build) = (version.clone(), *reset, *build);
                fx.acts.push(Act::Place { unit, op: id, version, reset, build });
            }
            Some(Step::Remove { removal, begun }) => {
                *begun = true;
                fx.acts.push(Act::Remove { unit, op: id, removal: *removal });
            }
            Some(Step::Stop | Step::Start { .. }) | None => {}
        }
    }

    /// A new run. Its intent is in the records of this step, so it is durable before the act.
    pub(crate) fn launch(&mut self, now: Now, name: &UnitName, fx: &mut Effects) -> RunId {
        let run = self.new_run();
        let Some(unit) = self.units.get_mut(name) else { return run };
        unit.life = Life::Starting { run, pid: None, since_ms: now.boot_ms };
        unit.started_at_ms = Some(now.wall_ms);
        unit.last_health = None;
        unit.probing = false;
        let until = now.boot_ms.saturating_add(unit.policy.start_timeout_ms);
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
        unit.life = Life::Stopping { run, pid: unit.life.pid(), cause, exit: None, killed: false };
        unit.probing = false;
        let until = now.boot_ms.saturating_add(unit.policy.stop_timeout_ms);
        fx.acts.push(Act::Terminate { unit: name.clone(), run });
        self.schedule(until, name, run, Timer::Kill);
    }

    /// No process of the run lives.
    pub(crate) fn over(&mut self, now: Now, name: &UnitName, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let life = std::mem::replace(&mut unit.life, Life::Idle);
        let Life::Stopping { run, cause, exit, .. } = life else {
            unit.life = life;
            return;
        };
        unit.probing = false;
        unit.started_at_ms = None;
        unit.last_exit = Some(exit.unwrap_or(Exit::Unknown));
        fx.acts.push(Act::Forget { unit: name.clone(), run });
        match cause {
            Cause::Asked => unit.last_error = None,
            Cause::Death { reason, healthy_for_ms } => self.death(now, name, run, reason, healthy_for_ms, fx),
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
        if unit.want != Want::Up {
            return;
        }
        let mut told = reason.clone();
        match unit.deaths.record(now.boot_ms, healthy_for_ms, &unit.policy.restart) {
            DeathVerdict::Again { after_ms, attempt } => {
                let until_ms = now.boot_ms + after_ms;
                unit.life = Life::Backoff { until_ms, reason };
                fx.notices.push(Notice::Retry { unit: name.clone(), attempt, after_ms });
                let hint = format!("Wharf tries again in {} s; see: wharf logs {name}", after_ms / 1000);
                told.hint.get_or_insert(hint);
                self.schedule(until_ms, name, RunId(0), Timer::Retry);
            }
            DeathVerdict::Enough { deaths } => {
                let message = format!("{name} has failed {deaths} times, not restarting: {}", reason.message);
                unit.last_error = Some(message.clone());
                let hint =
                    format!("check its configuration and dependencies: wharf logs {name}; then: wharf start {name}");
                told = Failure { message, hint: Some(hint), ..reason };
                unit.life = Life::Failed { reason: told.clone() };
            }
        }
        if self.starts_by(name, run) {
            self.fail(now, name, told, fx);
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
        fx.acts.push(Act::Forget { unit: name.clone(), run });
        let first_start = unit.op.as_ref().is_some_and(|op| op.kind == wharf_model::OpKind::Start);
        if asked && first_start {
            // Refused to whoever asked: it does not stay wanted behind their back.
            unit.want = Want::Down;
            unit.life = Life::Failed { reason: failure.clone() };
            self.fail(now, name, failure, fx);
            return;
        }
        if asked {
            // It ran before, so it is tried again; whoever asked is told now.
            unit.life = Life::Failed { reason: failure.clone() };
            self.fail(now, name, failure.clone(), fx);
        }
        let Some(unit) = self.units.get_mut(name) else { return };
        match failure.kind {
            ErrorKind::PortTaken | ErrorKind::Precondition | ErrorKind::Storage => {
                let until_ms = now.boot_ms + 5_000;
                unit.life = Life::Blocked { until_ms, reason: failure };
                self.schedule(until_ms, name, RunId(0), Timer::Retry);
            }
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Timeout
            | ErrorKind::Permission
            | ErrorKind::ServiceFailed
            | ErrorKind::InstallFailed
            | ErrorKind::InvalidParams
            | ErrorKind::Internal => {
                unit.life = Life::Idle;
                self.death(now, name, run, failure, 0, fx);
            }
        }
    }
}
