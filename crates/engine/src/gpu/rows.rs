//! Devices, leases and the queue, as the arbiter has them, as rows of answers. Nothing here asks anybody.

use wharf_api::rpc::gpu::*;
use wharf_core::{
    Now,
    arbiter::{Arbiter, Lease, PASSING, Slot},
};
use wharf_model::{DeviceId, ErrorKind, Failure, GpuNeed, LeaseId, LeaseState, Taint, size};

/// Where the last measurement was from, and what it could not say.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    pub sources: Vec<String>,
    pub problems: Vec<String>,
}

/// A holder that was asked to leave is taken to be gone after so long at the latest.
const LEAVES_MS: u64 = 2_000;
/// From a holder's end until its memory was seen back.
const BACK_MS: u64 = 1_000;

pub fn list(arbiter: &Arbiter, now_ms: u64, sight: &Sight) -> GpuList {
    let waiting = arbiter.leases().filter(|lease| lease.waits()).count();
    GpuList {
        devices: arbiter.slots().map(|slot| device(arbiter, now_ms, slot)).collect(),
        waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        sources: sight.sources.clone(),
        problems: sight.problems.clone(),
        state_version: arbiter.version(),
    }
}

fn device(arbiter: &Arbiter, now_ms: u64, slot: &Slot) -> DeviceRow {
    let device = &slot.device;
    let count = arbiter.count(slot, None);
    let charges = arbiter.leases().filter(|lease| lease.state.is_charged()).flat_map(|lease| {
        let here = lease.shares.iter().filter(|share| share.device == device.id);
        here.map(|share| ChargeRow {
            lease: lease.id,
            holder: lease.called(),
            state: lease.state,
            declared_bytes: share.declared_bytes,
            measured_bytes: share.measured_bytes,
            charge_bytes: share.charge_bytes,
        })
    });
    let age_ms = now_ms.saturating_sub(slot.measured_ms);
    DeviceRow {
        id: device.id.clone(),
        vendor: device.vendor,
        name: device.name.clone(),
        kind: device.kind,
        parent: device.parent.clone(),
        index: device.index,
        pci: device.pci.clone(),
        numa_node: device.numa_node,
        island: device.island,
        total_bytes: device.total_bytes,
        used_bytes: device.used_bytes,
        capacity_bytes: count.capacity,
        headroom_bytes: count.headroom,
        charged_bytes: count.charged,
        foreign_bytes: count.foreign,
        unattributed_bytes: count.loose,
        kept_bytes: kept(arbiter, &device.id),
        charges: charges.collect(),
        foreign: arbiter.strangers(slot).collect(),
        taints: taints(arbiter, slot),
        limits_backend: device.limits,
        unified: device.unified,
        tells_apart: device.used_bytes.is_some()
            && device.processes.as_ref().is_some_and(|all| all.iter().all(|process| process.used_bytes.is_some())),
        measured_age_ms: age_ms,
        stale: age_ms > arbiter.settings.stale_ms,
    }
}

fn kept(arbiter: &Arbiter, device: &DeviceId) -> u64 {
    arbiter.book().reserves.get(device).copied().unwrap_or(0)
}

fn taints(arbiter: &Arbiter, slot: &Slot) -> Vec<Taint> {
    slot.device.taints.iter().chain(arbiter.book().taints.get(&slot.device.id)).cloned().collect()
}

pub fn device_ack(arbiter: &Arbiter, id: &DeviceId) -> Result<DeviceAck, Failure> {
    let slot = arbiter.slots().find(|slot| slot.device.id == *id);
    let slot = slot.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("there is no device {id} any more")))?;
    Ok(DeviceAck {
        device: id.clone(),
        headroom_bytes: arbiter.count(slot, None).headroom,
        kept_bytes: kept(arbiter, id),
        taints: taints(arbiter, slot),
        state_version: arbiter.version(),
    })
}

