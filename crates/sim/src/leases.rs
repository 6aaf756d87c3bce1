//! The arbiter alone, on a machine whose memory is really counted: millions of requests, holders that die, linger,
//! grow and hang, a driver that gives memory back late, strangers, and daemons that end at any record.
//!
//! ```text
//!   seed ─> deed ─> Arbiter ─> Outcome ─> records (what the next daemon has), processes (who takes memory)
//!                                 └────> judged: what is promised, what is really taken, who waits too long
//! ```
//!
//! It refuses to know how the arbiter decides.

pub mod small;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use wharf_core::{
    Now, Ticket,
    arbiter::{Arbiter, Book, GpuAct, GpuNotice, Lease, Outcome, Terms},
};
use wharf_model::{
    Device, DeviceId, DeviceKind, DeviceProcess, GpuNeed, GpuRequest, Holder, Inventory, LeaseId, LeaseState,
    LimitsBackend, Preempt, Priority, ProcessKind, Vendor,
};

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

/// What was seen of it all.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Deeds.
    pub deeds: u64,
    /// Requests.
    pub asked: u64,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused, or whose time was over.
    pub refused: u64,
    /// Holders that were asked to leave.
    pub evicted: u64,
    /// Holders that had to be killed.
    pub killed: u64,
    /// Daemons that ended.
    pub crashes: u64,
    /// Leases whose memory did not come back in time.
    pub quarantined: u64,
    /// The longest wait of a granted request, in milliseconds.
    pub longest_ms: u64,
}

