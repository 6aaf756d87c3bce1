//! Making room without ending: a holder goes on with less, or sleeps and is woken.
//!
//! ```text
//!            asked to downsize ── it says done ── less is seen ──> active, smaller
//!   active ──┤
//!            asked to park ────── it says done ── a rest is seen ─> parked ── a request of its own for the
//!                                                                     ▲       rest of its memory waits its turn
//!                                                                     │                        │ granted
//!                                              starting (it wakes) <──┴────────────────────────┘
//! ```
//!
//! What was asked is believed when it was measured, never when it was said: until then the whole counts. Whoever is
//! too slow is asked to leave instead. To wake is a request like any other, in the same queue and by the same rules, for
//! the devices that its holder is on already; when it is granted it becomes part of the parked lease.

use wharf_model::{ErrorKind, Failure, GpuNeed, GpuRequest, Holder, LeaseId, LeaseState, MakeRoom, Share, UnitName};

use super::{Arbiter, Asked, Change, GpuAct, GpuNotice, Lease, Outcome, asks};
use crate::{Now, Ticket};

impl Arbiter {
    /// Asks a holder to make room and stay.
    pub(super) fn ask_to(&mut self, now: Now, id: LeaseId, change: Change, whom: Option<LeaseId>, fx: &mut Outcome) {
        let by = whom.and_then(|id| self.leases.get(&id)).map(Lease::called);
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if lease.state != LeaseState::Active || lease.asked.is_some() {
            return;
        }
        let until_ms = now.boot_ms.saturating_add(lease.request.drain_ms);
        lease.asked = Some(Asked { change, until_ms, done_ms: None });
        lease.leaves_for = whom;
        fx.leases.insert(id);
        self.tell_change(id, change, by, fx);
    }

    fn tell_change(&mut self, id: LeaseId, change: Change, by: Option<String>, fx: &mut Outcome) {
        let Some(lease) = self.leases.get(&id) else { return };
        if let Holder::Unit { name } = &lease.holder {
            fx.changes.push((name.clone(), change));
            fx.woken.push(name.clone());
        }
        fx.notices.push(GpuNotice::Asked { lease: id, holder: lease.holder.clone(), change, by });
        self.version += 1;
    }

