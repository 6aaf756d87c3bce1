//! Programs that never asked: adopted, or ignored. What is told of devices.

use wharf_model::{ErrorKind, Failure, Holder, LeaseId, LeaseState, Preempt, Taint, TaintEffect};

use super::{GIB, World, gib};
use crate::arbiter::{GpuNotice, Outcome, value::WEIGHT_OF};

impl World {
    /// Somebody who never asked takes so much.
    fn takes(&mut self, pid: i32, device: &str, bytes: u64) {
        self.used.entry(device.to_owned()).or_default().insert(pid, bytes);
        self.wait(250);
    }

    fn adopt(&mut self, pid: i32, vram_bytes: Option<u64>) -> Result<LeaseId, Failure> {
        let holder = Holder::Process { pid, identity: pid as u64, label: "notebook".into(), uid: 1000 };
        let (fx, result) = self.arbiter.adopt(self.now(), 1000, holder, vram_bytes, false);
        self.take(fx);
        result
    }

    fn headroom(&self, at: usize) -> u64 {
        let slot = self.arbiter.slots().nth(at).unwrap();
        self.arbiter.count(slot, None).headroom
    }

    fn foreign(&self, at: usize) -> u64 {
        let slot = self.arbiter.slots().nth(at).unwrap();
        self.arbiter.count(slot, None).foreign
    }

    /// Measures, and has what was told.
    fn news(&mut self) -> Vec<GpuNotice> {
        self.now_ms += 250;
        let inventory = self.inventory();
        let fx = self.arbiter.measured(self.now(), &inventory);
        let told = fx.notices.clone();
        self.take(fx);
        told
    }
}

fn strangers(told: &[GpuNotice]) -> Vec<(u64, usize)> {
    let of = |notice: &GpuNotice| {
        let GpuNotice::Foreign { bytes, who, .. } = notice else { return None };
        Some((bytes / GIB, who.len()))
    };
    told.iter().filter_map(of).collect()
}

#[test]
fn what_was_foreign_counts_as_a_charge_and_the_lease_ends_when_its_memory_is_back() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    world.takes(1500, "a", 3 * GIB);
    world.takes(1500, "b", 2 * GIB);
    let (before, foreign) = (world.headroom(0), world.foreign(0));
    assert_eq!(foreign, 3 * GIB);
    let id = world.adopt(1500, None).unwrap();
    let lease = world.lease(id).clone();
    let shares: Vec<(&str, u64, u64)> =
        lease.shares.iter().map(|s| (&*s.device.0, s.declared_bytes / GIB, s.charge_bytes / GIB)).collect();
    assert_eq!(shares, [("a", 3, 3), ("b", 2, 2)], "where it was seen, and what it has");
    assert_eq!((lease.state, lease.epoch > 0, lease.need().devices), (LeaseState::Active, true, 2));
    assert_eq!((world.headroom(0), world.foreign(0)), (before, 0), "nothing has moved, at once");
    world.wait(5_000);
    assert_eq!((world.headroom(0), world.foreign(0)), (before, 0), "nor by the next look");
    assert!(strangers(&world.news()).is_empty());

    world.dies(1500, id, false);
    world.wait(250);
    assert_eq!(world.state(id), LeaseState::Reclaiming);
    world.wait(250);
    assert_eq!(world.state(id), LeaseState::Reclaiming, "the driver has not given it back");
    world.lost.clear();
    world.wait(250);
    assert_eq!((world.state(id), world.headroom(0)), (LeaseState::Gone, before + 3 * GIB));
}

#[test]
fn it_is_promised_what_is_named_and_that_must_be_there() {
    let mut world = World::new(&[("a", 24)]);
    world.has(1, gib(10));
    world.takes(1500, "a", 4 * GIB);
    let refused = world.adopt(1500, Some(14 * GIB)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::GpuBusy, "{refused:?}");
    assert!(refused.message.contains("14.0 GiB") && refused.message.contains("train-1"), "{refused:?}");
    let id = world.adopt(1500, Some(8 * GIB)).unwrap();
    assert_eq!(world.lease(id).charge(), 8 * GIB);
    world.takes(1500, "a", 9 * GIB);
    assert_eq!(world.lease(id).charge(), 9 * GIB, "more than it was promised: it counts");
    let again = world.adopt(1500, None).unwrap_err();
    assert_eq!((again.kind, again.message.contains(&id.to_string())), (ErrorKind::Conflict, true), "{again:?}");
}

