//! The events of the daemon: their kinds, as a closed list, and how they are asked for.
//!
//! Events are numbered from 1 in each life of the daemon, without a hole; `boot` names that life.
//! It refuses to know who makes them and how they are kept.

mod kind;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wharf_model::{
    DeviceId, DriftKind, EndReason, Exit, Failure, LeaseId, LeaseState, OpId, Operation, Phase, PortLeaseId, Protocol,
    RunId, UnitName,
};

pub use kind::EventKind;

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// Its number in this life of the daemon. Of a gap: the last one that is left out.
    pub seq: u64,
    /// The life of the daemon that numbered it: a fresh random name at each start.
    pub boot: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The unit that it is about.
    pub unit: Option<UnitName>,
    /// The run that it is about.
    pub run: Option<RunId>,
    /// What.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What has happened. A new kind is a variant here, one of [`EventKind`], and an entry in the
/// document of rpc.sock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum Happened {
    /// A daemon has begun: the first event of its life.
    #[serde(rename = "daemon.started")]
    DaemonStarted {
        /// Its version.
        version: String,
        /// Its process.
        pid: u32,
        /// The life of the machine: the kernel's boot id.
        kernel_boot: String,
        /// How many units it knows.
        units: u32,
    },
    /// The daemon ends, units go on: the last event of its life.
    #[serde(rename = "daemon.stopping")]
    DaemonStopping,
    /// A unit's phase changed.
    #[serde(rename = "unit.phase")]
    UnitPhase {
        /// From.
        from: Phase,
        /// To.
        to: Phase,
        /// Why, for people; null where there is nothing to say.
        why: Option<String>,
    },
    /// A run is over.
    #[serde(rename = "unit.ended")]
    UnitEnded {
        /// How its main process ended, as the kernel saw it.
        exit: Exit,
        /// Why, as Wharf sees it.
        reason: EndReason,
    },
    /// A unit will be started again.
    #[serde(rename = "unit.retry")]
    UnitRetry {
        /// How many restarts there were in the window, with this one.
        attempt: u32,
        /// In how many milliseconds.
        after_ms: u64,
    },
    /// A schedule came due while the run before it went on, and was passed over.
    #[serde(rename = "unit.skipped")]
    UnitSkipped,
    /// A unit is forgotten.
    #[serde(rename = "unit.gone")]
    UnitGone,
    /// A request that takes time was begun.
    #[serde(rename = "op.began")]
    OpBegan {
        /// The operation.
        operation: Operation,
    },
    /// How far a request that takes time is: a stage when it begins, then once a second.
    #[serde(rename = "op.progress")]
    OpProgress {
        /// The operation.
        op: OpId,
        /// What is being done, for people: `downloading redis-server 7.0.15`.
        stage: String,
        /// Done so far, in bytes or steps.
        done: Option<u64>,
        /// All there is to do, in the same unit, where it is known.
        total: Option<u64>,
    },
    /// A request that takes time has ended.
    #[serde(rename = "op.ended")]
    OpEnded {
        /// The operation, with its outcome.
        operation: Operation,
    },
    /// A run truncated its own log: what had not been put away is lost.
    #[serde(rename = "log.truncated")]
    LogTruncated {
        /// How many bytes, as far as they had been seen.
        bytes: u64,
    },
    /// There was no room to put a part of a log away: it is lost.
    #[serde(rename = "log.lost")]
    LogLost {
        /// How many bytes.
        bytes: u64,
    },
    /// A disk is full, or nearly.
    #[serde(rename = "disk.low")]
    DiskLow {
        /// Which.
        disk: Disk,
    },
    /// There is room on the disk again.
    #[serde(rename = "disk.freed")]
    DiskFreed {
        /// Which.
        disk: Disk,
    },
    /// A lease of GPUs has gone from one state to the next.
    #[serde(rename = "gpu.lease")]
    GpuLease {
        /// Which.
        lease: LeaseId,
        /// Whose, for people.
        holder: String,
        /// To.
        state: LeaseState,
        /// On which devices.
        devices: Vec<DeviceId>,
        /// Why, for people; null where there is nothing to say.
        why: Option<String>,
    },
    /// The holder of a lease was asked to make room and stay, or to wake up.
    #[serde(rename = "gpu.asked")]
    GpuAsked {
        /// Which.
        lease: LeaseId,
        /// Whose, for people.
        holder: String,
        /// `downsize`, `park` or `wake`.
        r#do: String,
        /// What it keeps on each device then; null: all of it.
        to_bytes: Option<u64>,
        /// For whom; null: by hand, or since somebody wants to use it.
        by: Option<String>,
    },
    /// The holder of a lease takes more than it declared.
    #[serde(rename = "gpu.over_declared")]
    GpuOverDeclared {
        /// Which.
        lease: LeaseId,
        /// Whose, for people.
        holder: String,
        /// Where.
        device: DeviceId,
        /// What was declared.
        declared_bytes: u64,
        /// What it takes.
        measured_bytes: u64,
    },
    /// Somebody without a lease has taken memory of a GPU.
    #[serde(rename = "gpu.foreign")]
    GpuForeign {
        /// Where.
        device: DeviceId,
        /// How much those without a lease have there now.
        bytes: u64,
        /// Who, as far as is known.
        who: Vec<String>,
    },
    /// A GPU came, went, or is not to be used any more.
    #[serde(rename = "gpu.device")]
    GpuDevice {
        /// Which.
        device: DeviceId,
        /// What has happened.
        what: String,
    },
    /// The holder of a lease is gone, and its memory did not come back.
    #[serde(rename = "gpu.leak")]
    GpuLeak {
        /// Which.
        lease: LeaseId,
        /// Whose it was, for people.
        holder: String,
        /// Where.
        device: DeviceId,
        /// How much is missing.
        bytes: u64,
    },
    /// Less than a twentieth of a GPU can be handed out. It is told again when a tenth could meanwhile.
    #[serde(rename = "gpu.headroom_low")]
    GpuHeadroomLow {
        /// Which.
        device: DeviceId,
        /// What can be handed out there.
        headroom_bytes: u64,
        /// All its memory.
        total_bytes: u64,
    },
    /// Two who are strangers to each other listen on one port.
    #[serde(rename = "port.duplicate")]
    PortDuplicate {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// The lease that it is about.
        lease: Option<PortLeaseId>,
        /// One sentence, with who it is.
        text: String,
    },
    /// Somebody else listens on the port of a unit or of a lease.
    #[serde(rename = "port.intruder")]
    PortIntruder {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// The lease that it is about.
        lease: Option<PortLeaseId>,
        /// One sentence, with who it is.
        text: String,
    },
    /// A port that was promised to this machine alone can be reached from outside.
    #[serde(rename = "port.open")]
    PortOpen {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// The lease that it is about.
        lease: Option<PortLeaseId>,
        /// One sentence, with who it is.
        text: String,
    },
    /// Somebody listens on a port that a unit or a lease has, or that is written down, and did not before.
    #[serde(rename = "port.appeared")]
    PortAppeared {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        address: String,
        /// The lease that it is of.
        lease: Option<PortLeaseId>,
        /// Who it is.
        text: String,
    },
    /// Nobody listens there any more.
    #[serde(rename = "port.vanished")]
    PortVanished {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// Where it was.
        address: String,
        /// The lease that it was of.
        lease: Option<PortLeaseId>,
        /// Who it was.
        text: String,
    },
    /// What listens differs from what was declared in another way: nobody does, or with the other protocol, or two
    /// declare the port.
    #[serde(rename = "port.drift")]
    PortDrift {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// In which way.
        drift: DriftKind,
        /// The lease that it is about.
        lease: Option<PortLeaseId>,
        /// One sentence.
        text: String,
        /// The next thing to do.
        fix: String,
    },
    /// A lease of ports is over.
    #[serde(rename = "port.freed")]
    PortFreed {
        /// Which.
        lease: PortLeaseId,
        /// Whose it was, for people.
        holder: String,
        /// The numbers.
        ports: Vec<u16>,
        /// Why.
        why: String,
    },
    /// Events that this reader asked for are not kept any more. It is told to this reader alone.
    #[serde(rename = "gap")]
    Gap {
        /// The first that is left out.
        from: u64,
        /// The last that is left out.
        to: u64,
    },
    /// `since` is a number of another life of the daemon: what came after it there is not known here.
    /// It is told to this reader alone; this life's events follow, from the oldest that is kept.
    #[serde(rename = "gap.boot")]
    GapBoot {
        /// The life that was named, if any.
        named: Option<String>,
        /// The number that was named.
        since: u64,
    },
}

