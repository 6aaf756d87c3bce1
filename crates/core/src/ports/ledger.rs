//! The ledger of leases that programs outside have taken, and of ports that are written down.

mod journal;
mod register;

use std::collections::{BTreeMap, BTreeSet};

use wharf_model::{ErrorKind, Failure, PortEntry, PortLeaseId, Protocol};

use super::{
    HOST,
    choose::choose,
    range::{Ranges, Span},
    terms::{Claim, Outside, PortLease, Row, Terms, Want},
};

/// Ports that one caller may have at a time.
const MOST_PORTS: usize = 1024;
/// Ports of one lease.
const MOST_COUNT: u16 = 64;

type Place = (String, Protocol, u16);
type Sticky = (u32, String, String);

/// Every lease of a program outside.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    leases: BTreeMap<PortLeaseId, PortLease>,
    by_place: BTreeMap<Place, PortLeaseId>,
    by_key: BTreeMap<(u32, String), PortLeaseId>,
    /// What is written down, by service and name of the port.
    entries: BTreeMap<(String, String), PortEntry>,
    sticky: BTreeMap<Sticky, Vec<u16>>,
    /// Who listened for leases that are over.
    stale: BTreeMap<Outside, (u32, Vec<u16>)>,
    last: u64,
    last_epoch: u64,
    /// What the journal does not know yet.
    unsaved: Vec<Row>,
}

impl Ledger {
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
            self.unsaved.push(journal::stale(process, None));
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
            if let Some(entry) = self.entry_at(terms.protocol, port)
                && !register::is_of(entry, &terms)
            {
                return Some(register::taken(port, entry));
            }
            if let Some(unit) = units((port, terms.protocol)) {
                let text = format!("port {port} belongs to the unit {unit}");
                let hint = format!("choose another, or give the unit another one: wharf start {unit} --port NAME=auto");
                return Some(Failure::new(ErrorKind::PortConflict, text).hint(hint));
            }
            is_free(port).err()
        };
        let written = self.written_for(&terms).map(|port| vec![port]);
        let sticky = self.sticky.get(&(terms.uid, terms.service.clone(), terms.name.clone()));
        let sticky = written.as_ref().or(sticky);
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
        check_names([("service", &terms.service), ("name", &terms.name), ("network", &terms.network)])?;
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
        let had: usize = self.leases.values().filter(|l| l.terms.uid == terms.uid).map(|l| l.ports.len()).sum();
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
        if lease.terms.holder != terms.holder {
            self.last_epoch += 1;
            lease.epoch = self.last_epoch;
            lease.terms.holder = terms.holder;
        }
        lease.terms.ttl_ms = terms.ttl_ms;
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
            let of = (terms.uid, terms.service.clone(), terms.name.clone());
            self.unsaved.push(journal::sticky(&of, Some(&ports)));
            self.sticky.insert(of, ports.clone());
        }
        self.enter(PortLease {
            id,
            epoch: self.last_epoch,
            ports,
            terms: Terms { want: None, ..terms },
            expires_ms,
            taken_at_ms: wall_ms,
            seen: BTreeSet::new(),
        });
        self.save(id);
        self.save_counters();
        id
    }

    fn enter(&mut self, lease: PortLease) {
        for port in &lease.ports {
            self.by_place.insert(place(&lease, *port), lease.id);
        }
        if let Some(key) = &lease.terms.key {
            self.by_key.insert((lease.terms.uid, key.clone()), lease.id);
        }
        self.leases.insert(lease.id, lease);
    }

    /// The lease, if this is still its holder's word. `uid` 0 and the owner may speak.
    ///
    /// # Errors
    /// `stale_port_epoch`, or `lease_denied` where it is somebody else's.
    pub fn held(&self, id: PortLeaseId, epoch: u64, uid: u32) -> Result<&PortLease, Failure> {
        let stale = |text: String| {
            Failure::new(ErrorKind::StalePortEpoch, text)
                .hint("take it again: wharf ports lease; `wharf ports leases` has those that live")
        };
        let lease = self.leases.get(&id).ok_or_else(|| stale(format!("{id} is over")))?;
        if uid != 0 && uid != lease.terms.uid {
            let text = format!("{id} is a lease of uid {}", lease.terms.uid);
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
            lease.expires_ms = lease.terms.ttl_ms.map(|ttl| boot_ms.saturating_add(ttl));
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
        let of = (lease.terms.uid, lease.terms.service.clone(), lease.terms.name.clone());
        if forget && self.sticky.remove(&of).is_some() {
            self.unsaved.push(journal::sticky(&of, None));
        }
        self.end(id);
        Ok(lease)
    }

    /// Ends it: its holder has.
    pub fn end(&mut self, id: PortLeaseId) -> Option<PortLease> {
        let lease = self.leases.remove(&id)?;
        for port in &lease.ports {
            self.by_place.remove(&place(&lease, *port));
        }
        let uid = lease.terms.uid;
        if let Some(key) = &lease.terms.key {
            self.by_key.remove(&(uid, key.clone()));
        }
        self.save(id);
        for process in &lease.seen {
            self.unsaved.push(journal::stale(*process, Some((uid, &lease.ports))));
            self.stale.insert(*process, (uid, lease.ports.clone()));
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
                let holder = self.by_place.get(&place(lease, *port));
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

fn place(lease: &PortLease, port: u16) -> Place {
    (lease.terms.network.clone(), lease.terms.protocol, port)
}

/// What people call something: short, and of use in a key.
fn check_names<'a>(names: impl IntoIterator<Item = (&'a str, &'a String)>) -> Result<(), Failure> {
    for (what, text) in names {
        if text.is_empty() || text.len() > 100 || text.chars().any(|c| c.is_control() || c == '/') {
            let text = format!("{what} is 1 to 100 characters without a slash");
            return Err(Failure::new(ErrorKind::InvalidParams, text));
        }
    }
    Ok(())
}

/// The failure that names who has a port.
pub(super) fn leased(port: u16, lease: &PortLease) -> Failure {
    let text = format!("port {port} is leased to {} ({}, uid {})", lease.label(), lease.id, lease.terms.uid);
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
    let free = ranges.rows().iter().filter(|row| row.reserved_for.is_none());
    let mut known: Vec<&str> = free.map(|row| row.purpose.as_str()).collect();
    known.dedup();
    Failure::new(ErrorKind::InvalidParams, format!("there is no range for {purpose:?}"))
        .hint(format!("there are {}; `wharf ports ranges` has their numbers", known.join(", ")))
}