#[test]
fn nobody_is_adopted_who_has_nothing_or_onto_what_somebody_has_alone() {
    let mut world = World::new(&[("a", 24), ("b", 8)]);
    assert_eq!(world.adopt(1500, None).unwrap_err().kind, ErrorKind::Precondition);
    world.takes(1500, "a", 2 * GIB);
    let alone = world.has(1, wharf_model::GpuRequest { min_residency_ms: 0, ..wharf_model::GpuRequest::default() });
    let on = world.lease(alone).shares[0].device.to_string();
    assert_eq!(on, "b", "where nobody is");
    world.takes(1501, "b", GIB / 2);
    assert_eq!(world.adopt(1501, None).unwrap_err().kind, ErrorKind::Conflict);
    assert!(world.adopt(1500, None).is_ok());

    let mut world = World::new(&[("a", 24)]);
    world.takes(1500, "a", 2 * GIB);
    let taint = Taint { effect: TaintEffect::Drain, reason: "the fan".into() };
    let (fx, done) = world.arbiter.taint(world.now(), &"a".into(), Some(taint));
    done.unwrap();
    world.take(fx);
    assert_eq!(world.adopt(1500, None).unwrap_err().kind, ErrorKind::DeviceTainted);
    world.now_ms += 60_000;
    let (fx, _) = world.arbiter.taint(world.now(), &"a".into(), None);
    world.take(fx);
    assert_eq!(world.adopt(1500, None).unwrap_err().kind, ErrorKind::ProbeStale, "it may be gone by now");
}

#[test]
fn what_it_started_is_adopted_with_it_and_nobody_sends_it_away_who_may_not_force() {
    let mut world = World::new(&[("a", 24)]);
    // A child of 40, which has nothing itself.
    world.takes(2040, "a", 10 * GIB);
    let id = world.adopt(40, None).unwrap();
    assert_eq!(world.lease(id).charge(), 10 * GIB);
    let lower = wharf_model::GpuRequest { preempt: Preempt::Lower, importance: 100, ..gib(20) };
    world.refused(1, lower);
    assert_eq!(world.state(id), LeaseState::Active);
    world.dies(40, id, true);
    world.used.get_mut("a").unwrap().insert(2040, 10 * GIB);
    world.wait(250);
    assert_eq!(world.state(id), LeaseState::Active, "its child has the memory");
    world.used.clear();
    world.wait(250);
    world.wait(250);
    assert_eq!(world.state(id), LeaseState::Gone);
}

#[test]
fn who_is_ignored_is_taken_and_no_news_until_it_ends() {
    let mut world = World::new(&[("a", 24)]);
    world.used.entry("a".into()).or_default().insert(1801, 7 * GIB);
    assert_eq!(strangers(&world.news()), [(7, 1)]);
    let free = world.headroom(0);
    let whole = wharf_model::GpuRequest { min_residency_ms: 0, ..wharf_model::GpuRequest::default() };
    assert_eq!(world.refused(1, whole.clone()).kind, ErrorKind::ForeignHolds, "more than a quarter is somebody's");

    let (fx, done) = world.arbiter.ignore(world.now(), 1801, 1801, true);
    done.unwrap();
    assert!(fx.book, "it outlives the daemon");
    world.take(fx);
    assert_eq!((world.headroom(0), world.foreign(0)), (free, 7 * GIB), "it counts as before");
    let slot = world.arbiter.slots().next().unwrap();
    assert!(world.arbiter.strangers(slot).all(|process| process.ignored));
    assert!(strangers(&world.news()).is_empty());
    world.used.get_mut("a").unwrap().insert(1801, 9 * GIB);
    assert!(strangers(&world.news()).is_empty(), "not even when it takes more");
    world.used.get_mut("a").unwrap().insert(1802, 2 * GIB);
    assert_eq!(strangers(&world.news()), [(2, 1)], "another one is news, and alone");
    world.used.get_mut("a").unwrap().remove(&1802);
    world.news();
    let id = world.has(1, whole);
    assert_eq!(world.lease(id).shares[0].declared_bytes, free - 2 * GIB, "baseline: what is left is a whole device");

    // Restored as it was; another life of the machine has other processes.
    let (restored, _) = super::Arbiter::restore(world.arbiter.book().clone(), vec![], false);
    assert!(restored.book().ignored.contains(&(1801, 1801)));
    let (rebooted, fx) = super::Arbiter::restore(world.arbiter.book().clone(), vec![], true);
    assert!(rebooted.book().ignored.is_empty() && fx.book);
    let fx = world.arbiter.ignored_gone(1801, 1801);
    assert!(fx.book);
    world.take(fx);
    assert_eq!(world.arbiter.ignored_gone(1801, 1801), Outcome::default(), "it was forgotten");
    assert_eq!(strangers(&world.news()), [(9, 1)], "its number is a stranger's");
}

