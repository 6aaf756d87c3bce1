//! Processes on devices, what holders were seen to do, and who the clients are.

use std::collections::BTreeMap;

use wharf_api::rpc::gpu::*;
use wharf_core::arbiter::{Arbiter, Lease, value::Learned};
use wharf_model::{DeviceId, DeviceProcess, Holder, LeaseId, size};

use crate::engine::World;

/// A suggestion is a multiple of this.
const STEP: u64 = 256 << 20;

pub fn processes(arbiter: &Arbiter, only: Option<&DeviceId>) -> ProcessList {
    let meant = || arbiter.slots().filter(|slot| only.is_none_or(|id| slot.device.id == *id));
    let silent = meant().filter(|slot| slot.device.processes.is_none()).map(|slot| slot.device.id.clone());
    let rows = meant().flat_map(|slot| {
        slot.owned().map(|(process, lease)| {
            // Of a lease that is over by now it is nobody's.
            let lease = lease.filter(|lease| arbiter.lease(*lease).is_some());
            process_row(arbiter, lease, &slot.device.id, process)
        })
    });
    ProcessList { silent: silent.collect(), processes: rows.collect(), state_version: arbiter.version() }
}

fn process_row(arbiter: &Arbiter, lease: Option<LeaseId>, device: &DeviceId, process: &DeviceProcess) -> ProcessRow {
    let whose = match (lease, process.identity, &process.unit) {
        (_, None, _) => Whose::Ghost,
        (Some(_), Some(_), _) => Whose::Lease,
        (None, Some(_), Some(_)) => Whose::Unit,
        (None, Some(_), None) if arbiter.is_ignored(process) => Whose::Ignored,
        (None, Some(_), None) => Whose::Foreign,
    };
    ProcessRow {
        device: device.clone(),
        pid: process.pid,
        program: process.program.clone(),
        uid: process.uid,
        used_bytes: process.used_bytes,
        kind: process.kind,
        whose,
        lease,
        unit: process.unit.as_ref().map(|(unit, _)| unit.clone()),
        run: process.unit.as_ref().map(|(_, run)| *run),
        belongs_to: process.belongs_to.clone(),
    }
}

/// Uses an hour of late, in thousandths.
pub fn uses_an_hour_milli(learned: &Learned, now_ms: u64) -> u64 {
    learned.uses_an_hour_milli(now_ms)
}

pub fn calibration(arbiter: &Arbiter, world: &World, now_ms: u64) -> Calibration {
    let declared: BTreeMap<String, u64> = world
        .values()
        .filter_map(|unit| Some((unit.name.to_string(), unit.policy.gpu.as_ref()?.need.vram_bytes?)))
        .chain(arbiter.leases().filter_map(|lease| Some((lease.label(), lease.request.need.vram_bytes?))))
        .collect();
    let row = |(holder, learned): (&String, &Learned)| {
        let high = Some(learned.high_water_bytes).filter(|bytes| *bytes > 0);
        let declared_bytes = declared.get(holder).copied();
        let (suggested_bytes, advice) = suggestion(high, declared_bytes);
        CalibrationRow {
            holder: holder.clone(),
            loads: learned.loads,
            load_ms: learned.reload_ms(),
            uses_an_hour_milli: uses_an_hour_milli(learned, now_ms),
            high_water_bytes: high,
            declared_bytes,
            suggested_bytes,
            advice,
        }
    };
    Calibration { holders: arbiter.book().learned.iter().map(row).collect(), state_version: arbiter.version() }
}

/// What it had better declare. It is proposed, never set.
fn suggestion(high: Option<u64>, declared: Option<u64>) -> (Option<u64>, Option<String>) {
    let Some(high) = high else { return (None, None) };
    let enough = (high + high / 20).div_ceil(STEP) * STEP;
    let (seen, enough_text) = (size(high), size(enough));
    match declared {
        Some(declared) if high > declared => {
            let text = format!("it was seen to take {seen}, more than it declares: declare {enough_text}");
            (Some(enough), Some(text))
        }
        Some(declared) if enough < declared - declared / 4 => {
            let text = format!("it was never seen to take more than {seen}: {enough_text} would leave room for others");
            (Some(enough), Some(text))
        }
        Some(_) => (None, None),
        None => {
            let text = format!("it says no size, so it has a device alone; it was seen to take {seen}");
            (Some(enough), Some(text))
        }
    }
}

