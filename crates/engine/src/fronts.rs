//! Fronts of units that run on demand: whoever asks is held until there is somebody to answer.
//!
//! ```text
//!  published units ──> which fronts are open, and their gates: open while the unit is ready, shut else
//!  held requests   ──> `Used`: the unit starts        none for its time ──> `Unused`: it stops
//!  requests open   ──> `Busy`, so that the arbiter knows who has nothing to do
//!  others wait for its GPU, and its time in peace is over ──> the gate is shut, until it is their turn (turns.rs)
//! ```
//!
//! It is read off what was published, as the doorman is. It refuses to know how requests are passed on, and who may
//! have which GPU.
//!
//! Limitation: fronts live in the daemon. One that is killed or replaced breaks the connections that its fronts have; the programs
//! go on, and the next daemon listens and serves at once.

mod turns;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use wharf_core::{
    Fact, GpuFact, Life, Unit, Wishes,
    arbiter::{Arbiter, Lease},
};
use wharf_model::{ErrorKind, Failure, LeaseId, OnDemand, Policy, RunId, UnitName, Want};
use wharf_runtime::front::{Counts, Front, Gate, Terms};

use crate::{
    engine::Shared,
    turn::{self, Mail},
};

/// Changes are looked at together.
const TOGETHER: Duration = Duration::from_millis(5);
/// Requests that are held at one front.
const MOST_HELD: usize = 256;
/// A front that could not be opened, and a start that was not heard, are tried again after this.
const AGAIN: Duration = Duration::from_millis(250);
/// Of its time to stop, a program has at least this for itself, after the last of its requests.
const FOR_ITSELF: Duration = Duration::from_secs(2);

/// The fronts of one unit, each with the name of the port behind it.
type Row = Vec<(Arc<Front>, String)>;

/// The open fronts.
#[derive(Default)]
pub struct Fronts {
    // Locks, since launches and stops are tasks of their own; they are never held across a wait.
    rows: Mutex<BTreeMap<UnitName, Row>>,
    /// Runs that are being stopped, from before that is published.
    leaving: Mutex<BTreeMap<UnitName, RunId>>,
    stirred: Arc<Notify>,
}

/// The unit's ports in front of others.
fn declared(policy: &Policy) -> Option<&OnDemand> {
    policy.on_demand.as_ref().filter(|on_demand| !on_demand.front.is_empty())
}

/// It has a front: nobody else listens for it.
pub fn has(unit: &Unit) -> bool {
    declared(&unit.policy).is_some()
}

/// What can be said about fronts before anything runs.
pub fn sound(name: &UnitName, policy: &Policy, wishes: &Wishes) -> Result<(), Failure> {
    let Some(on_demand) = declared(policy) else { return Ok(()) };
    let wrong = |text: String| {
        let known: Vec<&str> = wishes.keys().map(String::as_str).collect();
        let failure = Failure::new(ErrorKind::InvalidParams, format!("policy.on_demand.front: {text}")).about(name);
        Err(failure.hint(format!("two of its ports, as {{\"http\": \"inner\"}}; it has: {}", known.join(", "))))
    };
    if on_demand.pass_sockets {
        return wrong("pass_sockets gives the ports to the program; a front keeps them".into());
    }
    for (public, inner) in &on_demand.front {
        if let Some(unknown) = [public, inner].into_iter().find(|port| !wishes.contains_key(*port)) {
            return wrong(format!("{name} has no port {unknown:?}"));
        }
        if on_demand.front.contains_key(inner) {
            return wrong(format!("{inner} is behind a front and in front of another port"));
        }
    }
    Ok(())
}

impl Fronts {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<UnitName, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeMap<UnitName, RunId>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A front of the unit listens there.
    pub fn holds(&self, unit: &UnitName, port: u16) -> bool {
        let open = |(front, _): &(Arc<Front>, String)| front.port() == port && front.is_open();
        self.rows().get(unit).is_some_and(|row| row.iter().any(open))
    }

