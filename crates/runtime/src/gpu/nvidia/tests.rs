//! Readings of every kind, and what they mean.

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
    let process =
        |pid, used_bytes, kind| DeviceProcess { identity: Some(1), ..DeviceProcess::new(pid, used_bytes, kind) };
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
    let wanted = [(7, Some(4), ProcessKind::Compute), (8, Some(5), ProcessKind::Mps), (9, None, ProcessKind::Graphics)];
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
