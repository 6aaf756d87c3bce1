//! Keeping watch: leases that end with their time or their holder, and strangers on ports that somebody has.
//!
//! A process's end is told by its pidfd, and wakes nobody before. Listeners are told by nobody: as long as a lease
//! lives or a unit with ports runs, the kernel is asked for its listeners once in [`LOOK`], and only a change on a port
//! that somebody has is looked into. Without either it sleeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{io::Interest, task::JoinHandle};
use wharf_api::Happened;
use wharf_core::ports::{Drift, HOST, Outside, PortLease};
use wharf_model::{DriftKind, Failure, PortLeaseId, Protocol};
use wharf_runtime::{
    launch::async_fd,
    ports::{self, Socket},
};
use wharf_sys::pidfd;

use super::look::View;
use crate::{bus::News, engine::Shared, turn};

/// A second listener is told within a second.
const LOOK: Duration = Duration::from_millis(900);
/// A second look at what may be a passing moment.
const AGAIN: Duration = Duration::from_millis(30);

/// Keeps watch for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) -> Result<(), Failure> {
    // What a boot has ended is written down; nobody waits for it.
    drop(shared.ports.settle(shared));
    let tasks = &shared.tasks;
    tasks.spawn(end_in_time(shared.clone()));
    tasks.spawn(watch_holders(shared.clone()));
    let watcher = shared.clone();
    let watch = std::thread::Builder::new().name("ports".into()).spawn(move || watch_listeners(&watcher));
    watch.map(drop).map_err(|e| Failure::from(e).while_doing("watch the ports"))
}

