//! Who listens on ports that somebody has: who comes, who goes, and who should not be there.
//!
//! ```text
//!   nobody has a port ── asleep, no wake-up
//!   a unit with ports runs, a lease lives, a port is written down
//!     once in LOOK: the kernel's listeners ── the same as before? asleep again
//!       else who they are ── new: appeared   gone: vanished   wrong: intruder, duplicate, open, drift
//! ```
//!
//! Listeners are told by nobody, so the kernel is asked. It refuses to know what is wrong: that is `wharf_core::ports`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use wharf_api::Happened;
use wharf_core::ports::{HOST, Owner};
use wharf_model::{Drift, DriftKind, PortLeaseId, Protocol, RunId, UnitName};
use wharf_runtime::ports::{self, Socket, Use};

use super::super::look::{Seen, View, is_ready};
use crate::{bus::News, engine::Shared};

/// A second listener is told within a second.
const LOOK: Duration = Duration::from_millis(900);
/// A second look at what may be a passing moment.
const AGAIN: Duration = Duration::from_millis(30);
/// A program that says nothing of when it is ready has so long to listen.
const PATIENCE: Duration = Duration::from_secs(10);

type Place = (Protocol, u16);
/// Where somebody listens.
type Spot = (Protocol, SocketAddr);
/// The sockets that listen at each.
type Print = BTreeMap<Spot, BTreeSet<u64>>;

/// The ports that somebody has now.
#[derive(Default, PartialEq, Eq)]
struct Watched {
    places: BTreeSet<Place>,
    /// The units that declare one of them, and whether they are ready and should listen.
    declared: BTreeSet<(Place, UnitName, bool)>,
}

/// Those of leases, what is written down, and those of units that run.
fn watched(shared: &Shared) -> Watched {
    let mut places = BTreeSet::new();
    shared.ports.see(|ledger| {
        for lease in ledger.leases().filter(|lease| lease.terms.network == HOST) {
            places.extend(lease.ports.iter().map(|port| (lease.terms.protocol, *port)));
        }
        for entry in ledger.entries().filter(|entry| entry.is_here) {
            places.extend((entry.port..=entry.to).map(|port| (entry.speaks.protocol(), port)));
        }
    });
    let world = shared.world.load();
    let mut declared = BTreeSet::new();
    for unit in world.values() {
        for (_, port) in unit.fixed_ports() {
            declared.insert(((Protocol::Tcp, port), unit.name.clone(), is_ready(unit)));
            if unit.life.run().is_some() {
                places.insert((Protocol::Tcp, port));
            }
        }
    }
    declared.retain(|(place, ..)| places.contains(place));
    Watched { places, declared }
}

