//! Results of `port.*`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{
    Drift, DriftKind, Handoff, Occupant, PortEntry, PortKind, PortLeaseId, PortRange, Protocol, Reach, RunId, Speaks,
    UnitName,
};

/// One port, as far as one right to it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRow {
    /// The number; of several side by side the first.
    pub port: u16,
    /// The last of them; the same where it is one.
    pub to: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What is spoken there, as far as anybody has said.
    pub speaks: Speaks,
    /// Whose it is: a unit, what a lease calls itself, what is written down; null: nobody has said.
    pub service: Option<String>,
    /// The machines that it is on; none where a lease names another network.
    pub hosts: Vec<String>,
    /// Who uses it: what is written down, and the units that need this one.
    pub consumers: Vec<String>,
    /// By which right it is here.
    pub kind: PortKind,
    /// The network that it is of: `host`, or one that somebody has named.
    pub network: String,
    /// Where somebody listens for it; null: nobody does.
    pub address: Option<String>,
    /// What ports here are for.
    pub range: Option<String>,
    /// The unit that declares it, or that listens.
    pub unit: Option<UnitName>,
    /// What the unit, the lease or the entry calls it.
    pub port_name: Option<String>,
    /// The lease.
    pub lease: Option<PortLeaseId>,
    /// Who it is, for people.
    pub who: String,
    /// The process that listens.
    pub pid: Option<i32>,
    /// Its user.
    pub user: Option<String>,
    /// What is not as it should be.
    pub drift: Vec<DriftKind>,
}

/// The result of `port.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortList {
    /// The ports, by number.
    pub ports: Vec<PortRow>,
}

/// What somebody does with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortUse {
    /// Listens: takes connections, or datagrams.
    Listens,
    /// Has bound it, and does not listen.
    Bound,
    /// Has a connection that begins or ends there.
    Connected,
}

/// Somebody who has a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortHolder {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What is done with it.
    pub does: PortUse,
    /// Where.
    pub address: String,
    /// The other end of a connection.
    pub remote: Option<String>,
    /// An IPv6 socket that takes IPv4 as well.
    pub dual: bool,
    /// Who it is, as the kernel tells.
    #[serde(flatten)]
    pub who: Occupant,
    /// The container's name, where its engine tells; of a port that an engine holds, the container it is published for.
    pub container_name: Option<String>,
    /// The container's compose project.
    pub compose_project: Option<String>,
    /// The unit of this Wharf that it belongs to.
    pub unit: Option<UnitName>,
    /// The run that it belongs to.
    pub run: Option<RunId>,
    /// The lease that it belongs to.
    pub lease: Option<PortLeaseId>,
    /// All that in a line.
    pub text: String,
}

/// The result of `port.whois`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortWhois {
    /// The port.
    pub port: u16,
    /// The answer in one sentence.
    pub answer: String,
    /// Who has it, listeners first.
    pub holders: Vec<PortHolder>,
    /// The units that declare it.
    pub units: Vec<UnitName>,
    /// The leases of it.
    pub leases: Vec<PortLeaseRow>,
    /// What is written down of it.
    pub entries: Vec<PortEntry>,
    /// What it is reserved for.
    pub reserved_for: Option<String>,
    /// What ports here are for.
    pub range: Option<String>,
    /// Connections that are over and wait for late packets: no obstacle for a server.
    pub time_wait: u32,
    /// Connections that begin or end there: at most 16 of them are among the holders.
    pub connections: u32,
    /// What is not as it should be.
    pub drift: Vec<DriftRow>,
}

/// What a port is like for who would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortVerdict {
    /// Nobody has it.
    Free,
    /// Free for a server: connections that are over still wait there.
    TimeWait,
    /// Free in the kernel, and a unit has it or will have it.
    Declared,
    /// Free in the kernel, and a lease has it.
    Leased,
    /// Somebody has it.
    Taken,
    /// This user may not listen there.
    Forbidden,
}

/// One port that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortCheckRow {
    /// The port.
    pub port: u16,
    /// What it is like.
    pub verdict: PortVerdict,
    /// A program that nobody knows could listen there now.
    pub free: bool,
    /// Who is in the way.
    pub holder: Option<String>,
    /// Good to know: its range, IPv4 and IPv6, outgoing connections.
    pub warnings: Vec<String>,
    /// What would help.
    pub remedies: Vec<String>,
}

