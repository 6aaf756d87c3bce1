//! Programs that never asked: one gets a lease for what it has already, or is known and told of no more.
//!
//! ```text
//!   foreign ── adopt ──> ACTIVE, with what it has where it was seen; from then on as any other lease
//!           └─ ignore ─> baseline: taken as before, and no news
//! ```
//!
//! The same is done for a run of a unit that lives and whose lease is not known: its journal was lost.
//!
//! An adoption moves nothing: what was foreign counts as a charge. So it is refused where the ledger would promise more
//! than there is, and where somebody has the device alone. It refuses to know who may adopt whom.

use wharf_model::{
    DeviceId, DeviceProcess, ErrorKind, Failure, GpuRequest, Holder, LeaseId, LeaseState, Share, UnitName, size,
};

use super::{Arbiter, Lease, Outcome, Slot};
use crate::Now;

impl Arbiter {
    /// A program that has memory already becomes the holder of a lease on it. `vram_bytes`: what it is promised on
    /// each of its devices; none: what it was seen to have. Unless it is `evictable` nobody but `force` and a hand makes
    /// it leave: it never agreed to that.
    pub fn adopt(
        &mut self,
        now: Now,
        owner: u32,
        holder: Holder,
        vram_bytes: Option<u64>,
        evictable: bool,
    ) -> (Outcome, Result<LeaseId, Failure>) {
        let mut fx = Outcome::default();
        let id = LeaseId(self.book.last_lease + 1);
        let request = GpuRequest { evictable, ..GpuRequest::default() };
        let mut lease = Lease::new(id, owner, holder, request, now.boot_ms);
        let shares = match self.shares_to_adopt(now, &lease, vram_bytes) {
            Ok(shares) => shares,
            Err(failure) => return (fx, Err(failure)),
        };
        lease.request.need.vram_bytes = shares.iter().map(|share| share.declared_bytes).max();
        if let Holder::Process { pid, identity, .. } = &lease.holder {
            self.book.ignored.remove(&(*pid, *identity));
        }
        self.hold(now, lease, shares, &mut fx);
        (fx, Ok(id))
    }

    /// A unit's run lives, wants this by its policy, and has no lease: it gets one where it is seen. As long as that
    /// cannot be, what it has is nobody's.
    pub fn adopt_unit(&mut self, now: Now, name: &UnitName, request: &GpuRequest) -> Outcome {
        let mut fx = Outcome::default();
        if self.units.contains_key(name) {
            return fx;
        }
        let id = LeaseId(self.book.last_lease + 1);
        let mut lease = Lease::new(id, 0, Holder::Unit { name: name.clone() }, request.clone(), now.boot_ms);
        let Ok(shares) = self.shares_to_adopt(now, &lease, request.need.vram_bytes) else { return fx };
        // It was to have its devices alone: that cannot be brought back where somebody has come since.
        let is_shared = |share: &Share| self.awake_on(&share.device).next().is_some();
        if lease.need().is_alone() && shares.iter().any(is_shared) {
            lease.request.need.exclusive = false;
            lease.request.need.vram_bytes = shares.iter().map(|share| share.declared_bytes).max();
        }
        self.hold(now, lease, shares, &mut fx);
        fx
    }

    /// What was seen becomes a lease with an epoch of its own.
    fn hold(&mut self, now: Now, mut lease: Lease, shares: Vec<Share>, fx: &mut Outcome) {
        let id = lease.id;
        (self.book.last_lease, self.book.last_epoch) = (id.0, self.book.last_epoch + 1);
        lease.epoch = self.book.last_epoch;
        lease.alternative = 0;
        lease.request.need.devices = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        lease.request.need.only = shares.iter().map(|share| share.device.clone()).collect();
        lease.shares = shares;
        (lease.granted_ms, lease.ready_ms) = (Some(now.boot_ms), Some(now.boot_ms));
        self.book.learned.entry(lease.label()).or_default().used(now.boot_ms);
        fx.book = true;
        self.index(&lease);
        self.leases.insert(id, lease);
        self.go(now, id, LeaseState::Active, "it was there already, and was adopted", fx);
        self.find_owners();
        self.pass(now, fx);
    }

