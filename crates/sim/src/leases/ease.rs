//! Holders that make room and stay: they go on with less, sleep and wake up, and some only say so.

use wharf_core::{
    Ticket,
    arbiter::{Change, Lease},
};
use wharf_model::{Holder, LeaseId, LeaseState};

use super::{GIB, WAIT_MS, World, at_of};

impl World {
    /// How little it can do with, and what it keeps when it sleeps.
    pub(super) fn ease(&mut self) -> (Option<u64>, Option<u64>) {
        let downsize = self.chance.percent(20).then(|| self.chance.below(6) * GIB);
        let park = self.chance.percent(40).then(|| self.chance.below(3) * GIB / 2);
        (downsize, park)
    }

    /// A holder was asked for something. The deaf do nothing; now and then one says that it has, and has not.
    pub(super) fn asked(&mut self, id: LeaseId, change: Change) {
        let Some(lease) = self.arbiter.lease(id).cloned() else { return };
        let Holder::Process { pid, .. } = lease.holder else { return };
        let Some(to_bytes) = change.keeps() else { return };
        // Who updates its lease is taken at its word; who says that it sleeps is not.
        let lies = matches!(change, Change::Park { .. }) && self.chance.percent(5);
        let others: Vec<u64> = (0..self.totals.len()).map(|at| self.of_children(pid, at)).collect();
        let Some(process) = self.processes.get_mut(&pid).filter(|p| p.lives && !p.deaf) else { return };
        if !lies {
            for (at, has, will) in &mut process.on {
                let keeps = to_bytes.saturating_sub(others[*at]);
                (*has, *will) = ((*has).min(keeps), keeps);
            }
        }
        self.seen.eased += 1;
        let (fx, _) = match change {
            Change::Downsize { to_bytes } if to_bytes > 0 => self.arbiter.update(self.now(), id, lease.epoch, to_bytes),
            Change::Downsize { .. } | Change::Park { .. } | Change::Wake => {
                self.arbiter.park(self.now(), id, Some(lease.epoch), Some(to_bytes))
            }
        };
        self.take(fx);
    }

    /// One goes to sleep by itself, or by hand.
    pub(super) fn sleep(&mut self) {
        let Some(lease) = self.any_lease().filter(|lease| lease.state == LeaseState::Active) else { return };
        let Some(keeps) = lease.request.parked_bytes else { return };
        if self.chance.percent(50) {
            let (fx, _) = self.arbiter.park(self.now(), lease.id, None, None);
            self.take(fx);
        } else {
            self.asked(lease.id, Change::Park { to_bytes: keeps });
        }
    }

    /// One that sleeps wants its memory back.
    pub(super) fn wake(&mut self) {
        let asleep: Vec<LeaseId> =
            self.arbiter.leases().filter(|lease| lease.state == LeaseState::Parked).map(|lease| lease.id).collect();
        let Some(id) = asleep.get(self.chance.below(asleep.len() as u64) as usize).copied() else { return };
        self.next_ticket += 1;
        let wait_ms = self.chance.one_of(&[0, WAIT_MS, WAIT_MS]);
        let (ticket, epoch) = (Some(Ticket(self.next_ticket)), self.arbiter.lease(id).map(|lease| lease.epoch));
        let fx = self.arbiter.unpark(self.now(), ticket, id, epoch, Some(wait_ms));
        self.take(fx);
    }

    /// What those that a process started have on a device.
    fn of_children(&self, pid: i32, at: usize) -> u64 {
        let children = self.processes.values().filter(|p| p.parent == Some(pid));
        children.flat_map(|p| &p.on).filter(|(on, ..)| *on == at).map(|(_, has, _)| has).sum()
    }

    /// It has its memory again, and loads what it had put away. What it gave to others of its own is theirs.
    pub(super) fn woken(&mut self, pid: i32, lease: &Lease) {
        let wills: Vec<(usize, u64)> = lease
            .shares
            .iter()
            .map(|share| (at_of(&share.device), share.declared_bytes))
            .map(|(at, declared)| (at, declared.saturating_sub(self.of_children(pid, at))))
            .collect();
        let Some(process) = self.processes.get_mut(&pid).filter(|p| p.lives) else { return };
        for (at, _, will) in &mut process.on {
            *will = wills.iter().find(|(on, _)| on == at).map_or(*will, |(_, will)| *will);
        }
        self.seen.woken += 1;
    }
}