    /// Opens what is not open yet. False: a port is not free.
    pub fn open_for(&self, unit: &Unit) -> bool {
        let Some(on_demand) = declared(&unit.policy) else { return true };
        let terms = Terms { hold: Duration::from_secs(on_demand.hold_s), most_held: MOST_HELD };
        let ports: BTreeMap<&str, u16> = unit.fixed_ports().collect();
        let mut rows = self.rows();
        let row = rows.entry(unit.name.clone()).or_default();
        // One that is left was made for another port.
        row.retain(|(front, inner)| {
            let made_for = |(public, behind): (&String, &String)| {
                behind == inner && ports.get(public.as_str()) == Some(&front.port())
            };
            front.is_open() && on_demand.front.iter().any(made_for)
        });
        let mut all = true;
        for (public, inner) in &on_demand.front {
            // A port whose number nobody knows yet is chosen at the first launch.
            let Some(port) = ports.get(public.as_str()).copied() else { continue };
            if let Some((front, _)) = row.iter().find(|(front, _)| front.port() == port) {
                front.allow(terms);
                continue;
            }
            match Front::open(port, terms, self.stirred.clone()) {
                Ok(front) => row.push((Arc::new(front), inner.clone())),
                Err(e) => {
                    tracing::debug!("{}: its front cannot be opened on port {port}: {e}", unit.name);
                    all = false;
                }
            }
        }
        all
    }

    /// The run is about to be asked to end: nothing new goes there, and what is in flight has so long.
    pub async fn drain(&self, unit: &UnitName, run: RunId, stop: Duration) {
        let row: Row = self.rows().get(unit).cloned().unwrap_or_default();
        if row.is_empty() {
            return;
        }
        self.leaving().insert(unit.clone(), run);
        self.stirred.notify_one();
        for (front, _) in &row {
            front.hold_back();
        }
        let limit = stop.saturating_sub(FOR_ITSELF).max(stop / 2);
        let drained = futures_util::future::join_all(row.iter().map(|(front, _)| front.drained()));
        if tokio::time::timeout(limit, drained).await.is_err() {
            let left: usize = row.iter().map(|(front, _)| front.counts().in_flight).sum();
            tracing::warn!("{unit}: {left} requests had not ended within {} s", limit.as_secs());
        }
    }

    fn counts(&self, unit: &UnitName) -> Option<Counts> {
        let rows = self.rows();
        let all = rows.get(unit)?.iter().map(|(front, _)| front.counts());
        all.reduce(|a, b| Counts {
            held: a.held + b.held,
            in_flight: a.in_flight + b.in_flight,
            moved: a.moved.max(b.moved),
        })
    }

    fn set(&self, unit: &Unit, gate: impl Fn(u16) -> Gate) {
        for (front, inner) in self.rows().get(&unit.name).into_iter().flatten() {
            match unit.ports.get(inner) {
                Some(port) => front.set(gate(*port)),
                None => front.set(Gate::Shut(None)),
            }
        }
    }

    /// Listens no more. What is in flight goes on; what is held is refused.
    fn close(&self, unit: &Unit) {
        let why = format!("{} is stopped", unit.name);
        for (front, _) in self.rows().get(&unit.name).into_iter().flatten() {
            front.set(Gate::Refuses { why: why.clone(), retry_after_s: 5 });
            front.close();
        }
        if unit.life.run().is_none() {
            self.rows().remove(&unit.name);
        }
    }
}

/// What is remembered of a unit between two looks.
#[derive(Default)]
struct Watched {
    /// What the arbiter was told last, and of which lease.
    busy: Option<(LeaseId, u32)>,
    turns: turns::Turns,
    /// Since when the run is up.
    up: Option<(RunId, Instant)>,
    used_told: Option<Instant>,
}

/// Keeps the fronts for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let mut published = shared.published.subscribe();
        let mut moved = shared.gpus_moved.subscribe();
        let mut watched = BTreeMap::new();
        loop {
            let wait = look(&shared, &mut watched);
            let stirred = shared.doorman.fronts.stirred.clone();
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                // Only where there is a front does it matter who has which GPU.
                _ = moved.changed(), if !watched.is_empty() => {}
                () = stirred.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            tokio::time::sleep(TOGETHER).await;
        }
    });
}

/// One look at all units with fronts; answers when to look again.
fn look(shared: &Shared, watched: &mut BTreeMap<UnitName, Watched>) -> Option<Duration> {
    let world = shared.world.load_full();
    let fronts = &shared.doorman.fronts;
    let units: Vec<&Arc<Unit>> = world.values().filter(|unit| has(unit)).collect();
    watched.retain(|name, _| units.iter().any(|unit| unit.name == *name));
    fronts.rows().retain(|name, _| watched.contains_key(name) || units.iter().any(|unit| unit.name == *name));
    fronts.leaving().retain(|name, run| world.get(name).is_some_and(|unit| unit.life.run() == Some(*run)));
    let arbiter = shared.gpus.load_full();
    let wait = units.iter().filter_map(|unit| {
        let of = watched.entry(unit.name.clone()).or_default();
        if unit.want != Want::OnDemand || unit.held {
            fronts.close(unit);
            return None;
        }
        tend(shared, unit, &arbiter, of)
    });
    wait.collect::<Vec<_>>().into_iter().min()
}

