//! The register: ports that somebody has written down. With units and leases it is the one list of whose a port is.
//!
//! An entry keeps its port from everybody but its own service: no lease and no unit of another name is given it. It
//! refuses to know who listens there: a service outside may be anybody's process.

use wharf_model::{ErrorKind, Failure, PortEntry, Protocol};

use super::{HOST, Ledger, check_names, journal, leased};
use crate::ports::terms::{Claim, Terms};

/// Entries of one machine.
const MOST_ENTRIES: usize = 4_096;
/// Hosts, or consumers, of one entry.
const MOST_WORDS: usize = 64;
/// How long one of them is, in characters.
const MOST_CHARACTERS: usize = 200;

impl Ledger {
    /// What is written down, by service and name.
    pub fn entries(&self) -> impl Iterator<Item = &PortEntry> {
        self.entries.values()
    }

    /// The entry that a port of this machine is of.
    pub fn entry_at(&self, protocol: Protocol, port: u16) -> Option<&PortEntry> {
        self.entries.values().find(|entry| entry.covers(protocol, port))
    }

    /// Writes one down, or anew: the one that it replaces. `units` says whose a port is that a unit has or will have.
    ///
    /// # Errors
    /// `port_conflict`, `lease_denied`, `quota` or `invalid_params`.
    pub fn declare(
        &mut self,
        entry: PortEntry,
        units: impl Fn(Claim) -> Option<String>,
    ) -> Result<Option<PortEntry>, Failure> {
        check(&entry)?;
        let key = (entry.service.clone(), entry.port_name.clone());
        match self.entries.get(&key) {
            Some(old) => owned(old, entry.uid)?,
            None if self.entries.len() >= MOST_ENTRIES => {
                let text = format!("{MOST_ENTRIES} ports are written down already");
                return Err(Failure::new(ErrorKind::Quota, text).hint("remove some: wharf ports undeclare NAME"));
            }
            None => {}
        }
        let others = self.entries.iter().filter(|(of, _)| **of != key);
        if let Some((port, rival)) =
            others.map(|(_, other)| other).find_map(|other| Some((meet(&entry, other)?, other)))
        {
            return Err(taken(port, rival));
        }
        if entry.is_here {
            self.has_no_holder(&entry, units)?;
        }
        self.unsaved.push(journal::entry(&key, Some(&entry)));
        Ok(self.entries.insert(key, entry))
    }

    /// Whether nobody of another name has one of the ports.
    fn has_no_holder(&self, entry: &PortEntry, units: impl Fn(Claim) -> Option<String>) -> Result<(), Failure> {
        let protocol = entry.speaks.protocol();
        for port in entry.port..=entry.to {
            if let Some(unit) = units((port, protocol)).filter(|unit| *unit != entry.service) {
                let text = format!("port {port} belongs to the unit {unit}");
                let hint = format!("to say who uses it, name the unit: wharf ports declare {unit} {port} --consumer …");
                return Err(Failure::new(ErrorKind::PortConflict, text).hint(hint));
            }
            if let Some(lease) = self.at(protocol, port).filter(|lease| lease.terms.service != entry.service) {
                return Err(leased(port, lease));
            }
        }
        Ok(())
    }

    /// Strikes out a service's port; without its name all of them.
    ///
    /// # Errors
    /// `precondition` where there is none, `lease_denied` where somebody else has written it down.
    pub fn undeclare(&mut self, service: &str, name: Option<&str>, uid: u32) -> Result<Vec<PortEntry>, Failure> {
        let is_meant = |entry: &&PortEntry| entry.service == service && name.is_none_or(|name| entry.port_name == name);
        let found: Vec<PortEntry> = self.entries.values().filter(is_meant).cloned().collect();
        if found.is_empty() {
            let text = match name {
                Some(name) => format!("no port {name} of {service} is written down"),
                None => format!("no port of {service} is written down"),
            };
            return Err(Failure::new(ErrorKind::Precondition, text).hint("wharf ports --kind declared"));
        }
        found.iter().try_for_each(|entry| owned(entry, uid))?;
        for entry in &found {
            let key = (entry.service.clone(), entry.port_name.clone());
            self.entries.remove(&key);
            self.unsaved.push(journal::entry(&key, None));
        }
        Ok(found)
    }

    /// The port that is written down for whoever asks with these terms.
    pub(super) fn written_for(&self, terms: &Terms) -> Option<u16> {
        let entry = self.entries.get(&(terms.service.clone(), terms.name.clone()))?;
        let is_it = terms.network == HOST && entry.port == entry.to && entry.covers(terms.protocol, entry.port);
        is_it.then_some(entry.port)
    }
}

fn check(entry: &PortEntry) -> Result<(), Failure> {
    let bad = |text: String| Err(Failure::new(ErrorKind::InvalidParams, text));
    check_names([("service", &entry.service), ("name", &entry.port_name), ("network", &entry.network)])?;
    if entry.port == 0 || entry.port > entry.to {
        return bad(format!("{}-{} holds no port", entry.port, entry.to));
    }
    for (what, words) in [("hosts", &entry.hosts), ("consumers", &entry.consumers)] {
        let is_odd = |word: &String| {
            word.trim().is_empty() || word.chars().count() > MOST_CHARACTERS || word.chars().any(char::is_control)
        };
        if words.len() > MOST_WORDS || words.iter().any(is_odd) {
            return bad(format!("{what} are at most {MOST_WORDS}, each of 1 to {MOST_CHARACTERS} characters"));
        }
    }
    Ok(())
}

/// Whether this user may change it.
fn owned(entry: &PortEntry, uid: u32) -> Result<(), Failure> {
    if uid == 0 || uid == entry.uid {
        return Ok(());
    }
    let text = format!("{} was written down by uid {}", entry.label(), entry.uid);
    Err(Failure::new(ErrorKind::LeaseDenied, text).hint("ask as that user"))
}

/// The first port that two entries both name, on a machine that both name.
fn meet(one: &PortEntry, other: &PortEntry) -> Option<u16> {
    let same_net = one.network == other.network && one.speaks.protocol() == other.speaks.protocol();
    let same_host = one.is_here && other.is_here || one.hosts.iter().any(|host| other.hosts.contains(host));
    let first = one.port.max(other.port);
    (same_net && same_host && first <= one.to.min(other.to)).then_some(first)
}

/// Whether a lease is of the service that a port is written down for. Chance gives it to that very name alone.
pub(super) fn is_of(entry: &PortEntry, terms: &Terms) -> bool {
    let by_number = matches!(terms.want, Some(crate::ports::Want::Number(_)));
    entry.service == terms.service && (by_number || entry.port_name == terms.name)
}

/// The failure that names for whom a port is written down.
pub(in crate::ports) fn taken(port: u16, entry: &PortEntry) -> Failure {
    let text = format!("port {port} is declared for {} (by uid {})", entry.label(), entry.uid);
    Failure::new(ErrorKind::PortConflict, text)
        .hint(format!("choose another, or strike that out: wharf ports undeclare {}", entry.service))
}
