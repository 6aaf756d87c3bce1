//! The arbiter alone, on a machine whose memory is really counted: millions of requests, holders that die, linger,
//! grow and hang, a driver that gives memory back late, strangers, and daemons that end at any record.
//!
//! ```text
//!   seed ─> deed ─> Arbiter ─> Outcome ─> records (what the next daemon has), processes (who takes memory)
//!                                 └────> judged: what is promised, what is really taken, who waits too long
//! ```
//!
//! It refuses to know how the arbiter decides.

mod deeds;
mod ease;
mod judge;
mod seen;
pub mod small;

use std::collections::BTreeMap;

use wharf_core::{
    Now,
    arbiter::{Arbiter, Book, GpuAct, GpuNotice, Lease, Outcome},
};
use wharf_model::{Device, DeviceId, DeviceProcess, Holder, Inventory, LeaseId, LeaseState, ProcessKind, Vendor};

pub use seen::Seen;

use crate::chance::Chance;

const GIB: u64 = 1 << 30;
/// No request waits longer than this for its turn, by its own word.
const WAIT_MS: u64 = 120_000;

/// A process with memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    /// By device: what it has, and what it will have when it has loaded.
    on: Vec<(usize, u64, u64)>,
    lives: bool,
    /// When the driver gives its memory back, once it is dead.
    back_ms: u64,
    /// It does not end when it is asked to.
    deaf: bool,
    /// The lease that it was started with; none: a stranger.
    lease: Option<LeaseId>,
    /// The process that started it.
    parent: Option<i32>,
}

