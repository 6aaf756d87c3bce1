//! The life of a lease: granted, ready, asked to leave, gone, seen back.

use std::collections::BTreeMap;

use wharf_model::{DeviceId, Failure, Holder, Inventory, LeaseId, LeaseState, MakeRoom, Share, UnitName};

use super::{
    Arbiter, Asked, Change, GpuAct, GpuNotice, Lease, Outcome, Slot,
    board::{Board, Placement},
    news::Told,
};
use crate::Now;

impl Arbiter {
    /// What the devices were found to be. An empty list is a machine without any.
    pub fn measured(&mut self, now: Now, inventory: &Inventory) -> Outcome {
        let mut fx = Outcome::default();
        let came: Vec<&DeviceId> = inventory.devices.iter().map(|device| &device.id).collect();
        let gone: Vec<DeviceId> = self.slots.keys().filter(|id| !came.contains(id)).cloned().collect();
        for device in gone {
            // A device that is only not answered for keeps its place, its charges, and grows old.
            if inventory.problems.is_empty() {
                self.slots.remove(&device);
                fx.notices.push(GpuNotice::Device { device, what: "is no longer there".into() });
            }
        }
        for device in &inventory.devices {
            let told = self.slots.get(&device.id).map_or_else(Told::default, |slot| slot.told);
            self.tell_arrival(device, &mut fx);
            let processes = device.processes.as_deref().unwrap_or_default();
            let owners =
                processes.iter().map(|process| self.lease_of(&device.id, process).map(|lease| lease.id)).collect();
            let slot = Slot { device: device.clone(), measured_ms: inventory.taken_boot_ms, owners, told };
            self.slots.insert(device.id.clone(), slot);
            fx.book |= self.note_loose(&device.id);
        }
        let mut awaited = self.awaited();
        self.free_ram_bytes = inventory.free_ram_bytes;
        self.seen |= inventory.problems.is_empty() || !inventory.devices.is_empty();
        self.settled |= self.seen;
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in ids {
            self.attribute(now, id, inventory.taken_boot_ms, &mut awaited, &mut fx);
        }
        self.tell_devices(&mut fx);
        self.empty_tainted(now, &mut fx);
        self.pass(now, &mut fx);
        self.version += 1;
        fx
    }

    /// What a holder was seen to have; and whether what was awaited is back.
    fn attribute(
        &mut self,
        now: Now,
        id: LeaseId,
        taken_ms: u64,
        awaited: &mut BTreeMap<(LeaseId, DeviceId), u64>,
        fx: &mut Outcome,
    ) {
        let Some(lease) = self.leases.get(&id) else { return };
        if !lease.state.is_charged() {
            return;
        }
        let mut lease = lease.clone();
        let mut back = true;
        let mut listed = false;
        for at in 0..lease.shares.len() {
            let Some(slot) = self.slots.get(&lease.shares[at].device) else { continue };
            let own: Vec<_> =
                slot.owned().filter(|(_, owner)| *owner == Some(id)).map(|(process, _)| process).collect();
            listed |= !own.is_empty();
            let told = slot.device.processes.is_some() && own.iter().all(|process| process.used_bytes.is_some());
            let measured: u64 = own.iter().filter_map(|process| process.used_bytes).sum();
            lease.members.extend(own.iter().filter_map(|process| Some((process.pid, process.identity?))));
            let loose = awaited.remove(&(id, slot.device.id.clone())).unwrap_or(0);
            let apart = slot.is_told_apart();
            let keeps = slot.device.keeps_memory;
            let slack = self.settings.slack_bytes;
            let reclaimed = lease.is_reclaimed();
            let share = &mut lease.shares[at];
            share.measured_bytes = told.then_some(measured);
            if !reclaimed {
                let charge = share.declared_bytes.max(measured);
                let over = measured > share.declared_bytes.saturating_add(slack);
                if over && !lease.over_told {
                    lease.over_told = true;
                    fx.notices.push(GpuNotice::OverDeclared {
                        lease: id,
                        holder: lease.holder.clone(),
                        device: share.device.clone(),
                        declared_bytes: share.declared_bytes,
                        measured_bytes: measured,
                    });
                }
                share.charge_bytes = charge;
                back = false;
            } else if taken_ms <= lease.since_ms {
                // Measured before its holder was gone: says nothing.
                back = false;
            } else if apart && !keeps {
                let residual = measured.saturating_add(if loose > slack { loose } else { 0 });
                share.charge_bytes = share.charge_bytes.min(residual);
                back &= own.is_empty() && loose <= slack;
            } else {
                back &= own.is_empty();
            }
        }
        let changed = self.leases.get(&id) != Some(&lease);
        let reclaimed = lease.is_reclaimed();
        let deserted = lease.main_gone && !reclaimed && !listed;
        let high = lease.shares.iter().filter_map(|share| share.measured_bytes).max().unwrap_or(0);
        let label = lease.label();
        self.leases.insert(id, lease);
        if changed {
            // The figures are found again by looking: only who belongs to it is worth a record.
            self.version += 1;
        }
        if high > 0 && self.book.learned.entry(label).or_default().seen_bytes(high) {
            fx.book = true;
        }
        self.ease(now, id, taken_ms, fx);
        if deserted {
            self.reclaim(now, id, fx);
        } else if reclaimed && back {
            self.over(now, id, "its memory is back", fx);
        }
    }

