//! Ports as words: where one is, how it is promised, and what can be wrong with it.

use std::{fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// A unit has it, running or not: named in its parameters, or chosen for it once and kept.
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
