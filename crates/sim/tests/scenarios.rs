//! The scenarios with names, each with the death of the daemon after each of its effects; and what
//! probes and old news do, step by step.

use wharf_core::{Event, Fact, FoundRun, Goal, Notice};
use wharf_model::{ErrorKind, Exit, Failure, Health, OnExit, OpId, Phase, Policy, Restart, RunId};
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
    start_with(world, Policy::default());
}

fn start_with(world: &mut World, policy: Policy) {
    let goal = Goal::Start { reset: false };
    let ask = wharf_core::Ask { unit: named("a"), goal, declared: Some(declared(policy)), wait: false, force: false };
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
    let stop = wharf_core::Ask { unit: named("a"), goal, declared: None, wait: false, force: false };
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
        let ask = wharf_core::Ask { unit: named("a"), goal, declared: None, wait: true, force: false };
        world.deed(&Deed::Ask(Box::new(ask))).unwrap();
    }
    for deed in [Deed::Work, Deed::Crash { after: 0, salt: 0 }, Deed::Scheduled { unit: named("a") }, Deed::Calm] {
        world.deed(&deed).unwrap();
    }
    assert_eq!(phase(&world), Phase::Stopped);
}

/// That a program ended can be known before how: what follows is decided by how it was all the same.
#[test]
fn an_exit_that_is_learned_late_decides_what_follows() {
    let exits = [("3".to_owned(), OnExit::Stop), ("78".to_owned(), OnExit::Fail)].into();
    let by_code = Policy { exits, ..Policy::default() };
    let job = Policy { job: true, ..Policy::default() };
    for (policy, code, ends) in [
        (&job, 0, Phase::Stopped),
        (&job, 1, Phase::Backoff),
        (&by_code, 3, Phase::Stopped),
        (&by_code, 78, Phase::Failed),
        (&by_code, 0, Phase::Backoff),
    ] {
        let mut world = World::new();
        for deed in [Deed::Boot, Deed::Work] {
            world.deed(&deed).unwrap();
        }
        start_with(&mut world, policy.clone());
        let (unit, of, exit) = (named("a"), run(&world), Exit::Exited { code });
        let unknown = Exit::Unknown;
        world.tell_of(Fact::Exited { unit, run: of, exit: unknown, empty: false, last_words: vec![] }).unwrap();
        world.tell_of(Fact::Learned { unit: named("a"), run: of, exit: exit.clone() }).unwrap();
        let body = world.machine.bodies.get_mut(&of).unwrap();
        (body.main, body.recorded, body.exit) = (false, true, Some(exit.clone()));
        world.tell_of(Fact::Emptied { unit: named("a"), run: of }).unwrap();
        assert_eq!(phase(&world), ends, "{exit}");
        let unit = world.daemon.as_ref().unwrap().core.unit(&named("a")).unwrap();
        assert_eq!(unit.last_exit, Some(exit.clone()));
        let said = unit.last_error.clone().unwrap_or_default();
        assert!(ends == Phase::Stopped || said.contains(&exit.to_string()), "{said}");
    }
}

/// What the daemon may not do is mended by somebody else: it is tried again, and is no death.
#[test]
fn a_start_that_lacks_a_right_is_blocked_and_no_death() {
    let mut world = launched();
    let exit = Exit::Exited { code: 1 };
    for deed in [Deed::Work, Deed::Ends { unit: named("a"), exit, helpers: 0 }, Deed::Tell { nth: 0 }] {
        world.deed(&deed).unwrap();
    }
    for _ in 0..20 {
        world.deed(&Deed::Wait { ms: 5_000 }).unwrap();
        let how = How::Badly(ErrorKind::Permission);
        world.deed(&Deed::Answer { unit: named("a"), task: TaskKind::Launch, how }).unwrap();
        assert_eq!(phase(&world), Phase::Blocked);
    }
    world.deed(&Deed::Calm).unwrap();
    assert_eq!(phase(&world), Phase::Running);
    assert_eq!(world.daemon.as_ref().unwrap().core.unit(&named("a")).unwrap().deaths.count(), 0);
}

/// A phase is told with the run that it is of, whatever follows in the same turn.
#[test]
fn a_phase_is_told_with_its_run() {
    let mut world = launched();
    world.deed(&Deed::Work).unwrap();
    let (unit, first, now) = (named("a"), run(&world), world.machine.now);
    let core = &mut world.daemon.as_mut().unwrap().core;
    let mut phases = vec![];
    let stop = Goal::Stop { keep_want: false, retire: false };
    let exit = Exit::Signaled { signal: 15 };
    for event in [
        ask_of(&unit, stop),
        Event::Fact(Fact::Exited { unit: unit.clone(), run: first, exit, empty: true, last_words: vec![] }),
        ask_of(&unit, Goal::Start { reset: false }),
    ] {
        let told = core.step(now, event).notices.into_iter();
        phases.extend(told.filter_map(|notice| match notice {
            Notice::Phase { run, to, .. } => Some((to, run)),
            Notice::Ended { .. } | Notice::Skipped { .. } | Notice::Retry { .. } => None,
        }));
    }
    let second = Some(RunId(first.0 + 1));
    assert_eq!(phases, [(Phase::Stopping, Some(first)), (Phase::Stopped, None), (Phase::Starting, second)]);
}

fn ask_of(unit: &wharf_model::UnitName, goal: Goal) -> Event {
    let ask = wharf_core::Ask { unit: unit.clone(), goal, declared: None, wait: true, force: false };
    Event::Ask(wharf_core::Ticket(99), ask)
}

/// A restart is what was asked for: that its daemon died in the middle makes no death of it.
#[test]
fn a_restart_that_a_daemon_has_begun_is_ended_by_the_next() {
    for helpers in [0, 1] {
        let mut world = World::new();
        for deed in [Deed::Boot, Deed::Work] {
            world.deed(&deed).unwrap();
        }
        let never = Policy { restart: Restart { budget: 0, ..Restart::default() }, ..Policy::default() };
        start_with(&mut world, never);
        world.deed(&Deed::Work).unwrap();
        let first = run(&world);
        let Event::Ask(_, ask) = ask_of(&named("a"), Goal::Restart) else { unreachable!() };
        world.deed(&Deed::Ask(Box::new(ask))).unwrap();
        assert_eq!(phase(&world), Phase::Stopping);
        for deed in [Deed::Crash { after: 0, salt: 0 }, Deed::Scheduled { unit: named("a") }] {
            world.deed(&deed).unwrap();
        }
        assert!(world.daemon.is_none());
        if helpers > 0 {
            let exit = Exit::Signaled { signal: 15 };
            world.deed(&Deed::Ends { unit: named("a"), exit, helpers }).unwrap();
        }
        for deed in [Deed::Boot, Deed::Look, Deed::Tell { nth: 0 }, Deed::Calm] {
            world.deed(&deed).unwrap();
        }
        assert_eq!(phase(&world), Phase::Running, "with {helpers} helpers left");
        assert_ne!(run(&world), first);
    }
}