async fn end_in_time(shared: Arc<Shared>) {
    let mut moves = shared.ports.moves();
    loop {
        let now = turn::now().boot_ms;
        let due = shared.ports.next_end_ms().map(|at| Duration::from_millis(at.saturating_sub(now)));
        match due {
            Some(wait) if wait.is_zero() => {
                if let Ok((ended, unsaved)) = shared.ports.change(&shared, |ledger| Ok(ledger.expire(now)))
                    && unsaved.durable().await.is_ok()
                {
                    ended.iter().for_each(|lease| tell_of_end(&shared, lease, "it was not renewed"));
                }
            }
            Some(wait) => {
                let _ = tokio::time::timeout(wait, moves.changed()).await;
            }
            None => {
                if moves.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn watch_holders(shared: Arc<Shared>) {
    let mut moves = shared.ports.moves();
    let mut watches: BTreeMap<(PortLeaseId, Outside), JoinHandle<()>> = BTreeMap::new();
    loop {
        let leases = shared.ports.leases();
        let wanted: BTreeSet<(PortLeaseId, Outside)> =
            leases.iter().filter_map(|(lease, _)| Some((lease.id, lease.holder?))).collect();
        watches.retain(|of, watch| {
            if !wanted.contains(of) {
                watch.abort();
            }
            wanted.contains(of)
        });
        for of in wanted {
            watches.entry(of).or_insert_with(|| shared.tasks.spawn(watch_holder(shared.clone(), of.0, of.1)));
        }
        if moves.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_holder(shared: Arc<Shared>, id: PortLeaseId, holder: Outside) {
    if let Err(e) = ended(holder).await {
        tracing::debug!("{id}: its holder {} cannot be watched: {e}", holder.pid);
    }
    // A task of its own: this one is not wanted any more as soon as the lease is over.
    shared.tasks.spawn(end_of_holder(shared.clone(), id, holder));
}

async fn end_of_holder(shared: Arc<Shared>, id: PortLeaseId, holder: Outside) {
    let is_its = |lease: &PortLease| lease.holder == Some(holder);
    let end = shared
        .ports
        .change(&shared, |ledger| Ok(if ledger.get(id).is_some_and(is_its) { ledger.end(id) } else { None }));
    if let Ok((Some(lease), unsaved)) = end
        && unsaved.durable().await.is_ok()
    {
        tell_of_end(&shared, &lease, "its holder has ended");
    }
}

/// Until the process has ended; at once where there is none.
async fn ended(process: Outside) -> io::Result<()> {
    let process = async_fd(pidfd::open_exact(process.pid, process.identity)?, Interest::READABLE)?;
    process.readable().await.map(drop)
}

/// A lease is over, and durably so.
pub fn tell_of_end(shared: &Shared, lease: &PortLease, why: &str) {
    tracing::info!("{} of {} is over: {why}", lease.id, lease.label());
    let happened =
        Happened::PortFreed { lease: lease.id, holder: lease.label(), ports: lease.ports.clone(), why: why.into() };
    shared.bus.publish([News { unit: None, run: None, happened }]);
}

type Place = (Protocol, u16);
type Print = BTreeSet<(Protocol, SocketAddr, u64)>;

/// The ports that somebody has now: of leases, and of units that run.
fn watched(shared: &Shared) -> BTreeSet<Place> {
    let leases = shared.ports.leases();
    let leased = leases.iter().filter(|(lease, _)| lease.network == HOST);
    let leased = leased.flat_map(|(lease, _)| lease.ports.iter().map(|port| (lease.protocol, *port)));
    let world = shared.world.load();
    let live = world.values().filter(|unit| unit.life.run().is_some());
    let of_units = live.flat_map(|unit| unit.fixed_ports().map(|(_, port)| (Protocol::Tcp, port)).collect::<Vec<_>>());
    leased.chain(of_units).collect()
}

/// On a thread of its own: a timer of the runtime would wake two.
fn watch_listeners(shared: &Arc<Shared>) {
    let (mut moves, mut published) = (shared.ports.moves(), shared.published.subscribe());
    let (mut seen, mut told) = (Print::new(), BTreeSet::new());
    let mut places = BTreeSet::new();
    let (mut has_changed, mut has_moved) = (true, true);
    loop {
        if has_changed {
            places = watched(shared);
        }
        if places.is_empty() {
            (seen, told) = (Print::new(), BTreeSet::new());
            let still = shared.tasks.block_on(async {
                tokio::select! {
                    still = moves.changed() => still,
                    still = published.changed() => still,
                }
            });
            if still.is_err() {
                return;
            }
            (has_changed, has_moved) = (true, true);
            continue;
        }
        let print = listeners(&places);
        // Of units that come and go, what listens tells; of leases, the ledger.
        if print != seen || has_moved {
            seen = print;
            told = look_into(shared, &places, told);
        }
        std::thread::sleep(LOOK);
        // Looked at when it wakes anyway: a change wakes nobody.
        has_moved = moves.has_changed().unwrap_or(true);
        has_changed = has_moved || published.has_changed().unwrap_or(true);
        moves.mark_unchanged();
        published.mark_unchanged();
    }
}

/// Who listens on these ports. One to four questions to the kernel, some tens of microseconds each.
fn listeners(places: &BTreeSet<Place>) -> Print {
    let has_udp = places.iter().any(|(protocol, _)| *protocol == Protocol::Udp);
    let sockets = if has_udp { ports::listening() } else { ports::listening_tcp() };
    let wanted = |s: &Socket| places.contains(&(s.protocol, s.local.port()));
    sockets.into_iter().filter(wanted).map(|s| (s.protocol, s.local, s.inode)).collect()
}

/// Tells of what was not told before; what is over may be told again. What is new is looked at twice: a program can
/// listen an instant before it is known whose it is.
fn look_into(shared: &Arc<Shared>, places: &BTreeSet<Place>, told: BTreeSet<Drift>) -> BTreeSet<Drift> {
    let Some(mut now) = hurting(shared, places) else { return told };
    if !now.is_subset(&told) {
        std::thread::sleep(AGAIN);
        let Some(again) = hurting(shared, places) else { return told };
        now = now.intersection(&again).cloned().collect();
    }
    for drift in now.difference(&told) {
        tracing::warn!("{}", drift.text);
        let run = drift.unit.as_ref().and_then(|unit| shared.world.load().get(unit)?.life.run());
        let happened = happened(drift);
        shared.bus.publish([News { unit: drift.unit.clone(), run, happened }]);
    }
    now
}

/// What is wrong on these ports now, and does not wait for a person to ask.
fn hurting(shared: &Shared, places: &BTreeSet<Place>) -> Option<BTreeSet<Drift>> {
    let view = View::of(shared, |s| places.contains(&(s.protocol, s.local.port())));
    let view = view.inspect_err(|failure| tracing::debug!("ports: {failure}")).ok()?;
    let is_news = |drift: &Drift| {
        let hurts = matches!(drift.kind, DriftKind::Intruder | DriftKind::Duplicate | DriftKind::Open);
        hurts && places.contains(&(drift.protocol, drift.port))
    };
    Some(view.drift().into_iter().filter(is_news).collect())
}

fn happened(drift: &Drift) -> Happened {
    let (port, protocol, lease, text) = (drift.port, drift.protocol, drift.lease, drift.text.clone());
    match drift.kind {
        DriftKind::Duplicate => Happened::PortDuplicate { port, protocol, lease, text },
        DriftKind::Open => Happened::PortOpen { port, protocol, lease, text },
        DriftKind::Intruder
        | DriftKind::DeclaredTwice
        | DriftKind::NotListening
        | DriftKind::WrongProtocol
        | DriftKind::NotDeclared
        | DriftKind::PortOutsideRange
        | DriftKind::PortReserved
        | DriftKind::EphemeralOverlap => Happened::PortIntruder { port, protocol, lease, text },
    }
}