    /// What belongs to nobody on a device. It is learned while no lease counts there, and only ever found to be less
    /// afterwards: what a holder leaves behind must not pass for the driver's own.
    fn note_loose(&mut self, id: &DeviceId) -> bool {
        let Some(slot) = self.slots.get(id) else { return false };
        let on = |lease: &&Lease| lease.shares.iter().any(|share| share.device == *id);
        let counts = self.leases.values().filter(on).any(|lease| lease.state.is_charged());
        let loose = slot.loose();
        let known = self.book.loose.get(id).copied();
        let now = if counts { known.unwrap_or(0).min(loose) } else { loose };
        self.book.loose.insert(id.clone(), now);
        known.is_none_or(|known| known.abs_diff(now) > self.settings.slack_bytes)
    }

    /// What belongs to nobody, and is awaited back: the oldest that is awaited is taken to be it first. Whose it
    /// really is may be mixed up by that; how much is missing in all is not.
    fn awaited(&self) -> BTreeMap<(LeaseId, DeviceId), u64> {
        let mut all = BTreeMap::new();
        let mut waiting: Vec<&Lease> = self.leases.values().filter(|lease| lease.is_reclaimed()).collect();
        waiting.sort_by_key(|lease| (lease.since_ms, lease.id));
        for slot in self.slots.values() {
            let id = &slot.device.id;
            let mut left = slot.loose().saturating_sub(self.book.loose.get(id).copied().unwrap_or(0));
            for lease in &waiting {
                for share in lease.shares.iter().filter(|share| share.device == *id) {
                    let listed: u64 = slot
                        .owned()
                        .filter(|(_, owner)| *owner == Some(lease.id))
                        .filter_map(|(process, _)| process.used_bytes)
                        .sum();
                    let mine = share.charge_bytes.saturating_sub(listed).min(left);
                    left -= mine;
                    all.insert((lease.id, id.clone()), mine);
                }
            }
        }
        all
    }

    /// Those on devices that are to be emptied are asked to leave.
    pub(super) fn empty_tainted(&mut self, now: Now, fx: &mut Outcome) {
        let ids: Vec<LeaseId> = self
            .leases
            .values()
            .filter(|lease| lease.is_granted() && !lease.is_pinned(now.boot_ms))
            .filter(|lease| lease.shares.iter().any(|share| self.is_to_be_emptied(&share.device)))
            .map(|lease| lease.id)
            .collect();
        for id in ids {
            self.ask_to_leave(now, id, None, "its device is to be emptied", fx);
        }
    }