/// The result of `port.check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortChecked {
    /// All of them are free.
    pub ok: bool,
    /// The ports, in the order of the question.
    pub ports: Vec<PortCheckRow>,
}

/// The result of `port.free`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortFree {
    /// The ports, lowest first; fewer than were asked for where there are no more.
    pub ports: Vec<u16>,
}

/// The result of `port.declare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortDeclared {
    /// What is written down now.
    pub entry: PortEntry,
    /// What was written down before under the same names.
    pub replaced: Option<PortEntry>,
    /// Good to know: a reserved port, say.
    pub warnings: Vec<String>,
}

/// The result of `port.undeclare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortUndeclared {
    /// What was struck out.
    pub entries: Vec<PortEntry>,
}

/// The result of `port.lease`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortLeased {
    /// The lease; null in a dry run.
    pub lease: Option<PortLeaseId>,
    /// What to show with `port.renew`: it grows when the lease changes hands.
    pub epoch: u64,
    /// The numbers.
    pub ports: Vec<u16>,
    /// For the holder's environment: `PORT`, and `PORT_2` and so on.
    pub env: BTreeMap<String, String>,
    /// Where it will be reached.
    pub url: String,
    /// How it is kept.
    pub handoff_used: Handoff,
    /// Where the listening sockets are fetched: a Unix socket that passes them (SCM_RIGHTS) to whoever of the lease's user
    /// connects, until the lease is over. null: they are kept in another way, or the holder has them.
    pub socket: Option<String>,
    /// It ends so many milliseconds from now, unless it is renewed.
    pub expires_in_ms: Option<u64>,
    /// It ends with this process.
    pub holder_pid: Option<i32>,
    /// Good to know: a port outside its range, say.
    pub warnings: Vec<String>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortLeaseRow {
    /// Which.
    pub lease: PortLeaseId,
    /// What its holder shows.
    pub epoch: u64,
    /// The numbers.
    pub ports: Vec<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The network that it is of.
    pub network: String,
    /// What the holder calls itself.
    pub service: String,
    /// What the port is called.
    pub port_name: String,
    /// Whose it is.
    pub uid: u32,
    /// From where it may be reached.
    pub bind: Reach,
    /// How it is kept.
    pub handoff: Handoff,
    /// A socket of the daemon keeps it at this moment.
    pub parked: bool,
    /// Where the listening sockets are fetched.
    pub socket: Option<String>,
    /// The number is remembered afterwards.
    pub sticky: bool,
    /// It ends with this process.
    pub holder_pid: Option<i32>,
    /// It ends so many milliseconds from now, unless it is renewed.
    pub expires_in_ms: Option<u64>,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_ms: i64,
}

/// The result of `port.leases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortLeases {
    /// The leases, oldest first.
    pub leases: Vec<PortLeaseRow>,
}

/// The result of `port.confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortConfirmed {
    /// Who listens: the holder, or what it started.
    pub listeners: Vec<PortHolder>,
}

/// The result of `port.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRenewed {
    /// It ends so many milliseconds from now, unless it is renewed again.
    pub expires_in_ms: Option<u64>,
}

/// The result of `port.release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortReleased {
    /// The numbers that nobody has any more.
    pub ports: Vec<u16>,
    /// Who still listens there.
    pub still_listening: Vec<String>,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortSpan {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

/// The result of `port.ranges`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRanges {
    /// The table.
    pub ranges: Vec<PortRange>,
    /// What the kernel gives to outgoing connections.
    pub ephemeral: Vec<PortSpan>,
    /// What is odd about the table.
    pub warnings: Vec<String>,
    /// The file that changes it.
    pub file: String,
}

/// A difference, and whether it hurts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftRow {
    /// Which.
    #[serde(flatten)]
    pub drift: Drift,
    /// Nothing is wrong yet.
    pub is_advice: bool,
}

/// The result of `port.drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortDrift {
    /// Everything is as declared; advice does not count.
    pub ok: bool,
    /// The differences, what hurts first.
    pub drift: Vec<DriftRow>,
}

/// A process that was ended, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvictedRow {
    /// The process.
    pub pid: i32,
    /// Its name.
    pub command: Option<String>,
    /// By which record it is ours.
    pub why: String,
    /// How it ended: `asked`, `killed`, `gone`; null in a dry run.
    pub how: Option<String>,
}

/// The result of `port.evict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortEvicted {
    /// Nobody listens there any more.
    pub free: bool,
    /// Who was ended, or would be.
    pub evicted: Vec<EvictedRow>,
}
