//! What a holder's run is to be kept to, and by what it is.

use wharf_model::{Enforced, LeaseId, UnitName, VramCap, VramLimit};

use super::{Arbiter, Outcome};

impl Arbiter {
    /// What a lease's run may have of each of its devices, where that is to be enforced.
    pub fn caps(&self, id: LeaseId) -> Vec<VramCap> {
        let Some(lease) = self.leases.get(&id).filter(|lease| lease.state.is_charged()) else { return vec![] };
        let how = lease.request.limit;
        if how == VramLimit::None {
            return vec![];
        }
        let of = |share: &wharf_model::Share| {
            let device = &self.slots.get(&share.device)?.device;
            let (pci, backend) = (device.pci.clone(), device.limits);
            Some(VramCap { device: device.id.clone(), pci, backend, how, bytes: share.declared_bytes })
        };
        lease.shares.iter().filter_map(of).collect()
    }

    /// By what the present run of a unit is kept to what it declared.
    pub fn limited(&mut self, name: &UnitName, by: Enforced) -> Outcome {
        let mut fx = Outcome::default();
        let Some(id) = self.units.get(name).copied() else { return fx };
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.enforced != by) else { return fx };
        lease.enforced = by;
        self.version += 1;
        fx.leases.insert(id);
        fx
    }
}
