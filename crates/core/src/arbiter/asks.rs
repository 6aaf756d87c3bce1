//! What callers ask: acquire, renew, tell, grow, give back; and what operators do by hand.

use serde::{Deserialize, Serialize};
use wharf_model::{DeviceId, ErrorKind, Failure, GpuRequest, Holder, LeaseId, LeaseState, Taint, UnitName};

use super::{Arbiter, GpuAct, Lease, Outcome};
use crate::{Now, Ticket};

/// The most devices that one request can name.
const MAX_DEVICES: u32 = 16;

/// A key that begins so is of one call: its request goes with the call, and does not outlive a daemon.
pub const PASSING: &str = "call ";

/// How a request is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// The same key of the same user is the same request.
    pub key: Option<String>,
    /// How long the asker waits, in milliseconds; 0: not at all; none: for as long as it takes.
    pub wait_ms: Option<u64>,
    /// How long it lasts without a renewal, in milliseconds; none: as long as its holder lives.
    pub ttl_ms: Option<u64>,
}

/// What a holder says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// It has loaded.
    Ready,
    /// It works on so many requests; 0: it has nothing to do.
    Busy(u32),
}

impl Arbiter {
    /// Asks for devices. The answer comes with the ticket, at once or when it is its turn.
    pub fn acquire(
        &mut self,
        now: Now,
        ticket: Option<Ticket>,
        owner: u32,
        holder: Holder,
        request: GpuRequest,
        terms: Terms,
    ) -> Outcome {
        let mut fx = Outcome::default();
        let answer = |fx: &mut Outcome, result| fx.answers.extend(ticket.map(|ticket| (ticket, result)));
        if let Some(known) = terms.key.as_ref().and_then(|key| self.keys.get(&(owner, key.clone()))).copied() {
            match self.leases.get(&known) {
                Some(lease) if lease.request != request || lease.holder != holder => {
                    let text = format!("the key belongs to {known}, which asked for something else");
                    answer(&mut fx, Err(Failure::new(ErrorKind::Conflict, text).hint("choose another client_key")));
                }
                Some(lease) if lease.waits() => self.tickets.entry(known).or_default().extend(ticket),
                Some(_) | None => answer(&mut fx, Ok(known)),
            }
            return fx;
        }
        if let Err(failure) = self.sound(owner, &request) {
            // A unit has no ticket: it is told as when a request is refused later.
            if let Holder::Unit { name } = &holder {
                fx.refused.push((name.clone(), failure.clone()));
            }
            answer(&mut fx, Err(failure));
            return fx;
        }
        self.book.last_lease += 1;
        let id = LeaseId(self.book.last_lease);
        let mut lease = Lease::new(id, owner, holder, request, now.boot_ms);
        lease.wait(now.boot_ms, terms.wait_ms);
        lease.key = terms.key;
        lease.ttl_ms = terms.ttl_ms;
        self.index(&lease);
        self.leases.insert(id, lease);
        self.tickets.entry(id).or_default().extend(ticket);
        fx.book = true;
        self.go(now, id, LeaseState::Queued, "", &mut fx);
        self.pass(now, &mut fx);
        fx
    }

    fn sound(&self, owner: u32, request: &GpuRequest) -> Result<(), Failure> {
        if self.is_bare() {
            return Err(self.no_gpu());
        }
        for need in request.needs() {
            if need.devices == 0 || need.devices > MAX_DEVICES {
                let text = format!("devices must be 1 to {MAX_DEVICES}, not {}", need.devices);
                return Err(Failure::new(ErrorKind::InvalidParams, text));
            }
            if need.vram_bytes == Some(0) {
                let text = "vram_bytes is 0: leave it out for a device of its own, or say how much is needed";
                return Err(Failure::new(ErrorKind::InvalidParams, text));
            }
            if let Some(unknown) = need.only.iter().find(|id| self.seen && !self.slots.contains_key(id)) {
                let have: Vec<String> = self.slots.keys().map(ToString::to_string).collect();
                return Err(Failure::new(ErrorKind::Infeasible, format!("there is no device {unknown}"))
                    .hint(format!("there are: {}", have.join(", "))));
            }
        }
        if request.alternatives.len() > 8 {
            return Err(Failure::new(ErrorKind::InvalidParams, "more than 8 alternatives"));
        }
        let waiting = self.leases.values().filter(|lease| lease.owner == owner && lease.waits()).count();
        if waiting >= self.settings.queue_limit {
            let text = format!("{waiting} requests of this user wait already");
            return Err(Failure::new(ErrorKind::Quota, text).hint("see them: wharf gpu queue"));
        }
        Ok(())
    }

