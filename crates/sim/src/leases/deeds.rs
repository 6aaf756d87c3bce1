//! What happens in a world of leases: requests, ends, hints, helpers, strangers, daemons that end.

use std::collections::BTreeMap;

use wharf_core::{
    Ticket,
    arbiter::{Arbiter, Lease, Terms},
};
use wharf_model::{GpuNeed, GpuRequest, Holder, LeaseId, LeaseState, Preempt, Priority};

use super::{GIB, Process, WAIT_MS, World};

impl World {
    pub(super) fn ask(&mut self) {
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
        let (downsize_bytes, parked_bytes) = self.ease();
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
            downsize_bytes,
            parked_bytes,
            ..GpuRequest::default()
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
    pub(super) fn any_lease(&mut self) -> Option<Lease> {
        let all: Vec<LeaseId> = self.arbiter.leases().filter(|l| l.is_granted()).map(|l| l.id).collect();
        let id = all.get(self.chance.below(all.len() as u64) as usize)?;
        self.arbiter.lease(*id).cloned()
    }

    /// Memory is taken and given back, as time goes by.
    pub(super) fn live(&mut self, ms: u64) {
        self.now_ms += ms;
        let room: Vec<u64> = (0..self.totals.len()).map(|at| self.totals[at].saturating_sub(self.taken(at))).collect();
        let mut room = room;
        for process in self.processes.values_mut().filter(|p| p.lives) {
            for (at, has, will) in &mut process.on {
                let more = will.saturating_sub(*has).min(4 * GIB);
                // A stranger gets what there is; a holder what it was promised.
                let more = if process.lease.is_none() { more.min(room[*at]) } else { more };
                room[*at] = room[*at].saturating_sub(more);
                *has += more;
            }
        }
        let now_ms = self.now_ms;
        self.processes.retain(|_, p| p.lives || p.back_ms > now_ms);
    }

    pub(super) fn deed(&mut self) {
        self.seen.deeds += 1;
        match self.chance.weighted(&[40, 10, 15, 6, 4, 4, 3, 3, 2, 1, 4, 6, 2]).unwrap_or(0) {
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
            9 => self.crash(),
            10 => self.sleep(),
            11 => self.wake(),
            _ => self.adopt(),
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

    /// A stranger that was seen is adopted, or is ignored from now on.
    fn adopt(&mut self) {
        let strange = |p: &Process| p.lives && p.lease.is_none() && p.parent.is_none() && !p.on.is_empty();
        let Some(pid) = self.processes.iter().find(|(_, p)| strange(p)).map(|(pid, _)| *pid) else { return };
        if self.chance.percent(30) {
            let (fx, _) = self.arbiter.ignore(self.now(), pid, pid as u64, true);
            self.take(fx);
            return;
        }
        let holder = Holder::Process { pid, identity: pid as u64, label: "adopted".into(), uid: 1 };
        let more = self.chance.percent(20).then(|| self.chance.below(8) * GIB + GIB);
        let evictable = self.chance.percent(50);
        let (fx, result) = self.arbiter.adopt(self.now(), 1, holder, more, evictable);
        self.take(fx);
        if let (Ok(id), Some(process)) = (result, self.processes.get_mut(&pid)) {
            process.lease = Some(id);
            self.seen.adopted += 1;
        }
    }
}
