//! The arbiter's eyes and hands: devices are measured, holders are watched, and asked to leave.
//!
//! ```text
//!   published arbiter ──> how often to measure ──> the eye (runtime) ──> Measured ──> the loop
//!                    └──> whom to watch ──> pidfds ──> HolderGone ──> the loop
//!   acts of the arbiter: Measure | Leave (SIGTERM) | Kill (SIGKILL), each to exactly the process that was meant
//! ```
//!
//! It is read off what was published, so a new daemon has nothing to restore. Nothing is measured while nobody has or
//! waits for a device. It refuses to know who may have what.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{io::Interest, task::JoinHandle, time::Instant};
use wharf_core::{
    GpuFact, Unit,
    arbiter::{Arbiter, GpuAct},
};
use wharf_model::{DeviceId, Enforced, Holder, Inventory, LeaseId, UnitName, Vendor, VramCap};
use wharf_runtime::launch::{LiveRun, async_fd, vram};
use wharf_sys::pidfd;

use crate::{engine::Shared, turn::Mail};

/// The shortest time between two measurements.
const GAP: Duration = Duration::from_millis(20);
/// After a measurement that failed.
const GAP_AFTER_TROUBLE: Duration = Duration::from_millis(500);

/// The devices that a unit was granted; none where this machine has none to hand out.
pub fn of(arbiter: &Arbiter, unit: &Unit) -> Option<Vec<(Vendor, DeviceId)>> {
    arbiter.slots().next()?;
    let lease = arbiter.of_unit(&unit.name).filter(|lease| lease.state.is_charged());
    Some(lease.map(|lease| devices(arbiter, lease.id)).unwrap_or_default())
}

/// What a unit's run may have of its devices' memory, where that is to be enforced.
pub fn caps(arbiter: &Arbiter, unit: &Unit) -> Vec<VramCap> {
    arbiter.of_unit(&unit.name).map(|lease| arbiter.caps(lease.id)).unwrap_or_default()
}

/// Tells by what a run that has just begun is kept to its caps. The kernel does that since before its first instruction;
/// NVIDIA's driver has to be asked, which takes less than a program needs to open it.
pub fn limit(shared: &Arc<Shared>, unit: &UnitName, caps: Vec<VramCap>, live: &LiveRun) {
    if caps.is_empty() {
        return;
    }
    let (shared, unit, cgroup) = (shared.clone(), unit.clone(), live.cgroup().map(Path::to_owned));
    shared.tasks.clone().spawn(async move {
        let by_driver: Vec<&VramCap> = caps.iter().filter(|cap| cap.keeper() == Enforced::Nvml).collect();
        let by = match &cgroup {
            Some(cgroup) if !by_driver.is_empty() => limited_by_driver(&shared, &unit, &by_driver, cgroup).await,
            cgroup if vram::holds(&caps, cgroup.as_deref()) => Enforced::Dmem,
            _ => Enforced::None,
        };
        if by == Enforced::None {
            tracing::warn!("{unit}: nothing here keeps it to the memory of a GPU that it declared: it is watched");
        }
        let _ = shared.mail.send(Mail::Gpu(GpuFact::Limited(unit, by)));
    });
}

/// On all of its devices, or it is not kept to anything that could be relied on.
async fn limited_by_driver(shared: &Shared, unit: &UnitName, caps: &[&VramCap], cgroup: &Path) -> Enforced {
    for cap in caps {
        if let Err(why) = shared.eye.limit(cap, cgroup).await {
            tracing::warn!("{unit}: its memory of {} could not be limited: {why}", cap.device);
            return Enforced::None;
        }
    }
    Enforced::Nvml
}

/// The devices of a lease, and who made them.
pub fn devices(arbiter: &Arbiter, lease: LeaseId) -> Vec<(Vendor, DeviceId)> {
    let shares = arbiter.lease(lease).map(|lease| lease.shares.as_slice()).unwrap_or_default();
    let vendor = |id: &DeviceId| arbiter.slots().find(|slot| slot.device.id == *id).map(|slot| slot.device.vendor);
    shares.iter().filter_map(|share| Some((vendor(&share.device)?, share.device.clone()))).collect()
}

/// Measures and watches for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) {
    // Once at the start, so that whoever looks sees what there is.
    shared.measure.notify_one();
    shared.tasks.spawn(measure(shared.clone()));
    shared.tasks.spawn(watch_holders(shared.clone()));
}

