//! Every history of a small world: two devices, three clients, one death of the daemon.
//!
//! Breadth first over all that can happen next, until nothing new comes. Time is left out: nothing falls due here, so
//! two states that differ only in their clocks are one. What is found is shortest, and is told as a list of deeds.

use std::collections::{BTreeMap, HashSet, VecDeque};

use wharf_core::{
    Now, Ticket,
    arbiter::{Arbiter, Book, GpuAct, Lease, Outcome, Settings, Terms},
};
use wharf_model::{
    Device, DeviceId, DeviceProcess, GpuNeed, GpuRequest, Holder, Inventory, LeaseId, Preempt, ProcessKind, Vendor,
};

/// Memory of each device, in bytes: small numbers are as good as large ones.
const TOTAL: u64 = 4;
/// More bytes than that are no number of this world.
const NEVER_MS: u64 = u64::MAX / 4;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A client asks.
    Ask(usize),
    /// A granted client takes what it was promised.
    Load(usize),
    /// A client ends; the driver keeps its memory for now.
    Die(usize),
    /// A client gives back what it has, and goes on living.
    Release(usize),
    /// The driver gives memory back.
    Free(usize),
    /// The devices are measured.
    Measure,
    /// The daemon ends, and a new one begins.
    Crash,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Client {
    asked: bool,
    lives: bool,
    has: Vec<(usize, u64)>,
    lease: Option<u64>,
}

#[derive(Debug, Clone)]
struct World {
    arbiter: Arbiter,
    at_ms: u64,
    clients: Vec<Client>,
    lost: [u64; 2],
    crashed: bool,
    leases: BTreeMap<LeaseId, Lease>,
    book: Book,
}

fn request(client: usize) -> GpuRequest {
    let need = |devices, vram| GpuNeed { devices, vram_bytes: Some(vram), ..GpuNeed::default() };
    let base = GpuRequest { min_residency_ms: 0, drain_ms: NEVER_MS, importance: 10, ..GpuRequest::default() };
    match client {
        0 => GpuRequest { need: need(1, 3), ..base },
        1 => GpuRequest { need: need(2, 2), alternatives: vec![need(1, 1)], ..base },
        _ => GpuRequest { need: need(1, 4), preempt: Preempt::Lower, importance: 50, ..base },
    }
}

