//! Drift: how what listens differs from what was declared and leased. A function of three lists, and nothing else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use wharf_model::{Drift, DriftKind, PortEntry, PortLeaseId, Protocol, Reach, Speaks, UnitName};

use super::{HOST, range::Ranges, terms::PortLease};

/// A port that a unit declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The unit.
    pub unit: UnitName,
    /// What the port is called: `http`.
    pub name: String,
    /// What is spoken there.
    pub speaks: Speaks,
    /// The number.
    pub port: u16,
    /// Its run lives and is ready: somebody should listen.
    pub is_up: bool,
    /// From where it may be reached.
    pub reach: Reach,
    /// What it is for, where somebody has said.
    pub purpose: Option<String>,
}

impl Declared {
    /// Where it is.
    pub const fn place(&self) -> (Protocol, u16) {
        (self.speaks.protocol(), self.port)
    }
}

/// Whose a socket is, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The present run of a unit.
    Unit(UnitName),
    /// The holder of a lease, or what it started.
    Lease(PortLeaseId),
    /// This daemon: it waits for a unit's first connection, or parks.
    Daemon,
    /// Anybody else, by what tells them apart: a cgroup, a process.
    Other(String),
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
    /// An IPv6 socket of all addresses that takes IPv4 as well.
    pub dual: bool,
    /// Whose.
    pub owner: Owner,
    /// Who it is, for people.
    pub who: String,
}

impl Observed {
    fn is_all(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// Whether a connection could reach either of them.
    fn meets(&self, other: &Self) -> bool {
        if (self.protocol, self.address.port()) != (other.protocol, other.address.port()) {
            return false;
        }
        let family = |of: &Self, v4: bool| of.address.is_ipv4() == v4 || (of.dual && of.is_all());
        let shares = |v4| family(self, v4) && family(other, v4);
        let same = self.address.ip() == other.address.ip();
        same || ((self.is_all() || other.is_all()) && (shares(true) || shares(false)))
    }
}

/// What was said of ports: by units, by leases, in the register.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    /// What units declare.
    pub declared: &'a [Declared],
    /// What is leased.
    pub leased: &'a [PortLease],
    /// What is written down.
    pub entries: &'a [PortEntry],
}

/// Everything that differs, what hurts first.
pub fn drift(said: Said<'_>, observed: &[Observed], ranges: &Ranges) -> Vec<Drift> {
    let look = Look { said, observed };
    let mut found = vec![];
    for own in said.declared {
        look.of_declared(own, &mut found);
        look.declared_twice(own, &mut found);
        let lints = ranges.advise(own.purpose.as_deref(), own.port);
        found.extend(lints.into_iter().map(|lint| {
            let fix =
                format!("wharf start {} --port {}=NUMBER; `wharf ports ranges` has the table", own.unit, own.name);
            Drift { text: format!("{}: {}", own.unit, lint.text), ..about(own, lint.kind, fix) }
        }));
    }
    for lease in said.leased.iter().filter(|lease| lease.terms.network == HOST) {
        look.of_lease(lease, ranges, &mut found);
    }
    for entry in said.entries.iter().filter(|entry| entry.is_here) {
        look.of_entry(entry, ranges, &mut found);
    }
    look.undeclared(&mut found);
    look.duplicates(&mut found);
    found.sort();
    found.dedup();
    found
}

fn about(own: &Declared, kind: DriftKind, fix: String) -> Drift {
    let (protocol, port) = own.place();
    let unit = Some(own.unit.clone());
    Drift { kind, protocol, port, unit, lease: None, service: None, text: String::new(), fix }
}

struct Look<'a> {
    said: Said<'a>,
    observed: &'a [Observed],
}

