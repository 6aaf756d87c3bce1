//! GPUs as words: what is asked for, and what was handed out. Sizes are bytes.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, UnitName, Vendor, VramLimit};

/// How soon it is somebody's turn. Waiting raises it: nobody starves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Whatever can wait for hours.
    Batch,
    /// After what people wait for.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// A person waits.
    High,
    /// A person waits, and it hurts.
    Urgent,
}

/// Who may be asked to leave for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preempt {
    /// Nobody.
    #[default]
    Never,
    /// Those that do nothing just now, of the same importance or less.
    Idle,
    /// These, and those of less importance, busy or not.
    Lower,
    /// Everybody but who is pinned by hand. Audited.
    Force,
}

/// What is needed at once, on devices of one machine: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GpuNeed {
    /// How many devices.
    pub devices: u32,
    /// Memory on each, in bytes; none: not known, so each device is had alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_bytes: Option<u64>,
    /// Nobody else on these devices.
    pub exclusive: bool,
    /// All on devices that reach each other directly.
    pub same_island: bool,
    /// Only these devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<DeviceId>,
    /// None of these devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<DeviceId>,
    /// Not on a device with any of these units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_with: Vec<UnitName>,
    /// On a device with no others than these units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_with: Vec<UnitName>,
}

impl Default for GpuNeed {
    fn default() -> Self {
        Self {
            devices: 1,
            vram_bytes: None,
            exclusive: false,
            same_island: false,
            only: vec![],
            avoid: vec![],
            never_with: vec![],
            only_with: vec![],
        }
    }
}

impl GpuNeed {
    /// It has its devices alone: asked for, or since its size is not known.
    pub fn is_alone(&self) -> bool {
        self.exclusive || self.vram_bytes.is_none()
    }
}

/// A request for GPUs, and by which rules it is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GpuRequest {
    /// What is needed.
    #[serde(flatten)]
    pub need: GpuNeed,
    /// What would do instead, in this order, where the first cannot be had without waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<GpuNeed>,
    /// How soon it is its turn.
    pub priority: Priority,
    /// How much it matters that it stays, 0 to 100: those of more are not asked to leave for it.
    pub importance: u8,
    /// Who may be asked to leave for it.
    pub preempt: Preempt,
    /// It may be asked to leave itself.
    pub evictable: bool,
    /// It is left in peace this long after it got ready, in milliseconds.
    pub min_residency_ms: u64,
    /// From being asked to leave to SIGKILL, in milliseconds.
    pub drain_ms: u64,
    /// What a start anew costs, in milliseconds, until it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_ms: Option<u64>,
    /// Its holder can go on with so much on each device, in bytes, when it is asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downsize_bytes: Option<u64>,
    /// Its holder can sleep, and then keeps so much on each device, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_bytes: Option<u64>,
    /// What sleeping needs of the machine's own memory, in bytes; none: as much as it frees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked_ram_bytes: Option<u64>,
    /// Whether what it declares is enforced. Of a unit: a program outside is only watched.
    #[serde(skip_serializing_if = "VramLimit::is_none")]
    pub limit: VramLimit,
}

impl Default for GpuRequest {
    fn default() -> Self {
        Self {
            need: GpuNeed::default(),
            alternatives: vec![],
            priority: Priority::Normal,
            importance: 50,
            preempt: Preempt::Never,
            evictable: true,
            min_residency_ms: 10_000,
            drain_ms: 10_000,
            reload_ms: None,
            downsize_bytes: None,
            parked_bytes: None,
            parked_ram_bytes: None,
            limit: VramLimit::None,
        }
    }
}

impl GpuRequest {
    /// What would do, best first.
    pub fn needs(&self) -> impl Iterator<Item = &GpuNeed> {
        std::iter::once(&self.need).chain(&self.alternatives)
    }
}

/// A lease: `lease-12`. Numbers are never handed out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease-{}", self.0)
    }
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Holder {
    /// A unit. The lease lives as long as anything lives in the cgroup of its run.
    Unit {
        /// Which.
        name: UnitName,
    },
    /// A program outside, and what it starts. The lease lives as long as the process tree.
    Process {
        /// Its number.
        pid: i32,
        /// Which one of that number.
        identity: u64,
        /// What it is called.
        label: String,
        /// Whose it is.
        uid: u32,
    },
}

impl Holder {
    /// What people call it.
    pub fn label(&self) -> String {
        match self {
            Self::Unit { name } => name.to_string(),
            Self::Process { pid, label, .. } => format!("{label} (pid {pid})"),
        }
    }
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It waits for its turn.
    Queued,
    /// Its devices are chosen; others leave them first.
    Reserved,
    /// Granted; its holder is loading.
    Starting,
    /// Granted; its holder is ready.
    Active,
    /// Its holder sleeps and keeps only a rest of its memory.
    Parked,
    /// Its holder has been asked to leave.
    Draining,
    /// Its holder is gone; its memory has not been seen back.
    Reclaiming,
    /// Nobody has renewed it, and its holder lives.
    Expired,
    /// Its holder is gone, and its memory did not come back in time.
    Quarantined,
    /// Over.
    Gone,
}

impl LeaseState {
    /// Its holder may have memory on its devices.
    pub fn is_charged(self) -> bool {
        match self {
            Self::Starting
            | Self::Active
            | Self::Parked
            | Self::Draining
            | Self::Reclaiming
            | Self::Expired
            | Self::Quarantined => true,
            Self::Queued | Self::Reserved | Self::Gone => false,
        }
    }
}

/// How a holder makes room, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MakeRoom {
    /// It goes on with less.
    Downsize,
    /// It sleeps, and keeps a rest.
    Park,
    /// It ends.
    Stop,
}

impl MakeRoom {
    /// `downsize`, `park`, `stop`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Downsize => "downsize",
            Self::Park => "park",
            Self::Stop => "stop",
        }
    }
}

/// A part of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// Of which.
    pub device: DeviceId,
    /// What was asked for, or all that there was where the device is had alone.
    pub declared_bytes: u64,
    /// What its holder was last seen to have; none: the driver does not say.
    pub measured_bytes: Option<u64>,
    /// What it counts for in the ledger.
    pub charge_bytes: u64,
}

/// What a holder's environment gets, so that it finds its devices and no others: full UUIDs.
pub fn environment(devices: &[(Vendor, DeviceId)]) -> BTreeMap<String, String> {
    let of = |vendor: Vendor| {
        let ids: Vec<&str> = devices.iter().filter(|(v, _)| *v == vendor).map(|(_, id)| &*id.0).collect();
        ids.join(",")
    };
    let mut env = BTreeMap::new();
    env.insert("CUDA_VISIBLE_DEVICES".to_owned(), of(Vendor::Nvidia));
    env.insert("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
    for (vendor, name) in [
        (Vendor::Amd, "ROCR_VISIBLE_DEVICES"),
        (Vendor::Intel, "ZE_AFFINITY_MASK"),
        (Vendor::Simulated, "WHARF_SIMULATED_DEVICES"),
    ] {
        if devices.iter().any(|(v, _)| *v == vendor) {
            env.insert(name.to_owned(), of(vendor));
        }
    }
    env.insert("WHARF_GPU_DEVICES".to_owned(), devices.iter().map(|(_, id)| &*id.0).collect::<Vec<_>>().join(","));
    env
}
