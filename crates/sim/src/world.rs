//! The world: a machine, a database, and a daemon that can die between any two of its effects.
//!
//! It owns what is true there and carries out what the core decides, as the engine does: records
//! are committed together, then acts begin, then callers are answered. It refuses to know why the
//! core decides so; whether it may is the business of [`crate::judge`].

use wharf_core::{Answer, Core, Effects, Event, Fact, Notice, Ticket};
use wharf_model::{OpKind, OpOutcome, UnitName};

use crate::{
    counts::{Counts, Seen},
    daemon::Daemon,
    deed::Deed,
    journal::Journal,
    judge::Judge,
    machine::Machine,
    trace::Trace,
};

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which, in one word.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
}

/// A rule does not hold.
pub fn broken<T>(rule: &'static str, text: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, text: text.into() })
}

/// Everything that is.
#[derive(Debug, Default)]
pub struct World {
    /// The machine.
    pub machine: Machine,
    /// The database.
    pub journal: Journal,
    /// A copy of it from earlier.
    pub copy: Option<Journal>,
    /// The daemon, while one lives.
    pub daemon: Option<Daemon>,
    /// Whoever looks on.
    pub judge: Judge,
    /// What was seen.
    pub counts: Counts,
    /// What is written down of it; nothing where nobody will read it.
    pub trace: Option<Trace>,
    /// Steps of all cores so far.
    pub steps: u64,
    /// Effects that were carried out: the places where a daemon can die.
    pub effects: u64,
    pub(crate) tickets: u64,
    pub(crate) daemons: u32,
}

impl World {
    /// A new machine with a daemon that has just been started for the first time.
    pub fn new() -> Self {
        let mut world = Self::default();
        world.machine.now = wharf_core::Now { boot_ms: 60_000, wall_ms: 1_790_000_000_000 };
        world
    }

