//! Leases on a machine made of numbers: each rule that a user would notice.

mod adopt;
mod ease;
mod foreign;

use std::collections::BTreeMap;

use wharf_model::{
    Device, DeviceProcess, ErrorKind, GpuNeed, GpuRequest, Holder, Inventory, LeaseId, LeaseState, Preempt, Priority,
    ProcessKind, Vendor,
};

use super::{Arbiter, GpuAct, Lease, Outcome, Terms};
use crate::{Now, Ticket};

const GIB: u64 = 1 << 30;

/// The arbiter, its devices, and who really has what.
struct World {
    arbiter: Arbiter,
    now_ms: u64,
    totals: Vec<(String, u64)>,
    /// By device: pid and bytes. Pids from 1000 belong to nobody.
    used: BTreeMap<String, BTreeMap<i32, u64>>,
    /// Memory that no process has, and that is not free.
    lost: BTreeMap<String, u64>,
    acts: Vec<GpuAct>,
    answers: Vec<(Ticket, Result<LeaseId, wharf_model::Failure>)>,
    told: Vec<(LeaseId, LeaseState)>,
    tickets: u64,
}

impl World {
    fn new(devices: &[(&str, u64)]) -> Self {
        let mut world = Self {
            arbiter: Arbiter::default(),
            now_ms: 1_000,
            totals: devices.iter().map(|(id, gib)| ((*id).to_owned(), gib * GIB)).collect(),
            used: BTreeMap::new(),
            lost: BTreeMap::new(),
            acts: vec![],
            answers: vec![],
            told: vec![],
            tickets: 0,
        };
        world.measure();
        world
    }

    fn now(&self) -> Now {
        Now { boot_ms: self.now_ms, wall_ms: 0 }
    }

    fn take(&mut self, fx: Outcome) {
        self.acts.extend(fx.acts);
        self.answers.extend(fx.answers);
        for notice in fx.notices {
            if let super::GpuNotice::Lease { lease, state, .. } = notice {
                self.told.push((lease, state));
            }
        }
        self.arbiter.check().unwrap();
    }

    fn inventory(&self) -> Inventory {
        let device = |(at, (id, total)): (usize, &(String, u64))| {
            let processes: Vec<DeviceProcess> = self
                .used
                .get(id)
                .into_iter()
                .flatten()
                .map(|(pid, bytes)| DeviceProcess {
                    identity: Some(*pid as u64),
                    program: Some(format!("program-{pid}")),
                    uid: Some(1000),
                    // Pid 2001 is a child of 1, and so on.
                    parents: if *pid > 2000 { vec![(*pid - 2000, (*pid - 2000) as u64)] } else { vec![] },
                    ..DeviceProcess::new(*pid, Some(*bytes), ProcessKind::Compute)
                })
                .collect();
            let lost = self.lost.get(id).copied().unwrap_or(0);
            let device = Device::new(id.as_str(), Vendor::Simulated, *total).with(processes);
            Device {
                name: format!("Card {at}"),
                index: at as u32,
                used_bytes: device.used_bytes.map(|used| used + lost),
                ..device
            }
        };
        let devices = self.totals.iter().enumerate().map(device).collect();
        Inventory { taken_boot_ms: self.now_ms, devices, ..Inventory::default() }
    }

    fn measure(&mut self) {
        let inventory = self.inventory();
        let fx = self.arbiter.measured(self.now(), &inventory);
        self.take(fx);
    }

