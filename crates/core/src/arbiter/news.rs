//! What is told of devices: strangers, taints, memory that does not come back, and devices that are nearly full.
//!
//! Each thing is told once, when it begins. It decides nothing: who is granted what does not depend on it.

use wharf_model::{Device, DeviceId, LeaseId, Taint, TaintEffect};

use super::{Arbiter, GpuNotice, Outcome, Slot};

/// What was told of a device last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// What those without a lease had, in bytes; without those that are ignored.
    foreign: u64,
    /// It is nearly full.
    low: bool,
}

impl Arbiter {
    /// What is new of the devices, after they were measured.
    pub(super) fn tell_devices(&mut self, fx: &mut Outcome) {
        let ids: Vec<DeviceId> = self.slots.keys().cloned().collect();
        for id in ids {
            let Some(slot) = self.slots.get(&id) else { continue };
            let told = Told { foreign: self.tell_foreign(slot, fx), low: self.tell_headroom(slot, fx) };
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.told = told;
            }
        }
    }

    fn tell_foreign(&self, slot: &Slot, fx: &mut Outcome) -> u64 {
        let bytes = self.count(slot, None).foreign.saturating_sub(self.ignored_bytes(slot));
        if bytes > slot.told.foreign.saturating_add(self.settings.slack_bytes) {
            let who = self.strangers(slot).filter(|process| !process.ignored).map(|process| process.to_string());
            fx.notices.push(GpuNotice::Foreign { device: slot.device.id.clone(), bytes, who: who.collect() });
        }
        bytes
    }

    /// Less than a twentieth of it can be handed out; that is over when a tenth can.
    fn tell_headroom(&self, slot: &Slot, fx: &mut Outcome) -> bool {
        let (device, total_bytes) = (slot.device.id.clone(), slot.device.total_bytes);
        if self.slots.values().any(|other| other.device.parent.as_ref() == Some(&device)) {
            // It is cut up: its parts are handed out, and told of.
            return false;
        }
        let headroom_bytes = self.count(slot, None).headroom;
        let is_low = headroom_bytes < total_bytes / if slot.told.low { 10 } else { 20 };
        if is_low && !slot.told.low {
            fx.notices.push(GpuNotice::Headroom { device, headroom_bytes, total_bytes });
        }
        is_low
    }

    /// Of a device that was measured anew: that it is here, and what speaks against it now. What a new daemon finds at
    /// its first look is no news.
    pub(super) fn tell_arrival(&self, device: &Device, fx: &mut Outcome) {
        let before = self.slots.get(&device.id).map(|slot| &slot.device.taints);
        let mut tell = |what: String| fx.notices.push(GpuNotice::Device { device: device.id.clone(), what });
        match before {
            Some(before) if *before != device.taints => tell(told_taints(&device.taints)),
            Some(_) => {}
            None if self.seen => tell("is here now".to_owned()),
            None => {}
        }
    }

    /// Of a device whose taint was set or taken away by hand.
    pub(super) fn tell_taint(&self, device: &DeviceId, taint: Option<&Taint>, fx: &mut Outcome) {
        let measured = self.slots.get(device).into_iter().flat_map(|slot| &slot.device.taints);
        let all: Vec<Taint> = measured.chain(taint).cloned().collect();
        fx.notices.push(GpuNotice::Device { device: device.clone(), what: told_taints(&all) });
    }

    /// Its holder is gone, and this much did not come back.
    pub(super) fn tell_leak(&self, id: LeaseId, fx: &mut Outcome) {
        let Some(lease) = self.leases.get(&id) else { return };
        for share in lease.shares.iter().filter(|share| share.charge_bytes > 0) {
            let (device, bytes) = (share.device.clone(), share.charge_bytes);
            fx.notices.push(GpuNotice::Leak { lease: id, holder: lease.holder.clone(), device, bytes });
        }
    }
}

fn told_taints(taints: &[Taint]) -> String {
    match taints.iter().max_by_key(|taint| taint.effect) {
        None => "is used as usual again".to_owned(),
        Some(Taint { effect: TaintEffect::NoNew, reason }) => format!("takes nothing new: {reason}"),
        Some(Taint { effect: TaintEffect::Drain, reason }) => format!("is being emptied: {reason}"),
    }
}
