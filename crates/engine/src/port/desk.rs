//! The desk where ports are handed out: the ledger, the sockets that keep leased ports, and what units have been
//! promised in this moment.
//!
//! ```text
//!   a unit's start ──┐  one lock: look in the ledger, try the kernel, write it down
//!   port.lease ──────┴─> so that neither is given what the other has
//!   rows ──> the loop ──> journal, in the order of the ledger ──> answer
//! ```
//!
//! It refuses to know what is right: that is `wharf_core::ports`. The lock is held for a few binds, never across a wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use wharf_core::ports::{HOST, Ledger, Outside, PortLease, Ranges, Terms, Want};
use wharf_model::{ErrorKind, Failure, Handoff, PortEntry, PortLeaseId, Protocol, UnitName};
use wharf_runtime::ports;

use super::{
    evict,
    hatch::{self, Hatch},
};
use crate::{
    engine::Shared,
    turn::{self, Mail},
};

/// By then the published state shows what a start has chosen.
const CLAIMED_FOR: Duration = Duration::from_secs(120);

/// Left-overs of leases that are remembered before it is looked which of them still live.
const MOST_STALE: usize = 64;

/// Where ports are handed out.
pub struct Desk {
    inner: Mutex<Inner>,
    /// Counts what has changed, for those who keep watch.
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    ledger: Ledger,
    kept: BTreeMap<PortLeaseId, Kept>,
    /// What units were given by a start that the published state may not show yet.
    claims: BTreeMap<UnitName, Claim>,
}

/// By what a leased port is kept. It ends with the value.
enum Kept {
    Parked { _sockets: Vec<OwnedFd> },
    Handed(Hatch),
}

/// How a leased port is kept at this moment.
#[derive(Debug, Clone, Default)]
pub struct Keeping {
    /// By a socket of ours.
    pub is_kept: bool,
    /// Where its holder fetches it.
    pub socket: Option<PathBuf>,
}

/// What a start has chosen.
struct Claim {
    at: Instant,
    ports: BTreeSet<u16>,
}

/// Whose each port is that a unit declares.
pub type OfUnits = BTreeMap<(u16, Protocol), UnitName>;

impl Inner {
    fn keeping(&self, id: PortLeaseId) -> Keeping {
        match self.kept.get(&id) {
            Some(Kept::Handed(hatch)) => Keeping { is_kept: true, socket: Some(hatch.path().to_owned()) },
            Some(Kept::Parked { .. }) => Keeping { is_kept: true, socket: None },
            None => Keeping::default(),
        }
    }

    /// Keeps the lease's ports as was agreed.
    fn keep(&mut self, shared: &Shared, lease: &PortLease) -> io::Result<()> {
        if lease.terms.network != HOST || self.kept.contains_key(&lease.id) {
            return Ok(());
        }
        let kept = match lease.terms.handoff {
            Handoff::Plain => return Ok(()),
            Handoff::Park => {
                let sockets = lease.ports.iter().map(|port| ports::park(*port)).collect::<io::Result<_>>()?;
                Kept::Parked { _sockets: sockets }
            }
            Handoff::Fd => Kept::Handed(Hatch::open(shared, lease)?),
        };
        self.kept.insert(lease.id, kept);
        Ok(())
    }

    /// Whose a port is that a unit has or will have.
    fn of_unit<'a>(&self, units: &'a OfUnits) -> impl Fn((u16, Protocol)) -> Option<String> + use<'a> {
        let claims: Vec<(UnitName, BTreeSet<u16>)> =
            self.claims().map(|(unit, ports)| (unit.clone(), ports.clone())).collect();
        move |claim| {
            let starts = || claims.iter().find(|(_, ports)| claim.1 == Protocol::Tcp && ports.contains(&claim.0));
            let starting = || starts().map(|(unit, _)| unit);
            units.get(&claim).or_else(starting).map(ToString::to_string)
        }
    }

    /// Those that may not be published yet.
    fn claims(&self) -> impl Iterator<Item = (&UnitName, &BTreeSet<u16>)> {
        let fresh = self.claims.iter().filter(|(_, claim)| claim.at.elapsed() < CLAIMED_FOR);
        fresh.map(|(unit, claim)| (unit, &claim.ports))
    }
}

/// What was written down and is not durable yet.
#[must_use = "nobody may be told before it is durable"]
pub struct Unsaved(Option<oneshot::Receiver<()>>);

impl Unsaved {
    /// Waits until it is durable.
    pub async fn durable(self) -> Result<(), Failure> {
        let Some(saved) = self.0 else { return Ok(()) };
        saved.await.map_err(|_| {
            Failure::new(ErrorKind::Internal, "the daemon is ending").hint("wharf up starts it again; then ask again")
        })
    }
}