pub fn clients(arbiter: &Arbiter, world: &World, now_ms: u64) -> GpuClientList {
    let mut all: BTreeMap<Client, GpuClientRow> = BTreeMap::new();
    for unit in world.values().filter(|unit| unit.policy.gpu.is_some()) {
        let client = Client { kind: ClientKind::Unit, name: unit.name.to_string(), uid: None };
        let row = client.blank(arbiter, now_ms);
        all.insert(client, GpuClientRow { profile: unit.policy.gpu.clone(), ..row });
    }
    for lease in arbiter.leases() {
        let client = Client::of(lease);
        let blank = client.blank(arbiter, now_ms);
        let row = all.entry(client).or_insert(blank);
        // What was granted or asked for last is what it needs now.
        row.profile = Some(lease.request.clone());
        row.charged_bytes += lease.charge();
        if lease.waits() { row.waiting.push(lease.id) } else { row.leases.push(lease.id) }
    }
    // Programs that were here once: what they are known for is kept.
    for label in arbiter.book().learned.keys().filter_map(|label| label.strip_prefix("program:")) {
        let known = |client: &Client| client.kind == ClientKind::Program && client.name == label;
        if !all.keys().any(known) {
            let client = Client { kind: ClientKind::Program, name: label.to_owned(), uid: None };
            let row = client.blank(arbiter, now_ms);
            all.insert(client, row);
        }
    }
    GpuClientList { clients: all.into_values().collect(), state_version: arbiter.version() }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    kind: ClientKind,
    name: String,
    uid: Option<u32>,
}

impl Client {
    fn of(lease: &Lease) -> Self {
        match &lease.holder {
            Holder::Unit { name } => Self { kind: ClientKind::Unit, name: name.to_string(), uid: None },
            Holder::Process { label, uid, .. } => {
                Self { kind: ClientKind::Program, name: label.clone(), uid: Some(*uid) }
            }
        }
    }

    fn blank(&self, arbiter: &Arbiter, now_ms: u64) -> GpuClientRow {
        let label = match self.kind {
            ClientKind::Unit => self.name.clone(),
            ClientKind::Program => format!("program:{}", self.name),
        };
        GpuClientRow {
            client: self.name.clone(),
            kind: self.kind,
            uid: self.uid,
            profile: None,
            leases: vec![],
            waiting: vec![],
            charged_bytes: 0,
            uses_an_hour_milli: arbiter.book().learned.get(&label).map_or(0, |l| uses_an_hour_milli(l, now_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_size_is_suggested_where_the_declared_one_misleads() {
        let said = |high: Option<u64>, declared: Option<u64>| suggestion(high, declared).0.map(|bytes| bytes / STEP);
        assert_eq!(said(Some(10 * GIB), Some(8 * GIB)), Some(42), "10.5 GiB in quarters");
        assert_eq!(said(Some(4 * GIB), Some(24 * GIB)), Some(17));
        assert_eq!(said(Some(7 * GIB), Some(8 * GIB)), None, "it does");
        assert_eq!(said(Some(7 * GIB), None), Some(30));
        assert_eq!(said(None, Some(8 * GIB)), None, "never seen");
    }

    #[test]
    fn uses_are_told_in_thousandths_an_hour() {
        let mut learned = Learned::default();
        assert_eq!(uses_an_hour_milli(&learned, 0), 0);
        learned.loaded(30_000);
        learned.used(60_000);
        assert_eq!(uses_an_hour_milli(&learned, 60_000), 924, "once, just now, in a mean life of 65 minutes");
    }
}
