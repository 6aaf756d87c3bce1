//! Params of `port.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{Handoff, PortKind, PortLeaseId, Protocol, Reach, Speaks, UnitName};

use crate::event::{EventKind, WatchParams};

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
    /// Only what is of this service: a unit, a lease of this name, or what is written down for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
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

/// Params of `port.declare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortDeclareParams {
    /// Whose the port is: `grafana`. The name of a unit: more is said of that unit's port.
    pub service: String,
    /// The number; of several side by side the first.
    pub port: u16,
    /// The last of several side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// What the port is called. A service has one port of a name.
    #[serde(default = "main")]
    pub port_name: String,
    /// What is spoken there.
    #[serde(default)]
    pub speaks: Speaks,
    /// The machines that it is on, by name. This one unless some are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The network that it is of, where that is not the machines' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Who uses it, in words of your own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
    /// From where it may be reached: a listener that breaks the promise is told. Nothing is promised unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Reach>,
    /// Only say what would come of it.
    #[serde(default)]
    pub dry_run: bool,
}

fn main() -> String {
    "main".into()
}

/// Params of `port.undeclare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortUndeclareParams {
    /// Whose the port is.
    pub service: String,
    /// What it is called. Every port of the service unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
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

/// Params of `port.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortRenewParams {
    /// The lease.
    pub lease: PortLeaseId,
    /// As it was given.
    pub epoch: u64,
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

/// Params of `port.drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortDriftParams {
    /// Also what is advice only: ranges, ports that are not declared.
    #[serde(default = "yes")]
    pub advice: bool,
}

/// Params of `port.watch`: those of `event.watch` without kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortWatchParams {
    /// The number after which to go on. Without it a stream begins now, and an answer has the newest events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The life of the daemon that `since` is a number of; the present one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Only what is about these units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitName>,
    /// Only what is about these ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// How many events an answer has at most: 100 unless it is named, 1,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where nothing is there yet: wait so long for it, 60,000 at most.
    #[serde(default)]
    pub wait_ms: u64,
}

impl From<PortWatchParams> for WatchParams {
    fn from(p: PortWatchParams) -> Self {
        let kinds = EventKind::meant("port");
        Self { since: p.since, boot: p.boot, units: p.units, kinds, ports: p.ports, limit: p.limit, wait_ms: p.wait_ms }
    }
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