impl Desk {
    /// With what the journal holds. `same_boot`: the machine was not started anew since.
    pub fn restore(rows: &[(String, String)], same_boot: bool) -> Result<Self, Failure> {
        let ledger = Ledger::restore(rows, same_boot).map_err(|e| {
            Failure::new(ErrorKind::Storage, format!("a lease of a port cannot be read: {e}"))
                .hint("`sqlite3 state.db 'DELETE FROM ports'` forgets all leases of ports")
        })?;
        Ok(Self { inner: Mutex::new(Inner { ledger, ..Inner::default() }), moved: watch::Sender::new(0) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change.
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// All leases, and how each is kept.
    pub fn leases(&self) -> Vec<(PortLease, Keeping)> {
        let inner = self.inner();
        inner.ledger.leases().map(|lease| (lease.clone(), inner.keeping(lease.id))).collect()
    }

    /// How one is kept.
    pub fn keeping(&self, id: PortLeaseId) -> Keeping {
        self.inner().keeping(id)
    }

    /// When the next lease ends by itself, by the boot clock.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.inner().ledger.next_end_ms()
    }

    /// A unit's start chooses its ports: nobody else does meanwhile.
    pub fn choosing(&self) -> Choosing<'_> {
        Choosing(self.inner())
    }

    /// Takes a lease. It blocks for as many binds as there are ports to try.
    pub fn take(
        &self,
        shared: &Shared,
        terms: &Terms,
        ranges: &Ranges,
        units: &OfUnits,
        dry_run: bool,
    ) -> Result<(PortLease, Unsaved), Failure> {
        let mut inner = self.inner();
        let of_unit = inner.of_unit(units);
        let by_number = matches!(terms.want, Some(Want::Number(_)));
        let is_free =
            |port| ports::attempt(terms.protocol, port).map_err(|e| taken(port, terms.protocol, &e, by_number));
        let now = turn::now();
        let at = (now.boot_ms, now.wall_ms);
        if dry_run {
            let mut trial = inner.ledger.clone();
            let lease = trial.lease(at, terms.clone(), ranges, of_unit, is_free)?.clone();
            return Ok((lease, Unsaved(None)));
        }
        let before = inner.ledger.leases().count();
        let lease = inner.ledger.lease(at, terms.clone(), ranges, of_unit, is_free)?.clone();
        let is_new = inner.ledger.leases().count() > before;
        let kept = inner.keep(shared, &lease);
        let must_keep = is_new && lease.terms.handoff == Handoff::Fd;
        if let (Err(_), true) = (&kept, must_keep) {
            // Nobody was told of it.
            inner.ledger.end(lease.id);
        }
        let unsaved = save(&mut inner, shared);
        drop(inner);
        self.tell();
        match kept {
            Err(e) if must_keep => {
                let port = lease.ports.first().copied().unwrap_or_default();
                Err(taken(port, lease.terms.protocol, &e, true))
            }
            // Its holder listens already: there is nothing to keep for it.
            Err(e) => {
                tracing::debug!("{}: no socket keeps {}: {e}", lease.id, lease.label());
                Ok((lease, unsaved))
            }
            Ok(()) => Ok((lease, unsaved)),
        }
    }

    /// Writes a port down.
    pub fn declare(
        &self,
        shared: &Shared,
        entry: PortEntry,
        units: &OfUnits,
        dry_run: bool,
    ) -> Result<(Option<PortEntry>, Unsaved), Failure> {
        let mut inner = self.inner();
        let of_unit = inner.of_unit(units);
        if dry_run {
            return Ok((inner.ledger.clone().declare(entry, of_unit)?, Unsaved(None)));
        }
        let replaced = inner.ledger.declare(entry, of_unit)?;
        let unsaved = save(&mut inner, shared);
        drop(inner);
        self.tell();
        Ok((replaced, unsaved))
    }

    /// Changes the ledger; what comes of it is on its way to the journal.
    pub fn change<T>(
        &self,
        shared: &Shared,
        change: impl FnOnce(&mut Ledger) -> Result<T, Failure>,
    ) -> Result<(T, Unsaved), Failure> {
        let mut inner = self.inner();
        let changed = change(&mut inner.ledger)?;
        let Inner { ledger, kept, .. } = &mut *inner;
        if ledger.stale_processes().count() > MOST_STALE {
            forget_the_dead(ledger);
        }
        kept.retain(|id, _| ledger.get(*id).is_some());
        let unsaved = save(&mut inner, shared);
        drop(inner);
        self.tell();
        Ok((changed, unsaved))
    }

    /// A look at the ledger.
    pub fn see<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.inner().ledger)
    }

    /// After a start: keeps again what a daemon before this one kept, and writes down what a boot has ended.
    pub fn settle(&self, shared: &Shared) -> Unsaved {
        let mut inner = self.inner();
        forget_the_dead(&mut inner.ledger);
        if let Err(e) = hatch::clear(&shared.layout) {
            tracing::warn!("the folder of listening sockets cannot be made anew: {e}");
        }
        let leases: Vec<PortLease> = inner.ledger.leases().cloned().collect();
        for lease in leases {
            // Where its holder listens there is nothing to keep.
            if let Err(e) = inner.keep(shared, &lease) {
                tracing::debug!("{}: no socket keeps {}: {e}", lease.id, lease.label());
            }
        }
        save(&mut inner, shared)
    }

    /// Keeps what could not be kept before, since somebody listened there.
    pub fn mend(&self, shared: &Shared) {
        let mut inner = self.inner();
        let is_open = |lease: &&PortLease| lease.terms.handoff == Handoff::Fd && !inner.kept.contains_key(&lease.id);
        let open: Vec<PortLease> = inner.ledger.leases().filter(is_open).cloned().collect();
        for lease in open {
            if let Err(e) = inner.keep(shared, &lease) {
                tracing::debug!("{}: no socket keeps {}: {e}", lease.id, lease.label());
            }
        }
    }

    fn tell(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }
}

