//! What NVIDIA's driver said, as devices.
//!
//! Pure: owns the meaning of a reading. It refuses to ask anything itself.

use std::collections::BTreeMap;

use wharf_model::{
    Device, DeviceId, DeviceKind, DeviceProcess, LimitsBackend, ProcessKind, Taint, TaintEffect, Vendor,
};

use super::reading::{Body, Card, Fault, FaultClass, Listed, Reading};

#[cfg(test)]
mod tests;

/// What the driver does not say.
pub struct Around<'a> {
    /// The numbers of processes that it tells are the numbers that we know.
    pub pids_are_ours: bool,
    /// By what limits would be kept, where the library knows them.
    pub limits: LimitsBackend,
    /// The machine's memory in bytes, all and available: of devices that have none of their own.
    pub machine: (u64, u64),
    /// The memory node that a PCI address is near to.
    pub near: &'a dyn Fn(&str) -> Option<u32>,
    /// All that is known of a process.
    pub process: &'a dyn Fn(i32, Option<u64>, ProcessKind) -> DeviceProcess,
    /// The devices as they were last seen, by index: of one that has fallen off the bus nothing else is left.
    pub before: &'a BTreeMap<u32, Device>,
}

/// The devices, and what could not be asked.
#[derive(Debug, Default)]
pub struct Found {
    /// Those of which something is known.
    pub devices: Vec<Device>,
    /// What is missing, and why.
    pub problems: Vec<String>,
}

/// What the driver's numbers of processes are worth in a namespace of our own, where it may tell those of the
/// machine: all that exist here must have a device open, and one must exist.
pub fn pids_are_ours(listed: impl IntoIterator<Item = (bool, bool)>) -> bool {
    let mut found = false;
    for (exists, has_device) in listed {
        if exists && !has_device {
            return false;
        }
        found |= exists;
    }
    found
}

