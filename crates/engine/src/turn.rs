//! The loop: deciding meets doing, here and nowhere else.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::oneshot;
use wharf_core::{Act, Answer, Ask, Core, Effects, Event, Fact, Notice, Now, Ticket, Unit};
use wharf_model::{Failure, Operation, Phase, UnitName};

use crate::{acts, engine::Shared, news, redaction, store::Store};

/// How many letters are taken together: they share one commit.
const BATCH: usize = 256;

/// What the loop is told.
pub enum Mail {
    /// A caller asks, and waits at the other end.
    Ask(Box<Ask>, oneshot::Sender<Result<Operation, Failure>>),
    /// Something has happened.
    Fact(Fact),
    /// Is there room on the disk for something new?
    Room(oneshot::Sender<bool>),
    /// The daemon ends. Services go on.
    Quit,
}

/// The state of the loop.
pub struct Turn {
    pub core: Core,
    pub store: Store,
    pub shared: Arc<Shared>,
    callers: BTreeMap<Ticket, oneshot::Sender<Result<Operation, Failure>>>,
    next_ticket: u64,
}

/// The time, as the core takes it.
pub fn now() -> Now {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now { boot_ms: boot.tv_sec as u64 * 1000 + boot.tv_nsec as u64 / 1_000_000, wall_ms: wall_ms() }
}

/// Milliseconds since 1970.
pub fn wall_ms() -> i64 {
    wharf_sys::clock::wall_ms()
}

impl Turn {
    pub fn new(core: Core, store: Store, shared: Arc<Shared>) -> Self {
        Self { core, store, shared, callers: BTreeMap::new(), next_ticket: 0 }
    }

    /// Until `Quit`, or until the journal cannot be written.
    pub fn run(mut self, mail: &Receiver<Mail>, first: Effects) -> Result<(), Failure> {
        self.carry_out(vec![first])?;
        loop {
            let wait_ms = self.core.next_deadline().map(|at| at.saturating_sub(now().boot_ms));
            let letter = match wait_ms {
                Some(0) => None,
                Some(ms) => match mail.recv_timeout(Duration::from_millis(ms)) {
                    Ok(letter) => Some(letter),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                },
                None => match mail.recv() {
                    Ok(letter) => Some(letter),
                    Err(_) => return Ok(()),
                },
            };
            let mut effects = vec![];
            let mut next = letter;
            while let Some(letter) = next.take() {
                match self.read(letter) {
                    Read::Event(event) => effects.push(self.core.step(now(), *event)),
                    Read::Nothing => {}
                    Read::Quit => {
                        return self.carry_out(effects);
                    }
                }
                if effects.len() < BATCH {
                    next = mail.try_recv().ok();
                }
            }
            if self.core.next_deadline().is_some_and(|at| at <= now().boot_ms) {
                effects.push(self.core.step(now(), Event::Deadline));
            }
            self.carry_out(effects)?;
        }
    }

    fn read(&mut self, letter: Mail) -> Read {
        match letter {
            Mail::Ask(ask, caller) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.callers.insert(ticket, caller);
                Read::Event(Box::new(Event::Ask(ticket, *ask)))
            }
            Mail::Fact(fact) => Read::Event(Box::new(Event::Fact(redaction::fact(fact)))),
            Mail::Room(caller) => {
                let _ = caller.send(self.store.restock());
                Read::Nothing
            }
            Mail::Quit => Read::Quit,
        }
    }

    /// Records first, together; then acts; then what others see.
    fn carry_out(&mut self, effects: Vec<Effects>) -> Result<(), Failure> {
        if effects.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = effects.iter().flat_map(|fx| fx.records.iter().cloned()).collect();
        if !records.is_empty() {
            let (next_run, next_op) = self.core.counters();
            self.store.commit(&records, next_run, next_op)?;
        }
        let mut answers = vec![];
        let mut acted = vec![];
        let mut touched = std::collections::BTreeSet::new();
        let news: Vec<_> = effects.iter().flat_map(|fx| news::of(fx, &self.core)).collect();
        for fx in effects {
            fx.notices.into_iter().for_each(tell);
            acted.extend(fx.acts);
            answers.extend(fx.answers);
            touched.extend(fx.touched);
        }
        for act in acted {
            self.perform(act);
        }
        self.publish(touched);
        news::tell(&self.shared, news, self.store.has_reserve());
        for Answer { ticket, result } in answers {
            if let Some(caller) = self.callers.remove(&ticket) {
                // A caller that has left is no concern of the operation.
                let _ = caller.send(result);
            }
        }
        // A caller that left while it waited leaves nothing behind.
        self.callers.retain(|_, caller| !caller.is_closed());
        Ok(())
    }

    fn perform(&self, act: Act) {
        let name = acts::unit_of(&act).clone();
        acts::begin(&self.shared, act, self.core.unit(&name));
    }

    fn publish(&self, touched: std::collections::BTreeSet<UnitName>) {
        if touched.is_empty() {
            return;
        }
        let mut world = (**self.shared.world.load()).clone();
        let mut moved = false;
        for name in touched {
            moved |= match (world.get(&name), self.core.unit(&name)) {
                (Some(before), Some(now)) => has_moved(before, now),
                (before, now) => before.is_some() || now.is_some(),
            };
            match self.core.unit(&name) {
                Some(unit) => world.insert(name, Arc::new(unit.clone())),
                None => world.remove(&name),
            };
        }
        let turns = self.shared.turns.fetch_add(1, Ordering::Relaxed);
        self.shared.world.store(Arc::new(world));
        if moved {
            self.shared.published.send_replace(turns + 1);
        }
    }
}

/// Whether more than a probe's answer is new: then those who follow all units look at them. A thousand
/// units answer two hundred probes in a second.
fn has_moved(before: &Unit, now: &Unit) -> bool {
    let id = |unit: &Unit| unit.busy_with().map(|(id, _)| id);
    std::mem::discriminant(&before.life) != std::mem::discriminant(&now.life)
        || before.life.run() != now.life.run()
        || (before.want, before.held, id(before)) != (now.want, now.held, id(now))
        || !Arc::ptr_eq(&before.policy, &now.policy)
        || (&before.wishes, &before.ports) != (&now.wishes, &now.ports)
}

enum Read {
    Event(Box<Event>),
    Nothing,
    Quit,
}

/// What a person who watches the daemon reads.
fn tell(notice: Notice) {
    match notice {
        Notice::Phase { unit, from: Phase::Starting, to: Phase::Running, .. } => tracing::info!("{unit} is healthy"),
        Notice::Phase { unit, to: Phase::Failed, why, .. } => tracing::error!("{unit} is given up: {why}"),
        Notice::Phase { unit, to: Phase::Unhealthy, why, .. } => tracing::warn!("{unit}: {why}"),
        Notice::Phase { unit, from, to, .. } => tracing::debug!("{unit}: {from} -> {to}"),
        Notice::Ended { unit, run, exit, reason } => tracing::debug!("{unit}: run {run} {exit} ({reason:?})"),
        Notice::Skipped { unit } => {
            tracing::warn!("{unit}: its schedule came due while the run before it went on: passed over");
        }
        Notice::Retry { unit, attempt, after_ms } => {
            tracing::warn!("{unit} is started again in {} s (attempt {attempt})", after_ms / 1000);
        }
    }
}
