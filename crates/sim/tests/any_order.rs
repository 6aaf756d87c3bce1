//! Whatever is asked and whatever happens, in any order: the rules hold, and when faults stop,
//! what is wanted runs and nothing else does.

use proptest::prelude::*;
use wharf_core::{Event, Fact, FoundRun, Goal, Removal};
use wharf_model::{ErrorKind, Exit, Failure, Health, OpId, Phase, UnitName, Want};
use wharf_sim::{Deed, World};

fn goal() -> impl Strategy<Value = Goal> {
    prop_oneof![
        3 => Just(Goal::Install { version: None, reset: false }),
        1 => Just(Goal::Build { version: None }),
        4 => any::<bool>().prop_map(|reset| Goal::Start { reset }),
        3 => any::<bool>().prop_map(|keep_want| Goal::Stop { keep_want, retire: false }),
        2 => Just(Goal::Restart),
        1 => Just(Goal::Delete(Removal { binaries: true, data: true })),
        1 => Just(Goal::Upgrade { version: None }),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..3usize, goal(), any::<bool>()).prop_map(|(unit, goal, wait)| Deed::Ask { unit, goal, wait }),
        8 => (any::<usize>(), prop::bool::weighted(0.75)).prop_map(|(which, well)| Deed::Answer { which, well }),
        2 => (any::<usize>(), 0..3i32, any::<bool>()).prop_map(|(which, code, leftover)| Deed::Crash { which, code, leftover }),
        4 => prop_oneof![Just(5u64), Just(1_000), Just(11_000), Just(31_000)].prop_map(|ms| Deed::Wait { ms }),
        1 => Just(Deed::Reincarnate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_order_keeps_the_rules_and_calm_brings_what_is_wanted(deeds in prop::collection::vec(deed(), 1..80)) {
        let mut world = World::default();
        for deed in deeds {
            world.deed(deed);
        }
        world.calm();
        prop_assert!(world.asked.is_empty(), "never answered: {:?}", world.asked);
        for unit in world.core.units() {
            let phase = unit.phase();
            match unit.want {
                Want::Up => prop_assert!(
                    matches!(phase, Phase::Running | Phase::Failed) || (phase == Phase::Stopped && unit.held),
                    "{} is wanted and {phase}", unit.name
                ),
                Want::Down => prop_assert!(
                    matches!(phase, Phase::Stopped | Phase::NotInstalled | Phase::Failed),
                    "{} is unwanted and {phase}", unit.name
                ),
                Want::OnDemand | Want::Retired => prop_assert!(false, "nobody asked for that"),
            }
        }
    }
}

#[test]
fn t17_old_news_of_a_run_changes_nothing() {
    let mut world = World::default();
    let name: UnitName = "c@x".parse().unwrap();
    let start = |world: &mut World| world.deed(Deed::Ask { unit: 2, goal: Goal::Start { reset: false }, wait: false });
    start(&mut world);
    for _ in 0..2 {
        let act = world.pending.remove(0);
        world.answer(act, true);
    }
    let first = world.core.unit(&name).unwrap().life.run().unwrap();
    world.deed(Deed::Ask { unit: 2, goal: Goal::Stop { keep_want: false, retire: false }, wait: false });
    world.end(first, Exit::Exited { code: 0 }, false);
    start(&mut world);
    for _ in 0..2 {
        let act = world.pending.remove(0);
        world.answer(act, true);
    }
    let second = world.core.unit(&name).unwrap().life.clone();
    assert_ne!(second.run(), Some(first));
    let unit = name.clone();
    for fact in [
        Fact::Exited { unit: unit.clone(), run: first, exit: Exit::Unknown, empty: true, last_words: vec![] },
        Fact::Emptied { unit: unit.clone(), run: first },
        Fact::NotLaunched { unit: unit.clone(), run: first, failure: Failure::new(ErrorKind::Internal, "old") },
        Fact::Found { unit: unit.clone(), run: first, found: FoundRun::NeverStarted },
        Fact::Placed { unit, op: OpId(1), result: Err(Failure::new(ErrorKind::Internal, "old")) },
    ] {
        world.step(Event::Fact(fact));
        assert_eq!(world.core.unit(&name).unwrap().life, second);
    }
    for _ in 0..4 {
        let unit = name.clone();
        world.step(Event::Fact(Fact::Probed { unit, run: first, health: Health::unhealthy("old") }));
    }
    assert_eq!(world.core.unit(&name).unwrap().phase(), Phase::Running);
}

/// HL-14 to HL-16: every 5 s in the first minute, then every 30 s, and never two at once.
#[test]
fn probes_come_every_5_s_for_a_minute_and_then_every_30_s() {
    let mut world = World::default();
    world.deed(Deed::Ask { unit: 2, goal: Goal::Start { reset: false }, wait: false });
    let mut probes = vec![];
    for second in 0..400u64 {
        while let Some(act) = world.pending.pop() {
            if matches!(act, wharf_core::Act::Probe { .. }) {
                probes.push(second);
            }
            world.answer(act, true);
        }
        world.deed(Deed::Wait { ms: 1000 });
    }
    let early = probes.iter().filter(|s| (1..=60).contains(*s)).count();
    let late = probes.iter().filter(|s| (61..=361).contains(*s)).count();
    assert!((11..=13).contains(&early), "{early} probes in the first minute: {probes:?}");
    assert!((9..=11).contains(&late), "{late} probes in the next five minutes: {probes:?}");
}

/// Nobody waits for two probes of one run: a slow answer holds up the next question.
#[test]
fn there_are_never_two_probes_of_one_unit_at_once() {
    let mut world = World::default();
    world.deed(Deed::Ask { unit: 2, goal: Goal::Start { reset: false }, wait: false });
    let launch = world.pending.remove(0);
    world.answer(launch, true);
    for _ in 0..100 {
        world.deed(Deed::Wait { ms: 200 });
        let out = world.pending.iter().filter(|a| matches!(a, wharf_core::Act::Probe { .. })).count();
        assert!(out <= 1, "{out} probes are out");
    }
}

/// Found by chance, kept as an event list: a unit that an earlier daemon was stopping is not
/// started by an upgrade.
#[test]
fn an_upgrade_does_not_start_what_is_being_stopped() {
    let mut world = World::default();
    for goal in [Goal::Start { reset: false }, Goal::Stop { keep_want: false, retire: false }] {
        world.deed(Deed::Ask { unit: 2, goal, wait: false });
    }
    world.deed(Deed::Answer { which: 0, well: true });
    world.deed(Deed::Reincarnate);
    world.deed(Deed::Ask { unit: 2, goal: Goal::Upgrade { version: None }, wait: false });
    world.calm();
    assert_eq!(world.core.unit(&"c@x".parse().unwrap()).unwrap().phase(), Phase::Stopped);
}

/// `wharf down` stops for now; somebody who asks for a real stop meanwhile means it.
#[test]
fn a_stop_that_joins_a_stop_for_now_is_a_stop() {
    let mut world = World::default();
    let name: UnitName = "c@x".parse().unwrap();
    world.deed(Deed::Ask { unit: 2, goal: Goal::Start { reset: false }, wait: false });
    world.deed(Deed::Answer { which: 0, well: true });
    for keep_want in [true, false] {
        world.deed(Deed::Ask { unit: 2, goal: Goal::Stop { keep_want, retire: false }, wait: true });
    }
    world.calm();
    world.deed(Deed::Reincarnate);
    world.calm();
    let unit = world.core.unit(&name).unwrap();
    assert_eq!((unit.want, unit.phase()), (Want::Down, Phase::Stopped));
}
