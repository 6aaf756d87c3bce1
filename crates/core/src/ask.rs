//! Asks: may it begin, must it wait, or is somebody doing it already?

use std::collections::VecDeque;

use wharf_model::{ErrorKind, Failure, OpId, OpKind, OpOutcome, Operation, UnitName, Want};

use crate::{
    Act, Answer, Ask, Core, Effects, Goal, Life, MAX_WAITING, Now, Placing, Record, Ticket, Unit, busy,
    unit::{Op, Step},
};

/// What becomes of an ask on a unit that is there.
enum Admission {
    /// It begins.
    Begin,
    /// The present operation does the same: its end answers both.
    Join,
    /// The present operation is given up for it.
    Supersede,
    /// It begins when the present operation has ended.
    Wait,
}

fn kind(goal: &Goal) -> OpKind {
    match goal {
        Goal::Install { .. } => OpKind::Install,
        Goal::Build { .. } => OpKind::Build,
        Goal::Start { .. } => OpKind::Start,
        Goal::Stop { .. } => OpKind::Stop,
        Goal::Restart => OpKind::Restart,
        Goal::Delete(_) => OpKind::Delete,
        Goal::Upgrade { .. } => OpKind::Upgrade,
        Goal::Rollback => OpKind::Rollback,
        Goal::Deploy { .. } => OpKind::Deploy,
    }
}

fn admit(unit: &Unit, ask: &Ask) -> Admission {
    if let Life::Unknown { .. } = unit.life {
        return Admission::Wait;
    }
    let Some(op) = &unit.op else { return Admission::Begin };
    match (op.kind, &ask.goal) {
        (OpKind::Start | OpKind::Restart, Goal::Start { reset: false }) if ask.declared.is_none() => Admission::Join,
        (OpKind::Start | OpKind::Restart, Goal::Start { reset: false }) => {
            let same = ask.declared.as_ref().is_some_and(|d| d.with == unit.with);
            if same { Admission::Join } else { Admission::Wait }
        }
        (OpKind::Restart, Goal::Restart) | (OpKind::Stop, Goal::Stop { retire: false, .. }) => Admission::Join,
        (OpKind::Start | OpKind::Restart, Goal::Stop { .. } | Goal::Delete(_)) => Admission::Supersede,
        // A download does not hold up a stop, nor does a version that is on trial: the one before is stopped instead.
        (OpKind::Upgrade | OpKind::Rollback | OpKind::Deploy, Goal::Stop { .. }) => Admission::Supersede,
        (OpKind::Install | OpKind::Build, Goal::Stop { .. })
            if matches!(op.steps.front(), Some(Step::Place { .. })) =>
        {
            Admission::Supersede
        }
        (
            OpKind::Install
            | OpKind::Build
            | OpKind::Upgrade
            | OpKind::Rollback
            | OpKind::Deploy
            | OpKind::Delete
            | OpKind::Stop
            | OpKind::Start
            | OpKind::Restart,
            _,
        ) => Admission::Wait,
    }
}

impl Core {
    pub(crate) fn on_ask(&mut self, now: Now, ticket: Ticket, ask: Ask, fx: &mut Effects) {
        let name = ask.unit.clone();
        fx.touched.insert(name.clone());
        let Some(unit) = self.units.get_mut(&name) else {
            self.ask_of_stranger(now, ticket, ask, fx);
            return;
        };
        match admit(unit, &ask) {
            Admission::Begin => self.begin(now, ticket, ask, fx),
            Admission::Join => {
                if let (Goal::Stop { keep_want: false, .. }, Want::Up | Want::OnDemand) = (&ask.goal, unit.want) {
                    unit.want = Want::Down;
                }
                let Some(op) = unit.op.as_mut() else { return };
                if ask.wait {
                    op.tickets.push(ticket);
                } else {
                    let (id, kind, began_at_ms) = (op.id, op.kind, op.began_at_ms);
                    let outcome = OpOutcome::Running;
                    let running = Operation { id, name, kind, began_at_ms, ended_at_ms: None, outcome };
                    fx.answers.push(Answer { ticket, result: Ok(running) });
                }
            }
            Admission::Supersede => {
                let verb = kind(&ask.goal);
                let meanwhile =
                    Failure::new(ErrorKind::Conflict, format!("{name} was asked to {verb} meanwhile")).about(&name);
                let failed = unit.op.as_mut().and_then(|op| op.failure.take());
                let failure = failed.unwrap_or(meanwhile);
                self.finish(now, &name, OpOutcome::Failed { failure }, fx);
                self.begin(now, ticket, ask, fx);
            }
            // Without `wait` the answer is due at once, and there is no operation to name yet.
            Admission::Wait if ask.wait && unit.waiting.len() < MAX_WAITING => unit.waiting.push_back((ticket, ask)),
            Admission::Wait => {
                let failure = match &unit.op {
                    Some(op) => busy(unit, op),
                    None => Failure::new(ErrorKind::Conflict, format!("{name} is being looked at")),
                };
                fx.answers.push(Answer { ticket, result: Err(failure) });
            }
        }
    }