    /// The devices are the request's, from now on and with a new epoch.
    pub(super) fn grant(&mut self, now: Now, id: LeaseId, board: &Board, placement: &Placement, fx: &mut Outcome) {
        let shares = shares(board, placement);
        if let Some(asleep) = self.leases.get(&id).and_then(|lease| lease.wakes) {
            self.wake(now, id, asleep, &shares, fx);
            return;
        }
        self.book.last_epoch += 1;
        fx.book = true;
        let epoch = self.book.last_epoch;
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.epoch = epoch;
        lease.shares = shares;
        lease.granted_ms = Some(now.boot_ms);
        lease.expires_ms = lease.ttl_ms.map(|ttl| now.boot_ms.saturating_add(ttl));
        lease.why = None;
        lease.wait_until_ms = None;
        // A program outside seldom says when it has loaded: it is taken to be ready.
        let state = if lease.unit().is_some() { LeaseState::Starting } else { LeaseState::Active };
        let label = lease.label();
        if state == LeaseState::Active {
            lease.ready_ms = Some(now.boot_ms);
            self.book.learned.entry(label).or_default().used(now.boot_ms);
        }
        self.go(now, id, state, "", fx);
        for ticket in self.tickets.remove(&id).unwrap_or_default() {
            fx.answers.push((ticket, Ok(id)));
        }
    }

    /// Its devices are chosen, and those in the way are asked to leave them.
    pub(super) fn reserve(&mut self, now: Now, id: LeaseId, board: &Board, placement: &Placement, fx: &mut Outcome) {
        let shares = shares(board, placement);
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.shares = shares;
        self.go(now, id, LeaseState::Reserved, "its devices are being emptied", fx);
        for victim in &placement.victims {
            let why = self.leases.get(&id).map(|lease| format!("for {}", lease.holder.label())).unwrap_or_default();
            match victim.how {
                MakeRoom::Stop => self.ask_to_leave(now, victim.lease, Some(id), &why, fx),
                MakeRoom::Park => self.ask_to(now, victim.lease, Change::Park { to_bytes: victim.keeps }, Some(id), fx),
                MakeRoom::Downsize => {
                    self.ask_to(now, victim.lease, Change::Downsize { to_bytes: victim.keeps }, Some(id), fx);
                }
            }
        }
        self.collect_rent(id, placement, fx);
    }

    /// Who stays on these devices while others leave them pays for it, by size: see `value.rs`.
    fn collect_rent(&mut self, id: LeaseId, placement: &Placement, fx: &mut Outcome) {
        let Some(asker) = self.leases.get(&id) else { return };
        let goes = |lease: &Lease| placement.victims.iter().any(|victim| victim.lease == lease.id);
        let is_there = |lease: &Lease| lease.shares.iter().any(|s| asker.shares.iter().any(|a| a.device == s.device));
        let book = &self.book.learned;
        let rents = self.leases.values().filter(|lease| goes(lease));
        let rents = rents.filter_map(|lease| Some(book.get(&lease.label())?.rent(lease.charge())));
        let Some(rent) = rents.max() else { return };
        let stays = |lease: &&Lease| lease.is_granted() && lease.id != id && !goes(lease) && is_there(lease);
        let due: Vec<_> = self.leases.values().filter(stays).map(|lease| (lease.label(), lease.charge())).collect();
        for (label, bytes) in due {
            if let Some(learned) = self.book.learned.get_mut(&label) {
                learned.pay(rent, bytes);
                fx.book = true;
            }
        }
    }

    /// A holder is asked to end, and ended when its time is over.
    pub(super) fn ask_to_leave(&mut self, now: Now, id: LeaseId, whom: Option<LeaseId>, why: &str, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if !lease.is_granted() && lease.state != LeaseState::Expired {
            return;
        }
        lease.asked = None;
        lease.drain_until_ms = Some(now.boot_ms.saturating_add(lease.request.drain_ms));
        lease.leaves_for = whom;
        match &lease.holder {
            Holder::Unit { name } => fx.leave.push((name.clone(), id)),
            Holder::Process { .. } => fx.acts.push(GpuAct::Leave { lease: id, holder: lease.holder.clone() }),
        }
        self.go(now, id, LeaseState::Draining, why, fx);
    }

    /// A unit's run is ready.
    pub fn unit_ready(&mut self, now: Now, name: &UnitName) -> Outcome {
        let mut fx = Outcome::default();
        if let Some(id) = self.units.get(name).copied() {
            match self.leases.get(&id).and_then(|lease| lease.asked) {
                // It is up, as it was while it slept: what makes it ready is that it wakes.
                Some(Asked { change: change @ Change::Wake, done_ms: None, .. }) => {
                    fx.changes.push((name.clone(), change))
                }
                Some(_) | None => self.ready(now, id, &mut fx),
            }
        }
        fx
    }