impl Seen {
    /// Another world's beside it.
    pub fn add(&mut self, other: &Self) {
        self.deeds += other.deeds;
        self.asked += other.asked;
        self.granted += other.granted;
        self.refused += other.refused;
        self.evicted += other.evicted;
        self.killed += other.killed;
        self.crashes += other.crashes;
        self.quarantined += other.quarantined;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} deeds: {} requests, {} granted (longest wait {} s), {} refused or out of time, {} holders asked to leave, \
             {} killed, {} quarantined, {} daemons ended; no rule broken",
            self.deeds,
            self.asked,
            self.granted,
            self.longest_ms / 1000,
            self.refused,
            self.evicted,
            self.killed,
            self.quarantined,
            self.crashes
        )
    }
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
            id: id_of(at),
            vendor: Vendor::Simulated,
            name: format!("Card {at}"),
            kind: DeviceKind::Gpu,
            parent: None,
            index: at as u32,
            pci: None,
            numa_node: None,
            island: None,
            total_bytes: self.totals[at],
            used_bytes: Some(self.taken(at)),
            reserved_bytes: 0,
            unified: false,
            keeps_memory: false,
            limits: LimitsBackend::None,
            taints: vec![],
            processes: Some(
                self.processes
                    .iter()
                    .filter(|(_, p)| p.lives)
                    .filter_map(|(pid, p)| {
                        let (_, has, _) = p.on.iter().find(|(on, has, _)| *on == at && *has > 0)?;
                        Some(DeviceProcess {
                            pid: *pid,
                            identity: Some(*pid as u64),
                            used_bytes: Some(*has),
                            kind: ProcessKind::Compute,
                            unit: None,
                            program: None,
                            uid: None,
                            belongs_to: None,
                            parents: p.parent.map(|parent| (parent, parent as u64)).into_iter().collect(),
                        })
                    })
                    .collect(),
            ),
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
        for notice in &fx.notices {
            if let GpuNotice::Lease { state: LeaseState::Quarantined, .. } = notice {
                self.seen.quarantined += 1;
            }
        }
        for (_, result) in fx.answers {
            if let Ok(id) = result {
                self.start(id);
            } else {
                self.seen.refused += 1;
            }
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

    fn ask(&mut self) {
        self.next_pid += 1;
        let pid = self.next_pid;
        let deaf = self.chance.percent(20);
        let process = Process { on: vec![], lives: true, back_ms: 0, deaf, lease: None, parent: None };
        self.processes.insert(pid, process);
        let need = self.need();
        let mut alternatives = vec![];
        if self.chance.percent(20) {
            alternatives.push(self.need());
        }
        let request = GpuRequest {
            need,
            alternatives,
            priority: self.chance.one_of(&[
                Priority::Batch,
                Priority::Low,
                Priority::Normal,
                Priority::High,
                Priority::Urgent,
            ]),
            importance: self.chance.one_of(&[10, 50, 90]),
            preempt: self.chance.one_of(&[
                Preempt::Never,
                Preempt::Never,
                Preempt::Idle,
                Preempt::Lower,
                Preempt::Force,
            ]),
            evictable: self.chance.percent(90),
            min_residency_ms: self.chance.below(5_000),
            drain_ms: self.chance.below(5_000),
            reload_ms: None,
        };
        let terms = Terms {
            key: None,
            wait_ms: Some(self.chance.one_of(&[0, WAIT_MS, WAIT_MS])),
            ttl_ms: self.chance.percent(30).then_some(20_000),
        };
        self.next_ticket += 1;
        self.seen.asked += 1;
        let holder = Holder::Process { pid, identity: pid as u64, label: format!("job-{}", pid % 20), uid: 1 };
        let id = LeaseId(self.arbiter.book().last_lease + 1);
        self.waiting.insert(id, self.now_ms);
        let owner = self.chance.below(3) as u32;
        let fx = self.arbiter.acquire(self.now(), Some(Ticket(self.next_ticket)), owner, holder, request, terms);
        self.take(fx);
    }

    fn need(&mut self) -> GpuNeed {
        GpuNeed {
            devices: if self.chance.percent(15) { 2 } else { 1 },
            vram_bytes: (!self.chance.percent(10)).then(|| (1 + self.chance.below(20)) * GIB),
            exclusive: self.chance.percent(5),
            ..GpuNeed::default()
        }
    }

    /// Some lease that is granted.
    fn any_lease(&mut self) -> Option<Lease> {
        let all: Vec<LeaseId> = self.arbiter.leases().filter(|l| l.is_granted()).map(|l| l.id).collect();
        let id = all.get(self.chance.below(all.len() as u64) as usize)?;
        self.arbiter.lease(*id).cloned()
    }

    /// Memory is taken and given back, as time goes by.
    fn live(&mut self, ms: u64) {
        self.now_ms += ms;
        let room: Vec<u64> = (0..self.totals.len()).map(|at| self.totals[at].saturating_sub(self.taken(at))).collect();
        let mut room = room;
        for process in self.processes.values_mut().filter(|p| p.lives) {
            for (at, has, will) in &mut process.on {
                let more = (*will - *has).min(4 * GIB);
                // A stranger gets what there is; a holder what it was promised.
                let more = if process.lease.is_none() { more.min(room[*at]) } else { more };
                room[*at] = room[*at].saturating_sub(more);
                *has += more;
            }
        }
        let now_ms = self.now_ms;
        self.processes.retain(|_, p| p.lives || p.back_ms > now_ms);
    }

    fn deed(&mut self) {
        self.seen.deeds += 1;
        match self.chance.weighted(&[40, 10, 15, 6, 4, 4, 3, 3, 2, 1]).unwrap_or(0) {
            0 => {
                let ms = self.chance.below(400);
                self.live(ms);
                let fx = self.arbiter.due(self.now());
                self.take(fx);
            }
            1 => self.ask(),
            2 => self.look(),
            3 => {
                if let Some(lease) = self.any_lease()
                    && let Holder::Process { pid, .. } = lease.holder
                {
                    self.dies(pid, Some(lease.id));
                }
            }
            4 => {
                // Gives back, and ends a moment later.
                if let Some(lease) = self.any_lease() {
                    let (fx, _) = self.arbiter.release(self.now(), lease.id, lease.epoch);
                    self.take(fx);
                    if let Holder::Process { pid, .. } = lease.holder {
                        self.dies(pid, None);
                    }
                }
            }
            5 => {
                if let Some(lease) = self.any_lease() {
                    let epoch = if self.chance.percent(10) { lease.epoch + 1 } else { lease.epoch };
                    let (fx, result) = self.arbiter.renew(self.now(), lease.id, epoch);
                    assert_eq!(result.is_ok(), epoch == lease.epoch, "a renewal with another epoch: {result:?}");
                    self.take(fx);
                }
            }
            6 => self.helper(),
            7 => {
                let busy = self.chance.below(3) as u32;
                if let Some(lease) = self.any_lease() {
                    let hint = wharf_core::arbiter::Hint::Busy(busy);
                    let (fx, _) = self.arbiter.hint(self.now(), lease.id, lease.epoch, hint);
                    self.take(fx);
                }
            }
            8 => self.stranger(),
            _ => self.crash(),
        }
    }

    /// A holder starts another process, which takes over some of what it has, and outlives it, perhaps.
    fn helper(&mut self) {
        let Some(lease) = self.any_lease() else { return };
        let Holder::Process { pid, .. } = lease.holder else { return };
        let Some(parent) = self.processes.get_mut(&pid).filter(|p| p.lives && p.parent.is_none()) else { return };
        let on: Vec<(usize, u64, u64)> = parent.on.iter().map(|(at, has, _)| (*at, has / 2, has / 2)).collect();
        for (mine, (_, moved, _)) in parent.on.iter_mut().zip(&on) {
            mine.1 -= moved;
            mine.2 = mine.2.saturating_sub(*moved);
        }
        self.next_pid += 1;
        let helper = Process { on, lives: true, back_ms: 0, deaf: true, lease: None, parent: Some(pid) };
        self.processes.insert(self.next_pid, helper);
        // The driver lists it at once; the arbiter sees it while its parent lives.
        self.look();
        if self.chance.percent(50) {
            self.dies(pid, Some(lease.id));
        }
        if self.chance.percent(70) {
            let helper = self.next_pid;
            self.live(200);
            self.dies(helper, None);
        }
    }

    fn stranger(&mut self) {
        if !self.strangers {
            return;
        }
        let old: Vec<i32> = self
            .processes
            .iter()
            .filter(|(_, p)| p.lives && p.lease.is_none() && p.parent.is_none() && !p.on.is_empty())
            .map(|(pid, _)| *pid)
            .collect();
        if let Some(pid) = old.first() {
            self.dies(*pid, None);
            return;
        }
        self.next_pid += 1;
        let at = self.chance.below(self.totals.len() as u64) as usize;
        let will = self.chance.below(8) * GIB;
        let process =
            Process { on: vec![(at, 0, will)], lives: true, back_ms: 0, deaf: true, lease: None, parent: None };
        self.processes.insert(self.next_pid, process);
    }

    /// The daemon ends; the next one has what was recorded, and nobody's connection.
    fn crash(&mut self) {
        self.seen.crashes += 1;
        let granted: BTreeMap<LeaseId, (LeaseState, u64)> =
            self.arbiter.leases().filter(|l| l.state.is_charged()).map(|l| (l.id, (l.state, l.epoch))).collect();
        let (arbiter, fx) = Arbiter::restore(self.book.clone(), self.leases.values().cloned().collect(), false);
        self.arbiter = arbiter;
        for (id, (state, epoch)) in granted {
            let kept = self.arbiter.lease(id).map(|l| (l.state, l.epoch));
            assert_eq!(kept, Some((state, epoch)), "{id} was lost by a crash");
        }
        // Whoever waited has lost its connection and ends.
        let waited: Vec<i32> = self
            .processes
            .iter()
            .filter(|(_, p)| p.lives && p.lease.is_none() && p.parent.is_none() && p.on.is_empty())
            .map(|(pid, _)| *pid)
            .collect();
        for pid in waited {
            self.processes.remove(&pid);
        }
        self.waiting.clear();
        self.take(fx);
        // Holders that died meanwhile are found by looking for them.
        let dead: Vec<LeaseId> = self
            .arbiter
            .leases()
            .filter(|lease| match lease.holder {
                Holder::Process { pid, .. } => self.processes.get(&pid).is_none_or(|p| !p.lives),
                Holder::Unit { .. } => false,
            })
            .map(|lease| lease.id)
            .collect();
        for id in dead {
            let fx = self.arbiter.holder_gone(self.now(), id);
            self.take(fx);
        }
        self.look();
    }

    /// What must hold after every deed.
    fn judge(&mut self) -> Result<(), String> {
        self.arbiter.check()?;
        for at in 0..self.totals.len() {
            let taken = self.taken(at);
            if taken > self.totals[at] && !self.strangers {
                return Err(format!("device {at}: {taken} bytes taken of {}", self.totals[at]));
            }
        }
        // The journal is the state.
        let recorded: BTreeSet<LeaseId> = self.leases.keys().copied().collect();
        let there: BTreeSet<LeaseId> = self.arbiter.leases().map(|lease| lease.id).collect();
        if recorded != there {
            return Err(format!("recorded: {recorded:?}, there: {there:?}"));
        }
        if let Some((id, since)) = self.waiting.iter().find(|(_, since)| self.now_ms > *since + 2 * WAIT_MS) {
            return Err(format!("{id} waits since {since}, it is {}", self.now_ms));
        }
        Ok(())
    }

    /// No more faults, no more requests: everything must come to rest, and nothing may be left.
    fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..4_000 {
            let over = self.arbiter.leases().count() == 0;
            if over {
                return Ok(());
            }
            self.live(250);
            let fx = self.arbiter.due(self.now());
            self.take(fx);
            self.look();
            self.judge()?;
            // Holders end one after the other; those that wait get their turn.
            let oldest = self.arbiter.leases().find(|l| l.is_granted() || l.state == LeaseState::Expired).cloned();
            if let Some(lease) = oldest
                && self.now_ms > lease.since_ms + 2_000
                && let Holder::Process { pid, .. } = lease.holder
            {
                let helpers: Vec<i32> =
                    self.processes.iter().filter(|(_, p)| p.parent == Some(pid)).map(|(pid, _)| *pid).collect();
                for helper in helpers {
                    self.dies(helper, None);
                }
                self.dies(pid, Some(lease.id));
            }
            // And helpers whose first process is gone.
            let orphans: Vec<i32> =
                self.processes.iter().filter(|(_, p)| p.lives && p.parent.is_some()).map(|(pid, _)| *pid).collect();
            for orphan in orphans {
                self.dies(orphan, None);
            }
        }
        let left: Vec<String> = self.arbiter.leases().map(|l| format!("{} {:?}", l.id, l.state)).collect();
        Err(format!("never came to rest: {}", left.join(", ")))
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
