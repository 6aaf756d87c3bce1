//! What each device counts as taken, and the board that a decision is made on.
//!
//! ```text
//!   charge    = max(declared, measured)   from the grant until its holder is gone
//!             = what is still seen        while its memory is awaited
//!   foreign   = used - what holders of leases were seen to have
//!   headroom  = total - safety - max(kept by hand, foreign) - sum of charges - what is promised to a reserved request
//! ```
//!
//! Where the driver does not tell who has what, `headroom = total - safety - max(used, kept + sum of charges)`: then
//! nothing can be told apart, and the larger figure counts. A measurement never makes room that the charges deny.

use std::collections::BTreeMap;

use wharf_model::{DeviceId, DeviceProcess, GpuRequest, Holder, LeaseId, LeaseState, Preempt, TaintEffect, UnitName};

use super::{
    Arbiter, Lease, Slot,
    board::{Bar, Board, Leave, Place, Resident},
    value::Worth,
};

/// What a device counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// What could be handed out if nobody were there, in bytes.
    pub capacity: u64,
    /// What can be handed out now, in bytes.
    pub headroom: u64,
    /// How much more is taken and promised than there is, in bytes.
    pub over: u64,
    /// What those without a lease have, in bytes.
    pub foreign: u64,
    /// Of that, what belongs to no process that could be named, in bytes.
    pub loose: u64,
    /// What all leases count for, in bytes.
    pub charged: u64,
}

impl Lease {
    /// The process is its holder's: the unit's, or the program or one that it started.
    pub(super) fn owns(&self, process: &DeviceProcess) -> bool {
        let Some(identity) = process.identity else {
            // It is gone, and the driver still lists it: whose it was is known by its number alone.
            return self.is_reclaimed() && self.members.iter().any(|(pid, _)| *pid == process.pid);
        };
        match &self.holder {
            Holder::Unit { name } => process.unit.as_ref().is_some_and(|(unit, _)| unit == name),
            Holder::Process { pid, identity: of, .. } => {
                let chain = process.parents.iter().copied().chain([(process.pid, identity)]);
                let mut chain = chain.collect::<Vec<_>>().into_iter();
                chain.any(|one| one == (*pid, *of) || self.members.contains(&one))
            }
        }
    }
}

impl Slot {
    pub(super) fn processes(&self) -> &[DeviceProcess] {
        self.device.processes.as_deref().unwrap_or_default()
    }

    /// Its processes and their leases, as they were found when it was measured.
    pub fn owned(&self) -> impl Iterator<Item = (&DeviceProcess, Option<LeaseId>)> {
        self.processes().iter().zip(self.owners.iter().copied())
    }

    /// The driver says who has how much.
    pub(super) fn is_told_apart(&self) -> bool {
        self.device.used_bytes.is_some()
            && self.device.processes.as_ref().is_some_and(|all| all.iter().all(|p| p.used_bytes.is_some()))
    }

    /// What is taken and belongs to no process that the driver names.
    pub(super) fn loose(&self) -> u64 {
        let named: u64 = self.processes().iter().filter_map(|p| p.used_bytes).sum();
        self.device.used_bytes.unwrap_or(0).saturating_sub(named)
    }
}

impl Arbiter {
    /// Which lease a process belongs to: the newest that it could belong to.
    /// One that has no part of the device does not count: what its holder has there is nobody's.
    pub(super) fn lease_of(&self, device: &DeviceId, process: &DeviceProcess) -> Option<&Lease> {
        let here = |lease: &&Lease| lease.shares.iter().any(|share| share.device == *device);
        self.leases.values().rev().filter(here).find(|lease| lease.state.is_charged() && lease.owns(process))
    }