    /// Time goes by, and the devices are measured.
    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        let fx = self.arbiter.due(self.now());
        self.take(fx);
        self.measure();
    }

    fn ask(&mut self, pid: i32, request: GpuRequest, wait_ms: Option<u64>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let holder = Holder::Process { pid, identity: pid as u64, label: format!("train-{pid}"), uid: 1000 };
        let terms = Terms { wait_ms, ..Terms::default() };
        let fx = self.arbiter.acquire(self.now(), Some(ticket), 1000, holder, request, terms);
        self.take(fx);
        ticket
    }

    fn answer(&self, ticket: Ticket) -> Option<&Result<LeaseId, wharf_model::Failure>> {
        self.answers.iter().find(|(of, _)| *of == ticket).map(|(_, result)| result)
    }

    /// Asks, is granted at once, and takes what it asked for.
    fn has(&mut self, pid: i32, request: GpuRequest) -> LeaseId {
        let ticket = self.ask(pid, request, Some(0));
        let id = *self.answer(ticket).expect("an answer").as_ref().expect("granted");
        let shares = self.lease(id).shares.clone();
        for share in shares {
            self.used.entry(share.device.to_string()).or_default().insert(pid, share.declared_bytes);
        }
        self.measure();
        id
    }

    fn refused(&mut self, pid: i32, request: GpuRequest) -> wharf_model::Failure {
        let ticket = self.ask(pid, request, Some(0));
        self.answer(ticket).expect("an answer").as_ref().expect_err("refused").clone()
    }

    fn lease(&self, id: LeaseId) -> &Lease {
        self.arbiter.lease(id).expect("a lease")
    }

    fn state(&self, id: LeaseId) -> LeaseState {
        self.arbiter.lease(id).map_or(LeaseState::Gone, |lease| lease.state)
    }

    /// The process dies; its memory is back, or lost for now.
    fn dies(&mut self, pid: i32, id: LeaseId, back: bool) {
        for (device, processes) in &mut self.used {
            let bytes = processes.remove(&pid).unwrap_or(0);
            if !back {
                *self.lost.entry(device.clone()).or_default() += bytes;
            }
        }
        self.now_ms += 1;
        let fx = self.arbiter.holder_gone(self.now(), id);
        self.take(fx);
    }
}

fn gib(gib: u64) -> GpuRequest {
    GpuRequest {
        need: GpuNeed { vram_bytes: Some(gib * GIB), ..GpuNeed::default() },
        min_residency_ms: 0,
        ..GpuRequest::default()
    }
}

#[test]
fn two_that_fit_share_and_a_third_waits_for_memory_that_was_seen_back() {
    let mut world = World::new(&[("a", 24)]);
    let first = world.has(1, gib(10));
    world.has(2, gib(10));
    let third = world.ask(3, gib(10), None);
    assert_eq!(world.answer(third), None);
    // Its holder is gone; the driver has not given the memory back.
    world.dies(1, first, false);
    world.wait(250);
    assert_eq!(world.state(first), LeaseState::Reclaiming);
    world.wait(250);
    assert_eq!((world.answer(third), world.lease(first).charge()), (None, 10 * GIB));
    world.lost.clear();
    world.wait(250);
    assert_eq!(world.state(first), LeaseState::Gone);
    assert!(world.answer(third).unwrap().is_ok());
}

#[test]
fn memory_that_does_not_come_back_is_quarantined_and_charged() {
    let mut world = World::new(&[("a", 24)]);
    let first = world.has(1, gib(20));
    world.dies(1, first, false);
    for _ in 0..130 {
        world.wait(250);
    }
    assert_eq!(world.state(first), LeaseState::Quarantined);
    let failure = world.refused(2, gib(10));
    assert_eq!(failure.kind, ErrorKind::GpuBusy, "{failure:?}");
    assert!(failure.message.contains("train-1 (pid 1) (20.0 GiB, quarantined)"), "{failure}");
    world.lost.clear();
    world.wait(5_000);
    assert_eq!(world.state(first), LeaseState::Gone);
}

#[test]
fn t50_an_impossible_request_evicts_nobody() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    let stays = world.has(1, gib(20));
    let mut request = gib(30);
    request.preempt = Preempt::Force;
    let failure = world.refused(2, request.clone());
    assert_eq!(failure.kind, ErrorKind::Infeasible, "{failure}");
    request.need.vram_bytes = Some(10 * GIB);
    request.need.devices = 3;
    assert_eq!(world.refused(3, request).kind, ErrorKind::Infeasible);
    assert_eq!(world.state(stays), LeaseState::Active);
}