fn tend(shared: &Shared, unit: &Unit, arbiter: &Arbiter, of: &mut Watched) -> Option<Duration> {
    let fronts = &shared.doorman.fronts;
    let mut wait = (!fronts.open_for(unit)).then_some(AGAIN);
    let mut again = |after: Duration| wait = Some(wait.map_or(after, |wait| wait.min(after)));
    let counts = fronts.counts(&unit.name)?;
    let now_ms = turn::now().boot_ms;
    let yields = of.turns.yields(arbiter, &unit.name, counts.in_flight, now_ms);
    if let Some(after) = of.turns.again(arbiter, &unit.name) {
        again(after);
    }
    let leaves = fronts.leaving().contains_key(&unit.name);
    let asleep = arbiter.of_unit(&unit.name).is_some_and(Lease::is_asleep);
    fronts.set(unit, |port| gate(unit, port, yields, leaves || asleep, now_ms));
    let counts = fronts.counts(&unit.name)?;
    let open = counts.in_flight + if yields { 0 } else { counts.held };
    tell_busy(shared, unit, arbiter, u32::try_from(open).unwrap_or(u32::MAX), of);
    let starts = unit.life == Life::Idle && unit.busy_with().is_none();
    if counts.held > 0 && (starts || asleep) {
        if of.used_told.is_none_or(|told| told.elapsed() >= AGAIN) {
            of.used_told = Some(Instant::now());
            if asleep {
                let _ = shared.mail.send(Mail::Gpu(GpuFact::Wanted(unit.name.clone())));
            } else {
                shared.tell(Fact::Used { unit: unit.name.clone() });
            }
        }
        again(AGAIN);
    } else {
        of.used_told = None;
    }
    if let Some(after) = look_for_idle(shared, unit, counts, of) {
        again(after);
    }
    wait
}

/// Where requests go, as the unit is.
fn gate(unit: &Unit, port: u16, yields: bool, leaves: bool, now_ms: u64) -> Gate {
    let name = &unit.name;
    match &unit.life {
        Life::Up { .. } if yields => Gate::Shut(Some(format!("{name} lets another have its GPU first"))),
        Life::Up { .. } if leaves => Gate::Shut(None),
        Life::Up { .. } => Gate::Open(port),
        Life::Failed { reason, retry_at_ms, .. } => {
            let left_ms = retry_at_ms.map_or(60_000, |at| at.saturating_sub(now_ms));
            let why = format!("{name} was given up: {}", reason.message);
            Gate::Refuses { why, retry_after_s: left_ms.div_ceil(1000).max(1) }
        }
        Life::Waiting { reason } | Life::Blocked { reason, .. } | Life::Backoff { reason, .. } => {
            Gate::Shut(Some(reason.message.clone()))
        }
        Life::Idle | Life::Starting { .. } | Life::Stopping { .. } | Life::Unknown { .. } => Gate::Shut(None),
    }
}

fn tell_busy(shared: &Shared, unit: &Unit, arbiter: &Arbiter, open: u32, of: &mut Watched) {
    let lease = arbiter.of_unit(&unit.name).filter(|lease| lease.is_granted()).map(|lease| lease.id);
    let told = lease.map(|lease| (lease, open));
    if of.busy != told && told.is_some() {
        let _ = shared.mail.send(Mail::Gpu(GpuFact::Busy(unit.name.clone(), open)));
    }
    of.busy = told;
}

/// Tells of a unit that nobody has asked anything for its time.
fn look_for_idle(shared: &Shared, unit: &Unit, counts: Counts, of: &mut Watched) -> Option<Duration> {
    let idle = Duration::from_secs(declared(&unit.policy)?.idle_stop_s);
    let Some(run) = unit.life.run().filter(|_| matches!(unit.life, Life::Up { .. })) else {
        of.up = None;
        return None;
    };
    let since = match of.up {
        Some((up, since)) if up == run => since,
        Some(_) | None => of.up.insert((run, Instant::now())).1,
    };
    if idle.is_zero() || !counts.is_idle() {
        return None;
    }
    let rests = since.max(counts.moved).elapsed();
    if rests >= idle {
        shared.tell(Fact::Unused { unit: unit.name.clone(), run });
        return Some(AGAIN);
    }
    Some(idle - rests)
}