    /// What a device counts as; `but` is left out of the reckoning.
    pub fn count(&self, slot: &Slot, but: Option<LeaseId>) -> Count {
        let id = &slot.device.id;
        let total = slot.device.total_bytes;
        let kept = self.book.reserves.get(id).copied().unwrap_or(0);
        let capacity = total.saturating_sub(self.settings.safety_bytes).saturating_sub(kept);
        let on = |lease: &Lease, of: fn(&wharf_model::Share) -> u64| -> u64 {
            lease.shares.iter().filter(|share| share.device == *id).map(of).sum()
        };
        let others = || self.leases.values().filter(|lease| Some(lease.id) != but);
        let charged: u64 = others().filter(|l| l.state.is_charged()).map(|l| on(l, |share| share.charge_bytes)).sum();
        let promised: u64 =
            others().filter(|l| l.state == LeaseState::Reserved).map(|l| on(l, |share| share.declared_bytes)).sum();
        let used = slot.device.used_bytes.unwrap_or(0);
        let (foreign, loose, taken) = if slot.is_told_apart() {
            let own: u64 = slot
                .owned()
                .filter(|(_, owner)| owner.is_some_and(|id| self.leases.contains_key(&id)))
                .filter_map(|(process, _)| process.used_bytes)
                .sum();
            // Memory that is awaited back is its old lease's, not a stranger's. Not so where its holder went after the
            // measurement: that told what it had as its own, and to take it off twice would hide a stranger's.
            let awaited: u64 = self
                .leases
                .values()
                .filter(|l| l.is_reclaimed() && l.since_ms < slot.measured_ms)
                .map(|l| on(l, |share| share.charge_bytes.saturating_sub(share.measured_bytes.unwrap_or(0))))
                .sum();
            let foreign = used.saturating_sub(own).saturating_sub(awaited);
            let outside = kept.max(foreign);
            (foreign, slot.loose().saturating_sub(awaited), outside.saturating_add(charged))
        } else {
            let taken = used.max(kept.saturating_add(charged));
            (used.saturating_sub(charged), 0, taken)
        };
        let taken = taken.saturating_add(promised).saturating_add(self.settings.safety_bytes);
        let (headroom, over) = (total.saturating_sub(taken), taken.saturating_sub(total));
        Count { capacity, headroom, over, foreign, loose, charged }
    }

    /// The board as it is for one request. `held` are the devices that waiting requests before it are owed.
    pub(super) fn board(&self, now_ms: u64, asker: &Lease, held: &BTreeMap<DeviceId, LeaseId>) -> Board {
        let unit_of_asker = asker.unit();
        let mut places = vec![];
        let mut at: BTreeMap<&DeviceId, usize> = BTreeMap::new();
        for slot in self.slots.values() {
            let count = self.count(slot, Some(asker.id));
            at.insert(&slot.device.id, places.len());
            places.push(Place {
                id: slot.device.id.clone(),
                capacity: count.capacity,
                free: count.headroom,
                over: count.over,
                foreign: count.foreign,
                bar: self.bar(now_ms, slot, asker, &count, held),
                island: slot.device.island,
                numa: slot.device.numa_node,
            });
        }
        let residents = self
            .leases
            .values()
            // Who wakes up does not stand in its own way: what it kept counts as taken all the same.
            .filter(|lease| lease.id != asker.id && Some(lease.id) != asker.wakes)
            .filter(|lease| lease.state.is_charged() || lease.state == LeaseState::Reserved)
            .map(|lease| Resident {
                lease: lease.id,
                unit: lease.unit().cloned(),
                shares: lease
                    .shares
                    .iter()
                    .filter_map(|share| {
                        let bytes = if lease.state.is_charged() { share.charge_bytes } else { share.declared_bytes };
                        at.get(&share.device).map(|place| (*place, bytes))
                    })
                    .collect(),
                alone: lease.need().is_alone() && lease.awake.is_empty() && !lease.is_reclaimed(),
                never_with: lease.need().never_with.clone(),
                only_with: lease.need().only_with.clone(),
                leave: self.leave(now_ms, lease, &asker.request, unit_of_asker),
            })
            .collect();
        Board { places, residents }
    }

    fn bar(
        &self,
        now_ms: u64,
        slot: &Slot,
        asker: &Lease,
        count: &Count,
        held: &BTreeMap<DeviceId, LeaseId>,
    ) -> Option<Bar> {
        let id = &slot.device.id;
        let taints = slot.device.taints.iter().chain(self.book.taints.get(id));
        if let Some(taint) = taints.max_by_key(|taint| taint.effect) {
            return Some(Bar::Tainted(taint.reason.clone()));
        }
        if self.slots.values().any(|other| other.device.parent.as_ref() == Some(id)) {
            return Some(Bar::CutUp);
        }
        if now_ms.saturating_sub(slot.measured_ms) > self.settings.stale_ms {
            return Some(Bar::Stale);
        }
        if let Some(by) = held.get(id) {
            return Some(Bar::Kept(*by));
        }
        let here = |lease: &&Lease| lease.id != asker.id && lease.shares.iter().any(|share| share.device == *id);
        let loads = |lease: &&Lease| self.settings.one_warm_up && lease.state == LeaseState::Starting;
        if let Some(lease) = self.leases.values().filter(here).find(loads) {
            return Some(Bar::WarmingUp(lease.id));
        }
        // Whoever does not know what it needs wants a device for itself: a desktop's share is let pass, no more.
        let unsized_need = asker.request.needs().any(|need| need.vram_bytes.is_none());
        let foreign = count.foreign.saturating_sub(self.ignored_bytes(slot));
        if unsized_need && foreign > slot.device.total_bytes / 4 {
            return Some(Bar::Foreign);
        }
        None
    }