    /// A unit that the core has never heard of: an install or a start of what needs none makes it.
    fn ask_of_stranger(&mut self, now: Now, ticket: Ticket, ask: Ask, fx: &mut Effects) {
        let name = ask.unit.clone();
        let makes = match &ask.goal {
            Goal::Install { .. } | Goal::Build { .. } | Goal::Deploy { .. } => true,
            Goal::Start { .. } | Goal::Restart => ask.declared.as_ref().is_some_and(|d| !d.needs_install),
            Goal::Delete(removal) => removal.binaries || removal.data,
            Goal::Stop { .. } | Goal::Upgrade { .. } | Goal::Rollback => false,
        };
        let already_true = matches!(ask.goal, Goal::Stop { .. } | Goal::Delete(_));
        if makes && (ask.declared.is_some() || already_true) {
            self.units.insert(name.clone(), Unit::new(name.clone()));
            self.begin(now, ticket, ask, fx);
            let nothing_came_of_it =
                self.units.get(&name).is_some_and(|u| u.op.is_none() && u.last_saved.is_none() && !u.is_placed());
            if nothing_came_of_it {
                self.drop_unit(now, &name, fx);
            }
        } else if already_true {
            let id = self.new_op();
            let (kind, outcome) = (kind(&ask.goal), OpOutcome::Done);
            let ended_at_ms = Some(now.wall_ms);
            let op = Operation { id, name, kind, began_at_ms: now.wall_ms, ended_at_ms, outcome };
            fx.answers.push(Answer { ticket, result: Ok(op) });
        } else {
            fx.answers.push(Answer { ticket, result: Err(not_installed(&name)) });
        }
    }

    fn begin(&mut self, now: Now, ticket: Ticket, ask: Ask, fx: &mut Effects) {
        let id = self.new_op();
        let Some(before) = self.units.get(&ask.unit).cloned() else { return };
        if let Err(failure) = self.prepare(now, &ask) {
            // Refused: nothing of it stays, but for the parameters where only a port is in the way:
            // the hint names what to change in them.
            let now_needs = self.units.get(&ask.unit).map(|u| u.policy.clone()).unwrap_or_default();
            self.index_needs(&ask.unit, &now_needs.needs, &before.policy.needs);
            self.units.insert(ask.unit.clone(), before);
            if let (ErrorKind::PortTaken, Some(declared)) = (failure.kind, &ask.declared) {
                self.take_over(&ask.unit, declared);
                self.see_to_run(now, &ask.unit, fx);
            }
            fx.answers.push(Answer { ticket, result: Err(failure.about(&ask.unit)) });
            return;
        }
        let Some(unit) = self.units.get_mut(&ask.unit) else { return };
        let mut op = Op {
            id,
            kind: kind(&ask.goal),
            began_at_ms: now.wall_ms,
            tickets: vec![],
            steps: steps(unit, &ask.goal),
            was: (before.want, before.held),
            failure: None,
        };
        if let Goal::Rollback = ask.goal {
            unit.swap_versions();
            unit.on_trial = true;
        }
        let running = unit.operation(&op, None, OpOutcome::Running);
        if ask.wait {
            op.tickets.push(ticket);
        } else {
            fx.answers.push(Answer { ticket, result: Ok(running.clone()) });
        }
        fx.records.push(Record::Op(running));
        unit.op = Some(op);
        if unit.policy != before.policy {
            self.see_to_run(now, &ask.unit, fx);
        }
    }