fn device(at: usize) -> DeviceId {
    DeviceId::from(["A", "B"][at])
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            safety_bytes: 0,
            slack_bytes: 0,
            stale_ms: NEVER_MS,
            fresh_ms: NEVER_MS,
            reclaim_ms: NEVER_MS,
            age_step_ms: NEVER_MS,
            ..Settings::default()
        };
        let mut arbiter = Arbiter::default();
        arbiter.settings = settings;
        let clients = vec![Client { lives: true, ..Client::default() }; 3];
        let (leases, book) = Default::default();
        let mut world = Self { arbiter, at_ms: 1, clients, lost: [0; 2], crashed: false, leases, book };
        world.measure();
        world
    }

    fn now(&self) -> Now {
        Now { boot_ms: self.at_ms, wall_ms: 0 }
    }

    fn used(&self, at: usize) -> u64 {
        let has: u64 = self.clients.iter().flat_map(|c| &c.has).filter(|(on, _)| *on == at).map(|(_, b)| b).sum();
        has + self.lost[at]
    }

    fn measure(&mut self) {
        let processes = |at: usize| {
            let of = |(pid, client): (usize, &Client)| {
                let (_, bytes) = client.has.iter().find(|(on, _)| *on == at)?;
                let one = DeviceProcess::new(pid as i32 + 1, Some(*bytes), ProcessKind::Compute);
                Some(DeviceProcess { identity: Some(pid as u64 + 1), ..one })
            };
            self.clients.iter().enumerate().filter_map(of).collect()
        };
        let devices = (0..2)
            .map(|at| Device {
                index: at as u32,
                used_bytes: Some(self.used(at)),
                processes: Some(processes(at)),
                ..Device::new(device(at), Vendor::Simulated, TOTAL)
            })
            .collect();
        let inventory = Inventory { taken_boot_ms: self.at_ms, devices, ..Inventory::default() };
        let fx = self.arbiter.measured(self.now(), &inventory);
        self.take(fx);
    }

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
        for (_, result) in fx.answers {
            let Ok(id) = result else { continue };
            let Some(Holder::Process { pid, .. }) = self.arbiter.lease(id).map(|l| l.holder.clone()) else { continue };
            self.clients[pid as usize - 1].lease = Some(id.0);
        }
        for act in fx.acts {
            match act {
                // Both are only wishes here: whether it ends is a deed like any other.
                GpuAct::Measure | GpuAct::Leave { .. } | GpuAct::Kill { .. } => {}
            }
        }
    }

    fn granted(&self, client: usize) -> Option<&Lease> {
        let lease = self.arbiter.lease(LeaseId(self.clients[client].lease?))?;
        Some(lease).filter(|l| !l.is_reclaimed() && l.state.is_charged())
    }

    fn can(&self) -> Vec<Deed> {
        let mut all = vec![Deed::Measure];
        for (at, client) in self.clients.iter().enumerate() {
            if client.lives && !client.asked {
                all.push(Deed::Ask(at));
            }
            if client.lives && client.asked {
                all.push(Deed::Die(at));
            }
            if client.lives && client.has.is_empty() && self.granted(at).is_some_and(Lease::is_granted) {
                all.push(Deed::Load(at));
            }
            if client.lives && client.has.is_empty() && self.granted(at).is_some() {
                all.push(Deed::Release(at));
            }
        }
        all.extend((0..2).filter(|at| self.lost[*at] > 0).map(Deed::Free));
        if !self.crashed {
            all.push(Deed::Crash);
        }
        all
    }

    fn does(&mut self, deed: Deed) {
        self.at_ms += 1;
        match deed {
            Deed::Ask(at) => {
                self.clients[at].asked = true;
                let pid = at as i32 + 1;
                let holder = Holder::Process { pid, identity: pid as u64, label: format!("client-{at}"), uid: 0 };
                let ticket = Some(Ticket(at as u64));
                let fx = self.arbiter.acquire(self.now(), ticket, 0, holder, request(at), Terms::default());
                self.take(fx);
            }
            Deed::Load(at) => {
                let shares = self.granted(at).map(|l| l.shares.clone()).unwrap_or_default();
                let of = |id: &DeviceId| usize::from(*id == device(1));
                self.clients[at].has = shares.iter().map(|s| (of(&s.device), s.declared_bytes)).collect();
            }
            Deed::Die(at) => {
                self.clients[at].lives = false;
                for (on, bytes) in std::mem::take(&mut self.clients[at].has) {
                    self.lost[on] += bytes;
                }
                let held: Vec<LeaseId> = self.arbiter.leases().filter(|l| is_of(l, at)).map(|l| l.id).collect();
                for id in held {
                    let fx = self.arbiter.holder_gone(self.now(), id);
                    self.take(fx);
                }
            }
            Deed::Release(at) => {
                let Some((id, epoch)) = self.granted(at).map(|l| (l.id, l.epoch)) else { return };
                let (fx, _) = self.arbiter.release(self.now(), id, epoch);
                self.take(fx);
            }
            Deed::Free(at) => self.lost[at] = 0,
            Deed::Measure => self.measure(),
            Deed::Crash => self.crash(),
        }
    }

    fn crash(&mut self) {
        self.crashed = true;
        let settings = self.arbiter.settings;
        let (arbiter, fx) = Arbiter::restore(self.book.clone(), self.leases.values().cloned().collect(), false);
        self.arbiter = arbiter;
        self.arbiter.settings = settings;
        self.take(fx);
        for at in 0..3 {
            // Whoever waited was cut off and has ended.
            let held = self.arbiter.leases().any(|l| is_of(l, at));
            if self.clients[at].asked && !held {
                self.clients[at].lives = false;
            }
            let dead: Vec<LeaseId> =
                self.arbiter.leases().filter(|l| is_of(l, at) && !self.clients[at].lives).map(|l| l.id).collect();
            for id in dead {
                let fx = self.arbiter.holder_gone(self.now(), id);
                self.take(fx);
            }
        }
    }

    fn judge(&self) -> Result<(), String> {
        self.arbiter.check()?;
        for at in 0..2 {
            if self.used(at) > TOTAL {
                return Err(format!("device {at}: {} of {TOTAL} are really taken", self.used(at)));
            }
        }
        if self.leases.keys().ne(self.arbiter.leases().map(|l| &l.id).collect::<Vec<_>>()) {
            return Err("the journal is not the state".into());
        }
        Ok(())
    }

    /// All that decides what can come, without clocks.
    fn key(&self) -> String {
        let measured = self.arbiter.slots().map(|s| s.measured_ms).max().unwrap_or(0);
        let leases: Vec<String> = self
            .arbiter
            .leases()
            .map(|l| {
                format!(
                    "{:?} {:?} {:?} {} {} {} {:?} {}",
                    l.holder,
                    l.state,
                    l.shares,
                    l.alternative,
                    l.bypassed,
                    l.main_gone,
                    l.members,
                    measured > l.since_ms
                )
            })
            .collect();
        let seen: Vec<String> = self
            .arbiter
            .slots()
            .map(|s| format!("{:?} {:?}", s.device.used_bytes, s.device.processes.as_ref().map(Vec::len)))
            .collect();
        let of = |c: &Client| (c.asked, c.lives, c.has.clone(), c.lease.is_some());
        let clients: Vec<_> = self.clients.iter().map(of).collect();
        format!("{leases:?} {seen:?} {clients:?} {:?} {} {:?}", self.lost, self.crashed, self.book.loose)
    }

    /// Everybody ends, all memory comes back: nothing may be left.
    fn comes_to_rest(&self) -> Result<(), String> {
        let mut world = self.clone();
        for at in 0..3 {
            world.does(Deed::Die(at));
        }
        for _ in 0..3 {
            world.does(Deed::Free(0));
            world.does(Deed::Free(1));
            world.does(Deed::Measure);
        }
        match world.arbiter.leases().next() {
            None => Ok(()),
            Some(lease) => Err(format!("{} stays {:?} for ever", lease.id, lease.state)),
        }
    }
}

fn is_of(lease: &Lease, client: usize) -> bool {
    matches!(lease.holder, Holder::Process { pid, .. } if pid as usize == client + 1)
}

/// Everything that can happen. The number of states, or the shortest list of deeds that breaks a rule.
pub fn explore(most: usize) -> Result<usize, String> {
    let first = World::new();
    let mut known = HashSet::from([first.key()]);
    let mut todo = VecDeque::from([(first, Vec::<Deed>::new())]);
    while let Some((world, path)) = todo.pop_front() {
        for deed in world.can() {
            let mut next = world.clone();
            next.does(deed);
            let told = |why: String| {
                let deeds: Vec<String> = path.iter().chain([&deed]).map(|deed| format!("{deed:?}")).collect();
                format!("{why}: {}", deeds.join(", "))
            };
            next.judge().map_err(told)?;
            if !known.insert(next.key()) {
                continue;
            }
            next.comes_to_rest().map_err(told)?;
            if known.len() > most {
                return Err(format!("more than {most} states"));
            }
            let mut way = path.clone();
            way.push(deed);
            todo.push_back((next, way));
        }
    }
    Ok(known.len())
}
