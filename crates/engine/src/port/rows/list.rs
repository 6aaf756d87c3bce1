//! The list of all ports: what is declared, written down, leased and reserved, and whoever else listens.

use std::collections::{BTreeMap, BTreeSet};

use wharf_api::rpc::port::{PortListParams, PortRow};
use wharf_core::ports::{Declared, HOST, Owner, PortLease, Ranges};
use wharf_model::{Drift, PortEntry, PortKind, PortRange, Protocol, Speaks, UnitName};

use super::super::look::{Seen, View};

/// The units that need each unit.
pub type Uses = BTreeMap<UnitName, BTreeSet<UnitName>>;

/// The list, by number. `here` is this machine's name.
pub fn list(view: &View, uses: &Uses, here: &str, p: &PortListParams) -> Vec<PortRow> {
    let mut list = List { view, uses, here, drift: view.drift(), shown: BTreeSet::new(), told: BTreeSet::new() };
    let mut rows: Vec<PortRow> = vec![];
    rows.extend(view.declared.iter().map(|declared| list.of_unit(declared)));
    for lease in &view.leases {
        rows.extend(lease.ports.iter().map(|port| list.of_lease(lease, *port)));
    }
    rows.extend(view.entries.iter().filter_map(|entry| list.of_entry(entry)));
    rows.extend(view.ranges.rows().iter().filter_map(|range| list.of_reserve(range)));
    rows.extend(list.of_others());
    rows.retain(|row| is_wanted(row, p, &view.ranges));
    rows.sort_by(|a, b| (a.port, a.protocol, a.kind, &a.address).cmp(&(b.port, b.protocol, b.kind, &b.address)));
    rows.dedup();
    rows
}

struct List<'a> {
    view: &'a View,
    uses: &'a Uses,
    here: &'a str,
    drift: Vec<Drift>,
    /// Those who listen and have a row already.
    shown: BTreeSet<usize>,
    /// Entries that say more of a unit's port: it has the row.
    told: BTreeSet<(String, String)>,
}