    /// Whether this holder could be sent away for the request.
    fn leave(&self, now_ms: u64, lease: &Lease, request: &GpuRequest, asker: Option<&UnitName>) -> Leave {
        match lease.state {
            LeaseState::Draining => {
                let left = lease.drain_until_ms.unwrap_or(now_ms).saturating_sub(now_ms);
                return Leave::Going { est_ms: left.min(2_000), keeps: 0 };
            }
            LeaseState::Reclaiming => return Leave::Going { est_ms: 1_000, keeps: 0 },
            LeaseState::Reserved => return Leave::No("it is promised to a request before this one".into()),
            LeaseState::Quarantined => return Leave::No("its memory did not come back".into()),
            LeaseState::Starting
            | LeaseState::Active
            | LeaseState::Parked
            | LeaseState::Expired
            | LeaseState::Queued
            | LeaseState::Gone => {}
        }
        if let Some((asked, keeps)) = lease.asked.zip(lease.makes_room()) {
            let left = asked.until_ms.saturating_sub(now_ms);
            return Leave::Going { est_ms: left.min(2_000), keeps };
        }
        if let Some(no) = self.stays(now_ms, lease, request, asker) {
            return Leave::No(no);
        }
        let Worth { value, reload_ms, .. } = self.worth(now_ms, lease);
        let est_ms = lease.request.drain_ms.min(2_000);
        // Who is still loading has nothing to put away yet.
        let awake = lease.state == LeaseState::Active;
        let smaller = |keeps: &u64| awake && lease.shares.iter().any(|share| *keeps < share.charge_bytes);
        let downsize = lease.request.downsize_bytes.filter(smaller);
        let park = lease.request.parked_bytes.filter(smaller).filter(|_| self.has_ram_to_park(lease));
        Leave::May { value, downsize, park, est_ms, reload_ms }
    }

    /// What it puts away has room in the machine's own memory.
    pub(super) fn has_ram_to_park(&self, lease: &Lease) -> bool {
        let keeps = lease.request.parked_bytes.unwrap_or(0);
        let frees: u64 = lease.shares.iter().map(|share| share.charge_bytes.saturating_sub(keeps)).sum();
        let wants = lease.request.parked_ram_bytes.unwrap_or(frees);
        self.free_ram_bytes.is_none_or(|free| wants <= free.saturating_sub(RAM_LEFT))
    }

    fn stays(&self, now_ms: u64, lease: &Lease, request: &GpuRequest, asker: Option<&UnitName>) -> Option<String> {
        if !self.settled {
            return Some("this daemon has not yet seen all that runs".into());
        }
        if lease.is_pinned(now_ms) {
            return Some("it is pinned".into());
        }
        let force = request.preempt == Preempt::Force;
        if !lease.request.evictable && !force {
            return Some("it is not to be sent away".into());
        }
        if lease.unit().is_some() && lease.unit() == asker {
            return Some("it is the same unit".into());
        }
        let ready_ms = lease.ready_ms.unwrap_or(lease.since_ms);
        let there_ms = now_ms.saturating_sub(ready_ms);
        let asleep = lease.state == LeaseState::Parked;
        if !asleep && there_ms < lease.request.min_residency_ms && !force {
            let (there, of) = (there_ms / 1000, lease.request.min_residency_ms / 1000);
            return Some(format!("it is left in peace: it has been there for {there} s of {of} s"));
        }
        let idle = lease.busy == Some(0) || asleep || lease.state == LeaseState::Expired;
        let (its, mine) = (lease.request.importance, request.importance);
        match request.preempt {
            Preempt::Never => Some("the request asks nobody to leave".into()),
            Preempt::Idle if !idle => Some(match lease.busy {
                Some(n) => format!("it works on {n} requests"),
                None => "it does not say that it has nothing to do".into(),
            }),
            Preempt::Idle if its > mine => Some(format!("it matters more ({its} against {mine})")),
            Preempt::Lower if idle && its > mine => Some(format!("it matters more ({its} against {mine})")),
            Preempt::Lower if !idle && its >= mine => {
                Some(format!("it works, and does not matter less ({its} against {mine})"))
            }
            Preempt::Idle | Preempt::Lower | Preempt::Force => None,
        }
    }

    /// A device is to be emptied: what runs there is asked to leave.
    pub(super) fn is_to_be_emptied(&self, id: &DeviceId) -> bool {
        let measured = self.slots.get(id).into_iter().flat_map(|slot| &slot.device.taints);
        measured.chain(self.book.taints.get(id)).any(|taint| taint.effect == TaintEffect::Drain)
    }
}

/// So much of the machine's own memory is left alone by those who sleep.
const RAM_LEFT: u64 = 1 << 30;
