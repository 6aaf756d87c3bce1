//! Giving an operation up: what may still be taken back, and what comes in its place.

use wharf_model::{ErrorKind, Failure, OpId, OpKind, OpOutcome, Operation, UnitName, Want};

use crate::{Answer, Core, Effects, Life, Now, Ticket, unit::Step};

/// What becomes of an operation that somebody wants no more.
enum Way {
    /// It ends, and nothing has happened.
    End,
    /// It ends, and what it was starting is stopped.
    EndAndStop,
    /// The version before comes back, then it ends.
    GoBack,
    /// It goes on.
    Refuse,
}

fn way(kind: OpKind, step: Option<&Step>, on_trial: bool) -> Way {
    match (kind, step) {
        (OpKind::Stop | OpKind::Delete, _) | (_, Some(Step::Remove { .. }) | None) => Way::Refuse,
        (OpKind::Upgrade | OpKind::Rollback | OpKind::Deploy, _) if on_trial => Way::GoBack,
        (OpKind::Deploy | OpKind::Build | OpKind::Install | OpKind::Upgrade, Some(Step::Place { .. })) => Way::End,
        (OpKind::Start | OpKind::Restart | OpKind::Deploy, Some(Step::Stop { .. } | Step::Start { .. })) => {
            Way::EndAndStop
        }
        // Its way back: nothing can be given up any more.
        (
            OpKind::Build | OpKind::Install | OpKind::Upgrade | OpKind::Rollback | OpKind::Start | OpKind::Restart,
            Some(Step::Place { .. } | Step::Stop { .. } | Step::Start { .. }),
        ) => Way::Refuse,
    }
}

impl Core {
    /// Gives an operation up, where that can still be done. The answer is the operation as it is then.
    pub(crate) fn cancel(&mut self, now: Now, ticket: Ticket, id: OpId, fx: &mut Effects) {
        let result = self.give_op_up(now, id, fx);
        fx.answers.push(Answer { ticket, result });
    }

    fn give_op_up(&mut self, now: Now, id: OpId, fx: &mut Effects) -> Result<Operation, Failure> {
        let found = self.units.values().find(|unit| unit.busy_with().is_some_and(|(op, _)| op == id));
        let found = found.and_then(|unit| Some((unit, unit.op.as_ref()?)));
        let Some((unit, op)) = found else {
            return Err(Failure::new(ErrorKind::NotFound, format!("operation {id} is not under way"))
                .hint("see which are: wharf ops"));
        };
        let (name, kind) = (unit.name.clone(), op.kind);
        let way = way(kind, op.steps.front(), unit.on_trial && op.failure.is_none());
        let given_up = Failure::new(ErrorKind::Conflict, format!("{name}: somebody cancelled it")).about(&name);
        fx.touched.insert(name.clone());
        match way {
            Way::Refuse => {
                let text = format!("{name}: a {kind} cannot be cancelled once it has come so far");
                return Err(Failure::new(ErrorKind::Conflict, text)
                    .hint(format!("wait for it to end: wharf status {name}"))
                    .about(&name));
            }
            Way::End => self.finish(now, &name, OpOutcome::Failed { failure: given_up }, fx),
            Way::EndAndStop => {
                self.finish(now, &name, OpOutcome::Failed { failure: given_up }, fx);
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.want = Want::Down;
                    // It may have waited for what it needs.
                    if unit.life.run().is_none() {
                        unit.life = Life::Idle;
                    }
                }
            }
            Way::GoBack => self.fail(now, &name, given_up, fx),
        }
        let told = self.told(&name, id);
        if let Way::End = way {
            self.forget_if_it_never_was(now, &name, fx);
        }
        told
    }

    /// The operation, under way or just ended.
    fn told(&self, name: &UnitName, id: OpId) -> Result<Operation, Failure> {
        let gone = || Failure::new(ErrorKind::NotFound, format!("operation {id} is not known"));
        let unit = self.units.get(name).ok_or_else(gone)?;
        let under_way = unit.under_way().filter(|op| op.id == id);
        under_way.or_else(|| unit.ops.iter().rev().find(|op| op.id == id).cloned()).ok_or_else(gone)
    }
}