#[test]
fn only_who_has_memory_and_no_lease_is_ignored_and_it_can_be_taken_back() {
    let mut world = World::new(&[("a", 24)]);
    let refused = |world: &mut World, pid: i32| world.arbiter.ignore(world.now(), pid, pid as u64, true).1.unwrap_err();
    assert_eq!(refused(&mut world, 1801).kind, ErrorKind::Precondition);
    world.has(1, gib(4));
    assert_eq!(refused(&mut world, 1).kind, ErrorKind::Conflict);
    world.takes(1801, "a", 4 * GIB);
    assert_eq!(
        world.arbiter.ignore(world.now(), 1801, 7, true).1.unwrap_err().kind,
        ErrorKind::Precondition,
        "another"
    );
    world.arbiter.ignore(world.now(), 1801, 1801, true).1.unwrap();
    world.news();
    world.arbiter.ignore(world.now(), 1801, 1801, false).1.unwrap();
    assert_eq!(strangers(&world.news()), [(4, 1)], "it is news again");
    world.arbiter.ignore(world.now(), 1801, 1801, true).1.unwrap();
    let id = world.adopt(1801, None).unwrap();
    assert!(world.arbiter.book().ignored.is_empty(), "who has a lease is not ignored");
    assert_eq!(world.state(id), LeaseState::Active);
}

#[test]
fn a_device_that_is_nearly_full_is_told_once_until_there_was_room() {
    let mut world = World::new(&[("a", 100)]);
    let low = |told: &[GpuNotice]| told.iter().filter(|n| matches!(n, GpuNotice::Headroom { .. })).count();
    let mut with = |gib: u64| {
        world.used.entry("a".into()).or_default().insert(1500, gib * GIB);
        low(&world.news())
    };
    assert_eq!(with(90), 0);
    assert_eq!(with(95), 1, "under 5 %");
    assert_eq!((with(99), with(94), with(96)), (0, 0, 0), "once");
    assert_eq!((with(80), with(96)), (0, 1), "and again when there was room");
}

#[test]
fn memory_that_does_not_come_back_is_told_with_its_lease_and_taints_with_their_reason() {
    let mut world = World::new(&[("a", 24)]);
    let id = world.has(1, gib(10));
    world.dies(1, id, false);
    world.wait(250);
    world.now_ms += world.arbiter.settings.reclaim_ms;
    world.measure();
    let fx = world.arbiter.due(world.now());
    let leaks: Vec<(LeaseId, u64)> = fx
        .notices
        .iter()
        .filter_map(|notice| {
            let GpuNotice::Leak { lease, bytes, .. } = notice else { return None };
            Some((*lease, bytes / GIB))
        })
        .collect();
    assert_eq!(leaks, [(id, 10)]);
    world.take(fx);
    assert_eq!(world.state(id), LeaseState::Quarantined);

    let taint = Taint { effect: TaintEffect::NoNew, reason: "the fan is loud".into() };
    let told = |fx: &Outcome| fx.notices.iter().filter(|n| matches!(n, GpuNotice::Device { .. })).cloned().collect();
    let (fx, _) = world.arbiter.taint(world.now(), &"a".into(), Some(taint.clone()));
    let all: Vec<GpuNotice> = told(&fx);
    assert_eq!(all, [GpuNotice::Device { device: "a".into(), what: "takes nothing new: the fan is loud".into() }]);
    let (fx, _) = world.arbiter.taint(world.now(), &"a".into(), Some(taint));
    assert_eq!(told(&fx), [], "it was so");
    let (fx, _) = world.arbiter.taint(world.now(), &"a".into(), None);
    assert_eq!(told(&fx).len(), 1, "and is over");
}

