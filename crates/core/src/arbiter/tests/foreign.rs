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
