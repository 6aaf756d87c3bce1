//! What NVIDIA's driver said, as devices.
//!
//! Pure: owns the meaning of a reading. It refuses to ask anything itself.

use std::collections::BTreeMap;

use wharf_model::{
    Device, DeviceId, DeviceKind, DeviceProcess, LimitsBackend, ProcessKind, Taint, TaintEffect, Vendor,
};

use super::reading::{Body, Card, Fault, FaultClass, Listed, Reading};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::reading::Memory;

    const GIB: u64 = 1 << 30;

    fn body(uuid: &str) -> Body {
        Body {
            uuid: uuid.into(),
            name: "NVIDIA T".into(),
            memory: Ok(Memory { total: 8 * GIB, free: 5 * GIB, reserved: GIB / 4 }),
            compute: Ok(vec![]),
            graphics: Ok(vec![]),
            mps: Ok(vec![]),
        }
    }

    fn card(index: u32, peers: &[&str]) -> Card {
        Card {
            index,
            body: body(&format!("GPU-{index}")),
            pci: Some(format!("00000000:{index:02X}:00.0")),
            is_cut: false,
            parts: vec![],
            own_node: None,
            recovery: Some(0),
            xid: None,
            peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        }
    }

    fn fault(class: FaultClass) -> Fault {
        Fault { class, text: "so it is".into() }
    }

    fn read(cards: Vec<Card>, before: &BTreeMap<u32, Device>, ours: bool) -> Found {
        let process = |pid, used_bytes, kind| DeviceProcess {
            pid,
            identity: Some(1),
            used_bytes,
            kind,
            unit: None,
            program: None,
            uid: None,
            belongs_to: None,
            parents: vec![],
        };
        let around = Around {
            pids_are_ours: ours,
            limits: LimitsBackend::None,
            machine: (64 * GIB, 40 * GIB),
            near: &|_| Some(1),
            process: &process,
            before,
        };
        found(&Reading { driver: "580.1".into(), cards, ..Reading::default() }, &around)
    }

    fn one(card: Card) -> Found {
        read(vec![card], &BTreeMap::new(), true)
    }

    #[test]
    fn used_is_total_less_free_and_a_process_of_two_lists_is_one() {
        let mut both = card(0, &[]);
        both.body.graphics = Ok(vec![Listed { pid: 7, used: Some(3) }, Listed { pid: 9, used: None }]);
        both.body.compute = Ok(vec![Listed { pid: 7, used: Some(4) }, Listed { pid: 8, used: Some(5) }]);
        both.body.mps = Ok(vec![Listed { pid: 8, used: None }]);
        let found = one(both);
        let device = &found.devices[0];
        assert_eq!((device.used_bytes, device.reserved_bytes), (Some(3 * GIB), GIB / 4));
        assert_eq!((device.pci.as_deref(), device.numa_node), (Some("0000:00:00.0"), Some(1)));
        let told: Vec<_> = device.processes.iter().flatten().map(|p| (p.pid, p.used_bytes, p.kind)).collect();
        let wanted =
            [(7, Some(4), ProcessKind::Compute), (8, Some(5), ProcessKind::Mps), (9, None, ProcessKind::Graphics)];
        assert_eq!(told, wanted);
        assert!(found.problems.is_empty());
    }

    #[test]
    fn what_is_not_told_is_none_and_never_zero() {
        let mut closed = card(0, &[]);
        closed.body.compute = Err(fault(FaultClass::NoPermission));
        let found = one(closed);
        assert_eq!(found.devices[0].processes, None);
        assert!(found.problems[0].contains("GPU-0 does not tell who holds memory"), "{:?}", found.problems);

        let mut old = card(0, &[]);
        old.body.mps = Err(fault(FaultClass::NotSupported));
        assert_eq!(one(old).devices[0].processes, Some(vec![]), "a library without MPS lists tells the others");

        let mut older = card(0, &[]);
        older.body.compute = Err(fault(FaultClass::NotSupported));
        assert_eq!(one(older).devices[0].processes, None);

        let mut mute = card(0, &[]);
        mute.body.memory = Err(fault(FaultClass::Other));
        let found = one(mute);
        assert!(found.devices.is_empty() && found.problems.len() == 1, "it keeps its place and grows old");

        let found = read(vec![card(0, &[])], &BTreeMap::new(), false);
        assert_eq!(found.devices[0].processes, None);
        assert!(found.problems[0].contains("PID namespace"));
    }

    #[test]
    fn memory_that_is_the_machines_or_stays_taken_is_said() {
        let mut shared = card(0, &[]);
        shared.body.memory = Err(fault(FaultClass::NotSupported));
        let device = &one(shared).devices[0];
        assert!(device.unified);
        assert_eq!((device.total_bytes, device.used_bytes), (64 * GIB, Some(24 * GIB)));
        let mut node = card(0, &[]);
        node.own_node = Some(4);
        assert!(one(node).devices[0].keeps_memory);
    }

    #[test]
    fn a_lost_device_is_kept_as_it_was_and_drained() {
        let before: BTreeMap<u32, Device> = one(card(3, &[])).devices.into_iter().map(|d| (d.index, d)).collect();
        let around = read(vec![], &before, true);
        assert!(around.devices.is_empty() && around.problems.is_empty());
        let mut found = Found::default();
        let around = Around {
            pids_are_ours: true,
            limits: LimitsBackend::None,
            machine: (0, 0),
            near: &|_| None,
            process: &|_, _, _| unreachable!("it lists nobody"),
            before: &before,
        };
        silent(3, &fault(FaultClass::Lost), &around, &mut found);
        let lost = &found.devices[0];
        assert_eq!((lost.id.to_string().as_str(), lost.used_bytes, lost.total_bytes), ("GPU-3", None, 8 * GIB));
        assert_eq!(lost.taints[0].effect, TaintEffect::Drain);
        silent(4, &fault(FaultClass::Lost), &around, &mut found);
        assert_eq!((found.devices.len(), found.problems.len()), (1, 2));
    }

    #[test]
    fn the_drivers_advice_is_a_taint_and_an_error_counts_where_there_is_none() {
        let tainted = |recovery, xid| {
            let mut card = card(0, &[]);
            (card.recovery, card.xid) = (recovery, xid);
            one(card).devices[0].taints.first().map(|taint| (taint.effect, taint.reason.clone()))
        };
        assert_eq!(tainted(Some(0), Some(79)), None);
        assert_eq!(tainted(None, Some(31)), None);
        assert_eq!(tainted(None, Some(79)).unwrap().0, TaintEffect::NoNew);
        let (effect, reason) = tainted(Some(1), Some(95)).unwrap();
        assert_eq!(effect, TaintEffect::Drain);
        assert_eq!(reason, "the driver asks for a reset of the device (Xid 95)");
        assert_eq!(tainted(Some(3), None).unwrap().0, TaintEffect::NoNew);
        assert_eq!(tainted(Some(44), None).unwrap().0, TaintEffect::NoNew);
    }

    #[test]
    fn instances_are_devices_and_their_whole_takes_nothing() {
        let mut cut = card(0, &[]);
        cut.is_cut = true;
        cut.body.memory = Err(fault(FaultClass::NoPermission));
        cut.parts = vec![body("MIG-a"), body("MIG-b")];
        let found = one(cut);
        let ids: Vec<String> = found.devices.iter().map(|device| device.id.to_string()).collect();
        assert_eq!(ids, ["MIG-a", "MIG-b", "GPU-0"]);
        assert_eq!((found.devices[0].kind, found.devices[0].parent.clone()), (DeviceKind::Mig, Some("GPU-0".into())));
        assert_eq!(found.devices[2].taints[0].effect, TaintEffect::NoNew);
    }

    #[test]
    fn links_and_switches_make_islands() {
        let cards = vec![
            card(1, &["00000000:02:00.0"]),
            card(2, &["00000000:01:00.0"]),
            card(3, &["00000000:AA:00.0"]),
            card(4, &["00000000:AA:00.0", "00000000:AB:00.0"]),
            card(5, &["00000000:AB:00.0"]),
            card(6, &["00000000:AC:00.0"]),
            card(7, &[]),
        ];
        assert_eq!(islands(&cards), BTreeMap::from([(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]));
    }

    #[test]
    fn numbers_of_processes_are_believed_only_with_a_proof() {
        assert!(!pids_are_ours([]), "an empty list proves nothing");
        assert!(!pids_are_ours([(false, false)]));
        assert!(!pids_are_ours([(true, false)]));
        assert!(!pids_are_ours([(true, true), (true, false)]));
        assert!(pids_are_ours([(true, true), (false, false)]));
    }

    #[test]
    fn an_address_is_written_as_the_kernel_does() {
        assert_eq!(plain_pci("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(plain_pci("00010000:3B:00.0"), "00010000:3b:00.0");
        assert_eq!(plain_pci("0000:3b:00.0"), "0000:3b:00.0");
    }
}