    /// The lease, if this epoch is its present one and its holder still has it.
    fn present(&mut self, id: LeaseId, epoch: u64) -> Result<&mut Lease, Failure> {
        let Some(lease) = self.leases.get_mut(&id) else { return Err(stale(format!("{id} is over"))) };
        if lease.epoch != epoch {
            return Err(stale(format!("{id} has another epoch than {epoch}")));
        }
        match lease.state {
            LeaseState::Starting | LeaseState::Active | LeaseState::Parked | LeaseState::Draining => Ok(lease),
            LeaseState::Expired => Err(stale(format!("{id} has expired"))),
            LeaseState::Reclaiming | LeaseState::Quarantined | LeaseState::Gone => {
                Err(stale(format!("{id} was given back")))
            }
            LeaseState::Queued | LeaseState::Reserved => Err(stale(format!("{id} has not been granted yet"))),
        }
    }

    /// A heartbeat: it lasts another while.
    pub fn renew(&mut self, now: Now, id: LeaseId, epoch: u64) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let result = self.present(id, epoch).map(|lease| {
            lease.expires_ms = lease.ttl_ms.map(|ttl| now.boot_ms.saturating_add(ttl));
            fx.leases.insert(id);
        });
        (fx, result)
    }

    /// What a holder says of itself.
    pub fn hint(&mut self, now: Now, id: LeaseId, epoch: u64, hint: Hint) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let result = self.present(id, epoch).map(|_| ());
        if result.is_ok() {
            self.hear(now, id, hint, &mut fx);
        }
        (fx, result)
    }

    /// The same of a unit, by those who see its connections.
    pub fn unit_hint(&mut self, now: Now, name: &UnitName, hint: Hint) -> Outcome {
        let mut fx = Outcome::default();
        if let Some(id) = self.units.get(name).copied() {
            self.hear(now, id, hint, &mut fx);
        }
        fx
    }

    fn hear(&mut self, now: Now, id: LeaseId, hint: Hint, fx: &mut Outcome) {
        match hint {
            Hint::Ready => self.ready(now, id, fx),
            Hint::Busy(requests) => {
                let Some(lease) = self.leases.get_mut(&id) else { return };
                let before = lease.busy.replace(requests);
                let label = lease.label();
                if requests > 0 && before.is_none_or(|before| before < requests) {
                    self.book.learned.entry(label).or_default().used(now.boot_ms);
                }
                if requests == 0 {
                    // Who waits for it to have nothing to do.
                    self.pass(now, fx);
                }
            }
        }
    }

    /// Another size. Less is always granted; more only where there is room now.
    pub fn update(&mut self, now: Now, id: LeaseId, epoch: u64, vram_bytes: u64) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        if let Err(failure) = self.present(id, epoch).map(|_| ()) {
            return (fx, Err(failure));
        }
        let Some(lease) = self.leases.get(&id).cloned() else { return (fx, Ok(())) };
        if lease.state == LeaseState::Parked {
            let failure = Failure::new(ErrorKind::Conflict, format!("{id} is parked"));
            return (fx, Err(failure.hint(format!("wake it first: wharf gpu unpark {id}"))));
        }
        for share in &lease.shares {
            let Some(slot) = self.slots.get(&share.device) else { continue };
            let room = self.count(slot, Some(id)).headroom;
            let old_ms = now.boot_ms.saturating_sub(slot.measured_ms);
            let grows = vram_bytes > share.declared_bytes;
            if grows && old_ms > self.settings.stale_ms {
                return (fx, Err(self.stale_probe()));
            }
            if grows && vram_bytes > room {
                let text = format!("{} has room for {} of {vram_bytes} bytes", share.device, room);
                let failure = Failure::new(ErrorKind::WouldWait, text)
                    .hint("go on with what is there, or release and acquire the larger size");
                return (fx, Err(failure));
            }
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            for share in &mut lease.shares {
                share.declared_bytes = vram_bytes;
                share.charge_bytes = vram_bytes.max(share.measured_bytes.unwrap_or(0));
            }
            lease.request.need.vram_bytes = Some(vram_bytes);
            let is_enough = lease.makes_room().is_some_and(|to_bytes| vram_bytes <= to_bytes);
            if let Some(asked) = lease.asked.as_mut().filter(|_| is_enough) {
                // It was asked for this. That it is so is for the next measurement to say.
                asked.done_ms = Some(now.boot_ms);
                fx.acts.push(GpuAct::Measure);
            }
            lease.over_told = false;
            fx.leases.insert(id);
        }
        self.version += 1;
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    /// The holder needs it no more. It counts until its memory was seen to be back.
    pub fn release(&mut self, now: Now, id: LeaseId, epoch: u64) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let result = self.present(id, epoch).map(|_| ());
        if result.is_ok() {
            self.reclaim(now, id, &mut fx);
            self.pass(now, &mut fx);
        }
        (fx, result)
    }

    /// A request that waits is taken back.
    pub fn cancel(&mut self, now: Now, id: LeaseId) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        match self.leases.get(&id) {
            Some(lease) if lease.waits() => {
                self.over(now, id, "it was taken back", &mut fx);
                self.pass(now, &mut fx);
                (fx, Ok(()))
            }
            Some(lease) => {
                let text = format!("{id} does not wait: it is {:?}", lease.state);
                (fx, Err(Failure::new(ErrorKind::Conflict, text).hint(format!("wharf gpu release {id}"))))
            }
            None => (fx, Err(not_there(id))),
        }
    }

    /// The holder is asked to leave, by hand.
    pub fn revoke(
        &mut self,
        now: Now,
        id: LeaseId,
        force: bool,
        drain_ms: Option<u64>,
    ) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let Some(lease) = self.leases.get_mut(&id) else { return (fx, Err(not_there(id))) };
        if lease.is_pinned(now.boot_ms) && !force {
            let failure = Failure::new(ErrorKind::GpuPinned, format!("{id} is pinned"));
            return (fx, Err(failure.hint(format!("wharf gpu revoke {id} --force"))));
        }
        if lease.busy.is_some_and(|busy| busy > 0) && !force {
            let text = format!("{} works on {} requests", lease.called(), lease.busy.unwrap_or(0));
            let failure = Failure::new(ErrorKind::DrainRefused, text);
            return (fx, Err(failure.hint(format!("wait, or: wharf gpu revoke {id} --force"))));
        }
        if let Some(ms) = drain_ms {
            lease.request.drain_ms = ms;
        }
        if lease.waits() {
            self.over(now, id, "it was taken back by hand", &mut fx);
        } else {
            self.ask_to_leave(now, id, None, "by hand", &mut fx);
        }
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    /// So much of a device is kept free, for a desktop, say.
    pub fn keep_free(&mut self, now: Now, device: &DeviceId, bytes: u64) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let Some(slot) = self.slots.get(device) else { return (fx, Err(self.no_device(device))) };
        if bytes > slot.device.total_bytes {
            let text = format!("{device} has {} bytes, not {bytes}", slot.device.total_bytes);
            return (fx, Err(Failure::new(ErrorKind::InvalidParams, text)));
        }
        if bytes == 0 {
            self.book.reserves.remove(device);
        } else {
            self.book.reserves.insert(device.clone(), bytes);
        }
        fx.book = true;
        self.version += 1;
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    /// Nothing new on a device, or nothing at all; none: it is as good as any.
    pub fn taint(&mut self, now: Now, device: &DeviceId, taint: Option<Taint>) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        if !self.slots.contains_key(device) {
            return (fx, Err(self.no_device(device)));
        }
        if self.book.taints.get(device) != taint.as_ref() {
            self.tell_taint(device, taint.as_ref(), &mut fx);
        }
        match taint {
            Some(taint) => self.book.taints.insert(device.clone(), taint),
            None => self.book.taints.remove(device),
        };
        fx.book = true;
        self.version += 1;
        self.empty_tainted(now, &mut fx);
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    /// Nobody makes this holder leave for so long; 0: it is as any other.
    pub fn pin(&mut self, now: Now, id: LeaseId, for_ms: u64) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        let Some(lease) = self.leases.get_mut(&id) else { return (fx, Err(not_there(id))) };
        lease.pinned_until_ms = (for_ms > 0).then(|| now.boot_ms.saturating_add(for_ms));
        fx.leases.insert(id);
        self.version += 1;
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    pub(super) fn no_device(&self, device: &DeviceId) -> Failure {
        let have: Vec<String> = self.slots.keys().map(ToString::to_string).collect();
        Failure::new(ErrorKind::NotFound, format!("there is no device {device}"))
            .hint(format!("there are: {}", have.join(", ")))
    }
}

/// The lease is not what its holder takes it for.
pub(super) fn stale(text: String) -> Failure {
    Failure::new(ErrorKind::StaleEpoch, text).hint("acquire again: what was granted is granted no more")
}

pub(super) fn not_there(id: LeaseId) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("there is no {id}")).hint("see what there is: wharf gpu")
}
