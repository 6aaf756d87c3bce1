//! What belongs to nobody is not taken for what is awaited back.

use super::*;

/// The last look is older than its end, and has told what it had as its own.
#[test]
fn what_a_holder_had_is_not_taken_off_twice_when_it_goes() {
    let mut world = World::new(&[("a", 32)]);
    let first = world.has(1, gib(15));
    world.used.get_mut("a").unwrap().insert(1, 4 * GIB);
    world.lost.insert("a".into(), 4 * GIB);
    world.wait(250);
    let second = world.ask(2, gib(14), None);
    assert_eq!(world.answer(second), None, "15 are leased and 4 are lost");
    world.used.get_mut("a").unwrap().insert(1, 15 * GIB);
    world.now_ms += 10;
    // Its end is known at once, as that of a unit is; the driver holds on to all of it.
    let bytes = world.used.get_mut("a").unwrap().remove(&1).unwrap();
    *world.lost.get_mut("a").unwrap() += bytes;
    let (now, mut fx) = (world.now(), Outcome::default());
    world.arbiter.reclaim(now, first, &mut fx);
    world.arbiter.pass(now, &mut fx);
    world.take(fx);
    let slot = world.arbiter.slots().next().unwrap();
    assert_eq!(world.arbiter.count(slot, None).foreign, 4 * GIB, "they are nobody's now as before");
    assert_eq!(world.answer(second), None, "not before it was seen back");
    world.wait(250);
    assert_eq!(world.answer(second), None);
    world.lost.insert("a".into(), 4 * GIB);
    world.wait(250);
    assert!(world.answer(second).unwrap().is_ok());
}

/// Somebody who matters little leaves for who asks, and another program is quicker than who asked.
fn taken_by_another<T>(ask: impl FnOnce(&mut World, GpuRequest) -> T) -> (World, T) {
    let mut world = World::new(&[("a", 24)]);
    let mut low = gib(20);
    low.importance = 10;
    let first = world.has(1, low);
    let mut wants = gib(20);
    wants.preempt = Preempt::Lower;
    let asked = ask(&mut world, wants);
    assert_eq!(world.state(first), LeaseState::Draining, "it is worth the wait");
    world.dies(1, first, true);
    world.used.entry("a".into()).or_default().insert(1000, 20 * GIB);
    (world, asked)
}

/// Whoever does not wait has the patience while others leave for it; when somebody else takes what they left, it waits
/// as long as memory may take to come back, and is told so then: it does not wait for ever.
#[test]
fn who_does_not_wait_is_refused_when_what_was_freed_for_it_is_taken() {
    let (mut world, second) = taken_by_another(|world, wants| {
        let second = world.ask(2, wants, Some(0));
        assert_eq!(world.answer(second), None);
        second
    });
    for _ in 0..3 {
        world.wait(250);
    }
    assert_eq!(world.answer(second), None, "a measurement may be late");
    for _ in 0..125 {
        world.wait(250);
    }
    let failure = world.answer(second).expect("an answer").as_ref().expect_err("nothing is free");
    assert_eq!(failure.kind, ErrorKind::QueueTimeout, "{failure:?}");
    assert!(failure.message.contains("pid 1000"), "{failure}");
}

#[test]
fn what_comes_back_in_time_is_had_by_who_does_not_wait_and_who_waits_waits_on() {
    let (mut world, (hasty, patient)) =
        taken_by_another(|world, wants| (world.ask(2, wants, Some(0)), world.ask(3, gib(4), None)));
    for _ in 0..10 {
        world.wait(250);
    }
    assert_eq!((world.answer(hasty), world.answer(patient)), (None, None));
    world.used.get_mut("a").unwrap().clear();
    world.wait(250);
    assert!(world.answer(hasty).unwrap().is_ok());
    assert_eq!(world.answer(patient), None);
}
