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
use wharf_core::{Act, Answer, Ask, Core, Effects, Event, Fact, GpuAsk, GpuFact, Notice, Now, Ticket, Unit};
use wharf_model::{Failure, LeaseId, OpId, Operation, Phase, UnitName};

use crate::{acts, bus, engine::Shared, gpus, news, redaction, store::Store};

/// How many letters are taken together: they share one commit.
const BATCH: usize = 256;

/// What the loop is told.
pub enum Mail {
    /// A caller asks, and waits at the other end.
    Ask(Box<Ask>, oneshot::Sender<Result<Operation, Failure>>),
    /// A caller wants an operation given up, and waits at the other end.
    Cancel(OpId, oneshot::Sender<Result<Operation, Failure>>),
    /// A caller asks for GPUs, and waits at the other end.
    AskGpu(Box<GpuAsk>, oneshot::Sender<Result<LeaseId, Failure>>),
    /// Something has happened to GPUs or those who use them.
    Gpu(GpuFact),
    /// Something has happened.
    Fact(Fact),
    /// Rows of the ledger of ports, to be durable before the other end is told.
    Ports(Vec<wharf_core::ports::Row>, oneshot::Sender<()>),
    /// Is there room on the disk for something new?
    Room(oneshot::Sender<bool>),
    /// The daemon ends. Services go on.
    Quit,
}

/// What one step of the core brought.
struct Stepped {
    fx: Effects,
    news: Vec<bus::News>,
}

/// The state of the loop.
pub struct Turn {
    pub core: Core,
    pub store: Store,
    pub shared: Arc<Shared>,
    callers: BTreeMap<Ticket, oneshot::Sender<Result<Operation, Failure>>>,
    gpu_callers: BTreeMap<Ticket, oneshot::Sender<Result<LeaseId, Failure>>>,
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
        Self { core, store, shared, callers: BTreeMap::new(), gpu_callers: BTreeMap::new(), next_ticket: 0 }
    }

    /// Until `Quit`, or until the journal cannot be written.
    pub fn run(mut self, mail: &Receiver<Mail>, first: Effects) -> Result<(), Failure> {
        let first = self.stepped(first);
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
                    Read::Event(event) => {
                        let fx = self.core.step(now(), *event);
                        effects.push(self.stepped(fx));
                    }
                    Read::Ports(rows, done) => {
                        self.store.keep_ports(&rows)?;
                        let _ = done.send(());
                    }
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
                let due = self.core.step(now(), Event::Deadline);
                effects.push(self.stepped(due));
            }
            self.carry_out(effects)?;
        }
    }

    /// A step with its news, which tell of the core as it is now: a later step of the same turn may change it.
    fn stepped(&self, fx: Effects) -> Stepped {
        Stepped { news: news::of(&fx, &self.core), fx }
    }

    fn read(&mut self, letter: Mail) -> Read {
        match letter {
            Mail::Ask(ask, caller) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.callers.insert(ticket, caller);
                Read::Event(Box::new(Event::Ask(ticket, *ask)))
            }
            Mail::Cancel(op, caller) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.callers.insert(ticket, caller);
                Read::Event(Box::new(Event::Cancel(ticket, op)))
            }
            Mail::AskGpu(ask, caller) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.gpu_callers.insert(ticket, caller);
                Read::Event(Box::new(Event::AskGpu(ticket, *ask)))
            }
            Mail::Gpu(fact) => Read::Event(Box::new(Event::Gpu(fact))),
            Mail::Fact(fact) => Read::Event(Box::new(Event::Fact(redaction::fact(fact)))),
            Mail::Ports(rows, done) => Read::Ports(rows, done),
            Mail::Room(caller) => {
                let _ = caller.send(self.store.restock());
                Read::Nothing
            }
            Mail::Quit => Read::Quit,
        }
    }

    /// Records first, together; then acts; then what others see.
    fn carry_out(&mut self, steps: Vec<Stepped>) -> Result<(), Failure> {
        if steps.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = steps.iter().flat_map(|step| step.fx.records.iter().cloned()).collect();
        if !records.is_empty() {
            let (next_run, next_op) = self.core.counters();
            self.store.commit(&records, next_run, next_op)?;
        }
        let mut answers = vec![];
        let (mut acted, mut gpu_acted, mut gpu_answers) = (vec![], vec![], vec![]);
        let mut touched = std::collections::BTreeSet::new();
        let mut news = vec![];
        for step in steps {
            let fx = step.fx;
            news.extend(step.news);
            fx.notices.into_iter().for_each(tell);
            acted.extend(fx.acts);
            answers.extend(fx.answers);
            gpu_acted.extend(fx.gpu_acts);
            gpu_answers.extend(fx.gpu_answers);
            touched.extend(fx.touched);
        }
        // Before the acts: a launch looks there for the devices that its unit was granted.
        self.publish_gpus();
        for act in acted {
            self.perform(act);
        }
        for act in gpu_acted {
            gpus::begin(&self.shared, act);
        }
        self.publish(touched);
        news::tell(&self.shared, news, self.store.has_reserve());
        for Answer { ticket, result } in answers {
            if let Some(caller) = self.callers.remove(&ticket) {
                // A caller that has left is no concern of the operation.
                let _ = caller.send(result);
            }
        }
        for (ticket, result) in gpu_answers {
            if let Some(caller) = self.gpu_callers.remove(&ticket) {
                let _ = caller.send(result);
            }
        }
        // A caller that left while it waited leaves nothing behind.
        self.callers.retain(|_, caller| !caller.is_closed());
        self.gpu_callers.retain(|_, caller| !caller.is_closed());
        Ok(())
    }

    fn publish_gpus(&self) {
        if self.shared.gpus.load().version() != self.core.arbiter().version() {
            self.shared.gpus.store(Arc::new(self.core.arbiter().clone()));
            // Those who measure and those who watch holders look again.
            self.shared.gpus_moved.send_modify(|moved| *moved += 1);
        }
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
    Ports(Vec<wharf_core::ports::Row>, oneshot::Sender<()>),
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
