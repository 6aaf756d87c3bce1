//! The scenarios with names, each with the death of the daemon after each of its effects; and what
//! probes and old news do, step by step.

use wharf_core::{Fact, FoundRun, Goal};
use wharf_model::{ErrorKind, Exit, Failure, Health, OpId, Phase, Policy, RunId};
use wharf_sim::{
    counts::Counts,
    deed::{Deed, How, TaskKind},
    scenario::{declared, named},
    scripts,
    world::World,
};

#[test]
fn every_scenario_ends_as_it_must_wherever_the_daemon_dies() {
    let all = scripts::all();
    assert!(all.len() >= 40, "{} scenarios only", all.len());
    let (mut counts, mut failed, mut worlds) = (Counts::default(), vec![], 0);
    for scenario in &all {
        match scenario.play(1, &mut counts) {
            Ok(played) => worlds += played,
            Err(broken) => failed.push(format!("{}: {}", broken.rule, broken.text)),
        }
    }
    println!("{} scenarios in {worlds} worlds", all.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A world with one unit that has just been launched.
fn launched() -> World {
    let mut world = World::new();
    for deed in [Deed::Boot, Deed::Work] {
        world.deed(&deed).unwrap();
    }
    start(&mut world);
    world
}

fn start(world: &mut World) {
    let goal = Goal::Start { reset: false };
    let ask = wharf_core::Ask { unit: named("a"), goal, declared: Some(declared(Policy::default())), wait: false };
    let launch = Deed::Answer { unit: named("a"), task: TaskKind::Launch, how: How::Well };
    for deed in [Deed::Ask(Box::new(ask)), launch, Deed::Tell { nth: 0 }] {
        world.deed(&deed).unwrap();
    }
}

fn phase(world: &World) -> Phase {
    world.daemon.as_ref().unwrap().core.unit(&named("a")).unwrap().phase()
}

fn run(world: &World) -> RunId {
    world.daemon.as_ref().unwrap().core.unit(&named("a")).unwrap().life.run().unwrap()
}

#[test]
fn t17_old_news_of_a_run_changes_nothing() {
    let mut world = launched();
    world.deed(&Deed::Work).unwrap();
    let first = run(&world);
    let goal = Goal::Stop { keep_want: false, retire: false };
    let stop = wharf_core::Ask { unit: named("a"), goal, declared: None, wait: false };
    for deed in [Deed::Ask(Box::new(stop)), Deed::Work] {
        world.deed(&deed).unwrap();
    }
    start(&mut world);
    world.deed(&Deed::Work).unwrap();
    let second = world.daemon.as_ref().unwrap().core.unit(&named("a")).unwrap().life.clone();
    assert_ne!(second.run(), Some(first));
    let unit = named("a");
    let old = Failure::new(ErrorKind::Internal, "old");
    let sick = Fact::Probed { unit: unit.clone(), run: first, health: Health::unhealthy("old") };
    for fact in [
        Fact::Exited { unit: unit.clone(), run: first, exit: Exit::Unknown, empty: true, last_words: vec![] },
        Fact::Emptied { unit: unit.clone(), run: first },
        Fact::NotLaunched { unit: unit.clone(), run: first, failure: old.clone() },
        Fact::Found { unit: unit.clone(), run: first, found: FoundRun::NeverStarted },
        Fact::Unused { unit: unit.clone(), run: first },
        Fact::LogFault { unit: unit.clone(), run: first, line: Some("old".into()) },
        Fact::Placed { unit, op: OpId(1), result: Err(old) },
        sick.clone(),
        sick.clone(),
        sick.clone(),
        sick,
    ] {
        world.tell_of(fact).unwrap();
        let core = &world.daemon.as_ref().unwrap().core;
        assert_eq!(core.unit(&named("a")).unwrap().life, second);
    }
    assert_eq!(phase(&world), Phase::Running);
}

/// HL-14 to HL-16: every 5 s in the first minute, then every 30 s, and never two at once.
#[test]
fn probes_come_every_5_s_for_a_minute_and_then_every_30_s() {
    let mut world = launched();
    let mut probes = vec![];
    for second in 0..400u64 {
        let out = world.daemon.as_ref().unwrap().tasks.keys().filter(|key| key.1 == TaskKind::Probe).count();
        probes.extend((0..out).map(|_| second));
        world.deed(&Deed::Work).unwrap();
        world.deed(&Deed::Wait { ms: 1_000 }).unwrap();
    }
    let early = probes.iter().filter(|s| (1..=60).contains(*s)).count();
    let late = probes.iter().filter(|s| (61..=361).contains(*s)).count();
    assert!((11..=13).contains(&early), "{early} probes in the first minute: {probes:?}");
    assert!((9..=11).contains(&late), "{late} probes in the next five minutes: {probes:?}");
}

/// Nobody waits for two probes of one run: a slow answer holds up the next question.
#[test]
fn there_are_never_two_probes_of_one_unit_at_once() {
    let mut world = launched();
    for _ in 0..100 {
        world.deed(&Deed::Wait { ms: 200 }).unwrap();
        let out = world.daemon.as_ref().unwrap().tasks.keys().filter(|key| key.1 == TaskKind::Probe).count();
        assert!(out <= 1, "{out} probes at once");
    }
}

/// Everything that a unit's stop for now leaves is taken along by a stop for good that joins it.
#[test]
fn a_stop_for_good_joins_a_stop_for_now_and_stays() {
    let mut world = launched();
    for keep_want in [true, false] {
        let goal = Goal::Stop { keep_want, retire: false };
        let ask = wharf_core::Ask { unit: named("a"), goal, declared: None, wait: true };
        world.deed(&Deed::Ask(Box::new(ask))).unwrap();
    }
    for deed in [Deed::Work, Deed::Crash { after: 0, salt: 0 }, Deed::Scheduled { unit: named("a") }, Deed::Calm] {
        world.deed(&deed).unwrap();
    }
    assert_eq!(phase(&world), Phase::Stopped);
}