    pub(super) fn ready(&mut self, now: Now, id: LeaseId, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if lease.state != LeaseState::Starting {
            return;
        }
        lease.ready_ms = Some(now.boot_ms);
        let woke = lease.asked.take().is_some();
        let took_ms = now.boot_ms.saturating_sub(lease.granted_ms.unwrap_or(now.boot_ms));
        let label = lease.label();
        let learned = self.book.learned.entry(label).or_default();
        // Waking costs less than loading, and says nothing of that.
        if !woke {
            learned.loaded(took_ms);
        }
        learned.used(now.boot_ms);
        fx.book = true;
        self.go(now, id, LeaseState::Active, "", fx);
        // Who waited for the device to be done with loading.
        self.pass(now, fx);
    }

    /// Nothing of a unit's run lives. `made`: its processes were made at all.
    pub fn unit_gone(&mut self, now: Now, name: &UnitName, made: bool) -> Outcome {
        let mut fx = Outcome::default();
        let Some(id) = self.units.get(name).copied() else { return fx };
        let charged = self.leases.get(&id).is_some_and(|lease| lease.state.is_charged());
        match (charged, made) {
            (true, true) => self.reclaim(now, id, &mut fx),
            (true, false) => self.over(now, id, "it was never started", &mut fx),
            (false, _) => self.over(now, id, "it does not want to start any more", &mut fx),
        }
        self.pass(now, &mut fx);
        fx
    }

    /// The first process of an outside holder is gone. What it started may live on: then the lease does, too.
    pub fn holder_gone(&mut self, now: Now, id: LeaseId) -> Outcome {
        let mut fx = Outcome::default();
        let Some(lease) = self.leases.get_mut(&id) else { return fx };
        if lease.waits() {
            self.over(now, id, "whoever asked for it is gone", &mut fx);
        } else if !lease.is_reclaimed() && !lease.main_gone {
            lease.main_gone = true;
            fx.leases.insert(id);
            // Whether others of it are on the devices is for the next measurement to say.
            fx.acts.push(GpuAct::Measure);
            let blind = lease
                .shares
                .iter()
                .all(|share| self.slots.get(&share.device).is_none_or(|slot| slot.device.processes.is_none()));
            if blind {
                self.reclaim(now, id, &mut fx);
            }
        }
        self.pass(now, &mut fx);
        fx
    }

    /// Nothing of its holder lives: its memory is awaited.
    pub(super) fn reclaim(&mut self, now: Now, id: LeaseId, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if let Some(unit) = lease.unit().cloned()
            && self.units.get(&unit) == Some(&id)
        {
            self.units.remove(&unit);
            // It may ask anew: for the same, perhaps.
            fx.woken.push(unit);
        }
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let kept = lease.shares.iter().all(|share| {
            self.slots
                .get(&share.device)
                .is_none_or(|slot| slot.device.keeps_memory || slot.device.used_bytes.is_none())
        });
        lease.asked = None;
        for share in &mut lease.shares {
            // Until something else is seen it counts as what it was.
            share.measured_bytes = Some(0);
        }
        self.go(now, id, LeaseState::Reclaiming, "nothing of its holder lives", fx);
        if kept {
            self.over(now, id, "its device does not say when memory is back", fx);
        } else {
            fx.acts.push(GpuAct::Measure);
        }
    }

    /// The lease is no more.
    pub(super) fn over(&mut self, now: Now, id: LeaseId, why: &str, fx: &mut Outcome) {
        self.go(now, id, LeaseState::Gone, why, fx);
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(key) = lease.key {
            self.keys.remove(&(lease.owner, key));
        }
        if let Holder::Unit { name } = &lease.holder
            && self.units.get(name) == Some(&id)
        {
            self.units.remove(name);
            fx.woken.push(name.clone());
        }
        for ticket in self.tickets.remove(&id).unwrap_or_default() {
            fx.answers.push((ticket, Err(self.given_up(why))));
        }
    }

    fn given_up(&self, why: &str) -> Failure {
        Failure::new(wharf_model::ErrorKind::StaleEpoch, format!("the request was given up: {why}"))
    }

