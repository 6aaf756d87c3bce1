//! The ledger of leases that programs outside have taken.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wharf_model::{ErrorKind, Failure, Handoff, PortLeaseId, Protocol, Reach};

use super::{
    HOST,
    range::{Ranges, Span},
};

/// Ports that one caller may have at a time.
const MOST_PORTS: usize = 1024;
/// Ports of one lease.
const MOST_COUNT: u16 = 64;

/// A process outside, exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outside {
    /// Its number.
    pub pid: i32,
    /// Which one of that number.
    pub identity: u64,
}

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// This one.
    Number(u16),
    /// Some of a range.
    Within {
        /// Where.
        span: Span,
        /// How many.
        count: u16,
        /// Side by side.
        contiguous: bool,
    },
}

/// What a lease is asked for with. Times are of the boot clock, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose.
    pub uid: u32,
    /// Makes the same request the same lease.
    pub key: Option<String>,
    /// What the holder calls itself.
    pub service: String,
    /// What the port is for: `http`.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On which network.
    pub network: String,
    /// Which port; none: the sticky one, else one of the purpose's range.
    pub want: Option<Want>,
    /// What it is for, by the table.
    pub purpose: Option<String>,
    /// From where it may be reached.
    pub reach: Reach,
    /// How it is kept.
    pub handoff: Handoff,
    /// The number is remembered after the lease.
    pub sticky: bool,
    /// It ends after so long without a renewal.
    pub ttl_ms: Option<u64>,
    /// It ends with this process.
    pub holder: Option<Outside>,
}

/// Ports that a program outside has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortLease {
    /// Which.
    pub id: PortLeaseId,
    /// Grows whenever it changes hands: what an earlier holder says is refused.
    pub epoch: u64,
    /// Whose.
    pub uid: u32,
    /// Makes the same request the same lease.
    pub key: Option<String>,
    /// What the holder calls itself.
    pub service: String,
    /// What the port is for.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On which network.
    pub network: String,
    /// The numbers.
    pub ports: Vec<u16>,
    /// What it is for, by the table.
    pub purpose: Option<String>,
    /// From where it may be reached.
    pub reach: Reach,
    /// How it is kept.
    pub handoff: Handoff,
    /// The number is remembered afterwards.
    pub sticky: bool,
    /// How long it goes on without a renewal.
    pub ttl_ms: Option<u64>,
    /// When it ends, by the boot clock.
    pub expires_ms: Option<u64>,
    /// With whom it ends.
    pub holder: Option<Outside>,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_ms: i64,
    /// Who was seen to listen for it: should they outlive the lease, they are known.
    #[serde(default)]
    pub seen: BTreeSet<Outside>,
}

impl PortLease {
    /// What people call it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.service, self.name)
    }

    fn is(&self, terms: &Terms) -> bool {
        let ports = match (terms.want, self.ports.as_slice()) {
            (Some(Want::Number(number)), ports) => ports == [number],
            (Some(Want::Within { span, count, .. }), ports) => {
                ports.len() == usize::from(count) && ports.iter().all(|port| span.contains(*port))
            }
            (None, ports) => ports.len() == 1,
        };
        ports
            && (&self.service, &self.name, &self.network) == (&terms.service, &terms.name, &terms.network)
            && (self.protocol, self.reach, self.handoff) == (terms.protocol, terms.reach, terms.handoff)
    }
}

/// A port that a unit has or will have.
pub type Claim = (u16, Protocol);

/// A row of the journal: what stands under a key now; none: nothing does.
pub type Row = (String, Option<String>);

type Place = (String, Protocol, u16);
type Sticky = (u32, String, String);

/// Every lease of a program outside.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    leases: BTreeMap<PortLeaseId, PortLease>,
    by_place: BTreeMap<Place, PortLeaseId>,
    by_key: BTreeMap<(u32, String), PortLeaseId>,
    sticky: BTreeMap<Sticky, Vec<u16>>,
    /// Who listened for leases that are over.
    stale: BTreeMap<Outside, (u32, Vec<u16>)>,
    last: u64,
    last_epoch: u64,
    /// What the journal does not know yet.
    unsaved: Vec<Row>,
}

