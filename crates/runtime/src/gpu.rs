//! What GPUs there are, how full they are and by whom: measured here, judged elsewhere.
//!
//! Owns the looking: NVIDIA's driver through a process that can be killed, AMD's and Intel's through the
//! kernel's files, simulated ones through `gpus.toml`. It refuses to know leases, and to decide when to look.
//!
//! ```text
//! refresh ─┬─ asker ── pipe ── `wharf gpu-probe` ── NVML    may hang: killed by pidfd, replaced
//!          ├─ drm, fdinfo, kfd, dmem ── /sys, /proc         may hang: left alone, and told
//!          └─ simulated ── gpus.toml and what programs wrote
//!                       └─> whose (pid: unit and run, container, user, parents) ─> Inventory
//! ```
//!
//! A device that could not be measured in a look is not in that look's inventory, and `problems` says why: whoever
//! keeps the last one knows how old it is. A machine without any source is never looked at twice.

mod asker;
mod dmem;
mod drm;
mod fdinfo;
mod ground;
mod kfd;
mod nvidia;
mod nvml;
mod part;
mod reading;
mod serve;
mod simulated;
mod whose;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use wharf_model::{Device, DeviceId, Inventory, Vendor, VramCap, VramLimit};

pub use asker::Program;
pub use ground::{Ground, Pids};
pub use serve::serve;
pub use simulated::Held;
pub use whose::Runs;

use asker::{Asked, Asker};
use part::Part;

use crate::Layout;

/// Names NVIDIA's library where it is not among the usual places.
pub const LIBRARY: &str = "WHARF_NVML_LIB";
/// Names the file with the simulated devices where it is not in its usual place.
pub const SIMULATED: &str = "WHARF_GPUS";
/// Tells a program that plays an engine where to write what it has; see [`Eye::simulated_folder`].
pub const SIMULATED_FOLDER: &str = "WHARF_SIMULATED_FOLDER";

/// How long the process that asks NVIDIA's driver stays without a question, in milliseconds; for tests.
pub const IDLE_MS: &str = "WHARF_GPU_PROBE_IDLE_MS";

/// A library that is not there is looked for again after this long.
const NO_LIBRARY: Duration = Duration::from_secs(60);

/// Looks at the devices of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Eye {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ground: Ground,
    looking: Mutex<Looking>,
    last: watch::Sender<Arc<Inventory>>,
}

/// What is remembered between two looks.
#[derive(Debug)]
struct Looking {
    asker: Asker,
    no_library: Option<(Instant, String)>,
    /// NVIDIA's devices as they were last seen, by index.
    before: BTreeMap<u32, Device>,
    /// The last grave error of each, by UUID: the process that was told of it need not be the one that lives.
    xids: BTreeMap<String, u64>,
    /// A look at the kernel's files that has not come back.
    files: Option<JoinHandle<Part>>,
    began: Option<Instant>,
}

impl Eye {
    /// Nothing is looked at, and no process started, before the first [`Eye::refresh`].
    pub fn new(ground: Ground) -> Self {
        let mut program = ground.program.clone();
        program.env.extend(ground.nvml.iter().map(|path| (LIBRARY.into(), path.into())));
        let asker = Asker::new(program);
        let (before, xids) = (BTreeMap::new(), BTreeMap::new());
        let looking = Looking { asker, no_library: None, before, xids, files: None, began: None };
        let last = watch::Sender::new(Arc::default());
        Self { inner: Arc::new(Inner { ground, looking: Mutex::new(looking), last }) }
    }

    /// The last look; at first an empty one of the machine's start. Never waits.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.inner.last.borrow().clone()
    }

    /// How old that is, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        now_boot_ms().saturating_sub(self.inventory().taken_boot_ms)
    }

    /// Is told when a look finds something else than the one before; not when only time has passed.
    pub fn changes(&self) -> watch::Receiver<Arc<Inventory>> {
        self.inner.last.subscribe()
    }

    /// Whether there is anything to look at, by the existence of some files. Where there is nothing, nobody need
    /// call [`Eye::refresh`] but for a person who asks.
    pub fn has_sources(&self) -> bool {
        self.inner.ground.has_nvidia() || self.inner.ground.simulated.exists() || drm::is_there(&self.inner.ground.root)
    }

    /// Looks now. Comes back within about the deadline of a driver call, whatever the driver does. Callers at the
    /// same time share one look.
    pub async fn refresh(&self) -> Arc<Inventory> {
        let (inner, asked) = (self.inner.clone(), Instant::now());
        // A task of its own: a question must not be left half asked when the caller's future is dropped.
        let look = tokio::spawn(async move { inner.look(asked).await });
        look.await.unwrap_or_else(|_| self.inventory())
    }

    /// Forgets that a library was not there, so that the next look searches for it.
    pub async fn reconsider(&self) {
        self.inner.looking.lock().await.no_library = None;
    }

    /// Has NVIDIA's driver keep the processes of a cgroup to a cap. It waits for a look that goes on.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn limit(&self, cap: &VramCap, cgroup: &Path) -> Result<(), String> {
        let (soft, hard) = match cap.how {
            VramLimit::None => return Ok(()),
            VramLimit::Soft => (cap.bytes, wharf_sys::nvml::NO_LIMIT),
            VramLimit::Hard => (0, cap.bytes),
        };
        let limit = reading::Limit { uuid: cap.device.to_string(), cgroup: cgroup.to_owned(), soft, hard };
        let inner = self.inner.clone();
        // A task of its own: a question must not be left half asked when the caller's future is dropped.
        let set = tokio::spawn(async move { inner.looking.lock().await.asker.limit(limit).await });
        set.await.unwrap_or_else(|e| Err(e.to_string()))
    }

    /// The pid of the process that asks NVIDIA's driver, while there is one.
    pub async fn asker_pid(&self) -> Option<u32> {
        self.inner.looking.lock().await.asker.pid()
    }

    /// Where programs that play an engine on a simulated device write what they have.
    pub fn simulated_folder(&self) -> PathBuf {
        self.inner.ground.simulated_folder()
    }
}