/// The rows go to the loop in the order in which the ledger made them: the lock is held.
fn save(inner: &mut Inner, shared: &Shared) -> Unsaved {
    debug_assert_eq!(inner.ledger.check(), Ok(()));
    let rows = inner.ledger.take_unsaved();
    if rows.is_empty() {
        return Unsaved(None);
    }
    let (done, saved) = oneshot::channel();
    // A loop that has ended drops the letter, and with it the other end.
    let _ = shared.mail.send(Mail::Ports(rows, done));
    Unsaved(Some(saved))
}

/// Why the kernel does not give a port. To name the holder is a walk through all processes: for one number only.
pub fn taken(port: u16, protocol: Protocol, e: &io::Error, name_it: bool) -> Failure {
    if e.kind() == io::ErrorKind::PermissionDenied {
        let text = format!("port {port} is not allowed to this user: {e}");
        return Failure::new(ErrorKind::Permission, text).hint("choose one above 1023");
    }
    let holder = if name_it && protocol == Protocol::Tcp { ports::holder(port) } else { None };
    let by = holder.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string());
    Failure::new(ErrorKind::PortConflict, format!("port {port} is taken by {by}"))
        .hint(format!("wharf ports who {port}"))
        .cause(e)
}

/// The right to choose ports for a unit. Held for as short as it can be.
pub struct Choosing<'a>(MutexGuard<'a, Inner>);

impl Choosing<'_> {
    /// A program outside has leased it, or it is written down for another service than this unit.
    pub fn promised(&self, unit: &UnitName, port: u16) -> Option<Failure> {
        let entry = self.0.ledger.entry_at(Protocol::Tcp, port).filter(|entry| entry.service != unit.as_str());
        if let Some(entry) = entry {
            let text = format!("port {port} is declared for {} (by uid {})", entry.label(), entry.uid);
            let hint = format!(
                "strike that out (wharf ports undeclare {}), or let Wharf choose: --port NAME=auto",
                entry.service
            );
            return Some(Failure::new(ErrorKind::PortTaken, text).hint(hint));
        }
        let lease = self.0.ledger.at(Protocol::Tcp, port)?;
        let text = format!("port {port} is leased to {} ({}, uid {})", lease.label(), lease.id, lease.terms.uid);
        let hint =
            format!("end that lease (wharf ports release {}), or let Wharf choose: --port NAME=auto", lease.id.0);
        Some(Failure::new(ErrorKind::PortTaken, text).hint(hint))
    }

    /// Says of who stands in a unit's way whether it is a left-over of ours (C12).
    pub fn known(&self, shared: &Shared, holder: &ports::Holder, failure: Failure) -> Failure {
        let Some(process) = holder.pid.and_then(|pid| outside(pid).ok()) else { return failure };
        match evict::record(shared, &self.0.ledger, 0, process, holder.port) {
            Some(why) => {
                let hint = format!("it is a left-over of ours, {why}: wharf ports evict {}", holder.port);
                failure.hint(hint)
            }
            None => failure,
        }
    }

    /// What others than this unit have: leases, what is written down, and starts that the published state may not show yet.
    pub fn of_others(&self, unit: &UnitName) -> BTreeSet<u16> {
        let leases = self.0.ledger.leases().filter(|lease| lease.terms.network == HOST);
        let leased = leases.flat_map(|lease| lease.ports.iter().copied());
        let entries = self.0.ledger.entries().filter(|entry| entry.is_here && entry.service != unit.as_str());
        let written = entries.flat_map(|entry| entry.port..=entry.to);
        let claims = self.0.claims().filter(|(other, _)| *other != unit);
        leased.chain(written).chain(claims.flat_map(|(_, ports)| ports.iter().copied())).collect()
    }

    /// These are the unit's now.
    pub fn claim(&mut self, unit: &UnitName, ports: impl IntoIterator<Item = u16>) {
        self.0.claims.retain(|_, claim| claim.at.elapsed() < CLAIMED_FOR);
        let claim = Claim { at: Instant::now(), ports: ports.into_iter().collect() };
        self.0.claims.insert(unit.clone(), claim);
    }
}

/// Left-overs that have ended by themselves.
fn forget_the_dead(ledger: &mut Ledger) {
    let all: Vec<Outside> = ledger.stale_processes().collect();
    for process in all {
        if wharf_sys::pidfd::open_exact(process.pid, process.identity).is_err() {
            ledger.forget_stale(process);
        }
    }
}

/// A process that lives, exactly: for a lease that ends with it.
pub fn outside(pid: i32) -> io::Result<Outside> {
    let process = wharf_sys::pidfd::open(pid)?;
    Ok(Outside { pid, identity: wharf_sys::pidfd::identity(&process, pid)? })
}