/// What the journal keeps beside leases.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    last: u64,
    epoch: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StickyRow {
    uid: u32,
    service: String,
    name: String,
    ports: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StaleRow {
    process: Outside,
    uid: u32,
    ports: Vec<u16>,
}

impl Ledger {
    /// From the journal's rows. After a boot of the machine no lease lives: whoever had one has gone.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn restore(rows: &[(String, String)], same_boot: bool) -> Result<Self, serde_json::Error> {
        let mut ledger = Self::default();
        for (key, row) in rows {
            match key.split('/').next() {
                Some("lease") => {
                    let lease: PortLease = serde_json::from_str(row)?;
                    if same_boot {
                        ledger.enter(lease);
                    } else {
                        ledger.unsaved.push((key.clone(), None));
                    }
                }
                Some("sticky") => {
                    let StickyRow { uid, service, name, ports } = serde_json::from_str(row)?;
                    ledger.sticky.insert((uid, service, name), ports);
                }
                Some("stale") if same_boot => {
                    let StaleRow { process, uid, ports } = serde_json::from_str(row)?;
                    ledger.stale.insert(process, (uid, ports));
                }
                Some("stale") => ledger.unsaved.push((key.clone(), None)),
                Some("counters") => {
                    let Counters { last, epoch } = serde_json::from_str(row)?;
                    (ledger.last, ledger.last_epoch) = (last, epoch);
                }
                // Another one's row.
                Some(_) | None => {}
            }
        }
        Ok(ledger)
    }

    /// What has to be durable before anybody is told of it.
    pub fn take_unsaved(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.unsaved)
    }

    /// All leases.
    pub fn leases(&self) -> impl Iterator<Item = &PortLease> {
        self.leases.values()
    }

    /// A lease.
    pub fn get(&self, id: PortLeaseId) -> Option<&PortLease> {
        self.leases.get(&id)
    }

    /// Who has a port of the machine itself.
    pub fn at(&self, protocol: Protocol, port: u16) -> Option<&PortLease> {
        self.leases.get(self.by_place.get(&(HOST.into(), protocol, port))?)
    }

    /// Whose process this was, of those that listened for leases that are over.
    pub fn stale(&self, process: Outside, port: u16) -> Option<u32> {
        self.stale.get(&process).filter(|(_, ports)| ports.contains(&port)).map(|(uid, _)| *uid)
    }

    /// Processes that listened for leases that are over.
    pub fn stale_processes(&self) -> impl Iterator<Item = Outside> {
        self.stale.keys().copied()
    }

    /// Forgets one of them: it has ended.
    pub fn forget_stale(&mut self, process: Outside) {
        if self.stale.remove(&process).is_some() {
            self.unsaved.push((stale_key(process), None));
        }
    }

    /// When the next lease ends by itself.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.leases.values().filter_map(|lease| lease.expires_ms).min()
    }

    /// Takes a lease. `units` says whose a port is that a unit has or will have; `is_free` asks the kernel.
    ///
    /// # Errors
    /// `port_conflict`, `range_exhausted`, `ephemeral_overlap`, `quota`, `invalid_params`, or what `is_free` gave.
    pub fn lease(
        &mut self,
        (boot_ms, wall_ms): (u64, i64),
        terms: Terms,
        ranges: &Ranges,
        units: impl Fn(Claim) -> Option<String>,
        mut is_free: impl FnMut(u16) -> Result<(), Failure>,
    ) -> Result<&PortLease, Failure> {
        self.check_terms(&terms)?;
        let expires_ms = terms.ttl_ms.map(|ttl| boot_ms.saturating_add(ttl));
        if let Some(id) = self.again(&terms, expires_ms)? {
            return Ok(&self.leases[&id]);
        }
        let is_host = terms.network == HOST;
        let mut in_the_way = |port: u16| -> Option<Failure> {
            if let Some(holder) = self.by_place.get(&(terms.network.clone(), terms.protocol, port)) {
                return Some(leased(port, &self.leases[holder]));
            }
            if !is_host {
                return None;
            }
            if let Some(unit) = units((port, terms.protocol)) {
                let text = format!("port {port} belongs to the unit {unit}");
                let hint = format!("choose another, or give the unit another one: wharf start {unit} --port NAME=auto");
                return Some(Failure::new(ErrorKind::PortConflict, text).hint(hint));
            }
            is_free(port).err()
        };
        let sticky = self.sticky.get(&(terms.uid, terms.service.clone(), terms.name.clone()));
        let ports = match terms.want {
            Some(Want::Number(number)) => in_the_way(number).map_or(Ok(vec![number]), Err)?,
            Some(Want::Within { span, count, contiguous }) => {
                if is_host && let Some(part) = ranges.ephemeral_in(span) {
                    return Err(overlaps(span, part));
                }
                let kept = sticky.filter(|kept| {
                    kept.len() == usize::from(count)
                        && kept.iter().all(|port| span.contains(*port) && in_the_way(*port).is_none())
                });
                match kept.cloned() {
                    Some(kept) => kept,
                    None => choose(&[span], count, contiguous, &terms, ranges, &mut in_the_way)?,
                }
            }
            None => match sticky.filter(|kept| kept.len() == 1 && in_the_way(kept[0]).is_none()) {
                Some(kept) => kept.clone(),
                None => {
                    let purpose = terms.purpose.as_deref().unwrap_or("any");
                    let spans: Vec<Span> = ranges.of(purpose).collect();
                    if spans.is_empty() {
                        return Err(no_range(purpose, ranges));
                    }
                    choose(&spans, 1, false, &terms, ranges, &mut in_the_way)?
                }
            },
        };
        let id = self.grant(terms, ports, expires_ms, wall_ms);
        Ok(&self.leases[&id])
    }

    fn check_terms(&self, terms: &Terms) -> Result<(), Failure> {
        let bad = |text: String| Err(Failure::new(ErrorKind::InvalidParams, text));
        for (what, text) in [("service", &terms.service), ("name", &terms.name), ("network", &terms.network)] {
            if text.is_empty() || text.len() > 100 || text.chars().any(|c| c.is_control() || c == '/') {
                return bad(format!("{what} is 1 to 100 characters without a slash"));
            }
        }
        match terms.want {
            Some(Want::Number(0)) => return bad("a port is a number from 1 to 65535".into()),
            Some(Want::Within { span, count, .. }) => {
                if span.from == 0 || span.from > span.to {
                    return bad(format!("{span} holds no port"));
                }
                if count == 0 || count > MOST_COUNT {
                    return bad(format!("count is 1 to {MOST_COUNT}"));
                }
            }
            Some(Want::Number(_)) | None => {}
        }
        let had: usize = self.leases.values().filter(|l| l.uid == terms.uid).map(|l| l.ports.len()).sum();
        if had >= MOST_PORTS {
            let text = format!("uid {} has leases of {had} ports already", terms.uid);
            return Err(Failure::new(ErrorKind::Quota, text).hint("release some: wharf ports"));
        }
        Ok(())
    }

    /// The lease that this request has already. A new holder takes it over: the old one's word counts no more.
    fn again(&mut self, terms: &Terms, expires_ms: Option<u64>) -> Result<Option<PortLeaseId>, Failure> {
        let Some(key) = &terms.key else { return Ok(None) };
        let Some(id) = self.by_key.get(&(terms.uid, key.clone())).copied() else { return Ok(None) };
        let Some(lease) = self.leases.get_mut(&id) else { return Ok(None) };
        if !lease.is(terms) {
            let text = format!("the key {key:?} has {id} for {} with other terms", lease.label());
            return Err(Failure::new(ErrorKind::Conflict, text).hint("release that first, or use another key"));
        }
        if lease.holder != terms.holder {
            self.last_epoch += 1;
            lease.epoch = self.last_epoch;
            lease.holder = terms.holder;
        }
        lease.ttl_ms = terms.ttl_ms;
        lease.expires_ms = expires_ms;
        self.save(id);
        self.save_counters();
        Ok(Some(id))
    }

    fn grant(&mut self, terms: Terms, ports: Vec<u16>, expires_ms: Option<u64>, wall_ms: i64) -> PortLeaseId {
        self.last += 1;
        self.last_epoch += 1;
        let id = PortLeaseId(self.last);
        if terms.sticky {
            let row = StickyRow {
                uid: terms.uid,
                service: terms.service.clone(),
                name: terms.name.clone(),
                ports: ports.clone(),
            };
            let key = format!("sticky/{}/{}/{}", row.uid, row.service, row.name);
            self.unsaved.push((key, serde_json::to_string(&row).ok()));
            self.sticky.insert((row.uid, row.service, row.name), row.ports);
        }
        let Terms { uid, key, service, name, protocol, network, purpose, reach, handoff, sticky, .. } = terms;
        let (ttl_ms, holder) = (terms.ttl_ms, terms.holder);
        self.enter(PortLease {
            id,
            epoch: self.last_epoch,
            uid,
            key,
            service,
            name,
            protocol,
            network,
            ports,
            purpose,
            reach,
            handoff,
            sticky,
            ttl_ms,
            expires_ms,
            holder,
            taken_at_ms: wall_ms,
            seen: BTreeSet::new(),
        });
        self.save(id);
        self.save_counters();
        id
    }

    fn enter(&mut self, lease: PortLease) {
        for port in &lease.ports {
            self.by_place.insert((lease.network.clone(), lease.protocol, *port), lease.id);
        }
        if let Some(key) = &lease.key {
            self.by_key.insert((lease.uid, key.clone()), lease.id);
        }
        self.leases.insert(lease.id, lease);
    }

    fn save(&mut self, id: PortLeaseId) {
        let row = self.leases.get(&id).and_then(|lease| serde_json::to_string(lease).ok());
        self.unsaved.push((lease_key(id), row));
    }

    fn save_counters(&mut self) {
        let counters = Counters { last: self.last, epoch: self.last_epoch };
        self.unsaved.push(("counters".into(), serde_json::to_string(&counters).ok()));
    }

    /// The lease, if this is still its holder's word. `uid` 0 and the owner may speak.
    ///
    /// # Errors
    /// `stale_port_epoch`, or `lease_denied` where it is somebody else's.
    pub fn held(&self, id: PortLeaseId, epoch: u64, uid: u32) -> Result<&PortLease, Failure> {
        let stale = |text: String| Failure::new(ErrorKind::StalePortEpoch, text).hint("take it again: port.lease");
        let lease = self.leases.get(&id).ok_or_else(|| stale(format!("{id} is over")))?;
        if uid != 0 && uid != lease.uid {
            let text = format!("{id} is a lease of uid {}", lease.uid);
            return Err(Failure::new(ErrorKind::LeaseDenied, text).hint("ask as that user"));
        }
        if lease.epoch != epoch {
            return Err(stale(format!("{id} has epoch {} by now, not {epoch}: it changed hands", lease.epoch)));
        }
        Ok(lease)
    }

    /// Counts its time anew.
    ///
    /// # Errors
    /// As [`Ledger::held`].
    pub fn renew(&mut self, id: PortLeaseId, epoch: u64, uid: u32, boot_ms: u64) -> Result<&PortLease, Failure> {
        self.held(id, epoch, uid)?;
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.expires_ms = lease.ttl_ms.map(|ttl| boot_ms.saturating_add(ttl));
        }
        self.save(id);
        self.held(id, epoch, uid)
    }

    /// Ends it, as its holder asks.
    ///
    /// # Errors
    /// As [`Ledger::held`].
    pub fn release(&mut self, id: PortLeaseId, epoch: u64, uid: u32, forget: bool) -> Result<PortLease, Failure> {
        let lease = self.held(id, epoch, uid)?.clone();
        if forget && self.sticky.remove(&(lease.uid, lease.service.clone(), lease.name.clone())).is_some() {
            self.unsaved.push((format!("sticky/{}/{}/{}", lease.uid, lease.service, lease.name), None));
        }
        self.end(id);
        Ok(lease)
    }

    /// Ends it: its holder has.
    pub fn end(&mut self, id: PortLeaseId) -> Option<PortLease> {
        let lease = self.leases.remove(&id)?;
        for port in &lease.ports {
            self.by_place.remove(&(lease.network.clone(), lease.protocol, *port));
        }
        if let Some(key) = &lease.key {
            self.by_key.remove(&(lease.uid, key.clone()));
        }
        self.unsaved.push((lease_key(id), None));
        for process in &lease.seen {
            let row = StaleRow { process: *process, uid: lease.uid, ports: lease.ports.clone() };
            self.unsaved.push((stale_key(*process), serde_json::to_string(&row).ok()));
            self.stale.insert(*process, (lease.uid, lease.ports.clone()));
        }
        Some(lease)
    }

    /// Ends those whose time is over.
    pub fn expire(&mut self, boot_ms: u64) -> Vec<PortLease> {
        let over = |lease: &&PortLease| lease.expires_ms.is_some_and(|at| at <= boot_ms);
        let ids: Vec<PortLeaseId> = self.leases.values().filter(over).map(|lease| lease.id).collect();
        ids.into_iter().filter_map(|id| self.end(id)).collect()
    }

    /// These were seen to listen for it.
    pub fn saw(&mut self, id: PortLeaseId, listeners: impl IntoIterator<Item = Outside>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let before = lease.seen.clone();
        lease.seen.extend(listeners);
        if lease.seen != before {
            self.save(id);
        }
    }

    /// What must be true after every step.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), String> {
        let places: usize = self.leases.values().map(|lease| lease.ports.len()).sum();
        if places != self.by_place.len() {
            return Err(format!("{places} ports are leased, and {} have a holder", self.by_place.len()));
        }
        for lease in self.leases.values() {
            if lease.ports.is_empty() {
                return Err(format!("{} has no port", lease.id));
            }
            for port in &lease.ports {
                let holder = self.by_place.get(&(lease.network.clone(), lease.protocol, *port));
                if holder != Some(&lease.id) {
                    return Err(format!("port {port} of {} is held by {holder:?}", lease.id));
                }
            }
            if lease.id.0 > self.last || lease.epoch > self.last_epoch {
                return Err(format!("{} is newer than the last that was handed out", lease.id));
            }
        }
        Ok(())
    }
}

