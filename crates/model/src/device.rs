//! Devices as words: what is there at one moment, as measured. Nothing of it is a decision.
//!
//! Sizes are bytes. A device is called by its full UUID, never by an index: the order of indices is not the same
//! after a reboot, and not the same for every program.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{RunId, UnitName};

/// A device: `GPU-2f6d…` and `MIG-…` as NVIDIA's driver gives them, `GPU-<unique_id>` for AMD, `PCI-0000:03:00.0` where
/// there is nothing better, or the name in `gpus.toml`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DeviceId(pub Arc<str>);

impl From<&str> for DeviceId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who made it, which also says how a program is shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// `CUDA_VISIBLE_DEVICES`.
    Nvidia,
    /// `ROCR_VISIBLE_DEVICES`.
    Amd,
    /// `ZE_AFFINITY_MASK`.
    Intel,
    /// A line of `gpus.toml`: no hardware.
    Simulated,
}

/// A whole device or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A whole one.
    Gpu,
    /// An instance of one that is cut up (MIG).
    Mig,
}

/// Why nothing new, or nothing at all, should run on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaintEffect {
    /// What runs goes on, nothing new comes.
    NoNew,
    /// What runs is asked to leave.
    Drain,
}

/// A reason against a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taint {
    /// What it forbids.
    pub effect: TaintEffect,
    /// Why, for people.
    pub reason: String,
}

/// What kind of work a process does on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// It computes.
    Compute,
    /// It draws.
    Graphics,
    /// It computes through the multi-process service (MPS).
    Mps,
}

/// A process that has memory on a device, as the driver tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceProcess {
    /// The process.
    pub pid: i32,
    /// Which one of that number: its pidfs inode, or its start time in clock ticks where the kernel has no pidfs.
    /// None: it is gone already, and the driver still lists it.
    pub identity: Option<u64>,
    /// What it holds; none: the driver does not say.
    pub used_bytes: Option<u64>,
    /// What it does there.
    pub kind: ProcessKind,
    /// The unit and the run that it belongs to, by its cgroup.
    pub unit: Option<(UnitName, RunId)>,
    /// Its program.
    pub program: Option<String>,
    /// Whose it is.
    pub uid: Option<u32>,
    /// What else it belongs to: `container 0123456789ab`, `systemd unit steam.service`.
    pub belongs_to: Option<String>,
    /// Its parents, nearest first, with their identities: a lease follows the tree of its holder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<(i32, u64)>,
}

impl DeviceProcess {
    /// As a driver tells of it; nothing else is known.
    pub fn new(pid: i32, used_bytes: Option<u64>, kind: ProcessKind) -> Self {
        Self {
            pid,
            identity: None,
            used_bytes,
            kind,
            unit: None,
            program: None,
            uid: None,
            belongs_to: None,
            parents: vec![],
        }
    }
}

/// By what a device's memory could be limited for one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitsBackend {
    /// NVML's limits over the kernel's dmem controller.
    NvmlDmem,
    /// NVML's limits kept by the driver.
    NvmlMisc,
    /// The kernel's dmem controller.
    Dmem,
    /// By nothing: what was declared is watched, not enforced.
    #[default]
    None,
}

/// One device at one moment, as measured. Nothing of it is a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Who made it.
    pub vendor: Vendor,
    /// What it is sold as.
    pub name: String,
    /// A whole one, or a part.
    pub kind: DeviceKind,
    /// Of a part: the whole. A device that is cut up is listed, and never handed out itself.
    pub parent: Option<DeviceId>,
    /// Its place in the driver's list, for people only.
    pub index: u32,
    /// Its PCI address.
    pub pci: Option<String>,
    /// The memory node of the machine that it is near to.
    pub numa_node: Option<u32>,
    /// Devices with the same number reach each other by NVLink or the like.
    pub island: Option<u32>,
    /// All its memory.
    pub total_bytes: u64,
    /// What is not free: total less free, as the driver says. None: it does not say.
    pub used_bytes: Option<u64>,
    /// What the driver keeps for itself, part of `used_bytes` or not: for people only.
    pub reserved_bytes: u64,
    /// Its memory is the machine's own: free memory there is not this device's alone.
    pub unified: bool,
    /// Memory stays taken after a process has ended (a device that is a NUMA node): nothing waits for it to come back.
    pub keeps_memory: bool,
    /// By what its memory could be limited for one cgroup.
    pub limits: LimitsBackend,
    /// What speaks against it.
    pub taints: Vec<Taint>,
    /// Those that hold memory on it; none: the driver does not say.
    pub processes: Option<Vec<DeviceProcess>>,
}

impl Device {
    /// A whole one that is empty, with nothing else known of it. It is called by its id.
    pub fn new(id: impl Into<DeviceId>, vendor: Vendor, total_bytes: u64) -> Self {
        let id = id.into();
        Self {
            name: id.to_string(),
            id,
            vendor,
            kind: DeviceKind::Gpu,
            parent: None,
            index: 0,
            pci: None,
            numa_node: None,
            island: None,
            total_bytes,
            used_bytes: Some(0),
            reserved_bytes: 0,
            unified: false,
            keeps_memory: false,
            limits: LimitsBackend::None,
            taints: vec![],
            processes: Some(vec![]),
        }
    }

    /// With these on it, and nothing else taken.
    pub fn with(self, processes: Vec<DeviceProcess>) -> Self {
        let used_bytes = Some(processes.iter().filter_map(|process| process.used_bytes).sum());
        Self { used_bytes, processes: Some(processes), ..self }
    }
}

/// All devices at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// When it was measured, in milliseconds since the machine was started.
    pub taken_boot_ms: u64,
    /// The devices, by id.
    pub devices: Vec<Device>,
    /// What is free of the machine's own memory, in bytes; none: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_ram_bytes: Option<u64>,
    /// Where from: `nvml 580.65`, `amdgpu`, `gpus.toml`.
    pub sources: Vec<String>,
    /// What could not be asked, and why.
    pub problems: Vec<String>,
}