/// Every process that a reading lists.
pub fn listed(reading: &Reading) -> Vec<u32> {
    let bodies = reading.cards.iter().flat_map(|card| std::iter::once(&card.body).chain(&card.parts));
    let lists = bodies.flat_map(|body| [&body.compute, &body.graphics, &body.mps]);
    let mut pids: Vec<u32> = lists.flatten().flatten().map(|listed| listed.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The meaning of a reading.
pub fn found(reading: &Reading, around: &Around<'_>) -> Found {
    let mut found = Found::default();
    let islands = islands(&reading.cards);
    for card in &reading.cards {
        let id = DeviceId::from(card.body.uuid.as_str());
        let Some(mut whole) = device(&card.body, card, around, &mut found.problems) else { continue };
        whole.island = islands.get(&card.index).copied();
        for part in &card.parts {
            let Some(mut part) = device(part, card, around, &mut found.problems) else { continue };
            (part.kind, part.parent) = (DeviceKind::Mig, Some(id.clone()));
            found.devices.push(part);
        }
        if card.is_cut {
            let why = "it is cut into instances (MIG), which are handed out instead".to_owned();
            whole.taints.push(Taint { effect: TaintEffect::NoNew, reason: why });
        }
        found.devices.push(whole);
    }
    for (index, fault) in &reading.silent {
        silent(*index, fault, around, &mut found);
    }
    if !around.pids_are_ours && found.devices.iter().any(|device| device.vendor == Vendor::Nvidia) {
        found.problems.push(
            "who holds memory on NVIDIA's devices cannot be told: the daemon is in a PID namespace of its own, and \
             the driver tells the machine's numbers"
                .to_owned(),
        );
    }
    found
}

/// A device that does not answer. A lost one is kept as it was last seen, so that its holders learn of it.
fn silent(index: u32, fault: &Fault, around: &Around<'_>, found: &mut Found) {
    let before = around.before.get(&index);
    let name = before.map_or_else(|| format!("NVIDIA's device {index}"), |device| device.id.to_string());
    found.problems.push(format!("{name} does not answer: {}", fault.text));
    if let (Some(before), Some(taint)) = (before, grave(fault)) {
        let (used_bytes, processes) = (None, None);
        found.devices.push(Device { used_bytes, processes, taints: vec![taint], ..before.clone() });
    }
}

fn grave(fault: &Fault) -> Option<Taint> {
    let reason = match fault.class {
        FaultClass::Lost => "the driver has lost it: it has fallen off the bus",
        FaultClass::ResetRequired => "the driver wants it reset first",
        FaultClass::NotSupported | FaultClass::NoPermission | FaultClass::Other => return None,
    };
    Some(Taint { effect: TaintEffect::Drain, reason: reason.to_owned() })
}

/// A whole or a part. None: what matters could not be asked this time.
fn device(body: &Body, card: &Card, around: &Around<'_>, problems: &mut Vec<String>) -> Option<Device> {
    let mut taints = taints(card);
    let mut unified = false;
    let (total_bytes, used_bytes, reserved_bytes) = match &body.memory {
        Ok(m) => (m.total, Some(m.total.saturating_sub(m.free)), m.reserved),
        // Its memory is the machine's.
        Err(Fault { class: FaultClass::NotSupported, .. }) if !card.is_cut => {
            unified = true;
            let (total, available) = around.machine;
            (total, Some(total.saturating_sub(available)), 0)
        }
        Err(fault) => {
            // The whole of a device that is cut up may keep its sums to root.
            let is_known = card.is_cut || grave(fault).is_some();
            problems.push(format!("{} does not tell how full it is: {}", body.uuid, fault.text));
            taints.extend(grave(fault));
            if !is_known {
                return None;
            }
            (around.before.get(&card.index).map_or(0, |device| device.total_bytes), None, 0)
        }
    };
    let pci = card.pci.as_deref().map(plain_pci);
    Some(Device {
        id: body.uuid.as_str().into(),
        vendor: Vendor::Nvidia,
        name: body.name.clone(),
        kind: DeviceKind::Gpu,
        parent: None,
        index: card.index,
        numa_node: pci.as_deref().and_then(around.near),
        pci,
        island: None,
        total_bytes,
        used_bytes,
        reserved_bytes,
        unified,
        keeps_memory: card.own_node.is_some(),
        limits: if card.is_cut { LimitsBackend::None } else { around.limits },
        taints,
        processes: processes(body, around, problems),
    })
}

/// The driver's advice is the authority. Only where it gives none, a grave error counts by itself.
fn taints(card: &Card) -> Vec<Taint> {
    let taint = |effect, reason: String| vec![Taint { effect, reason }];
    let after = card.xid.map(|xid| format!(" (Xid {xid})")).unwrap_or_default();
    let drain = |what: &str| taint(TaintEffect::Drain, format!("the driver asks for {what}{after}"));
    match (card.recovery, card.xid) {
        (Some(0), _) | (None, None) => vec![],
        (Some(1), _) => drain("a reset of the device"),
        (Some(2 | 7), _) => drain("a reboot of the machine"),
        (Some(4), _) => drain("the device to be emptied and reset"),
        (Some(6), _) => drain("a reset of the bus"),
        (Some(3), _) => taint(TaintEffect::NoNew, format!("the driver asks for an end of peer traffic{after}")),
        (Some(5), _) => taint(TaintEffect::NoNew, format!("its fabric must be recovered{after}")),
        (Some(other), _) => {
            taint(TaintEffect::NoNew, format!("the driver asks for something that is not known here ({other}){after}"))
        }
        (None, Some(xid)) if is_of_a_program(xid) => vec![],
        (None, Some(xid)) => taint(TaintEffect::NoNew, format!("the driver has told a grave error: Xid {xid}")),
    }
}

/// Errors that a program causes and that end with it; NVIDIA's own device plugin passes over the same.
fn is_of_a_program(xid: u64) -> bool {
    matches!(xid, 13 | 31 | 43 | 45 | 68 | 109)
}

/// The processes of all lists, each once.
fn processes(body: &Body, around: &Around<'_>, problems: &mut Vec<String>) -> Option<Vec<DeviceProcess>> {
    if !around.pids_are_ours {
        return None;
    }
    let mut found: BTreeMap<u32, (Option<u64>, ProcessKind)> = BTreeMap::new();
    let mut told = false;
    // The last list that has it names its kind: a client of MPS also computes.
    for (kind, list) in
        [(ProcessKind::Graphics, &body.graphics), (ProcessKind::Compute, &body.compute), (ProcessKind::Mps, &body.mps)]
    {
        match list {
            Ok(all) => {
                told |= kind == ProcessKind::Compute;
                for Listed { pid, used } in all {
                    let before = found.get(pid).and_then(|(used, _)| *used);
                    // Each list tells all that it has, of whatever kind.
                    found.insert(*pid, (before.max(*used), kind));
                }
            }
            Err(Fault { class: FaultClass::NotSupported, .. }) => {}
            Err(fault) => {
                problems.push(format!("{} does not tell who holds memory: {}", body.uuid, fault.text));
                return None;
            }
        }
    }
    let known = |(pid, (used, kind)): (u32, _)| Some((around.process)(i32::try_from(pid).ok()?, used, kind));
    told.then(|| found.into_iter().filter_map(known).collect())
}

/// `00000000:3B:00.0` as the kernel writes it: `0000:3b:00.0`.
pub fn plain_pci(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => {
            format!("{}:{rest}", domain.strip_prefix("0000").unwrap_or(domain))
        }
        _ => lower,
    }
}

/// Cards whose links lead to each other, or to the same switch, by index.
fn islands(cards: &[Card]) -> BTreeMap<u32, u32> {
    let mut group: BTreeMap<String, usize> = BTreeMap::new();
    for (at, card) in cards.iter().enumerate() {
        let ends = card.pci.iter().chain(&card.peers).map(|pci| plain_pci(pci));
        let ends: Vec<String> = if card.peers.is_empty() { vec![] } else { ends.collect() };
        let joined: Vec<usize> = ends.iter().filter_map(|end| group.get(end).copied()).collect();
        let own = joined.iter().copied().min().unwrap_or(at);
        for place in group.values_mut().filter(|place| joined.contains(place)) {
            *place = own;
        }
        group.extend(ends.into_iter().map(|end| (end, own)));
    }
    let of_card = |card: &Card| group.get(&plain_pci(card.pci.as_deref()?)).copied();
    let mut size: BTreeMap<usize, u32> = BTreeMap::new();
    for place in cards.iter().filter_map(of_card) {
        *size.entry(place).or_insert(0) += 1;
    }
    // A card alone with a switch reaches nobody.
    let named: BTreeMap<usize, u32> =
        size.iter().filter(|(_, cards)| **cards > 1).zip(0..).map(|((place, _), island)| (*place, island)).collect();
    cards.iter().filter_map(|card| Some((card.index, *named.get(&of_card(card)?)?))).collect()
}