    /// Takes over what was declared and what is wanted, or refuses.
    fn prepare(&mut self, now: Now, ask: &Ask) -> Result<(), Failure> {
        let name = &ask.unit;
        let Some(unit) = self.units.get_mut(name) else { return Err(not_installed(name)) };
        let starts = matches!(ask.goal, Goal::Start { .. } | Goal::Restart);
        if let Some(declared) = &ask.declared {
            let plain_start = matches!(ask.goal, Goal::Start { reset: false });
            if plain_start && unit.life.run().is_some() && declared.with != unit.with {
                return Err(Failure::new(ErrorKind::Conflict, format!("{name} runs with other parameters"))
                    .hint("add --reset to the same command: it is started again with the new ones"));
            }
            let places = matches!(ask.goal, Goal::Install { .. } | Goal::Build { .. });
            if places && unit.life.run().is_some() && declared.with != unit.with {
                return Err(Failure::new(ErrorKind::Conflict, format!("{name} runs with other parameters"))
                    .hint(format!("stop it first, or give the same parameters to: wharf start {name} --reset")));
            }
        }
        // Restart and upgrade bring no parameters: theirs were read before they had to wait, perhaps.
        let brings = !matches!(ask.goal, Goal::Restart | Goal::Upgrade { .. } | Goal::Rollback);
        if let Some(declared) = ask.declared.as_ref().filter(|d| brings || d.with == unit.with) {
            if let Some(ring) = self.cycle(name, &declared.policy.needs) {
                return Err(Failure::new(
                    ErrorKind::InvalidParams,
                    format!("units would need each other in a ring: {ring}"),
                )
                .hint("leave one of these needs out, or make it soft and start them by hand"));
            }
            self.take_over(name, declared);
        }
        let Some(unit) = self.units.get_mut(name) else { return Err(not_installed(name)) };
        if (starts || matches!(ask.goal, Goal::Upgrade { .. })) && !unit.is_placed() {
            return Err(not_installed(name));
        }
        if let (Goal::Rollback, None) = (&ask.goal, &unit.previous) {
            return Err(Failure::new(ErrorKind::Conflict, format!("{name} has no version before the present one"))
                .hint(format!("see what lies there: wharf versions {}", name.service())));
        }
        let starts = starts || matches!(ask.goal, Goal::Deploy { .. });
        if starts && unit.want == Want::Retired {
            return Err(Failure::new(ErrorKind::Conflict, format!("{name} is retired"))
                .hint(format!("wharf install {name} takes it back into use")));
        }
        match ask.goal {
            Goal::Start { .. } => {
                unit.want = up(unit);
                unit.held = false;
                unit.done = false;
            }
            Goal::Restart => {
                unit.held = false;
                unit.want = up(unit);
                unit.done = false;
                unit.restart_count += 1;
                unit.last_restart_ms = Some(now.wall_ms);
            }
            Goal::Stop { retire: true, .. } => unit.want = Want::Retired,
            Goal::Stop { keep_want: false, .. } | Goal::Delete(_) => {
                if unit.want != Want::Retired {
                    unit.want = Want::Down;
                }
            }
            Goal::Stop { keep_want: true, .. } => unit.held = true,
            Goal::Install { .. } | Goal::Build { .. } => {
                if unit.want == Want::Retired {
                    unit.want = Want::Down;
                }
            }
            // What is deployed is wanted once it is placed.
            Goal::Upgrade { .. } | Goal::Rollback | Goal::Deploy { .. } => {}
        }
        if starts {
            unit.forced = ask.force;
            // Somebody looked at it and asked again: earlier deaths are not held against it.
            unit.deaths.forgive();
            if let Some((port, number, rival)) = self.port_rival(name) {
                return Err(Failure::new(
                    ErrorKind::PortTaken,
                    format!("port {number} ({port}) belongs to the unit {rival}"),
                )
                .while_doing(format_args!("start {name}"))
                .hint(format!("stop {rival}, or let Wharf choose: wharf start {name} --port {port}=auto")));
            }
            self.pull(name)?;
        }
        Ok(())
    }

    /// Ends the unit's operation: the log, the callers, and the next ask that waits.
    pub(crate) fn finish(&mut self, now: Now, name: &UnitName, outcome: OpOutcome, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let Some(op) = unit.op.take() else { return };
        if let Some(Step::Place { begun: true, .. }) = op.steps.front() {
            fx.acts.push(Act::Abandon { unit: name.clone(), op: op.id });
        }
        if std::mem::take(&mut unit.on_trial) && !op.steps.is_empty() {
            // It was given up before it came to an end.
            unit.swap_versions();
            fx.acts.push(Act::Place { unit: name.clone(), op: op.id, what: Placing::Kept });
        }
        let unit = match op.steps.front() {
            // A stop that was given up: what waited for it to be over looks again.
            Some(Step::Stop { .. }) => {
                self.wake_neighbours(name);
                let Some(unit) = self.units.get_mut(name) else { return };
                unit
            }
            Some(Step::Place { .. } | Step::Start { .. } | Step::Remove { .. }) | None => unit,
        };
        // What was forced once is not forced by a later try of its own.
        unit.forced = false;
        let ended = unit.operation(&op, Some(now.wall_ms), outcome);
        for ticket in op.tickets {
            let result = match &ended.outcome {
                OpOutcome::Failed { failure } => Err(failure.clone()),
                OpOutcome::Running | OpOutcome::Done | OpOutcome::Interrupted => Ok(ended.clone()),
            };
            fx.answers.push(Answer { ticket, result });
        }
        unit.remember(ended.clone());
        fx.records.push(Record::Op(ended));
    }