#[test]
fn t51_what_a_foreign_process_took_is_not_handed_out_and_its_name_is_said() {
    let mut world = World::new(&[("a", 24)]);
    let plan = world.arbiter.plan(world.now(), 1000, holder(7), gib(20));
    assert!(plan.feasible && plan.at_once, "{plan:?}");
    world.used.entry("a".into()).or_default().insert(1000, 20 * GIB);
    world.wait(2_000);
    let failure = world.refused(7, gib(20));
    assert_eq!(failure.kind, ErrorKind::ForeignHolds, "{failure:?}");
    assert!(failure.message.contains("program-1000 (pid 1000, 20.0 GiB)"), "{failure}");
}

fn holder(pid: i32) -> Holder {
    Holder::Process { pid, identity: pid as u64, label: format!("train-{pid}"), uid: 1000 }
}

#[test]
fn t52_a_renewal_after_expiry_or_release_is_refused() {
    let mut world = World::new(&[("a", 24)]);
    let terms = Terms { ttl_ms: Some(5_000), wait_ms: Some(0), key: Some("mine".into()) };
    let fx = world.arbiter.acquire(world.now(), Some(Ticket(99)), 1000, holder(1), gib(10), terms.clone());
    world.take(fx);
    let id = *world.answer(Ticket(99)).unwrap().as_ref().unwrap();
    let epoch = world.lease(id).epoch;
    // The same key is the same request.
    let fx = world.arbiter.acquire(world.now(), Some(Ticket(100)), 1000, holder(1), gib(10), terms);
    world.take(fx);
    assert_eq!(world.answer(Ticket(100)), Some(&Ok(id)));
    assert!(world.arbiter.renew(world.now(), id, epoch).1.is_ok());
    let other = world.arbiter.renew(world.now(), id, epoch + 1).1.unwrap_err();
    assert_eq!(other.kind, ErrorKind::StaleEpoch);
    world.wait(5_001);
    assert_eq!(world.state(id), LeaseState::Expired);
    assert_eq!(world.lease(id).charge(), 10 * GIB);
    let late = world.arbiter.renew(world.now(), id, epoch).1.unwrap_err();
    assert_eq!(late.kind, ErrorKind::StaleEpoch);
    let second = world.has(2, gib(4));
    let epoch = world.lease(second).epoch;
    world.used.clear();
    let (fx, result) = world.arbiter.release(world.now(), second, epoch);
    world.take(fx);
    assert!(result.is_ok());
    assert_eq!(world.arbiter.renew(world.now(), second, epoch).1.unwrap_err().kind, ErrorKind::StaleEpoch);
}

#[test]
fn t53_a_helper_that_outlives_the_main_process_keeps_the_lease() {
    let mut world = World::new(&[("a", 24)]);
    let id = world.has(1, gib(10));
    world.used.get_mut("a").unwrap().insert(2001, 8 * GIB);
    world.wait(250);
    world.dies(1, id, true);
    for _ in 0..10 {
        world.wait(5_000);
        assert_eq!((world.state(id), world.lease(id).charge()), (LeaseState::Active, 10 * GIB));
    }
    world.used.clear();
    world.wait(250);
    world.wait(250);
    assert_eq!(world.state(id), LeaseState::Gone);
}

#[test]
fn t54_nothing_is_granted_by_an_old_measurement() {
    let mut world = World::new(&[("a", 24)]);
    world.now_ms += 60_000;
    let ticket = world.ask(1, gib(4), Some(0));
    assert_eq!(world.answer(ticket), None);
    assert!(world.acts.contains(&GpuAct::Measure));
    world.now_ms += 5_001;
    let fx = world.arbiter.due(world.now());
    world.take(fx);
    let failure = world.answer(ticket).unwrap().as_ref().unwrap_err();
    assert_eq!(failure.kind, ErrorKind::ProbeStale, "{failure}");
    assert!(failure.message.contains("the driver does not say"), "{failure}");
}