struct World {
    chance: Chance,
    arbiter: Arbiter,
    now_ms: u64,
    totals: Vec<u64>,
    processes: BTreeMap<i32, Process>,
    next_pid: i32,
    next_ticket: u64,
    /// What is durable.
    leases: BTreeMap<LeaseId, Lease>,
    book: Book,
    /// Asked, and neither granted nor refused: since when.
    waiting: BTreeMap<LeaseId, u64>,
    /// A measurement was asked for.
    measure: bool,
    /// Strangers come and go in this world: then what was promised may really be missing.
    strangers: bool,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let devices = 1 + chance.below(4) as usize;
        let totals = (0..devices).map(|_| (8 + chance.below(4) * 8) * GIB).collect();
        let strangers = chance.percent(30);
        let mut world = Self {
            chance,
            arbiter: Arbiter::default(),
            now_ms: 1_000,
            totals,
            processes: BTreeMap::new(),
            next_pid: 10,
            next_ticket: 0,
            leases: BTreeMap::new(),
            book: Book::default(),
            waiting: BTreeMap::new(),
            measure: false,
            strangers,
            seen: Seen::default(),
        };
        world.look();
        world
    }

    fn now(&self) -> Now {
        Now { boot_ms: self.now_ms, wall_ms: 0 }
    }

    fn taken(&self, device: usize) -> u64 {
        self.processes.values().flat_map(|p| &p.on).filter(|(on, ..)| *on == device).map(|(_, has, _)| has).sum()
    }

    fn inventory(&self) -> Inventory {
        let device = |at: usize| Device {
            index: at as u32,
            used_bytes: Some(self.taken(at)),
            processes: Some(
                self.processes
                    .iter()
                    .filter(|(_, p)| p.lives)
                    .filter_map(|(pid, p)| {
                        let (_, has, _) = p.on.iter().find(|(on, has, _)| *on == at && *has > 0)?;
                        Some(DeviceProcess {
                            identity: Some(*pid as u64),
                            parents: p.parent.map(|parent| (parent, parent as u64)).into_iter().collect(),
                            ..DeviceProcess::new(*pid, Some(*has), ProcessKind::Compute)
                        })
                    })
                    .collect(),
            ),
            ..Device::new(id_of(at), Vendor::Simulated, self.totals[at])
        };
        Inventory {
            taken_boot_ms: self.now_ms,
            devices: (0..self.totals.len()).map(device).collect(),
            ..Inventory::default()
        }
    }

    fn look(&mut self) {
        self.measure = false;
        let inventory = self.inventory();
        let fx = self.arbiter.measured(self.now(), &inventory);
        self.take(fx);
    }

    /// What follows is durable, then done.
    fn take(&mut self, fx: Outcome) {
        for id in &fx.leases {
            match self.arbiter.lease(*id) {
                Some(lease) => self.leases.insert(*id, lease.clone()),
                None => self.leases.remove(id),
            };
        }
        if fx.book {
            self.book = self.arbiter.book().clone();
        }
        let mut asked = vec![];
        for notice in &fx.notices {
            match notice {
                GpuNotice::Lease { state: LeaseState::Quarantined, .. } => self.seen.quarantined += 1,
                GpuNotice::Asked { lease, change, .. } => asked.push((*lease, *change)),
                _ => {}
            }
        }
        for (_, result) in fx.answers {
            if let Ok(id) = result {
                self.start(id);
            } else {
                self.seen.refused += 1;
            }
        }
        for (id, change) in asked {
            self.asked(id, change);
        }
        self.waiting.retain(|id, _| self.arbiter.lease(*id).is_some_and(Lease::waits));
        for act in fx.acts {
            match act {
                GpuAct::Measure => self.measure = true,
                GpuAct::Leave { lease, holder } => {
                    self.seen.evicted += 1;
                    if let Holder::Process { pid, .. } = holder
                        && self.processes.get(&pid).is_some_and(|p| !p.deaf)
                    {
                        self.dies(pid, Some(lease));
                    }
                }
                GpuAct::Kill { lease, holder, members } => {
                    self.seen.killed += 1;
                    let Holder::Process { pid, .. } = holder else { continue };
                    for (member, _) in members {
                        self.dies(member, None);
                    }
                    self.dies(pid, Some(lease));
                }
            }
        }
    }

    /// A granted holder begins to load.
    fn start(&mut self, id: LeaseId) {
        self.seen.granted += 1;
        let since = self.waiting.remove(&id).unwrap_or(self.now_ms);
        self.seen.longest_ms = self.seen.longest_ms.max(self.now_ms.saturating_sub(since));
        let Some(lease) = self.arbiter.lease(id).cloned() else { return };
        let Holder::Process { pid, .. } = lease.holder else { return };
        if self.processes.get(&pid).is_some_and(|process| process.lease == Some(id)) {
            self.woken(pid, &lease);
            return;
        }
        let on: Vec<(usize, u64, u64)> =
            lease.shares.iter().map(|share| (at_of(&share.device), 0, share.declared_bytes)).collect();
        if let Some(process) = self.processes.get_mut(&pid).filter(|p| p.lives && p.lease.is_none()) {
            process.on = on;
            process.lease = Some(id);
        }
    }

    fn dies(&mut self, pid: i32, lease: Option<LeaseId>) {
        let late = self.chance.below(3_000) + if self.chance.percent(1) { 60_000 } else { 0 };
        let Some(process) = self.processes.get_mut(&pid).filter(|p| p.lives) else { return };
        process.lives = false;
        process.back_ms = self.now_ms + late;
        if let Some(lease) = lease.or(process.lease) {
            let fx = self.arbiter.holder_gone(self.now(), lease);
            self.take(fx);
        }
    }
}

fn id_of(at: usize) -> DeviceId {
    DeviceId::from(format!("SIM-{at}").as_str())
}

fn at_of(id: &DeviceId) -> usize {
    id.0.trim_start_matches("SIM-").parse().unwrap_or(0)
}

/// Plays one seed for so many deeds, and to rest. An error names the rule that was broken, and when.
pub fn play(seed: u64, deeds: u64) -> Result<Seen, String> {
    let mut world = World::new(seed);
    for at in 0..deeds {
        world.deed();
        if world.measure && world.chance.percent(80) {
            world.look();
        }
        world.judge().map_err(|why| format!("seed {seed}, deed {at}: {why}"))?;
        if world.now_ms > 40_000_000 || world.processes.len() > 3_000 {
            break;
        }
    }
    world.come_to_rest().map_err(|why| format!("seed {seed}, coming to rest: {why}"))?;
    Ok(world.seen)
}