/// A lease that there is.
pub fn known(arbiter: &Arbiter, id: LeaseId) -> Result<&Lease, Failure> {
    let none =
        || Failure::new(ErrorKind::NotFound, format!("there is no {id}")).hint("see what there is: wharf gpu leases");
    arbiter.lease(id).ok_or_else(none)
}

pub fn lease(lease: &Lease, now_ms: u64) -> LeaseRow {
    let ago = |at: u64| now_ms.saturating_sub(at);
    let left = |at: u64| at.saturating_sub(now_ms);
    LeaseRow {
        lease: lease.id,
        epoch: lease.epoch,
        holder: lease.called(),
        held_by: lease.holder.clone(),
        owner_uid: lease.owner,
        // One that was made up for a call says nothing to anybody.
        client_key: lease.key.clone().filter(|key| !key.starts_with(PASSING)),
        state: lease.state,
        in_state_ms: ago(lease.since_ms),
        devices: lease.shares.clone(),
        alternative: u32::try_from(lease.alternative).unwrap_or(u32::MAX),
        priority: lease.request.priority,
        importance: lease.request.importance,
        preempt: lease.request.preempt,
        evictable: lease.request.evictable,
        asked_ago_ms: ago(lease.asked_ms),
        granted_ago_ms: lease.granted_ms.map(ago),
        expires_in_ms: lease.expires_ms.map(left),
        pinned_for_ms: lease.pinned_until_ms.map(left).filter(|ms| *ms > 0),
        killed_in_ms: lease.drain_until_ms.filter(|_| lease.state == LeaseState::Draining).map(left),
        leaves_for: lease.leaves_for,
        asked_to_yield: yield_wish(lease, now_ms, None),
        wakes: lease.wakes,
        busy: lease.busy,
        why: lease.why.as_ref().map(|why| why.message.clone()),
        enforced: lease.enforced,
    }
}

pub fn leases(arbiter: &Arbiter, now_ms: u64, only: &LeasesParams) -> LeaseList {
    let meant = |one: &&Lease| {
        only.unit.as_ref().is_none_or(|unit| one.unit() == Some(unit))
            && only.device.as_ref().is_none_or(|id| one.shares.iter().any(|share| share.device == *id))
    };
    LeaseList {
        leases: arbiter.leases().filter(meant).map(|one| lease(one, now_ms)).collect(),
        state_version: arbiter.version(),
    }
}

pub fn renewed(arbiter: &Arbiter, now_ms: u64, id: LeaseId) -> Renewed {
    let lease = arbiter.lease(id);
    Renewed {
        lease: id,
        expires_in_ms: lease.and_then(|lease| lease.expires_ms).map(|at| at.saturating_sub(now_ms)),
        asked_to_yield: lease.and_then(|lease| yield_wish(lease, now_ms, whom(arbiter, lease))),
        state_version: arbiter.version(),
    }
}

fn whom(arbiter: &Arbiter, lease: &Lease) -> Option<String> {
    lease.leaves_for.and_then(|by| arbiter.lease(by)).map(Lease::called)
}

/// What its holder was asked to do to make room, and has not done yet.
fn yield_wish(lease: &Lease, now_ms: u64, by: Option<String>) -> Option<YieldWish> {
    let milder = lease.asked.filter(|asked| asked.done_ms.is_none() && lease.makes_room().is_some());
    let until_ms = match lease.state {
        LeaseState::Draining => lease.drain_until_ms.unwrap_or(now_ms),
        _ => milder?.until_ms,
    };
    Some(YieldWish {
        r#do: lease.makes_room_by(),
        to_bytes: lease.makes_room(),
        by,
        within_ms: until_ms.saturating_sub(now_ms),
    })
}