#[test]
fn a_victim_that_ignores_the_question_is_killed_and_its_memory_awaited() {
    let mut world = World::new(&[("a", 24)]);
    let mut low = gib(20);
    low.importance = 10;
    let victim = world.has(1, low);
    let mut high = gib(20);
    high.preempt = Preempt::Lower;
    let ticket = world.ask(2, high, None);
    assert_eq!(world.state(victim), LeaseState::Draining);
    assert!(matches!(world.acts.last(), Some(GpuAct::Leave { lease, .. }) if *lease == victim));
    world.wait(9_000);
    assert!(!world.acts.iter().any(|act| matches!(act, GpuAct::Kill { .. })));
    world.wait(1_001);
    assert!(world.acts.iter().any(|act| matches!(act, GpuAct::Kill { lease, .. } if *lease == victim)));
    world.dies(1, victim, false);
    world.wait(250);
    assert_eq!(world.answer(ticket), None, "not before its memory is seen back");
    world.lost.clear();
    world.wait(250);
    assert!(world.answer(ticket).unwrap().is_ok());
}

#[test]
fn who_is_pinned_matters_more_or_has_just_come_is_left_alone() {
    let mut world = World::new(&[("a", 24)]);
    let mut request = gib(20);
    request.min_residency_ms = 60_000;
    request.importance = 10;
    let id = world.has(1, request);
    let mut wants = gib(20);
    wants.preempt = Preempt::Lower;
    let failure = world.refused(2, wants.clone());
    let detail = serde_json::to_string(&failure.detail).unwrap();
    assert!(detail.contains("left in peace"), "{detail}");
    world.wait(61_000);
    let (fx, pinned) = world.arbiter.pin(world.now(), id, 10_000);
    world.take(fx);
    assert!(pinned.is_ok());
    assert_eq!(world.refused(2, wants.clone()).kind, ErrorKind::GpuPinned);
    world.wait(10_001);
    wants.importance = 5;
    assert_eq!(world.refused(2, wants.clone()).kind, ErrorKind::GpuBusy);
    wants.importance = 50;
    world.ask(2, wants, None);
    assert_eq!(world.state(id), LeaseState::Draining);
}

#[test]
fn a_plan_and_the_request_that_follows_agree() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    let mut low = gib(16);
    low.importance = 10;
    world.has(1, low.clone());
    world.has(2, low);
    let mut wants = gib(20);
    wants.preempt = Preempt::Lower;
    let before = world.arbiter.version();
    let plan = world.arbiter.plan(world.now(), 1000, holder(3), wants.clone());
    assert_eq!(world.arbiter.version(), before, "a dry run changes nothing");
    assert!(plan.feasible && !plan.at_once && plan.actions.len() == 1, "{plan:?}");
    assert!(plan.explain[0].starts_with("would stop train-"), "{plan:?}");
    world.ask(3, wants, None);
    let reserved = world.arbiter.leases().find(|lease| lease.state == LeaseState::Reserved).unwrap();
    assert_eq!(reserved.shares, plan.placement);
    let draining: Vec<LeaseId> =
        world.arbiter.leases().filter(|l| l.state == LeaseState::Draining).map(|l| l.id).collect();
    assert_eq!(draining, plan.actions.iter().map(|step| step.lease).collect::<Vec<_>>());
}

#[test]
fn small_ones_pass_a_large_one_four_times_and_no_more() {
    let mut world = World::new(&[("a", 24)]);
    let first = world.has(1, gib(10));
    let large = world.ask(2, gib(20), None);
    let mut granted = 0;
    for pid in 10..20 {
        let ticket = world.ask(pid, gib(1), None);
        granted += u32::from(world.answer(ticket).is_some());
    }
    assert_eq!(granted, 4);
    assert_eq!(world.answer(large), None);
    // Elsewhere nobody is held up.
    let mut elsewhere = World::new(&[("a", 24), ("b", 8)]);
    elsewhere.has(1, gib(10));
    elsewhere.ask(2, gib(20), None);
    for pid in 10..17 {
        let ticket = elsewhere.ask(pid, gib(1), None);
        assert!(elsewhere.answer(ticket).is_some(), "{pid}");
    }
    world.dies(1, first, true);
    let small: Vec<LeaseId> =
        world.arbiter.leases().filter(|l| l.state == LeaseState::Active && l.id != first).map(|l| l.id).collect();
    for (pid, id) in (10..).zip(small) {
        world.dies(pid, id, true);
    }
    world.wait(250);
    world.wait(250);
    assert!(world.answer(large).unwrap().is_ok());
}