impl<'a> List<'a> {
    /// Who listens at a place and is one of these; from now on they have a row.
    fn listener(&mut self, is_at: impl Fn(Protocol, u16) -> bool, is_its: impl Fn(&Owner) -> bool) -> Option<&'a Seen> {
        let seen = &self.view.seen;
        let fits = |s: &Seen| {
            is_at(s.socket.protocol, s.socket.local.port()) && (is_its(&s.owner) || s.owner == Owner::Daemon)
        };
        let found: Vec<usize> = (0..seen.len()).filter(|n| fits(&seen[*n])).collect();
        self.shown.extend(&found);
        found.first().map(|n| &seen[*n])
    }

    fn row(&self, speaks: Speaks, port: u16, kind: PortKind, who: String, seen: Option<&Seen>) -> PortRow {
        let unit = seen.and_then(|seen| match &seen.owner {
            Owner::Unit(unit) => Some(unit.clone()),
            Owner::Lease(_) | Owner::Daemon | Owner::Other(_) => None,
        });
        PortRow {
            port,
            to: port,
            protocol: speaks.protocol(),
            speaks,
            service: None,
            hosts: vec![self.here.to_owned()],
            consumers: vec![],
            kind,
            network: HOST.into(),
            address: seen.map(|seen| seen.socket.local.ip().to_string()),
            range: self.view.ranges.at(port).map(|range| range.purpose.clone()),
            unit,
            port_name: None,
            lease: None,
            who,
            pid: seen.and_then(|seen| seen.who.pid),
            user: seen.and_then(|seen| seen.who.user.clone()),
            drift: vec![],
        }
    }

    fn marks(&self, is_about: impl Fn(&Drift) -> bool) -> Vec<wharf_model::DriftKind> {
        let kinds: BTreeSet<_> = self.drift.iter().filter(|drift| is_about(drift)).map(|drift| drift.kind).collect();
        kinds.into_iter().collect()
    }

    fn of_unit(&mut self, d: &Declared) -> PortRow {
        let (protocol, port) = d.place();
        let own = Owner::Unit(d.unit.clone());
        let seen = self.listener(|by, at| (by, at) == (protocol, port), |owner| *owner == own);
        let more = self.view.entries.iter().find(|e| e.service == d.unit.as_str() && e.covers(protocol, port));
        self.told.extend(more.map(|entry| (entry.service.clone(), entry.port_name.clone())));
        let speaks = more.map(|entry| entry.speaks).filter(|speaks| *speaks != Speaks::Tcp).unwrap_or(d.speaks);
        let row = self.row(speaks, port, PortKind::Declared, format!("unit {} ({})", d.unit, d.name), seen);
        let mut consumers: Vec<String> = more.map(|entry| entry.consumers.clone()).unwrap_or_default();
        consumers.extend(self.uses.get(&d.unit).into_iter().flatten().map(ToString::to_string));
        consumers.dedup();
        PortRow {
            service: Some(d.unit.to_string()),
            hosts: more.map_or_else(|| row.hosts.clone(), |entry| entry.hosts.clone()),
            consumers,
            unit: Some(d.unit.clone()),
            port_name: Some(d.name.clone()),
            drift: self.marks(|x| x.unit.as_ref() == Some(&d.unit) && (x.protocol, x.port) == (protocol, port)),
            ..row
        }
    }

    fn of_lease(&mut self, lease: &PortLease, port: u16) -> PortRow {
        let (protocol, id) = (lease.terms.protocol, lease.id);
        let is_here = lease.covers(protocol, port);
        let seen = match is_here {
            true => self.listener(|by, at| (by, at) == (protocol, port), |owner| *owner == Owner::Lease(id)),
            false => None,
        };
        let who = format!("{} ({id})", lease.label());
        let row = self.row(protocol.into(), port, PortKind::Leased, who, seen);
        PortRow {
            service: Some(lease.terms.service.clone()),
            hosts: if is_here { row.hosts.clone() } else { vec![] },
            network: lease.terms.network.clone(),
            lease: Some(id),
            port_name: Some(lease.terms.name.clone()),
            drift: self.marks(|x| x.lease == Some(id) && x.port == port),
            ..row
        }
    }

    /// None where it only says more of a unit's port.
    fn of_entry(&mut self, entry: &PortEntry) -> Option<PortRow> {
        if self.told.contains(&(entry.service.clone(), entry.port_name.clone())) {
            return None;
        }
        // Of units and leases the row is their own.
        let is_its = |owner: &Owner| match owner {
            Owner::Unit(unit) => unit.as_str() == entry.service,
            Owner::Lease(_) | Owner::Daemon => false,
            Owner::Other(_) => true,
        };
        let seen = match entry.is_here {
            true => self.listener(|by, at| entry.covers(by, at), is_its),
            false => None,
        };
        let who = format!("{} ({})", entry.service, entry.port_name);
        let row = self.row(entry.speaks, entry.port, PortKind::Declared, who, seen);
        let is_about = |x: &Drift| x.service.as_ref() == Some(&entry.service) && entry.covers(x.protocol, x.port);
        Some(PortRow {
            to: entry.to,
            service: Some(entry.service.clone()),
            hosts: entry.hosts.clone(),
            consumers: entry.consumers.clone(),
            network: entry.network.clone(),
            port_name: Some(entry.port_name.clone()),
            drift: self.marks(is_about),
            ..row
        })
    }

    fn of_reserve(&self, range: &PortRange) -> Option<PortRow> {
        let what = range.reserved_for.as_ref()?;
        let who = format!("reserved for {what}");
        Some(PortRow { to: range.to, ..self.row(Speaks::Tcp, range.from, PortKind::Reserved, who, None) })
    }

    fn of_others(&self) -> Vec<PortRow> {
        let mut rows = vec![];
        for (n, seen) in self.view.seen.iter().enumerate() {
            let (protocol, port) = (seen.socket.protocol, seen.socket.local.port());
            // Who asks a question by UDP listens for the answer: that is no service.
            let asks = protocol == Protocol::Udp && self.view.ranges.is_ephemeral(port);
            if self.shown.contains(&n) || asks {
                continue;
            }
            let row = self.row(protocol.into(), port, PortKind::Observed, seen.text(), Some(seen));
            let is_here = |x: &Drift| (x.protocol, x.port) == (protocol, port) && !x.kind.is_advice();
            let is_about = |x: &Drift| is_here(x) || x.unit.is_some() && x.unit == row.unit && x.port == port;
            let service = row.unit.as_ref().map(ToString::to_string);
            rows.push(PortRow { drift: self.marks(is_about), service, ..row });
        }
        rows
    }
}

fn is_wanted(row: &PortRow, p: &PortListParams, ranges: &Ranges) -> bool {
    let of_kind = p.kinds.is_empty() || p.kinds.contains(&row.kind);
    let is_in = |range: &PortRange| range.from <= row.to && row.port <= range.to;
    let wanted = |purpose: &String| ranges.rows().iter().any(|range| range.purpose == *purpose && is_in(range));
    let in_range = p.range.as_ref().is_none_or(wanted);
    let of_service = p.service.is_none() || p.service == row.service;
    of_kind && in_range && of_service
}