async fn measure(shared: Arc<Shared>) {
    let mut moved = shared.gpus_moved.subscribe();
    let mut last = Instant::now();
    let mut gap = GAP;
    loop {
        let pace = shared.gpus.load().pace_ms().map(Duration::from_millis);
        let due = async {
            match pace {
                Some(pace) => tokio::time::sleep_until(last + pace.max(gap)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.measure.notified() => tokio::time::sleep_until(last + gap).await,
            () = due => {}
            still = moved.changed() => match still {
                // Who waits now may want it sooner.
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let inventory = Inventory::clone(&*shared.eye.refresh().await);
        last = Instant::now();
        gap = if inventory.problems.is_empty() { GAP } else { GAP_AFTER_TROUBLE };
        let (sources, problems) = (inventory.sources.clone(), inventory.problems.clone());
        shared.gpu_sight.store(Arc::new(crate::gpu::Sight { sources, problems }));
        if shared.mail.send(Mail::Gpu(GpuFact::Measured(Box::new(inventory)))).is_err() {
            return;
        }
    }
}

async fn watch_holders(shared: Arc<Shared>) {
    let mut moved = shared.gpus_moved.subscribe();
    let mut watches: BTreeMap<Watched, JoinHandle<()>> = BTreeMap::new();
    loop {
        let arbiter = shared.gpus.load_full();
        watches.retain(|watched, watch| {
            let wanted = match watched {
                Watched::Holder(id) => arbiter.lease(*id).is_some_and(|lease| !lease.is_reclaimed()),
                Watched::Ignored(process) => arbiter.book().ignored.contains(process),
            };
            if !wanted {
                watch.abort();
            }
            wanted
        });
        for lease in arbiter.leases().filter(|lease| !lease.is_reclaimed() && !lease.main_gone) {
            if let Holder::Process { pid, identity, .. } = lease.holder {
                let watched = Watched::Holder(lease.id);
                watches.entry(watched).or_insert_with(|| watch(&shared, watched, pid, identity));
            }
        }
        for (pid, identity) in arbiter.book().ignored.iter().copied() {
            let watched = Watched::Ignored((pid, identity));
            watches.entry(watched).or_insert_with(|| watch(&shared, watched, pid, identity));
        }
        if moved.changed().await.is_err() {
            return;
        }
    }
}

/// For what a process is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Holder(LeaseId),
    Ignored((i32, u64)),
}

fn watch(shared: &Arc<Shared>, watched: Watched, pid: i32, identity: u64) -> JoinHandle<()> {
    let shared = shared.clone();
    let process = pidfd::open_exact(pid, identity);
    shared.tasks.clone().spawn(async move {
        if let Err(e) = ended(process).await {
            tracing::debug!("{watched:?}: process {pid} cannot be watched: {e}");
        }
        let fact = match watched {
            Watched::Holder(id) => GpuFact::HolderGone(id),
            Watched::Ignored((pid, identity)) => GpuFact::IgnoredGone(pid, identity),
        };
        let _ = shared.mail.send(Mail::Gpu(fact));
    })
}

/// Until the process has ended; at once where there is none.
async fn ended(process: io::Result<OwnedFd>) -> io::Result<()> {
    let process = async_fd(process?, Interest::READABLE)?;
    process.readable().await.map(drop)
}

/// Begins what the arbiter wants done. It never waits here.
pub fn begin(shared: &Arc<Shared>, act: GpuAct) {
    match act {
        GpuAct::Measure => shared.measure.notify_one(),
        GpuAct::Leave { lease, holder } => signal(lease, &holder, &BTreeSet::new(), rustix::process::Signal::TERM),
        GpuAct::Kill { lease, holder, members } => {
            signal(lease, &holder, &members, rustix::process::Signal::KILL);
            shared.measure.notify_one();
        }
    }
}

fn signal(lease: LeaseId, holder: &Holder, members: &BTreeSet<(i32, u64)>, signal: rustix::process::Signal) {
    let Holder::Process { pid, identity, .. } = holder else { return };
    for (pid, identity) in members.iter().copied().chain([(*pid, *identity)]) {
        let sent = pidfd::open_exact(pid, identity).and_then(|process| pidfd::signal(process, signal.as_raw()));
        match sent {
            Ok(()) => tracing::info!("{lease}: signal {} to process {pid}", signal.as_raw()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("{lease}: process {pid} cannot be asked to leave: {e}"),
        }
    }
}