#[test]
fn who_has_waited_long_comes_before_who_is_in_a_hurry() {
    let mut world = World::new(&[("a", 24)]);
    let first = world.has(1, gib(20));
    let mut batch = gib(20);
    batch.priority = Priority::Batch;
    let patient = world.ask(2, batch, None);
    for _ in 0..60 {
        world.wait(5_000);
    }
    let mut urgent = gib(20);
    urgent.priority = Priority::Urgent;
    let hurried = world.ask(3, urgent, None);
    world.dies(1, first, true);
    world.wait(250);
    world.wait(250);
    assert!(world.answer(patient).is_some() && world.answer(hurried).is_none());
}

#[test]
fn a_gang_is_granted_whole_and_an_alternative_where_the_first_does_not_fit() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    world.has(1, gib(20));
    let mut request = gib(20);
    request.need.devices = 2;
    request.alternatives = vec![GpuNeed { vram_bytes: Some(10 * GIB), ..GpuNeed::default() }];
    let id = world.has(2, request);
    assert_eq!((world.lease(id).alternative, world.lease(id).shares.len()), (1, 1));
    let mut gang = gib(3);
    gang.need.devices = 2;
    let id = world.has(3, gang);
    assert_eq!(world.lease(id).shares.len(), 2);
}

#[test]
fn unknown_size_is_a_device_of_its_own() {
    let mut world = World::new(&[("a", 24)]);
    let id = world.has(1, GpuRequest { min_residency_ms: 0, ..GpuRequest::default() });
    let failure = world.refused(2, gib(1));
    assert_eq!(failure.kind, ErrorKind::GpuBusy);
    world.dies(1, id, true);
    world.wait(250);
    world.wait(250);
    world.has(2, gib(1));
    assert_eq!(world.refused(3, GpuRequest::default()).kind, ErrorKind::GpuBusy);
}

#[test]
fn t24_a_machine_without_a_gpu_says_so() {
    let mut world = World::new(&[]);
    let failure = world.refused(1, gib(1));
    assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::Precondition, "host has no GPU"));
}

#[test]
fn what_a_daemon_recorded_is_what_the_next_one_has() {
    let mut world = World::new(&[("a", 24)]);
    let id = world.has(1, gib(10));
    world.ask(2, gib(20), None);
    let leases: Vec<Lease> = world.arbiter.leases().cloned().collect();
    let (mut next, fx) = Arbiter::restore(world.arbiter.book().clone(), leases.clone(), false);
    assert!(fx.acts.contains(&GpuAct::Measure));
    assert_eq!(next.leases().map(|lease| lease.id).collect::<Vec<_>>(), [id]);
    let epoch = next.lease(id).unwrap().epoch;
    assert!(next.renew(world.now(), id, epoch).1.is_ok());
    // A machine that was started since has nobody on its devices.
    let (none, fx) = Arbiter::restore(world.arbiter.book().clone(), leases, true);
    assert_eq!(none.leases().count(), 0);
    assert_eq!(fx.leases.len(), 2);
    // Numbers go on.
    std::mem::swap(&mut world.arbiter, &mut next);
    world.measure();
    let third = world.has(3, gib(2));
    assert!(third.0 > 2, "{third}");
}

#[test]
fn growth_is_granted_where_there_is_room_and_refused_without_waiting() {
    let mut world = World::new(&[("a", 24)]);
    let id = world.has(1, gib(10));
    let epoch = world.lease(id).epoch;
    world.has(2, gib(10));
    let now = world.now();
    let (fx, grown) = world.arbiter.update(now, id, epoch, 12 * GIB);
    world.take(fx);
    assert!(grown.is_ok());
    let (_, failure) = world.arbiter.update(now, id, epoch, 16 * GIB);
    assert_eq!(failure.unwrap_err().kind, ErrorKind::WouldWait);
    assert_eq!(world.lease(id).charge(), 12 * GIB);
    let (fx, shrunk) = world.arbiter.update(now, id, epoch, 2 * GIB);
    world.take(fx);
    assert!(shrunk.is_ok());
    world.wait(250);
    assert_eq!(world.lease(id).charge(), 10 * GIB, "it still has what it has");
}
