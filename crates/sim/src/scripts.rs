//! The scenarios that every merge plays.

use wharf_core::{Goal, News};
use wharf_model::{ErrorKind, Exit, Need, OnDemand, OnExit, Phase, Policy, Preset, Restart, Want};

use crate::{
    deed::{Deed, How, TaskKind},
    scenario::{Scenario, installable, named},
};

/// All of them.
pub fn all() -> Vec<Scenario> {
    [asked(), dying(), needing(), told(), machine()].concat()
}

fn quick() -> Policy {
    Policy { probe_early_ms: 0, ..Policy::default() }
}

fn needs(units: &[&str]) -> Policy {
    let needs = units.iter().map(|unit| Need { unit: named(unit), soft: false }).collect();
    Policy { needs, ..quick() }
}

fn dies(unit: &str, code: i32) -> Deed {
    Deed::Ends { unit: named(unit), exit: Exit::Exited { code }, helpers: 0 }
}

fn installs(script: Scenario, policy: Policy) -> Scenario {
    let install = Goal::Install { version: None, reset: false, from: None };
    script.ask("a", install, Some(installable(policy, 7000))).then(Deed::Work)
}

/// What callers ask for.
fn asked() -> Vec<Scenario> {
    let new = Scenario::new;
    let restart = || Goal::Restart;
    let start = || Goal::Start { reset: false };
    let upgrade = || Goal::Upgrade { version: Some("2".into()) };
    let made = |how: How| move |s: Scenario| s.start("a", quick()).answer("a", TaskKind::Launch, how).then(Deed::Work);
    vec![
        new("start").up("a", Policy::default()).ends("a", Want::Up, Phase::Running),
        new("start and stop").up("a", quick()).stop("a").then(Deed::Work).ends("a", Want::Down, Phase::Stopped),
        new("stop before it is made").start("a", quick()).stop("a").ends("a", Want::Down, Phase::Stopped),
        new("restart").up("a", quick()).ask("a", restart(), None).then(Deed::Work).ends("a", Want::Up, Phase::Running),
        made(How::Stubborn { stuck: false })(new("t5 stop of what ignores SIGTERM")).stop("a").wait(11_000).ends(
            "a",
            Want::Down,
            Phase::Stopped,
        ),
        new("stop of what hangs in the kernel")
            .start("a", quick())
            .answer("a", TaskKind::Launch, How::Stubborn { stuck: true })
            .then(Deed::Tell { nth: 0 })
            .stop("a")
            .wait(30_000)
            .ends("a", Want::Down, Phase::Stopped),
        new("stop for now")
            .up("a", quick())
            .ask("a", Goal::Stop { keep_want: true, retire: false }, None)
            .then(Deed::Work)
            .then(Deed::Crash { after: 0, salt: 0 })
            .then(Deed::Scheduled { unit: named("a") })
            .ends("a", Want::Up, Phase::Running)
            .unless_it_dies(),
        new("retire refuses a start")
            .up("a", quick())
            .ask("a", Goal::Stop { keep_want: false, retire: true }, None)
            .then(Deed::Work)
            .ask("a", start(), None)
            .ends("a", Want::Retired, Phase::Stopped),
        installs(new("install"), quick()).ends("a", Want::Down, Phase::Stopped),
        installs(new("install and start"), quick()).ask("a", start(), None).then(Deed::Work).ends(
            "a",
            Want::Up,
            Phase::Running,
        ),
        installs(new("upgrade"), quick())
            .ask("a", start(), None)
            .then(Deed::Work)
            .ask("a", upgrade(), None)
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
        installs(new("t42 upgrade that goes back"), quick())
            .ask("a", start(), None)
            .then(Deed::Work)
            .ask("a", upgrade(), None)
            .answer("a", TaskKind::Place, How::Well)
            .then(dies("a", 0))
            .then(Deed::Tell { nth: 0 })
            .answer("a", TaskKind::Launch, How::Badly(ErrorKind::ServiceFailed))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
        new("delete").up("a", quick()).delete("a").then(Deed::Work).ends("a", Want::Down, Phase::NotInstalled),
        new("delete while it is placed")
            .ask("a", Goal::Install { version: None, reset: false, from: None }, Some(installable(quick(), 7000)))
            .delete("a")
            .then(Deed::Work)
            .ends("a", Want::Down, Phase::NotInstalled),
    ]
}

