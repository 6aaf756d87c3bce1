//! Ports as words: where one is, how it is promised, and what can be wrong with it.

use std::{fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Protocol, Speaks, UnitName};

/// A lease of ports: `port-lease-12`. Numbers are never handed out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PortLeaseId(pub u64);

impl fmt::Display for PortLeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port-lease-{}", self.0)
    }
}

/// From where a listener may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// From this machine alone: 127.0.0.1 and ::1.
    #[default]
    Loopback,
    /// From anywhere.
    Any,
}

impl Reach {
    /// Whether listening on this address keeps the promise.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback => is_loopback(address),
        }
    }
}

/// An IPv4 address in IPv6's clothes is what it is inside.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// How a leased port is kept for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Handoff {
    /// By the ledger alone: it was free a moment ago.
    Plain,
    /// By a socket of the daemon that is bound and does not listen: nobody is given the port by chance, and a program
    /// that sets SO_REUSEADDR, as nearly all servers do, listens all the same.
    #[default]
    Park,
    /// By the listening socket itself, passed as LISTEN_FDS.
    Fd,
}

/// By which right a port is in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// A unit has it, running or not: named in its parameters, or chosen for it once and kept. Or somebody has written
    /// down whose it is.
    Declared,
    /// A program outside has it for a while.
    Leased,
    /// Nobody is given it by chance.
    Reserved,
    /// Somebody listens there, and nobody has told Wharf.
    Observed,
}

/// What can be wrong with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Somebody else listens where a unit or a lease should.
    Intruder,
    /// Two who are strangers to each other listen on one port: each connection goes to one of them by chance.
    Duplicate,
    /// It was promised to this machine alone, and can be reached from outside.
    Open,
    /// Two units declare it: only one of them can run.
    DeclaredTwice,
    /// The unit runs, and nobody listens.
    NotListening,
    /// The unit listens on the port with the other protocol only.
    WrongProtocol,
    /// A unit listens on a port that it did not declare.
    NotDeclared,
    /// It lies outside the range of what it is for, or inside another one. Advice.
    PortOutsideRange,
    /// It is reserved for something else. Advice.
    PortReserved,
    /// The kernel may give it to an outgoing connection first. Advice.
    EphemeralOverlap,
}

impl DriftKind {
    /// As it is on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Intruder => "intruder",
            Self::Duplicate => "duplicate",
            Self::Open => "open",
            Self::DeclaredTwice => "declared_twice",
            Self::NotListening => "not_listening",
            Self::WrongProtocol => "wrong_protocol",
            Self::NotDeclared => "not_declared",
            Self::PortOutsideRange => "port_outside_range",
            Self::PortReserved => "port_reserved",
            Self::EphemeralOverlap => "ephemeral_overlap",
        }
    }

    /// Nothing is wrong yet: good to know.
    pub const fn is_advice(self) -> bool {
        match self {
            Self::PortOutsideRange | Self::PortReserved | Self::EphemeralOverlap | Self::NotDeclared => true,
            Self::Intruder
            | Self::Duplicate
            | Self::Open
            | Self::DeclaredTwice
            | Self::NotListening
            | Self::WrongProtocol => false,
        }
    }
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One difference between what was declared and leased and what listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// What kind.
    pub kind: DriftKind,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The unit that it is about.
    pub unit: Option<UnitName>,
    /// The lease that it is about.
    pub lease: Option<PortLeaseId>,
    /// The service that it is about, where that is written down and no unit: `grafana`.
    pub service: Option<String>,
    /// One sentence.
    pub text: String,
    /// The next thing to do.
    pub fix: String,
}

/// Ports of a service that Wharf does not run, written down: whose they are, what is spoken there, who uses them. Of a
/// unit's port it says who uses it and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortEntry {
    /// Whose: `grafana`, or the name of a unit.
    pub service: String,
    /// What the port is called: `http`.
    pub port_name: String,
    /// The number; of several side by side the first.
    pub port: u16,
    /// The last of them; the same where it is one.
    pub to: u16,
    /// What is spoken there.
    pub speaks: Speaks,
    /// The network that it is of: `host` is the machines' own.
    pub network: String,
    /// The machines that it is on.
    pub hosts: Vec<String>,
    /// This machine is one of them, and the network is its own: the port is looked at, and given to nobody else.
    pub is_here: bool,
    /// Who uses it, in words of their own.
    pub consumers: Vec<String>,
    /// From where it may be reached; null: nothing is promised.
    pub bind: Option<Reach>,
    /// Who has written it down.
    pub uid: u32,
    /// When, in milliseconds since 1970.
    pub declared_at_ms: i64,
}

impl PortEntry {
    /// What people call it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.service, self.port_name)
    }

    /// Whether a port of this machine is one of these.
    pub fn covers(&self, protocol: Protocol, port: u16) -> bool {
        self.is_here && self.speaks.protocol() == protocol && (self.port..=self.to).contains(&port)
    }
}

/// By what a socket's owner was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// The unit or the lease that it belongs to.
    Lease,
    /// The process that holds it open.
    Process,
    /// The cgroup that it was made in.
    Cgroup,
    /// Its user alone.
    #[default]
    User,
}

/// Whoever has a socket, as far as can be seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Occupant {
    /// The process; of several the first.
    pub pid: Option<i32>,
    /// Which process of that number, for `port.evict`: its pidfs inode or its start, as text.
    #[serde(with = "number_as_text")]
    #[schemars(with = "Option<String>")]
    pub identity: Option<u64>,
    /// All processes that hold the socket.
    pub pids: Vec<i32>,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// Its name.
    pub command: Option<String>,
    /// Its program.
    pub exe: Option<String>,
    /// How it was called, cut after 200 characters.
    pub cmdline: Option<String>,
    /// Whose it is.
    pub uid: u32,
    /// The same as a name.
    pub user: Option<String>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Its systemd unit.
    pub systemd_unit: Option<String>,
    /// Its container, by 64 hex digits.
    pub container: Option<String>,
    /// By what it was found.
    pub found_by: FoundBy,
}

/// A number that JSON's readers would round.
mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => to.collect_str(number),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// Ports for one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRange {
    /// What for: `gpu`, `ml`, `data`.
    pub purpose: String,
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// Never handed out, only by number: what it is kept for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_for: Option<String>,
}

impl PortRange {
    /// Whether a port lies in it.
    pub const fn contains(&self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{} ({})", self.purpose, self.from)
        } else {
            write!(f, "{} ({}-{})", self.purpose, self.from, self.to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_seen_through_ipv6() {
        for inside in ["127.0.0.1", "127.4.5.6", "::1", "::ffff:127.0.0.1"] {
            assert!(Reach::Loopback.allows(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(!Reach::Loopback.allows(outside.parse().unwrap()), "{outside}");
            assert!(Reach::Any.allows(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn the_words_of_drift_are_those_of_the_wire() {
        for kind in [DriftKind::Intruder, DriftKind::PortOutsideRange, DriftKind::DeclaredTwice, DriftKind::Open] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }
}
