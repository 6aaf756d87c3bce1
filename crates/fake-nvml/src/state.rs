//! What the file says: devices, who holds memory on them, and which faults the driver has.
//!
//! Pure: owns the arithmetic of memory that comes back late, or never.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The whole file. Times are milliseconds since the machine was started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The driver's version; none: 999.0.
    pub driver: Option<String>,
    /// Return codes by function: `{"nvmlDeviceGetMemoryInfo_v2": 4}`.
    pub errors: BTreeMap<String, u32>,
    /// Functions that never return.
    pub hang: BTreeSet<String>,
    /// Functions in which the process that asks is ended by SIGSEGV.
    pub crash: BTreeSet<String>,
    /// So many fetches of lists find that their list has grown since it was counted.
    pub growing_lists: u32,
    /// Memory comes back this long after its process was seen dead.
    pub release_lag_ms: u64,
    /// A dead process is listed this long.
    pub listed_lag_ms: u64,
    /// Memory never comes back (a device that is a memory node).
    pub keeps_memory: bool,
    /// The limits of memory that were set for cgroups, as drivers from R615 know them.
    pub limits: Vec<Limit>,
    /// The devices.
    pub devices: Vec<Device>,
    /// Who holds memory.
    pub processes: Vec<Process>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its UUID.
    pub uuid: String,
    /// All its memory, in bytes.
    pub total: u64,
    /// What the driver keeps, in bytes: neither free nor anybody's.
    #[serde(default)]
    pub reserved: u64,
    /// Used by nobody who is listed, in bytes.
    #[serde(default)]
    pub unattributed: u64,
    /// It has fallen off the bus.
    #[serde(default)]
    pub lost: bool,
    /// The driver's advice.
    #[serde(default)]
    pub recovery: u32,
    /// An error that was just told, once.
    #[serde(default)]
    pub xid: Option<u64>,
    /// It is this memory node.
    #[serde(default)]
    pub node: Option<u32>,
    /// Its memory is the machine's: it tells none.
    #[serde(default)]
    pub unified: bool,
    /// The indices of devices that its links lead to.
    #[serde(default)]
    pub links: Vec<u32>,
    /// Its instances; any: it is cut up.
    #[serde(default)]
    pub parts: Vec<Part>,
}

impl Device {
    /// A device with nothing special.
    pub fn new(uuid: &str, total: u64) -> Self {
        Self {
            uuid: uuid.to_owned(),
            total,
            reserved: 0,
            unattributed: 0,
            lost: false,
            recovery: 0,
            xid: None,
            node: None,
            unified: false,
            links: vec![],
            parts: vec![],
        }
    }
}

/// An instance of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its UUID.
    pub uuid: String,
    /// All its memory, in bytes.
    pub total: u64,
}

/// What the processes of a cgroup may have of a device. It is kept, and nobody is kept to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The UUID of the device.
    pub device: String,
    /// The cgroup's path.
    pub cgroup: String,
    /// In bytes; 0: none.
    pub soft: u64,
    /// In bytes; all ones: none.
    pub hard: u64,
}

/// In which of the driver's lists a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Of those that compute.
    #[default]
    Compute,
    /// Of those that draw.
    Graphics,
    /// Of both.
    Both,
    /// Of the clients of MPS.
    Mps,
}

/// Somebody who holds memory on one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since boot. 0: nobody of this machine, who lives for ever.
    pub start_ticks: u64,
    /// The UUID of the device or of the part.
    pub device: String,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// The driver does not tell what it holds.
    pub not_available: bool,
    /// In which list.
    pub kind: Kind,
    /// Its memory does not come back with its death.
    pub leaks: bool,
    /// When it was seen dead.
    pub gone_ms: Option<u64>,
}

impl State {
    /// Notes who died. True: something changed.
    pub fn bury(&mut self, now_ms: u64, lives: impl Fn(i32, u64) -> bool) -> bool {
        let mut changed = false;
        for process in self.processes.iter_mut().filter(|p| p.start_ticks != 0 && p.gone_ms.is_none()) {
            if !lives(process.pid, process.start_ticks) {
                process.gone_ms = Some(now_ms);
                changed = true;
            }
        }
        changed
    }

    /// What is taken of this device or part, in bytes.
    pub fn taken(&self, uuid: &str, now_ms: u64) -> u64 {
        let holds = |process: &&Process| match process.gone_ms {
            None => true,
            Some(_) if self.keeps_memory || process.leaks => true,
            Some(gone) => now_ms < gone.saturating_add(self.release_lag_ms),
        };
        let of_device = self.processes.iter().filter(|process| process.device == uuid);
        of_device.filter(holds).fold(0, |sum, process| sum.saturating_add(process.bytes))
    }

    /// Those that a list of this device or part has.
    pub fn listed(&self, uuid: &str, list: Kind, now_ms: u64) -> Vec<&Process> {
        let is_listed = |process: &&Process| match process.gone_ms {
            None => true,
            Some(gone) => now_ms < gone.saturating_add(self.listed_lag_ms),
        };
        let is_in = |process: &&Process| {
            process.kind == list || (process.kind == Kind::Both && matches!(list, Kind::Compute | Kind::Graphics))
        };
        self.processes.iter().filter(|process| process.device == uuid).filter(is_listed).filter(is_in).collect()
    }
}