    /// Whoever waits for it is told that it cannot be.
    pub(super) fn refuse(&mut self, now: Now, id: LeaseId, failure: Failure, fx: &mut Outcome) {
        for ticket in self.tickets.remove(&id).unwrap_or_default() {
            fx.answers.push((ticket, Err(failure.clone())));
        }
        if let Some(unit) = self.leases.get(&id).and_then(Lease::unit) {
            fx.refused.push((unit.clone(), failure.clone()));
        }
        self.over(now, id, &failure.message, fx);
    }

    pub(super) fn go(&mut self, now: Now, id: LeaseId, state: LeaseState, why: &str, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let slept = lease.state == LeaseState::Parked;
        lease.go(state, now.boot_ms);
        self.version += 1;
        fx.leases.insert(id);
        if let Holder::Unit { name } = &lease.holder {
            fx.woken.push(name.clone());
        }
        fx.notices.push(GpuNotice::Lease {
            lease: id,
            holder: lease.holder.clone(),
            state,
            devices: lease.shares.iter().map(|share| share.device.clone()).collect(),
            why: why.to_owned(),
        });
        if slept {
            self.drop_wake(now, id, fx);
        }
    }

    /// [`Arbiter::next_deadline`] has come.
    pub fn due(&mut self, now: Now) -> Outcome {
        let mut fx = Outcome::default();
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in ids {
            self.due_of(now, id, &mut fx);
        }
        self.pass(now, &mut fx);
        fx
    }

    fn due_of(&mut self, now: Now, id: LeaseId, fx: &mut Outcome) {
        let at = now.boot_ms;
        let reclaim_ms = self.settings.reclaim_ms;
        let warm_up_ms = self.settings.warm_up_ms;
        if self.is_too_slow(now, id) {
            self.give_up_on(now, id, "it was too slow", fx);
        }
        let Some(lease) = self.leases.get_mut(&id) else { return };
        match lease.state {
            LeaseState::Queued | LeaseState::Reserved => {
                if lease.wait_until_ms.is_some_and(|until| until <= at) {
                    let failure = self.not_in_time(id);
                    self.refuse(now, id, failure, fx);
                }
            }
            LeaseState::Draining if lease.drain_until_ms.is_some_and(|until| until <= at) => {
                // A unit's own stop has its own time, and ends it by itself.
                let again = at.saturating_add(5_000);
                lease.drain_until_ms = Some(again);
                lease.killed = true;
                fx.leases.insert(id);
                let (holder, members) = (lease.holder.clone(), lease.members.clone());
                if lease.unit().is_none() {
                    fx.acts.push(GpuAct::Kill { lease: id, holder, members });
                }
            }
            LeaseState::Reclaiming if lease.since_ms.saturating_add(reclaim_ms) <= at => {
                let why = format!("its memory was not back after {} s", reclaim_ms / 1000);
                self.go(now, id, LeaseState::Quarantined, &why, fx);
                self.tell_leak(id, fx);
            }
            LeaseState::Starting if lease.since_ms.saturating_add(warm_up_ms) <= at => self.ready(now, id, fx),
            LeaseState::Starting | LeaseState::Active | LeaseState::Parked
                if lease.expires_ms.is_some_and(|until| until <= at) =>
            {
                // Whoever is silent makes no room: it is asked to leave instead, when its place is needed.
                lease.asked = None;
                self.go(now, id, LeaseState::Expired, "nobody has renewed it", fx);
            }
            LeaseState::Draining
            | LeaseState::Reclaiming
            | LeaseState::Starting
            | LeaseState::Active
            | LeaseState::Parked
            | LeaseState::Expired
            | LeaseState::Quarantined
            | LeaseState::Gone => {}
        }
    }
}

fn shares(board: &Board, placement: &Placement) -> Vec<Share> {
    placement
        .on
        .iter()
        .filter_map(|(place, bytes)| {
            let device = board.places.get(*place)?.id.clone();
            Some(Share { device, declared_bytes: *bytes, measured_bytes: None, charge_bytes: *bytes })
        })
        .collect()
}

impl Lease {
    /// What people call it.
    pub fn called(&self) -> String {
        self.holder.label()
    }
}