/// What a holder of these devices is told besides their names: where one that plays an engine writes what it has.
pub fn simulated_environment(layout: &Layout, devices: &[(Vendor, DeviceId)]) -> Option<(String, String)> {
    let is_played = devices.iter().any(|(vendor, _)| *vendor == Vendor::Simulated);
    let folder = is_played.then(|| Ground::of_machine(layout, "").simulated_folder());
    folder.map(|folder| (SIMULATED_FOLDER.to_owned(), folder.to_string_lossy().into_owned()))
}

impl Inner {
    async fn look(&self, asked: Instant) -> Arc<Inventory> {
        let mut looking = self.looking.lock().await;
        // Somebody's look began after we asked: it is as good as ours.
        if looking.began.is_some_and(|began| began >= asked) {
            return self.last.borrow().clone();
        }
        looking.began = Some(Instant::now());
        let taken_boot_ms = now_boot_ms();
        let parts = [self.nvidia(&mut looking).await, self.files(&mut looking).await, self.simulated().await];
        let free_ram_bytes = Some(ground::machine_memory(&self.ground.root).1).filter(|bytes| *bytes > 0);
        let mut inventory = Inventory { taken_boot_ms, free_ram_bytes, ..Inventory::default() };
        for part in parts {
            inventory.devices.extend(part.devices);
            inventory.sources.extend(part.sources);
            inventory.problems.extend(part.problems);
        }
        inventory.devices.sort_by(|a, b| a.id.cmp(&b.id));
        let inventory = Arc::new(inventory);
        self.last.send_if_modified(|last| {
            let same = last.devices == inventory.devices
                && last.sources == inventory.sources
                && last.problems == inventory.problems;
            *last = inventory.clone();
            !same
        });
        inventory
    }

    async fn nvidia(&self, looking: &mut Looking) -> Part {
        if !self.ground.has_nvidia() {
            looking.before.clear();
            return Part::default();
        }
        let known = looking.no_library.clone().filter(|(at, _)| at.elapsed() < NO_LIBRARY);
        let is_known = known.is_some();
        let asked = match known {
            Some((_, why)) => Asked::NoLibrary(why),
            None => looking.asker.ask().await,
        };
        match asked {
            Asked::Reading(mut reading) => {
                for card in &mut reading.cards {
                    looking.xids.extend(card.xid.map(|xid| (card.body.uuid.clone(), xid)));
                    card.xid = looking.xids.get(&card.body.uuid).copied();
                }
                let (ground, before) = (self.ground.clone(), looking.before.clone());
                let part = tokio::task::spawn_blocking(move || part::understood(&reading, &ground, &before)).await;
                let part = part.unwrap_or_default();
                for device in part.devices.iter().filter(|device| device.parent.is_none()) {
                    // As it was while it answered: the taints of a lost one are not its memory.
                    if device.used_bytes.is_some() {
                        looking.before.insert(device.index, device.clone());
                    }
                }
                part
            }
            Asked::NoLibrary(why) => {
                if !is_known {
                    looking.no_library = Some((Instant::now(), why.clone()));
                }
                Part {
                    problems: vec![format!("NVIDIA's driver is there, and its library is not: {why}")],
                    ..Part::default()
                }
            }
            Asked::Failed(why) => Part { problems: vec![format!("NVIDIA's driver: {why}")], ..Part::default() },
        }
    }

    /// AMD and Intel. A read that hangs is waited for once, then left alone; no second one is begun beside it.
    async fn files(&self, looking: &mut Looking) -> Part {
        let ground = self.ground.clone();
        let begin = || tokio::task::spawn_blocking(move || part::files(&ground));
        let mut reading = looking.files.take().unwrap_or_else(begin);
        match timeout(self.ground.program.deadline, &mut reading).await {
            Ok(part) => part.unwrap_or_default(),
            Err(_) => {
                looking.files = Some(reading);
                let late = self.ground.program.deadline.as_millis();
                let why = format!("the kernel's files of AMD's and Intel's devices were not read within {late} ms");
                Part { problems: vec![why], ..Part::default() }
            }
        }
    }

    async fn simulated(&self) -> Part {
        let ground = self.ground.clone();
        tokio::task::spawn_blocking(move || part::declared(&ground)).await.unwrap_or_default()
    }
}

/// Milliseconds since the machine was started, sleep included.
fn now_boot_ms() -> u64 {
    u64::try_from(wharf_sys::clock::boottime_ms()).unwrap_or(0)
}