    /// Who is promised memory of a device, and is awake.
    fn awake_on<'a>(&'a self, device: &'a DeviceId) -> impl Iterator<Item = (&'a Lease, &'a Share)> {
        let awake =
            |lease: &&Lease| lease.state.is_charged() && !lease.is_reclaimed() && lease.state != LeaseState::Parked;
        let shares = |lease: &'a Lease| lease.shares.iter().map(move |share| (lease, share));
        self.leases.values().filter(awake).flat_map(shares).filter(move |(_, share)| share.device == *device)
    }

    /// What its tree has on each device that counts for nobody yet.
    fn shares_to_adopt(&self, now: Now, lease: &Lease, vram_bytes: Option<u64>) -> Result<Vec<Share>, Failure> {
        let who = lease.called();
        let counts_for = |other: LeaseId| {
            Failure::new(ErrorKind::Conflict, format!("what {who} has counts for {other} already"))
                .hint(format!("wharf gpu explain {other}"))
        };
        let (mut shares, mut counted) = (vec![], None);
        for slot in self.slots.values() {
            let own: Vec<(&DeviceProcess, Option<LeaseId>)> =
                slot.owned().filter(|(process, _)| lease.owns(process)).collect();
            let here = own.iter().find_map(|(_, owner)| owner.filter(|id| self.leases.contains_key(id)));
            counted = counted.or(here);
            let is_free = own.iter().any(|(_, owner)| owner.is_none_or(|id| !self.leases.contains_key(&id)));
            if !is_free {
                continue;
            }
            if let Some(other) = here {
                return Err(counts_for(other));
            }
            let units = own.iter().filter_map(|(process, _)| process.unit.as_ref().map(|(unit, _)| unit));
            if let Some(unit) = units.into_iter().find(|unit| lease.unit() != Some(unit)) {
                let text = format!("{who} is the unit {unit}'s, which gets its GPU by its policy");
                let hint = format!("wharf start {unit} --gpu SIZE, when it has stopped");
                return Err(Failure::new(ErrorKind::Conflict, text).hint(hint).about(unit));
            }
            let told = own.iter().map(|(process, _)| process.used_bytes).sum::<Option<u64>>();
            shares.push(self.share_to_adopt(now, slot, &who, told, vram_bytes)?);
        }
        match (shares.is_empty(), counted) {
            (false, _) => Ok(shares),
            (true, Some(other)) => Err(counts_for(other)),
            (true, None) => Err(self.has_nothing(&who)),
        }
    }

    fn share_to_adopt(
        &self,
        now: Now,
        slot: &Slot,
        who: &str,
        measured_bytes: Option<u64>,
        vram_bytes: Option<u64>,
    ) -> Result<Share, Failure> {
        let device = slot.device.id.clone();
        let name = self.name_of(&device);
        if now.boot_ms.saturating_sub(slot.measured_ms) > self.settings.stale_ms {
            return Err(self.stale_probe());
        }
        if self.is_to_be_emptied(&device) {
            let text = format!("{name} is being emptied: who has a lease there is asked to leave");
            return Err(Failure::new(ErrorKind::DeviceTainted, text).hint(format!("wharf gpu untaint {device}")));
        }
        let declared_bytes = vram_bytes.or(measured_bytes).ok_or_else(|| {
            let text = format!("the driver of {name} does not say what {who} has");
            Failure::new(ErrorKind::InvalidParams, text).hint("say what it takes: --vram 8GiB")
        })?;
        let (mut promised, mut holders) = (0_u64, vec![]);
        for (lease, share) in self.awake_on(&device) {
            if lease.need().is_alone() {
                let text = format!("{} has {name} alone ({})", lease.called(), lease.id);
                let hint = format!("wharf gpu revoke {}, or: wharf gpu ignore PID", lease.id);
                return Err(Failure::new(ErrorKind::Conflict, text).hint(hint));
            }
            promised = promised.saturating_add(share.declared_bytes);
            holders.push(format!("{} ({})", lease.called(), size(share.declared_bytes)));
        }
        let more = declared_bytes.saturating_sub(measured_bytes.unwrap_or(declared_bytes));
        let room = self.count(slot, None).headroom;
        if promised.saturating_add(declared_bytes) > slot.device.total_bytes || more > room {
            let others = if holders.is_empty() { "nobody".to_owned() } else { holders.join(", ") };
            let text = format!("{name} has no {} to promise to {who} beside {others}", size(declared_bytes));
            return Err(Failure::new(ErrorKind::GpuBusy, text).hint("adopt it when one of them has left, or with less"));
        }
        let charge_bytes = declared_bytes.max(measured_bytes.unwrap_or(0));
        Ok(Share { device, declared_bytes, measured_bytes, charge_bytes })
    }

    /// This process is baseline from now on: taken, and no news. Or it is news again.
    pub fn ignore(&mut self, now: Now, pid: i32, identity: u64, ignored: bool) -> (Outcome, Result<(), Failure>) {
        let mut fx = Outcome::default();
        if ignored {
            let is_it = |process: &DeviceProcess| (process.pid, process.identity) == (pid, Some(identity));
            let seen: Vec<Option<LeaseId>> = self
                .slots
                .values()
                .flat_map(Slot::owned)
                .filter(|(process, _)| is_it(process))
                .map(|(_, owner)| owner)
                .collect();
            if seen.is_empty() {
                return (fx, Err(self.has_nothing(&format!("process {pid}"))));
            }
            if let Some(lease) = seen.into_iter().flatten().find(|id| self.leases.contains_key(id)) {
                let text = format!("process {pid} counts for {lease}: nothing of it is told as foreign");
                return (fx, Err(Failure::new(ErrorKind::Conflict, text).hint(format!("wharf gpu explain {lease}"))));
            }
        }
        let book = &mut self.book.ignored;
        fx.book = if ignored { book.insert((pid, identity)) } else { book.remove(&(pid, identity)) };
        self.version += 1;
        self.pass(now, &mut fx);
        (fx, Ok(()))
    }

    /// A process that was ignored is gone: another one of its number is not it.
    pub fn ignored_gone(&mut self, pid: i32, identity: u64) -> Outcome {
        let book = self.book.ignored.remove(&(pid, identity));
        self.version += u64::from(book);
        Outcome { book, ..Outcome::default() }
    }

    /// It was said to be baseline.
    pub fn is_ignored(&self, process: &DeviceProcess) -> bool {
        process.identity.is_some_and(|identity| self.book.ignored.contains(&(process.pid, identity)))
    }

    /// What those that are ignored have on a device, in bytes.
    pub(super) fn ignored_bytes(&self, slot: &Slot) -> u64 {
        let strange = |owner: Option<LeaseId>| owner.is_none_or(|id| !self.leases.contains_key(&id));
        let ignored = slot.owned().filter(|(process, owner)| strange(*owner) && self.is_ignored(process));
        ignored.filter_map(|(process, _)| process.used_bytes).sum()
    }

    fn has_nothing(&self, who: &str) -> Failure {
        Failure::new(ErrorKind::Precondition, format!("{who} has no memory on a device"))
            .hint("see who has: wharf gpu ps")
    }

    /// Whose each process is, where leases have changed since it was measured.
    fn find_owners(&mut self) {
        let found: Vec<Vec<Option<LeaseId>>> = self
            .slots
            .values()
            .map(|slot| {
                let whose = |process| self.lease_of(&slot.device.id, process).map(|lease| lease.id);
                slot.processes().iter().map(whose).collect()
            })
            .collect();
        for (slot, owners) in self.slots.values_mut().zip(found) {
            slot.owners = owners;
        }
    }
}