    /// A holder says that it sleeps and what it keeps; or somebody asks it to, by hand (no epoch).
    pub fn park(
        &mut self,
        now: Now,
        id: LeaseId,
        epoch: Option<u64>,
        keeps_bytes: Option<u64>,
    ) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let result = self.may_park(id, epoch, keeps_bytes);
        if let Ok(Some(to_bytes)) = result {
            let change = Change::Park { to_bytes };
            if epoch.is_some() {
                let until_ms = now.boot_ms.saturating_add(self.settings.reclaim_ms);
                self.has_done(now, id, Asked { change, until_ms, done_ms: Some(now.boot_ms) }, &mut fx);
            } else {
                self.ask_to(now, id, change, None, &mut fx);
            }
        }
        (fx, result.map(|_| ()))
    }

    /// What it would keep; none: it sleeps already.
    fn may_park(&self, id: LeaseId, epoch: Option<u64>, keeps_bytes: Option<u64>) -> Result<Option<u64>, Failure> {
        let Some(lease) = self.leases.get(&id) else { return Err(asks::not_there(id)) };
        if epoch.is_some_and(|epoch| epoch != lease.epoch) {
            return Err(asks::stale(format!("{id} has another epoch")));
        }
        let conflict =
            |text: String| Err(Failure::new(ErrorKind::Conflict, text).hint(format!("wharf gpu explain {id}")));
        match lease.state {
            LeaseState::Parked => return Ok(None),
            LeaseState::Active => {}
            LeaseState::Queued
            | LeaseState::Reserved
            | LeaseState::Starting
            | LeaseState::Draining
            | LeaseState::Reclaiming
            | LeaseState::Expired
            | LeaseState::Quarantined
            | LeaseState::Gone => return conflict(format!("{id} is not active, so that it cannot be parked")),
        }
        if epoch.is_none() && lease.busy.is_some_and(|busy| busy > 0) {
            return Err(Failure::new(ErrorKind::DrainRefused, format!("{} is busy", lease.called()))
                .hint("wait until it is not"));
        }
        if epoch.is_none() && !self.has_ram_to_park(lease) {
            let text = format!("what {} would put away does not fit into the machine's memory", lease.called());
            return Err(Failure::new(ErrorKind::Precondition, text).hint(format!("wharf gpu revoke {id}")));
        }
        match keeps_bytes.or(lease.request.parked_bytes) {
            Some(keeps) => Ok(Some(keeps)),
            None => {
                Err(Failure::new(ErrorKind::Precondition, format!("{} did not say that it can sleep", lease.called()))
                    .hint("its policy.gpu.parked_bytes, or the request's, says what it keeps then"))
            }
        }
    }

    fn has_done(&mut self, now: Now, id: LeaseId, asked: Asked, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        // Whoever was asked for less than it gives has until then.
        let until_ms = lease.asked.map_or(asked.until_ms, |before| before.until_ms.max(asked.until_ms));
        lease.asked = Some(Asked { until_ms, done_ms: Some(now.boot_ms), ..asked });
        fx.leases.insert(id);
        fx.acts.push(GpuAct::Measure);
        self.version += 1;
    }

    /// A unit has done what it was asked to do, or could not.
    pub fn changed(&mut self, now: Now, name: &UnitName, change: Change, result: Result<(), Failure>) -> Outcome {
        let mut fx = Outcome::default();
        let Some(id) = self.units.get(name).copied() else { return fx };
        let Some(asked) = self.leases.get(&id).and_then(|lease| lease.asked).filter(|a| a.change == change) else {
            return fx;
        };
        match (result, change) {
            (Ok(()), Change::Wake) => self.ready(now, id, &mut fx),
            (Ok(()), Change::Downsize { .. } | Change::Park { .. }) => {
                let until_ms = now.boot_ms.saturating_add(self.settings.reclaim_ms);
                self.has_done(now, id, Asked { until_ms, ..asked }, &mut fx);
            }
            (Err(failure), Change::Wake | Change::Downsize { .. } | Change::Park { .. }) => {
                self.give_up_on(now, id, &failure.message, &mut fx);
            }
        }
        self.pass(now, &mut fx);
        fx
    }

    /// What a holder says that it has done is seen, or not yet.
    pub(super) fn ease(&mut self, now: Now, id: LeaseId, taken_ms: u64, fx: &mut Outcome) {
        let slack = self.settings.slack_bytes;
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let Some((asked, to_bytes)) = lease.asked.zip(lease.makes_room()) else { return };
        let is_back = |share: &Share| share.measured_bytes.is_none_or(|bytes| bytes <= to_bytes.saturating_add(slack));
        if asked.done_ms.is_none_or(|done_ms| taken_ms <= done_ms) || !lease.shares.iter().all(is_back) {
            return;
        }
        lease.asked = None;
        lease.leaves_for = None;
        let sleeps = matches!(asked.change, Change::Park { .. });
        if sleeps {
            lease.awake = lease.shares.iter().map(|share| share.declared_bytes).collect();
        }
        for share in &mut lease.shares {
            let measured = share.measured_bytes.unwrap_or(to_bytes);
            share.declared_bytes = share.declared_bytes.min(to_bytes);
            share.charge_bytes = share.declared_bytes.max(measured);
        }
        fx.leases.insert(id);
        self.version += 1;
        if sleeps {
            self.go(now, id, LeaseState::Parked, "it sleeps", fx);
        }
    }

    /// What it was asked to do it has not done in time.
    pub(super) fn is_too_slow(&self, now: Now, id: LeaseId) -> bool {
        let asked = self.leases.get(&id).and_then(|lease| lease.asked);
        asked.is_some_and(|asked| asked.until_ms <= now.boot_ms)
    }

    /// It did not do what it was asked to do. For somebody else it ends then; by hand, it goes on.
    pub(super) fn give_up_on(&mut self, now: Now, id: LeaseId, why: &str, fx: &mut Outcome) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let Some(asked) = lease.asked.take() else { return };
        let whom = lease.leaves_for.take();
        fx.leases.insert(id);
        self.version += 1;
        let by_hand = whom.is_none() && asked.change != Change::Wake;
        if by_hand {
            self.go(now, id, LeaseState::Active, &format!("it did not make room: {why}"), fx);
        } else {
            self.ask_to_leave(now, id, whom, why, fx);
        }
    }

    /// A parked holder wants its memory back. The answer comes when it has it.
    pub fn unpark(
        &mut self,
        now: Now,
        ticket: Option<Ticket>,
        id: LeaseId,
        epoch: Option<u64>,
        wait_ms: Option<u64>,
    ) -> Outcome {
        let mut fx = Outcome::default();
        match self.may_wake(id, epoch) {
            Ok(None) => fx.answers.extend(ticket.map(|ticket| (ticket, Ok(id)))),
            Err(failure) => fx.answers.extend(ticket.map(|ticket| (ticket, Err(failure)))),
            Ok(Some(request)) => {
                if let Some(waits) = self.leases.values().find(|lease| lease.wakes == Some(id)).map(|lease| lease.id) {
                    self.tickets.entry(waits).or_default().extend(ticket);
                    return fx;
                }
                let Some(lease) = self.leases.get(&id) else { return fx };
                let (owner, holder) = (lease.owner, lease.holder.clone());
                self.book.last_lease += 1;
                let new = LeaseId(self.book.last_lease);
                let mut waits = Lease::new(new, owner, holder, request, now.boot_ms);
                waits.wakes = Some(id);
                waits.wait(now.boot_ms, wait_ms);
                self.leases.insert(new, waits);
                self.tickets.entry(new).or_default().extend(ticket);
                fx.book = true;
                self.go(now, new, LeaseState::Queued, &format!("{id} wants to wake up"), &mut fx);
                self.pass(now, &mut fx);
            }
        }
        fx
    }

    /// The request that brings its memory back; none: it is awake.
    fn may_wake(&self, id: LeaseId, epoch: Option<u64>) -> Result<Option<GpuRequest>, Failure> {
        let Some(lease) = self.leases.get(&id) else { return Err(asks::not_there(id)) };
        if epoch.is_some_and(|epoch| epoch != lease.epoch) {
            return Err(asks::stale(format!("{id} has another epoch")));
        }
        match lease.state {
            LeaseState::Active | LeaseState::Starting if lease.makes_room().is_none() => return Ok(None),
            LeaseState::Parked => {}
            LeaseState::Active
            | LeaseState::Starting
            | LeaseState::Queued
            | LeaseState::Reserved
            | LeaseState::Draining
            | LeaseState::Reclaiming
            | LeaseState::Expired
            | LeaseState::Quarantined
            | LeaseState::Gone => {
                let text = format!("{id} is not parked: it is {:?}", lease.state);
                return Err(Failure::new(ErrorKind::Conflict, text).hint(format!("wharf gpu explain {id}")));
            }
        }
        let need = lease.need();
        let missing = |(share, awake): (&Share, &u64)| awake.saturating_sub(share.charge_bytes).max(1);
        let devices = u32::try_from(lease.shares.len()).unwrap_or(u32::MAX);
        Ok(Some(GpuRequest {
            need: GpuNeed {
                devices,
                vram_bytes: need.vram_bytes.and_then(|_| lease.shares.iter().zip(&lease.awake).map(missing).max()),
                only: lease.shares.iter().map(|share| share.device.clone()).collect(),
                avoid: vec![],
                same_island: false,
                ..need.clone()
            },
            alternatives: vec![],
            ..lease.request.clone()
        }))
    }

    /// The request for what it had put away is granted: it is one lease again, with the same epoch.
    pub(super) fn wake(&mut self, now: Now, request: LeaseId, id: LeaseId, more: &[Share], fx: &mut Outcome) {
        let tickets = self.tickets.remove(&request).unwrap_or_default();
        self.over(now, request, &format!("{id} has its memory again"), fx);
        let warm_up_ms = self.settings.warm_up_ms;
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.awake.clear();
        for share in &mut lease.shares {
            let more = more.iter().find(|more| more.device == share.device).map_or(0, |more| more.declared_bytes);
            share.charge_bytes = share.charge_bytes.saturating_add(more);
            share.declared_bytes = share.charge_bytes;
        }
        lease.expires_ms = lease.ttl_ms.map(|ttl| now.boot_ms.saturating_add(ttl));
        lease.busy = None;
        let is_unit = lease.unit().is_some();
        let (state, why) = if is_unit {
            lease.asked =
                Some(Asked { change: Change::Wake, until_ms: now.boot_ms.saturating_add(warm_up_ms), done_ms: None });
            (LeaseState::Starting, "it wakes up")
        } else {
            lease.ready_ms = Some(now.boot_ms);
            (LeaseState::Active, "it may wake up")
        };
        self.go(now, id, state, why, fx);
        if is_unit {
            self.tell_change(id, Change::Wake, None, fx);
        }
        fx.answers.extend(tickets.into_iter().map(|ticket| (ticket, Ok(id))));
    }

    /// A unit that sleeps is wanted: by a start, or by whoever knocks.
    pub fn unit_wanted(&mut self, now: Now, name: &UnitName, wait_ms: Option<u64>) -> Outcome {
        match self.of_unit(name) {
            Some(lease) if lease.state == LeaseState::Parked => self.unpark(now, None, lease.id, None, wait_ms),
            Some(_) | None => Outcome::default(),
        }
    }

    /// Whoever wanted to wake it: it sleeps no more, for another reason.
    pub(super) fn drop_wake(&mut self, now: Now, id: LeaseId, fx: &mut Outcome) {
        let waits: Vec<LeaseId> = self.leases.values().filter(|l| l.wakes == Some(id)).map(|l| l.id).collect();
        for request in waits {
            self.refuse(now, request, asks::stale(format!("{id} sleeps no more")), fx);
        }
    }

    /// Requests to wake somebody who is not there, after a restart.
    pub(super) fn drop_lost_wakes(&mut self, fx: &mut Outcome) {
        let asleep = |id: &LeaseId| self.leases.get(id).is_some_and(|lease| lease.state == LeaseState::Parked);
        let lost: Vec<LeaseId> =
            self.leases.values().filter(|l| l.wakes.is_some_and(|id| !asleep(&id))).map(|l| l.id).collect();
        for id in lost {
            self.leases.remove(&id);
            fx.leases.insert(id);
        }
    }

    /// The rules of this page.
    pub(super) fn check_ease(&self, lease: &Lease) -> Result<(), String> {
        let fits = match lease.asked.map(|asked| asked.change) {
            Some(Change::Downsize { .. } | Change::Park { .. }) => lease.state == LeaseState::Active,
            Some(Change::Wake) => lease.state == LeaseState::Starting,
            None => true,
        };
        if !fits {
            return Err(format!("{}: {:?}, and asked to {:?}", lease.id, lease.state, lease.asked));
        }
        let Some(id) = lease.wakes else { return Ok(()) };
        let asleep = self.leases.get(&id).is_some_and(|lease| lease.state == LeaseState::Parked);
        if !lease.waits() || !asleep {
            return Err(format!("{}: wakes {id}, which does not sleep", lease.id));
        }
        Ok(())
    }
}

impl Lease {
    /// Its holder sleeps, or is about to, or has not woken up yet.
    pub fn is_asleep(&self) -> bool {
        let change = self.asked.map(|asked| asked.change);
        self.state == LeaseState::Parked || matches!(change, Some(Change::Park { .. } | Change::Wake))
    }

    /// What it makes room by just now: a stop, unless it was asked for less.
    pub fn makes_room_by(&self) -> MakeRoom {
        match self.asked.map(|asked| asked.change) {
            Some(Change::Downsize { .. }) => MakeRoom::Downsize,
            Some(Change::Park { .. }) => MakeRoom::Park,
            Some(Change::Wake) | None => MakeRoom::Stop,
        }
    }
}