fn lease_key(id: PortLeaseId) -> String {
    format!("lease/{}", id.0)
}

fn stale_key(process: Outside) -> String {
    format!("stale/{}/{}", process.pid, process.identity)
}

/// The failure that names who has a port.
pub(super) fn leased(port: u16, lease: &PortLease) -> Failure {
    let text = format!("port {port} is leased to {} ({}, uid {})", lease.label(), lease.id, lease.uid);
    Failure::new(ErrorKind::PortConflict, text)
        .hint(format!("choose another, or end that lease: wharf ports release {}", lease.id.0))
}

fn overlaps(span: Span, part: Span) -> Failure {
    let text = format!("{part} of {span} lies where the kernel chooses ports for outgoing connections");
    Failure::new(ErrorKind::EphemeralOverlap, text).hint(format!(
        "choose a range below, or keep the kernel out: sysctl -w net.ipv4.ip_local_reserved_ports={part}"
    ))
}

fn no_range(purpose: &str, ranges: &Ranges) -> Failure {
    let mut known: Vec<&str> = ranges.rows().iter().map(|row| row.purpose.as_str()).collect();
    known.dedup();
    Failure::new(ErrorKind::InvalidParams, format!("there is no range for {purpose:?}"))
        .hint(format!("there are {}; `wharf ports ranges` has their numbers", known.join(", ")))
}

