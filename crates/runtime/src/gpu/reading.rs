//! What the process that asks NVIDIA's driver says to the daemon: one JSON line an answer.
//!
//! Owns these words only. Nothing here is judged yet; see `nvidia`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One line to the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its number, which the answer has.
    pub id: u64,
    /// What is to be set; none: everything is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What the processes of a cgroup may have of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The full UUID of the device.
    pub uuid: String,
    /// The cgroup's folder.
    pub cgroup: PathBuf,
    /// Beyond this it is the first to lose memory, in bytes; 0: nothing is its own.
    pub soft: u64,
    /// It gets no more, in bytes.
    pub hard: u64,
}

/// One line from the process. The first has the number 0 and tells how the opening went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The number of the question.
    pub id: u64,
    /// The answer.
    pub said: Said,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// The driver is open and can be asked.
    Opened,
    /// What was to be set is set.
    Set,
    /// There is no library to ask it through.
    NoLibrary(String),
    /// It refuses.
    Refused(Fault),
    /// What was asked for.
    Reading(Box<Reading>),
    /// Nobody asked for a while: it ends, and a question that is on its way is for the next process.
    Closed,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What that means for us.
    pub class: FaultClass,
    /// In the library's words.
    pub text: String,
}

/// What a failed call means for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultClass {
    /// The device has fallen off the bus.
    Lost,
    /// The device needs a reset first.
    ResetRequired,
    /// The device, or this library, does not know that question.
    NotSupported,
    /// We may not ask.
    NoPermission,
    /// Anything else, which may be otherwise the next time.
    Other,
}

/// Everything that the driver said at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// The driver's version.
    pub driver: String,
    /// The library is the tests' stand-in.
    pub is_stand_in: bool,
    /// The library knows limits for cgroups (R615).
    pub has_limits: bool,
    /// The devices that answered, whole ones.
    pub cards: Vec<Card>,
    /// Those that did not, by index.
    pub silent: Vec<(u32, Fault)>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its place in the driver's list.
    pub index: u32,
    /// What is true of it and of each of its parts.
    pub body: Body,
    /// Its PCI address, as the driver writes it.
    pub pci: Option<String>,
    /// It is cut up (MIG), into `parts`.
    pub is_cut: bool,
    /// Its parts.
    pub parts: Vec<Body>,
    /// It is a memory node of the machine itself.
    pub own_node: Option<u32>,
    /// The driver's advice: 0 is none.
    pub recovery: Option<u32>,
    /// The last grave error since the driver was opened.
    pub xid: Option<u64>,
    /// The PCI addresses that its NVLinks lead to.
    pub peers: Vec<String>,
}

/// What is true of devices and of parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The full UUID.
    pub uuid: String,
    /// What it is sold as.
    pub name: String,
    /// How full it is.
    pub memory: Result<Memory, Fault>,
    /// Who has memory on it.
    pub compute: Result<Vec<Listed>, Fault>,
    /// The same for those that draw.
    pub graphics: Result<Vec<Listed>, Fault>,
    /// The same for clients of MPS.
    pub mps: Result<Vec<Listed>, Fault>,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All.
    pub total: u64,
    /// What can be had.
    pub free: u64,
    /// What the driver keeps.
    pub reserved: u64,
}

/// A process in one of the driver's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which, as the driver counts.
    pub pid: u32,
    /// What it has; none: not available.
    pub used: Option<u64>,
}