/// A disk that Wharf writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// That of the state database: while it is full, nothing new is taken on.
    State,
    /// That of the logs: while it is nearly full, the oldest archives go.
    Logs,
}

impl Happened {
    /// Whether it is about one of these ports.
    pub fn is_of_port(&self, wanted: &[u16]) -> bool {
        match self {
            Self::PortDuplicate { port, .. }
            | Self::PortIntruder { port, .. }
            | Self::PortOpen { port, .. }
            | Self::PortAppeared { port, .. }
            | Self::PortVanished { port, .. }
            | Self::PortDrift { port, .. } => wanted.contains(port),
            Self::PortFreed { ports, .. } => ports.iter().any(|port| wanted.contains(port)),
            Self::DaemonStarted { .. }
            | Self::DaemonStopping
            | Self::UnitPhase { .. }
            | Self::UnitEnded { .. }
            | Self::UnitRetry { .. }
            | Self::UnitSkipped
            | Self::UnitGone
            | Self::OpBegan { .. }
            | Self::OpProgress { .. }
            | Self::OpEnded { .. }
            | Self::LogTruncated { .. }
            | Self::LogLost { .. }
            | Self::DiskLow { .. }
            | Self::DiskFreed { .. }
            | Self::GpuLease { .. }
            | Self::GpuAsked { .. }
            | Self::GpuOverDeclared { .. }
            | Self::GpuForeign { .. }
            | Self::GpuDevice { .. }
            | Self::GpuLeak { .. }
            | Self::GpuHeadroomLow { .. }
            | Self::Gap { .. }
            | Self::GapBoot { .. } => false,
        }
    }
}

/// Params of `event.watch`, and what the query of `GET /events` comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchParams {
    /// The number after which to go on. Without it a stream begins now, and an answer has the newest events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The life of the daemon that `since` is a number of; the present one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Only what is about these units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitName>,
    /// Only these kinds. A gap is always told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<EventKind>,
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

/// The result of `event.watch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WatchReport {
    /// This life of the daemon.
    pub boot: String,
    /// What to give as `since` to go on from here.
    pub next: u64,
    /// There is more already.
    pub more: bool,
    /// The events, oldest first. In a stream they were told before, and none is here.
    pub events: Vec<EventRow>,
}

/// One reader of events. It holds a place in what is kept, and no event.
#[async_trait]
pub trait Following: Send {
    /// The next events, oldest first; waits for them. Empty: the daemon ends. Dropping the future loses none.
    async fn next(&mut self) -> Vec<Arc<EventRow>>;
}

/// A reader that has begun, or why there is none: `invalid_params`, or `conflict` where there are too many.
pub type Follow = Result<Box<dyn Following>, Failure>;