/// The first that nothing is in the way of, beginning at a place that is the same for the same name.
fn choose(
    spans: &[Span],
    count: u16,
    contiguous: bool,
    terms: &Terms,
    ranges: &Ranges,
    in_the_way: &mut impl FnMut(u16) -> Option<Failure>,
) -> Result<Vec<u16>, Failure> {
    let all: Vec<u16> = spans.iter().flat_map(|span| span.from..=span.to).collect();
    let first = place(&terms.service, &terms.name, all.len());
    let mut tried = 0;
    let mut is_good = |port: u16| {
        tried += 1;
        ranges.reserved(port).is_none() && in_the_way(port).is_none()
    };
    let mut found: Vec<u16> = vec![];
    for n in 0..all.len() {
        let at = (first + n) % all.len();
        // A row of ports does not go around the end.
        let breaks = contiguous && found.last().is_some_and(|last| last.checked_add(1) != Some(all[at]));
        if breaks {
            found.clear();
        }
        if is_good(all[at]) {
            found.push(all[at]);
        } else if contiguous {
            found.clear();
        }
        if found.len() == usize::from(count) {
            found.sort_unstable();
            return Ok(found);
        }
    }
    // A row that begins before the place where we began and goes on behind it.
    if contiguous {
        let mut row: Vec<u16> = vec![];
        for port in all.iter().copied() {
            if row.last().is_some_and(|last| last.checked_add(1) != Some(port)) {
                row.clear();
            }
            if is_good(port) {
                row.push(port)
            } else {
                row.clear()
            }
            if row.len() == usize::from(count) {
                return Ok(row);
            }
        }
    }
    let list: Vec<String> = spans.iter().map(ToString::to_string).collect();
    let what = match (count, contiguous) {
        (1, _) => "no port".into(),
        (n, true) => format!("no {n} ports side by side"),
        (n, false) => format!("not {n} ports"),
    };
    Err(Failure::new(ErrorKind::RangeExhausted, format!("{what} of {} is free ({tried} tried)", list.join(", ")))
        .hint("`wharf ports --range …` shows who has them; another range may have room"))
}

/// FNV-1a: the same on every machine and in every version.
fn place(service: &str, name: &str, count: usize) -> usize {
    let bytes = service.bytes().chain([0]).chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash % (count.max(1) as u64)) as usize
}