    /// Something happens.
    pub fn deed(&mut self, deed: &Deed) -> Result<(), Broken> {
        self.counts.deed(deed);
        if let Some(trace) = &mut self.trace {
            trace.deed(deed);
        }
        match deed {
            Deed::Ask(ask) => self.ask((**ask).clone()),
            Deed::Cancel { unit } => self.cancel(unit),
            Deed::Answer { unit, task, how } => self.answer(unit, *task, how),
            Deed::Tell { nth } => self.tell(*nth),
            Deed::Echo { nth } => self.echo(*nth),
            Deed::Ends { unit, exit, helpers } => {
                self.main_ends(unit, exit, *helpers);
                Ok(())
            }
            Deed::HelpersEnd { unit } => {
                self.rest_ends(unit);
                Ok(())
            }
            Deed::Unstick { unit } => {
                self.unstick(unit);
                Ok(())
            }
            Deed::ShimDies { unit } => {
                self.shim_dies(unit);
                Ok(())
            }
            Deed::Says { unit, news } => {
                self.of_newest(unit, |unit, run| Fact::Notified { unit, run, news: news.clone() })
            }
            Deed::LogFault { unit, line } => {
                self.of_newest(unit, |unit, run| Fact::LogFault { unit, run, line: line.clone() })
            }
            Deed::Unused { unit } => self.of_newest(unit, |unit, run| Fact::Unused { unit, run }),
            Deed::Used { unit } => self.fact(Fact::Used { unit: unit.clone() }),
            Deed::Due { unit } => self.fact(Fact::Due { unit: unit.clone() }),
            Deed::Scheduled { unit } => {
                let next_due_ms = Some(self.machine.now.wall_ms.saturating_add(60_000));
                self.fact(Fact::Scheduled { unit: unit.clone(), next_due_ms })
            }
            Deed::Wait { ms } => self.wait(*ms),
            Deed::Lag { ms } => self.lag(*ms),
            Deed::WallStep { ms } => {
                self.machine.now.wall_ms = self.machine.now.wall_ms.saturating_add(*ms);
                Ok(())
            }
            Deed::Hold { letters } => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.hold = *letters;
                }
                Ok(())
            }
            Deed::Crash { after, salt } => self.crash(*after, *salt),
            Deed::Boot => self.boot(),
            Deed::Look => self.look(),
            Deed::Reboot => {
                self.die(1);
                self.machine.reboot();
                self.judge.rebooted();
                Ok(())
            }
            Deed::LoseDatabase => {
                // A copy from before would know runs by numbers that are handed out again now.
                self.copy = None;
                self.die(1);
                // Limitation: a run that was made in the instant its daemon died has nothing beside it yet. If
                // the database is lost before the next daemon, nobody knows whose it is until strangers are ended.
                self.machine.bodies.retain(|_, body| body.beside.is_some() || body.obituaries > 0);
                self.other_database(Journal::default())
            }
            Deed::KeepCopy => {
                self.copy = Some(self.journal.clone());
                Ok(())
            }
            Deed::OldDatabase => match self.copy.clone() {
                Some(copy) => self.other_database(copy),
                None => Ok(()),
            },
            Deed::Port { number, taken: true } => {
                if !self.machine.is_taken(*number) {
                    self.machine.strangers.insert(*number);
                }
                Ok(())
            }
            Deed::Port { number, taken: false } => {
                self.machine.strangers.remove(number);
                Ok(())
            }
            Deed::Measure => self.measure(),
            Deed::Work => self.work(),
            Deed::Calm => self.calm(),
        }
    }

    /// The caller that asked last.
    pub fn last_ticket(&self) -> Ticket {
        Ticket(self.tickets)
    }

    fn other_database(&mut self, journal: Journal) -> Result<(), Broken> {
        self.die(1);
        self.journal = journal;
        self.judge.other_database();
        for body in self.machine.bodies.values_mut() {
            body.obituaries = 0;
        }
        Ok(())
    }

    fn ask(&mut self, ask: wharf_core::Ask) -> Result<(), Broken> {
        if self.daemon.is_none() {
            return Ok(());
        }
        self.counts.ask(&ask);
        self.tickets += 1;
        self.step(Event::Ask(Ticket(self.tickets), ask))
    }

    /// Somebody cancels what is being done on the unit; an operation that was never begun where nothing is.
    fn cancel(&mut self, unit: &UnitName) -> Result<(), Broken> {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let busy = daemon.core.unit(unit).and_then(wharf_core::Unit::busy_with);
        self.counts.saw(Seen::AskCancel);
        self.tickets += 1;
        self.step(Event::Cancel(Ticket(self.tickets), busy.map_or(wharf_model::OpId(u64::MAX), |(op, _)| op)))
    }

    /// A fact, as soon as it is one.
    pub(crate) fn fact(&mut self, fact: Fact) -> Result<(), Broken> {
        if self.daemon.is_none() {
            return Ok(());
        }
        self.counts.fact(&fact);
        self.step(Event::Fact(fact))
    }

    /// One step of the core, and everything that must hold after it.
    pub(crate) fn step(&mut self, event: Event) -> Result<(), Broken> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let watched = !self.judge.blind;
        if watched {
            self.judge.before(&daemon.core, &self.machine, &event);
        }
        let written = self.trace.is_some().then(|| event.clone());
        let fx = daemon.core.step(self.machine.now, event);
        self.steps += 1;
        if let (Some(trace), Some(event)) = (&mut self.trace, written) {
            trace.step(self.steps, self.machine.now, &event, &fx, &daemon.core);
        }
        if watched {
            self.judge.after(&daemon.core, &self.machine, &fx, &mut self.counts)?;
        }
        daemon.held.push(fx);
        if daemon.hold > 0 {
            daemon.hold -= 1;
            return Ok(());
        }
        self.carry_out()
    }

    /// Whatever waits for its commit waits no longer.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        match &mut self.daemon {
            Some(daemon) => daemon.hold = 0,
            None => return Ok(()),
        }
        self.carry_out()
    }

    /// Records first, together; then acts; then answers. The daemon can die between any two.
    fn carry_out(&mut self) -> Result<(), Broken> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let effects = std::mem::take(&mut daemon.held);
        if effects.is_empty() {
            return Ok(());
        }
        let counters = daemon.core.counters();
        let mut whole = Effects::default();
        for fx in effects {
            whole.records.extend(fx.records);
            whole.acts.extend(fx.acts);
            whole.notices.extend(fx.notices);
            whole.answers.extend(fx.answers);
            whole.gpu_acts.extend(fx.gpu_acts);
            whole.touched.extend(fx.touched);
        }
        if self.burns(Seen::CrashBeforeCommit) {
            return Ok(());
        }
        if !whole.records.is_empty() {
            self.journal.commit(whole.records, counters);
        }
        if self.burns(Seen::CrashAfterCommit) {
            return Ok(());
        }
        self.tell_notices(&whole.notices)?;
        for act in whole.acts {
            self.perform(act)?;
            if self.burns(Seen::CrashBetweenActs) {
                return Ok(());
            }
        }
        for act in &whole.gpu_acts {
            self.perform_gpu(act);
        }
        for answer in whole.answers {
            self.give_answer(&answer)?;
            if self.burns(Seen::CrashBetweenAnswers) {
                return Ok(());
            }
        }
        self.same_leases()?;
        match &self.daemon {
            Some(daemon) => recorded(&self.journal, &daemon.core, whole.touched.iter()),
            None => Ok(()),
        }
    }

    fn tell_notices(&mut self, notices: &[Notice]) -> Result<(), Broken> {
        for notice in notices {
            match notice {
                Notice::Phase { .. } => {}
                Notice::Ended { unit, run, exit, reason } => {
                    self.counts.end(*reason);
                    self.obituary(unit, *run, exit)?;
                }
                Notice::Skipped { .. } => self.counts.saw(Seen::SkippedTold),
                Notice::Retry { .. } => self.counts.saw(Seen::RetryTold),
            }
        }
        Ok(())
    }

    /// What a caller is told must be durable by then.
    fn give_answer(&mut self, answer: &Answer) -> Result<(), Broken> {
        self.judge.untold.remove(&answer.ticket);
        let Ok(op) = &answer.result else {
            self.counts.saw(Seen::AnsweredFailed);
            return Ok(());
        };
        let began = op.outcome == OpOutcome::Running;
        self.counts.saw(if began { Seen::AnsweredBegun } else { Seen::AnsweredDone });
        let known = self.journal.op(&op.name, op.id);
        let kept = known.is_some_and(|known| known == op || began);
        // A stop of what nobody has ever made is true already, and leaves nothing.
        let nothing_done = known.is_none() && matches!(op.kind, OpKind::Stop | OpKind::Delete);
        let pruned = self.journal.oldest_op(&op.name).is_some_and(|oldest| oldest > op.id);
        if !kept && !nothing_done && !pruned {
            return broken("acknowledged", format!("operation {} of {} is answered and not recorded", op.id, op.name));
        }
        Ok(())
    }

    /// One effect more; true where the daemon has died of it.
    fn burns(&mut self, place: Seen) -> bool {
        self.effects += 1;
        let Some(daemon) = &mut self.daemon else { return true };
        match &mut daemon.fuse {
            None => false,
            Some((0, salt)) => {
                let salt = *salt;
                self.counts.saw(place);
                self.die(salt);
                true
            }
            Some((left, _)) => {
                *left -= 1;
                false
            }
        }
    }
}

/// What the database holds of these units is what they are.
fn recorded<'a>(journal: &Journal, core: &Core, touched: impl Iterator<Item = &'a UnitName>) -> Result<(), Broken> {
    for name in touched {
        let (kept, is) = (journal.units.get(name), core.unit(name).map(wharf_core::Unit::saved));
        if kept != is.as_ref() {
            // A unit that nobody has recorded yet has nothing that could be lost.
            let blank = kept.is_none() && is.as_ref().is_some_and(|is| is.run.is_none() && is.installed.is_none());
            if !blank {
                return broken("recorded", format!("{name} is {is:?} and recorded as {kept:?}"));
            }
        }
    }
    Ok(())
}