/// What processes do uninvited.
fn dying() -> Vec<Scenario> {
    let new = Scenario::new;
    let exits = |code: &str, means| Policy { exits: [(code.to_owned(), means)].into(), ..quick() };
    let flappy = Restart { budget: 2, delay_ms: 0, slow_retry_s: 0, ..Restart::default() };
    let t3 = (0..8).fold(new("t3 given up").up("a", Policy { restart: flappy.clone(), ..quick() }), |s, _| {
        s.then(dies("a", 1)).then(Deed::Work)
    });
    let again = Restart { slow_retry_s: 30, ..flappy };
    let slow = (0..3).fold(new("slow retry").up("a", Policy { restart: again, ..quick() }), |s, _| {
        s.then(dies("a", 1)).then(Deed::Work)
    });
    let leaves = Deed::Ends { unit: named("a"), exit: Exit::Exited { code: 1 }, helpers: 2 };
    vec![
        new("a death").up("a", quick()).then(dies("a", 1)).then(Deed::Work).ends("a", Want::Up, Phase::Running),
        new("t4 stop during backoff")
            .up("a", quick())
            .then(dies("a", 1))
            .then(Deed::Tell { nth: 0 })
            .stop("a")
            .wait(60_000)
            .ends("a", Want::Down, Phase::Stopped),
        t3.ends("a", Want::Up, Phase::Failed).unless_it_dies(),
        slow.wait(40_000).ends("a", Want::Up, Phase::Running),
        new("never restarted")
            .up("a", Policy { preset: Preset::Observe, ..quick() }.preset(Preset::Observe))
            .then(dies("a", 1))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Failed)
            .unless_it_dies(),
        new("an exit that is final")
            .up("a", exits("78", OnExit::Fail))
            .then(dies("a", 78))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Failed)
            .unless_it_dies(),
        new("an exit that is the end of its work")
            .up("a", exits("0", OnExit::Stop))
            .then(dies("a", 0))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Stopped)
            .unless_it_dies(),
        new("helpers that stay").up("a", quick()).then(leaves).then(Deed::Work).ends("a", Want::Up, Phase::Running),
        new("the shim is killed, then the service ends")
            .up("a", quick())
            .then(Deed::ShimDies { unit: named("a") })
            .then(dies("a", 3))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
    ]
}

/// What units need of each other.
fn needing() -> Vec<Scenario> {
    let new = Scenario::new;
    let chain = |name| {
        let install = Goal::Install { version: None, reset: false, from: None };
        new(name)
            .ask("a", install.clone(), Some(installable(quick(), 7001)))
            .then(Deed::Work)
            .ask("b", install.clone(), Some(installable(needs(&["a"]), 7002)))
            .then(Deed::Work)
            .ask("c", install, Some(installable(needs(&["b"]), 7003)))
            .then(Deed::Work)
            .ask("c", Goal::Start { reset: false }, None)
            .then(Deed::Work)
    };
    let all_up = |s: Scenario| ["a", "b", "c"].into_iter().fold(s, |s, unit| s.ends(unit, Want::Up, Phase::Running));
    let retired = Goal::Stop { keep_want: false, retire: true };
    vec![
        all_up(chain("a chain of needs goes up")),
        chain("a chain of needs goes down")
            .stop("a")
            .then(Deed::Work)
            .ends("a", Want::Down, Phase::Stopped)
            .ends("b", Want::Up, Phase::Blocked)
            .ends("c", Want::Up, Phase::Blocked),
        all_up(chain("a need dies and comes back").then(dies("a", 1)).then(Deed::Work)),
        all_up(chain("a need is restarted").ask("a", Goal::Restart, None).then(Deed::Work)),
        new("a start whose need is stopped")
            .up("a", quick())
            .start("b", needs(&["a"]))
            .stop("a")
            .then(Deed::Work)
            .ends("a", Want::Down, Phase::Stopped)
            .ends("b", Want::Up, Phase::Blocked),
        new("a refused start leaves its needs alone")
            .up("a", quick())
            .stop("a")
            .then(Deed::Work)
            .up("b", quick())
            .ask("b", retired, None)
            .then(Deed::Work)
            .start("c", needs(&["b", "a"]))
            .then(Deed::Work)
            .ends("a", Want::Down, Phase::Stopped)
            .ends("b", Want::Retired, Phase::Stopped),
        new("an on-demand need is used")
            .up("a", Policy { on_demand: Some(OnDemand::default()), ..quick() })
            .up("b", needs(&["a"]))
            .ends("a", Want::OnDemand, Phase::Running)
            .ends("b", Want::Up, Phase::Running),
        new("a need is placed anew while its dependent waits")
            .ask("a", Goal::Install { version: None, reset: false, from: None }, Some(installable(quick(), 7000)))
            .then(Deed::Work)
            .ask("a", Goal::Install { version: None, reset: false, from: None }, Some(installable(quick(), 7000)))
            .start("b", Policy { needs: vec![Need { unit: named("a"), soft: true }], ..quick() })
            .then(Deed::Work)
            .ends("a", Want::Down, Phase::Stopped)
            .ends("b", Want::Up, Phase::Running),
    ]
}