/// On a thread of its own: a timer of the runtime would wake two.
pub(super) fn watch(shared: &Arc<Shared>) {
    let (mut moves, mut published) = (shared.ports.moves(), shared.published.subscribe());
    let mut watch = Watch::new();
    let mut now = Watched::default();
    let (mut has_changed, mut has_moved) = (true, true);
    loop {
        let began = Instant::now();
        let before = has_changed.then(|| std::mem::replace(&mut now, watched(shared)));
        let is_due = has_moved || before.is_some_and(|before| before != now);
        watch.look(shared, &now.places, is_due);
        if now.places.is_empty() {
            watch.rest();
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
        std::thread::sleep(LOOK.saturating_sub(began.elapsed()));
        // Looked at when it wakes anyway: a change wakes nobody.
        has_moved = moves.has_changed().unwrap_or(true);
        has_changed = has_moved || published.has_changed().unwrap_or(true);
        moves.mark_unchanged();
        published.mark_unchanged();
    }
}

/// Somebody who listens where it was told.
struct Known {
    sockets: BTreeSet<u64>,
    unit: Option<UnitName>,
    run: Option<RunId>,
    lease: Option<PortLeaseId>,
    text: String,
}

/// What was seen, and what was told of it.
struct Watch {
    /// Every socket that listened at the last look, of whomever: one that is not among them is new.
    all: BTreeSet<u64>,
    /// Those on the ports that are watched.
    print: Print,
    known: BTreeMap<Spot, Known>,
    told: BTreeSet<Drift>,
    /// Units that do not listen yet, and since when.
    late: BTreeMap<Drift, Instant>,
}

impl Watch {
    fn new() -> Self {
        // Who listens before the first look is no news: a daemon before this one has told of them.
        let all = ports::listening().into_iter().map(|s| s.inode).collect();
        Self { all, print: Print::new(), known: BTreeMap::new(), told: BTreeSet::new(), late: BTreeMap::new() }
    }

    /// Nobody has a port: what was wrong is not any more.
    fn rest(&mut self) {
        (self.print, self.told, self.late) = (Print::new(), BTreeSet::new(), BTreeMap::new());
        self.known.clear();
    }

    /// Four questions to the kernel, some tens of microseconds each. Who they are costs milliseconds, and is asked
    /// where something has changed.
    fn look(&mut self, shared: &Arc<Shared>, places: &BTreeSet<Place>, is_due: bool) {
        if places.is_empty() && self.known.is_empty() {
            return;
        }
        let sockets = ports::listening();
        let print = print(&sockets, places);
        if print == self.print && !is_due && self.late.is_empty() {
            return;
        }
        if self.print.keys().any(|spot| !print.contains_key(spot)) {
            shared.ports.mend(shared);
        }
        self.print = print;
        self.tell_who_is_gone(shared, &sockets);
        if !places.is_empty() {
            self.look_into(shared, places);
        }
        self.known.retain(|(protocol, address), _| places.contains(&(*protocol, address.port())));
        self.all = sockets.into_iter().map(|s| s.inode).collect();
    }

    /// Who listened and does not any more, also where nobody has the port by now.
    fn tell_who_is_gone(&mut self, shared: &Shared, sockets: &[Socket]) {
        let now: BTreeSet<u64> = sockets.iter().map(|s| s.inode).collect();
        let is_gone = |_: &Spot, known: &mut Known| known.sockets.is_disjoint(&now);
        let gone: Vec<(Spot, Known)> = self.known.extract_if(.., is_gone).collect();
        for ((protocol, address), known) in gone {
            let (port, lease, text) = (address.port(), known.lease, known.text);
            let address = address.ip().to_string();
            let happened = Happened::PortVanished { port, protocol, address, lease, text };
            shared.bus.publish([News { unit: known.unit, run: known.run, happened }]);
        }
    }

    /// Tells of what was not told before; what is over may be told again. What is new is looked at twice: a program can
    /// listen an instant before it is known whose it is.
    fn look_into(&mut self, shared: &Arc<Shared>, places: &BTreeSet<Place>) {
        let Some(mut view) = view(shared, places) else { return };
        let mut now = hurting(&view, places);
        let is_new = !now.is_subset(&self.told) || view.seen.iter().any(|seen| self.is_new(seen));
        if is_new {
            std::thread::sleep(AGAIN);
            let Some(again) = self::view(shared, places) else { return };
            view = again;
            now = now.intersection(&hurting(&view, places)).cloned().collect();
        }
        self.tell_who_came(shared, &view);
        self.wait_for_late_ones(&mut now);
        for drift in now.difference(&self.told) {
            tracing::warn!("{}", drift.text);
            let run = drift.unit.as_ref().and_then(|unit| shared.world.load().get(unit)?.life.run());
            let happened = happened(drift);
            shared.bus.publish([News { unit: drift.unit.clone(), run, happened }]);
        }
        self.told = now;
    }

    fn is_new(&self, seen: &Seen) -> bool {
        let known = self.known.get(&spot(&seen.socket));
        known.is_none() && seen.owner != Owner::Daemon && !self.all.contains(&seen.socket.inode)
    }

    fn tell_who_came(&mut self, shared: &Shared, view: &View) {
        let listens = |seen: &&Seen| seen.socket.used == Use::Listens && seen.owner != Owner::Daemon;
        for seen in view.seen.iter().filter(listens) {
            let (is_new, spot) = (self.is_new(seen), spot(&seen.socket));
            if let Some(known) = self.known.get_mut(&spot) {
                known.sockets.insert(seen.socket.inode);
                continue;
            }
            let (unit, lease) = match &seen.owner {
                Owner::Unit(unit) => (Some(unit.clone()), None),
                Owner::Lease(id) => (None, Some(*id)),
                Owner::Daemon | Owner::Other(_) => (None, None),
            };
            let (protocol, address) = spot;
            let (port, address, text) = (address.port(), address.ip().to_string(), seen.text());
            let sockets = BTreeSet::from([seen.socket.inode]);
            self.known.insert(spot, Known { sockets, unit: unit.clone(), run: seen.run, lease, text: text.clone() });
            if is_new {
                let happened = Happened::PortAppeared { port, protocol, address, lease, text };
                shared.bus.publish([News { unit, run: seen.run, happened }]);
            }
        }
    }

    /// Takes out those that may still begin to listen.
    fn wait_for_late_ones(&mut self, now: &mut BTreeSet<Drift>) {
        let late = now.iter().filter(|drift| drift.kind == DriftKind::NotListening);
        let late: BTreeSet<Drift> = late.filter(|drift| !self.told.contains(*drift)).cloned().collect();
        self.late.retain(|drift, _| late.contains(drift));
        for drift in late {
            let since = *self.late.entry(drift.clone()).or_insert_with(Instant::now);
            if since.elapsed() < PATIENCE {
                now.remove(&drift);
            } else {
                self.late.remove(&drift);
            }
        }
    }
}

fn spot(socket: &Socket) -> Spot {
    (socket.protocol, socket.local)
}

fn print(sockets: &[Socket], places: &BTreeSet<Place>) -> Print {
    let mut print = Print::new();
    for socket in sockets.iter().filter(|s| places.contains(&(s.protocol, s.local.port()))) {
        print.entry(spot(socket)).or_default().insert(socket.inode);
    }
    print
}

fn view(shared: &Shared, places: &BTreeSet<Place>) -> Option<View> {
    let view = View::of(shared, |s| places.contains(&(s.protocol, s.local.port())));
    view.inspect_err(|failure| tracing::debug!("ports: {failure}")).ok()
}

/// What is wrong on these ports now, and does not wait for a person to ask.
fn hurting(view: &View, places: &BTreeSet<Place>) -> BTreeSet<Drift> {
    let is_news = |drift: &Drift| !drift.kind.is_advice() && places.contains(&(drift.protocol, drift.port));
    view.drift().into_iter().filter(is_news).collect()
}

fn happened(drift: &Drift) -> Happened {
    let (port, protocol, lease, text) = (drift.port, drift.protocol, drift.lease, drift.text.clone());
    match drift.kind {
        DriftKind::Duplicate => Happened::PortDuplicate { port, protocol, lease, text },
        DriftKind::Open => Happened::PortOpen { port, protocol, lease, text },
        DriftKind::Intruder => Happened::PortIntruder { port, protocol, lease, text },
        DriftKind::DeclaredTwice
        | DriftKind::NotListening
        | DriftKind::WrongProtocol
        | DriftKind::NotDeclared
        | DriftKind::PortOutsideRange
        | DriftKind::PortReserved
        | DriftKind::EphemeralOverlap => {
            Happened::PortDrift { port, protocol, drift: drift.kind, lease, text, fix: drift.fix.clone() }
        }
    }
}