pub fn queue(arbiter: &Arbiter, now: Now) -> GpuQueue {
    let waiting = arbiter.order(now).into_iter().filter_map(|id| arbiter.lease(id));
    let rows = waiting.enumerate().map(|(at, lease)| QueueRow {
        position: u32::try_from(at + 1).unwrap_or(u32::MAX),
        lease: lease.id,
        holder: lease.called(),
        state: lease.state,
        wants: wants(lease),
        priority: lease.request.priority,
        waited_ms: now.boot_ms.saturating_sub(lease.asked_ms),
        gives_up_in_ms: lease.wait_until_ms.map(|at| at.saturating_sub(now.boot_ms)),
        passed_over: lease.bypassed,
        est_ms: estimate(arbiter, now.boot_ms, lease),
        why: lease.why.clone(),
    });
    GpuQueue { waiting: rows.collect(), state_version: arbiter.version() }
}

pub fn progress(arbiter: &Arbiter, now: Now, lease: &Lease) -> GpuProgress {
    let position = arbiter.order(now).iter().position(|id| *id == lease.id);
    GpuProgress {
        lease: lease.id,
        state: lease.state,
        position: position.map(|at| u32::try_from(at + 1).unwrap_or(u32::MAX)),
        why: lease.why.as_ref().map(|why| why.message.clone()),
        est_ms: estimate(arbiter, now.boot_ms, lease),
        waited_ms: now.boot_ms.saturating_sub(lease.asked_ms),
    }
}

/// How long it may take still. Known while others leave for it, or while somebody before it only loads; how long a
/// program goes on that was not asked to leave, nobody knows.
fn estimate(arbiter: &Arbiter, now_ms: u64, lease: &Lease) -> Option<u64> {
    if lease.state == LeaseState::Reserved {
        let leaving = arbiter.leases().filter(|other| other.leaves_for == Some(lease.id));
        let left = leaving.map(|other| going(now_ms, other).unwrap_or(BACK_MS));
        return Some(left.max().unwrap_or(BACK_MS));
    }
    let blocked_by = super::explain::blockers(lease.why.as_ref());
    let on = |device: &DeviceId| {
        let here = blocked_by.iter().filter(|blocker| blocker.device == *device).flat_map(|blocker| &blocker.leases);
        let times: Vec<Option<u64>> = here
            .map(|one| arbiter.lease(one.lease))
            .map(|other| {
                other.map_or(Some(0), |other| going(now_ms, other).or_else(|| loading(arbiter, now_ms, other)))
            })
            .collect();
        // The soonest that anything changes there.
        times.into_iter().flatten().min()
    };
    blocked_by.iter().filter_map(|blocker| on(&blocker.device)).min()
}

fn going(now_ms: u64, lease: &Lease) -> Option<u64> {
    match lease.state {
        LeaseState::Draining => {
            let killed_in = lease.drain_until_ms.unwrap_or(now_ms).saturating_sub(now_ms);
            Some(killed_in.min(LEAVES_MS) + BACK_MS)
        }
        LeaseState::Reclaiming => Some(BACK_MS),
        LeaseState::Queued
        | LeaseState::Reserved
        | LeaseState::Starting
        | LeaseState::Active
        | LeaseState::Parked
        | LeaseState::Expired
        | LeaseState::Quarantined
        | LeaseState::Gone => None,
    }
}

fn loading(arbiter: &Arbiter, now_ms: u64, lease: &Lease) -> Option<u64> {
    if lease.state != LeaseState::Starting || lease.need().is_alone() {
        return None;
    }
    let load_ms = arbiter.book().learned.get(&lease.label())?.reload_ms()?;
    Some(load_ms.saturating_sub(now_ms.saturating_sub(lease.since_ms)))
}

/// What it needs, in words.
pub fn wants(lease: &Lease) -> String {
    let needs: Vec<String> = lease.request.needs().map(need).collect();
    needs.join(", else ")
}

pub fn need(need: &GpuNeed) -> String {
    let much = need.vram_bytes.map_or_else(|| "a whole device".to_owned(), size);
    match (need.vram_bytes, need.devices) {
        (Some(_), 1) if need.exclusive => format!("{much}, alone on its device"),
        (Some(_), 1) => much,
        (None, 1) => much,
        (None, many) => format!("{many} whole devices"),
        (Some(_), many) => format!("{much} on each of {many} devices"),
    }
}