    /// The unit's operation cannot be done. One that changes the version goes back first, then tells.
    pub(crate) fn fail(&mut self, now: Now, name: &UnitName, failure: Failure, fx: &mut Effects) {
        let Some(unit) = self.units.get_mut(name) else { return };
        let Some(op) = unit.op.as_mut() else { return };
        let failure = failure.while_doing(format_args!("{} {name}", op.kind)).about(name);
        if std::mem::take(&mut unit.on_trial) {
            let again = matches!(op.was, (Want::Up | Want::OnDemand, false));
            let version = unit.previous.as_ref().map(|old| old.version.clone()).unwrap_or_default();
            let now_what = if again { "runs again" } else { "is in its place again" };
            op.failure = Some(failure.hint(format!("version {version} {now_what}; wharf logs {name}")));
            op.steps = VecDeque::from([
                Step::Place { what: Placing::Kept, begun: false },
                Step::Stop { with_dependents: false },
            ]);
            if again {
                op.steps.push_back(Step::Start { run: None });
            }
            (unit.want, unit.held) = op.was;
            // Those of another version.
            unit.deaths.forgive();
            unit.swap_versions();
            return;
        }
        let failure = op.failure.take().unwrap_or(failure);
        self.finish(now, name, OpOutcome::Failed { failure }, fx);
    }

    pub(crate) fn op_is(&self, name: &UnitName, id: OpId) -> bool {
        self.units.get(name).and_then(|u| u.op.as_ref()).is_some_and(|op| op.id == id)
    }
}

fn steps(unit: &Unit, goal: &Goal) -> VecDeque<Step> {
    let start = Step::Start { run: None };
    let stop = Step::Stop { with_dependents: false };
    let placing = |what| Step::Place { what, begun: false };
    // What is wanted and fails is tried with the new version, too.
    let tries = matches!(unit.life, Life::Backoff { .. } | Life::Blocked { .. } | Life::Failed { .. });
    let runs = unit.is_wanted() && !unit.held && (unit.life.run().is_some() || tries);
    let steps = match goal {
        Goal::Install { version, reset, from } => {
            vec![placing(Placing::Fetched { version: version.clone(), reset: *reset, from: from.clone() })]
        }
        Goal::Build { version } => vec![placing(Placing::Built { version: version.clone() })],
        // A schedule is only armed: when it runs is the schedule's to say.
        Goal::Start { reset: false } if unit.policy.schedule.is_some() => vec![],
        Goal::Start { reset: false } => vec![start],
        // Those that need it go on meanwhile: it is back in a moment.
        Goal::Start { reset: true } | Goal::Restart => vec![stop, start],
        Goal::Stop { .. } => vec![Step::Stop { with_dependents: true }],
        Goal::Delete(removal) => {
            vec![Step::Stop { with_dependents: true }, Step::Remove { removal: *removal, begun: false }]
        }
        Goal::Upgrade { version } => {
            let place = placing(Placing::Fetched { version: version.clone(), reset: false, from: None });
            if runs { vec![place, stop, start] } else { vec![place] }
        }
        Goal::Rollback => {
            let place = placing(Placing::Kept);
            if runs { vec![place, stop, start] } else { vec![place] }
        }
        Goal::Deploy { version, build: false } => {
            vec![placing(Placing::Fetched { version: version.clone(), reset: false, from: None }), stop, start]
        }
        Goal::Deploy { version, build: true } => {
            vec![placing(Placing::Built { version: version.clone() }), stop, start]
        }
    };
    steps.into()
}

/// What a start makes wanted.
pub(crate) fn up(unit: &Unit) -> Want {
    if unit.policy.on_demand.is_some() { Want::OnDemand } else { Want::Up }
}

fn not_installed(name: &UnitName) -> Failure {
    Failure::new(ErrorKind::Conflict, format!("{name} is not installed"))
        .hint(format!("wharf install {name}"))
        .about(name)
}
