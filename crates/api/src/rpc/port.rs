//! `port.*`: who has which port, who may have which, and what differs from that.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{DriftKind, Handoff, PortKind, PortLeaseId, PortRange, Protocol, Reach, RunId, UnitName};

use crate::{Caller, params::ListParams, table::methods};

methods! {
    /// What the engine does for the namespace `port`.
    trait PortApi, client PortClient, dispatch dispatch, schemas schemas;

    /// Every port that a unit, a lease, a reserve or a listener has.
    Read "port.list" port_list(PortListParams) -> PortList;
    /// Who has a port: listeners, those who only have bound it, connections, leases, units.
    Read "port.whois" port_whois(PortWhoisParams) -> PortWhois;
    /// Whether ports could be listened on now.
    Read "port.check" port_check(PortCheckParams) -> PortChecked;
    /// Ports of a range that nobody has. Nothing is kept: see `port.lease`.
    Read "port.free" port_free(PortFreeParams) -> PortFree;
    /// Takes ports for a program outside.
    Control "port.lease" port_lease(PortLeaseParams) -> PortLeased;
    /// Whether the lease's holder listens, and nobody else.
    Control "port.confirm" port_confirm(PortConfirmParams) -> PortConfirmed;
    /// Counts the lease's time anew.
    Control "port.renew" port_renew(PortRenewParams) -> PortRenewed;
    /// Ends a lease.
    Control "port.release" port_release(PortReleaseParams) -> PortReleased;
    /// Every lease.
    Read "port.leases" port_leases(ListParams) -> PortLeases;
    /// The table of ranges, and what is odd about it.
    Read "port.ranges" port_ranges(ListParams) -> PortRanges;
    /// How what listens differs from what was declared and leased.
    Read "port.drift" port_drift(PortDriftParams) -> PortDrift;
    /// Ends who holds a port, where that is a left-over of ours.
    Control "port.evict" port_evict(PortEvictParams) -> PortEvicted;
}

/// Params of `port.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortListParams {
    /// Only these kinds. All unless they are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<PortKind>,
    /// Only ports in the ranges of this purpose: `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Only what is of this unit, or of leases of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// One port, as far as one right to it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRow {
    /// The number.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// By which right it is here.
    pub kind: PortKind,
    /// The network that it is of: `host`, or one that a lease names.
    pub network: String,
    /// Where somebody listens for it; null: nobody does.
    pub address: Option<String>,
    /// What ports here are for.
    pub range: Option<String>,
    /// The unit that declares it, or that listens.
    pub unit: Option<UnitName>,
    /// What the unit or the lease calls it.
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

/// Params of `port.whois`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortWhoisParams {
    /// The port.
    pub port: u16,
    /// TCP or UDP; both unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
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

/// By what a socket's owner was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// The unit or the lease that it belongs to.
    Lease,
    /// The process that holds it open.
    Process,
    /// The cgroup that it was made in.
    Cgroup,
    /// Its user alone.
    User,
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
    /// The process; of several the first.
    pub pid: Option<i32>,
    /// Which process of that number, for `port.evict`: a number as text.
    pub identity: Option<String>,
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
    /// By what it was found.
    pub found_by: FoundBy,
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

/// Params of `port.check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortCheckParams {
    /// The ports, 256 at most.
    pub ports: Vec<u16>,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
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

/// Params of `port.free`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortFreeParams {
    /// The purpose whose ranges are looked through: `gpu`. `any` unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// How many: 1 unless it is named, 64 at most.
    #[serde(default = "one")]
    pub count: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

/// The result of `port.free`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortFree {
    /// The ports, lowest first; fewer than were asked for where there are no more.
    pub ports: Vec<u16>,
}

/// Params of `port.lease`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortLeaseParams {
    /// What the port is called: `http`.
    pub port_name: String,
    /// What the holder calls itself. Its user's name unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// This number, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// One of the ranges of this purpose: `gpu`. `any` unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// One from here on; goes with `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u16>,
    /// The last that will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// How many: 1 unless it is named, 64 at most.
    #[serde(default = "one")]
    pub count: u16,
    /// Several ports lie side by side.
    #[serde(default)]
    pub contiguous: bool,
    /// From where it may be reached.
    #[serde(default)]
    pub bind: Reach,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// The network that it is of, where that is not the machine's own: then it is written down and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The same service and name get the same number again, also after the lease.
    #[serde(default = "yes")]
    pub sticky: bool,
    /// It ends after so many milliseconds without `port.renew`. Without it and `holder_pid` it ends with the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// It ends with this process, which must be the caller's user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_pid: Option<i32>,
    /// How it is kept for the holder. UDP is always `plain`.
    #[serde(default)]
    pub handoff: Handoff,
    /// The same key of the same user is the same lease, however often it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// Only say what would be given.
    #[serde(default)]
    pub dry_run: bool,
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

/// Params of `port.confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortConfirmParams {
    /// The lease.
    pub lease: PortLeaseId,
    /// As it was given.
    pub epoch: u64,
    /// How long to wait for a listener: 60,000 at most.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// The result of `port.confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortConfirmed {
    /// Who listens: the holder, or what it started.
    pub listeners: Vec<PortHolder>,
}

/// Params of `port.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRenewParams {
    /// The lease.
    pub lease: PortLeaseId,
    /// As it was given.
    pub epoch: u64,
}

/// The result of `port.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRenewed {
    /// It ends so many milliseconds from now, unless it is renewed again.
    pub expires_in_ms: Option<u64>,
}

/// Params of `port.release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortReleaseParams {
    /// The lease.
    pub lease: PortLeaseId,
    /// As it was given; without it, whatever it is now: for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The sticky number is forgotten, too.
    #[serde(default)]
    pub forget: bool,
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

/// Params of `port.drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortDriftParams {
    /// Also what is advice only: ranges, ports that are not declared.
    #[serde(default = "yes")]
    pub advice: bool,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftRow {
    /// What kind.
    pub kind: DriftKind,
    /// Nothing is wrong yet.
    pub is_advice: bool,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The unit that it is about.
    pub unit: Option<UnitName>,
    /// The lease that it is about.
    pub lease: Option<PortLeaseId>,
    /// One sentence.
    pub text: String,
    /// The next thing to do.
    pub fix: String,
}

/// The result of `port.drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortDrift {
    /// Everything is as declared; advice does not count.
    pub ok: bool,
    /// The differences, what hurts first.
    pub drift: Vec<DriftRow>,
}

/// Params of `port.evict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortEvictParams {
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Only if this process holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Only if it is this one of that number, as `port.whois` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How long it is given after SIGTERM: 5,000 ms unless it is named, 60,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Only say who would be ended.
    #[serde(default)]
    pub dry_run: bool,
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