/// What programs, schedules and users say.
fn told() -> Vec<Scenario> {
    let new = Scenario::new;
    let says = |news| Deed::Says { unit: named("a"), news };
    let of = |deed: fn(wharf_model::UnitName) -> Deed| deed(named("a"));
    let on_demand = || Policy { on_demand: Some(OnDemand::default()), ..quick() };
    let cron = Policy { schedule: Some("* * * * *".into()), ..quick() };
    vec![
        new("it says that it is ready")
            .start("a", Policy { notify: true, ..quick() })
            .answer("a", TaskKind::Launch, How::Well)
            .then(says(News::Ready))
            .then(Deed::Tell { nth: 0 })
            .ends("a", Want::Up, Phase::Running),
        new("a watchdog that is not fed")
            .up("a", Policy { watchdog_ms: Some(1_000), ..quick() })
            .wait(1_500)
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
        new("a job").up("a", Policy { job: true, ..quick() }).ends("a", Want::Up, Phase::Stopped),
        new("a schedule comes due, twice")
            .up("a", cron)
            .then(of(|unit| Deed::Due { unit }))
            .then(of(|unit| Deed::Due { unit }))
            .then(Deed::Work)
            .then(of(|unit| Deed::Due { unit }))
            .ends("a", Want::Up, Phase::Stopped),
        new("used and then unused")
            .up("a", on_demand())
            .then(of(|unit| Deed::Used { unit }))
            .then(Deed::Work)
            .then(of(|unit| Deed::Unused { unit }))
            .then(Deed::Work)
            .ends("a", Want::OnDemand, Phase::Stopped)
            .unless_it_dies(),
        new("sick, and restarted")
            .up("a", Policy::default().preset(Preset::Bounded))
            .wait(5_000)
            .answer("a", TaskKind::Probe, How::Badly(ErrorKind::Timeout))
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
        new("an error in its log").up("a", quick()).then(Deed::LogFault { unit: named("a"), line: Some("E".into()) }),
    ]
}

/// What happens to the machine.
fn machine() -> Vec<Scenario> {
    let new = Scenario::new;
    let up = |name| new(name).up("a", quick());
    let fixed = || Some(installable(quick(), 7000));
    let place = || Goal::Install { version: None, reset: false, from: None };
    let boots = |s: Scenario| s.then(Deed::Boot).then(Deed::Work).ends("a", Want::Up, Phase::Running);
    vec![
        boots(up("t6 a new daemon adopts").then(Deed::Crash { after: 0, salt: 0 }).wait(100)),
        boots(
            up("it dies while no daemon lives")
                .then(Deed::LogFault { unit: named("a"), line: None })
                .then(dies("a", 1)),
        ),
        new("an upgrade does not start what an earlier daemon was stopping")
            .start("a", quick())
            .stop("a")
            .then(Deed::Crash { after: 0, salt: 0 })
            .then(Deed::Scheduled { unit: named("a") })
            .ask("a", Goal::Upgrade { version: None }, None)
            .ends("a", Want::Down, Phase::Stopped),
        boots(up("the machine is started anew").then(Deed::Reboot)),
        boots(up("the database is lost").then(Deed::LoseDatabase)),
        boots(
            up("the database is a day old")
                .then(Deed::KeepCopy)
                .ask("a", Goal::Restart, None)
                .then(Deed::Work)
                .then(Deed::OldDatabase),
        ),
        boots(up("a suspended machine").then(Deed::Lag { ms: 3_600_000 })),
        boots(
            up("the wall clock goes back ten years").then(Deed::WallStep { ms: -315_360_000_000 }).then(dies("a", 1)),
        ),
        new("a stranger holds its port")
            .ask("a", place(), fixed())
            .then(Deed::Work)
            .ask("a", Goal::Start { reset: false }, None)
            .then(Deed::Work)
            .then(dies("a", 1))
            .then(Deed::Port { number: 7000, taken: true })
            .then(Deed::Tell { nth: 0 })
            .wait(2_000)
            .answer("a", TaskKind::Launch, How::Well)
            .then(Deed::Port { number: 7000, taken: false })
            .wait(6_000)
            .then(Deed::Work)
            .ends("a", Want::Up, Phase::Running),
    ]
}