impl Look<'_> {
    fn at(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &Observed> {
        self.observed.iter().filter(move |o| o.protocol == protocol && o.address.port() == port)
    }

    /// Another unit that declares this port and runs: the two take turns.
    fn is_of_a_twin(&self, own: &Declared, owner: &Owner) -> bool {
        let Owner::Unit(unit) = owner else { return false };
        self.said.declared.iter().any(|d| d.unit == *unit && d.place() == own.place())
    }

    fn of_declared(&self, own: &Declared, found: &mut Vec<Drift>) {
        let (unit, (protocol, port)) = (&own.unit, own.place());
        let mine = Owner::Unit(unit.clone());
        let listens = self.at(protocol, port).any(|o| o.owner == mine);
        for other in self.at(protocol, port).filter(|o| o.owner != mine && o.owner != Owner::Daemon) {
            if listens || self.is_of_a_twin(own, &other.owner) || !bars(other.address.ip()) {
                continue;
            }
            let text = format!("{} listens on {}, the port {} of {unit}", other.who, at(other), own.name);
            let fix = format!("stop it, or let Wharf choose: wharf start {unit} --port {}=auto", own.name);
            found.push(Drift { text, ..about(own, DriftKind::Intruder, fix) });
        }
        for open in self.at(protocol, port).filter(|o| o.owner == mine && !own.reach.allows(o.address.ip())) {
            let text = format!("{unit} listens on {}: it can be reached from outside", at(open));
            let fix = "let it listen on 127.0.0.1 where it can, or close the port in the firewall".into();
            found.push(Drift { text, ..about(own, DriftKind::Open, fix) });
        }
        if !own.is_up || listens {
            return;
        }
        let is_passed = self.at(protocol, port).any(|o| o.owner == Owner::Daemon);
        let twin = match protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        let fix = format!("wharf logs {unit}");
        if self.at(twin, port).any(|o| o.owner == mine) {
            let text = format!("{unit} listens on {port} with {twin}, and declares {protocol}");
            found.push(Drift { text, ..about(own, DriftKind::WrongProtocol, fix) });
        } else if !is_passed {
            let text = format!("{unit} runs, and nothing of it listens on {port} ({})", own.name);
            found.push(Drift { text, ..about(own, DriftKind::NotListening, fix) });
        }
    }

    fn declared_twice(&self, own: &Declared, found: &mut Vec<Drift>) {
        let rival = self.said.declared.iter().find(|other| other.unit > own.unit && other.place() == own.place());
        if let Some(rival) = rival {
            let text = format!(
                "port {} is declared twice: {} ({}) and {} ({}); only one of them can run",
                own.port, own.unit, own.name, rival.unit, rival.name
            );
            let fix = format!("wharf start {} --port {}=auto", rival.unit, rival.name);
            found.push(Drift { text, ..about(own, DriftKind::DeclaredTwice, fix) });
        }
    }

    fn of_lease(&self, lease: &PortLease, ranges: &Ranges, found: &mut Vec<Drift>) {
        let mine = Owner::Lease(lease.id);
        for &port in &lease.ports {
            let make = |kind, text, fix: &str| Drift {
                kind,
                protocol: lease.terms.protocol,
                port,
                unit: None,
                lease: Some(lease.id),
                service: None,
                text,
                fix: fix.into(),
            };
            for o in self.at(lease.terms.protocol, port) {
                if o.owner == mine {
                    if !lease.terms.reach.allows(o.address.ip()) {
                        let text = format!("{} listens on {}, and asked for loopback", lease.label(), at(o));
                        found.push(make(DriftKind::Open, text, "let it listen on 127.0.0.1, or lease with --bind any"));
                    }
                } else if o.owner != Owner::Daemon && bars(o.address.ip()) {
                    let text = format!("{} listens on {}, which is leased to {}", o.who, at(o), lease.label());
                    found.push(make(DriftKind::Intruder, text, "end it, or release the lease"));
                }
            }
            for lint in ranges.advise(lease.terms.purpose.as_deref(), port) {
                // A lease without a purpose has said nothing of GPUs either way.
                if lease.terms.purpose.is_some() || lint.kind != DriftKind::PortOutsideRange {
                    let text = format!("{}: {}", lease.label(), lint.text);
                    found.push(make(lint.kind, text, "`wharf ports ranges` has the table"));
                }
            }
        }
    }

    /// Who listens there may be any process of a service outside; that it is another one's is known of units and leases.
    fn of_entry(&self, entry: &PortEntry, ranges: &Ranges, found: &mut Vec<Drift>) {
        let (protocol, label) = (entry.speaks.protocol(), entry.label());
        let make = |kind, port, text, fix: String| {
            let service = Some(entry.service.clone());
            Drift { kind, protocol, port, unit: None, lease: None, service, text, fix }
        };
        for own in self
            .said
            .declared
            .iter()
            .filter(|d| entry.covers(d.speaks.protocol(), d.port) && d.unit.as_str() != entry.service)
        {
            let text = format!(
                "port {} is declared twice: {} ({}) and {label}; only one of them can run",
                own.port, own.unit, own.name
            );
            let fix = format!("wharf start {} --port {}=auto", own.unit, own.name);
            found.push(Drift { unit: Some(own.unit.clone()), ..make(DriftKind::DeclaredTwice, own.port, text, fix) });
        }
        for o in self.observed.iter().filter(|o| entry.covers(o.protocol, o.address.port())) {
            let port = o.address.port();
            if self.is_of_another(entry, &o.owner) && bars(o.address.ip()) {
                let text = format!("{} listens on {}, which is declared for {label}", o.who, at(o));
                found.push(make(DriftKind::Intruder, port, text, format!("wharf ports who {port}")));
            }
            if entry.bind.is_some_and(|reach| !reach.allows(o.address.ip())) {
                let text = format!("{label} listens on {}: it can be reached from outside", at(o));
                let fix = "let it listen on 127.0.0.1, or declare it with --open".to_owned();
                found.push(make(DriftKind::Open, port, text, fix));
            }
        }
        // What it is for nobody has said: only what is odd about any port there is told.
        for lint in ranges.advise(None, entry.port).into_iter().filter(|l| l.kind != DriftKind::PortOutsideRange) {
            let text = format!("{label}: {}", lint.text);
            found.push(make(lint.kind, entry.port, text, "`wharf ports ranges` has the table".into()));
        }
    }

    /// A unit or a lease of another name, that has not told of its own claim.
    fn is_of_another(&self, entry: &PortEntry, owner: &Owner) -> bool {
        match owner {
            Owner::Unit(unit) => {
                let is_told = |d: &Declared| d.unit == *unit && entry.covers(d.speaks.protocol(), d.port);
                unit.as_str() != entry.service && !self.said.declared.iter().any(is_told)
            }
            Owner::Lease(id) => self.said.leased.iter().any(|l| l.id == *id && l.terms.service != entry.service),
            Owner::Daemon | Owner::Other(_) => false,
        }
    }

    fn undeclared(&self, found: &mut Vec<Drift>) {
        for o in self.observed {
            let Owner::Unit(unit) = &o.owner else { continue };
            let port = o.address.port();
            let (protocol, lease) = (o.protocol, None);
            if self.said.declared.iter().any(|d| d.unit == *unit && d.port == port) {
                continue;
            }
            let has_leased =
                self.said.leased.iter().any(|l| l.terms.service == unit.as_str() && l.ports.contains(&port));
            let is_written = |e: &&PortEntry| e.service == unit.as_str() && e.covers(protocol, port);
            if has_leased || self.said.entries.iter().any(|e| is_written(&e)) {
                continue;
            }
            let (kind, text, fix) = if wharf_model::is_loopback(o.address.ip()) {
                let text = format!("{unit} listens on {} as well, and does not declare it", at(o));
                let fix = format!("declare it: wharf start {unit} --port NAME={port}");
                (DriftKind::NotDeclared, text, fix)
            } else if self.said.declared.iter().any(|d| d.unit == *unit && d.reach == Reach::Any) {
                continue;
            } else {
                let text = format!("{unit} listens on {}: it can be reached from outside", at(o));
                let fix = "let it listen on 127.0.0.1 where it can, or close the port in the firewall".to_owned();
                (DriftKind::Open, text, fix)
            };
            found.push(Drift { kind, protocol, port, unit: Some(unit.clone()), lease, service: None, text, fix });
        }
    }

    /// Two strangers on one port. The workers of one program are no strangers, and neither are two addresses.
    fn duplicates(&self, found: &mut Vec<Drift>) {
        let mut ports: BTreeMap<(Protocol, u16), Vec<&Observed>> = BTreeMap::new();
        for o in self.observed.iter().filter(|o| o.owner != Owner::Daemon) {
            ports.entry((o.protocol, o.address.port())).or_default().push(o);
        }
        for ((protocol, port), all) in ports {
            let pair = all.iter().enumerate().find_map(|(n, one)| {
                let second = all[n + 1..].iter().find(|other| other.owner != one.owner && one.meets(other))?;
                Some((one, second))
            });
            let Some((one, second)) = pair else { continue };
            let of = |pick: fn(&Owner) -> Option<String>| [one, second].into_iter().find_map(|o| pick(&o.owner));
            let unit = of(|owner| if let Owner::Unit(unit) = owner { Some(unit.to_string()) } else { None });
            let lease = [one, second].into_iter().find_map(|o| match o.owner {
                Owner::Lease(id) => Some(id),
                Owner::Unit(_) | Owner::Daemon | Owner::Other(_) => None,
            });
            let text = format!(
                "two listen on port {port}: {} on {} and {} on {}; each connection goes to one of them by chance",
                one.who,
                at(one),
                second.who,
                at(second)
            );
            let fix = format!("end one of the two: wharf ports who {port}");
            let unit = unit.and_then(|name| name.parse().ok());
            found.push(Drift { kind: DriftKind::Duplicate, protocol, port, unit, lease, service: None, text, fix });
        }
    }
}

/// Whether somebody on this address keeps a program from listening on loopback: on another one of the machine's
/// addresses a port is another port.
fn bars(address: IpAddr) -> bool {
    address.is_unspecified() || wharf_model::is_loopback(address)
}

fn at(o: &Observed) -> String {
    match o.protocol {
        Protocol::Tcp => o.address.to_string(),
        Protocol::Udp => format!("{}/udp", o.address),
    }
}