#[test]
fn the_figures_that_are_shown_multiply_to_the_value_that_decides() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    let said = wharf_model::GpuRequest { reload_ms: Some(41_234), importance: 77, ..gib(14) };
    let ids = [world.has(1, said), world.has(2, wharf_model::GpuRequest { importance: 3, ..gib(13) })];
    let mut learned = world.arbiter.book.learned.clone();
    for (n, of) in learned.values_mut().enumerate() {
        (0..=n as u64).for_each(|use_| of.used(world.now_ms + use_ * 400_000));
    }
    world.arbiter.book.learned = learned;
    for minutes in [1, 7, 44, 300] {
        world.wait(minutes * 60_000);
        let force = wharf_model::GpuRequest { preempt: Preempt::Force, ..gib(20) };
        let asker = super::Lease::new(LeaseId(99), 1, Holder::Unit { name: "x".parse().unwrap() }, force, world.now_ms);
        let board = world.arbiter.board(world.now_ms, &asker, &Default::default());
        for id in ids {
            let worth = world.arbiter.worth(world.now_ms, world.lease(id));
            let product =
                (worth.reload_ms * worth.expected_micro / 1_000_000 + worth.credit_ms) * worth.weight / WEIGHT_OF;
            let resident = board.residents.iter().find(|resident| resident.lease == id).unwrap();
            let crate::arbiter::board::Leave::May { value, reload_ms, .. } = resident.leave else {
                panic!("{resident:?}")
            };
            assert_eq!((product, worth.reload_ms), (value, reload_ms), "{worth:?}");
            assert!(value > 0 && worth.expected_micro > 0, "{worth:?}");
        }
    }
}

#[test]
fn a_run_that_lives_without_a_lease_gets_one_where_it_is_seen() {
    let mut world = World::new(&[("a", 24), ("b", 24)]);
    world.takes(1500, "b", 5 * GIB);
    let name: wharf_model::UnitName = "command@model".parse().unwrap();
    let look = |world: &mut World| {
        world.now_ms += 250;
        let mut inventory = world.inventory();
        for process in inventory.devices.iter_mut().flat_map(|device| device.processes.iter_mut().flatten()) {
            process.unit = (process.pid == 1500).then(|| (name.clone(), wharf_model::RunId(3)));
        }
        let fx = world.arbiter.measured(world.now(), &inventory);
        world.take(fx);
    };
    look(&mut world);
    let before = world.headroom(1);
    let fx = world.arbiter.adopt_unit(world.now(), &name, &gib(8));
    assert!(fx.book && fx.leases.len() == 1, "recorded");
    world.take(fx);
    let lease = world.arbiter.of_unit(&name).unwrap().clone();
    assert_eq!((lease.state, &*lease.shares[0].device.0, lease.charge()), (LeaseState::Active, "b", 8 * GIB));
    assert_eq!((world.headroom(1), world.foreign(1)), (before - 3 * GIB, 0), "what its policy promises it");
    assert_eq!(world.arbiter.adopt_unit(world.now(), &name, &gib(8)), Outcome::default(), "it has one");
    look(&mut world);
    assert_eq!((world.headroom(1), world.lease(lease.id).charge()), (before - 3 * GIB, 8 * GIB));

    // Another unit's process is not its own, and nobody is adopted whom nobody has seen.
    let other: wharf_model::UnitName = "command@other".parse().unwrap();
    assert_eq!(world.arbiter.adopt_unit(world.now(), &other, &gib(1)), Outcome::default());

    // One that was to have its devices alone shares them where somebody has come since.
    let fx = world.arbiter.unit_gone(world.now(), &name, false);
    world.take(fx);
    look(&mut world);
    let only = |id: &str| wharf_model::GpuNeed { only: vec![id.into()], ..gib(4).need };
    world.has(1, wharf_model::GpuRequest { need: only("b"), ..gib(4) });
    look(&mut world);
    let whole = wharf_model::GpuRequest { min_residency_ms: 0, ..wharf_model::GpuRequest::default() };
    let fx = world.arbiter.adopt_unit(world.now(), &name, &whole);
    world.take(fx);
    let lease = world.arbiter.of_unit(&name).unwrap();
    assert_eq!((lease.charge(), lease.need().is_alone()), (5 * GIB, false));
}
