//! Acts: each is a task that does one thing through the service's code and ends in a fact.

mod launch;
mod remove;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::FutureExt;
use wharf_core::{Act, Effects, Fact, FoundRun, Life, Placing, Unit, arbiter::Change};
use wharf_model::{ErrorKind, Exit, Failure, Health, Installed, RunId, Signal, UnitName};
use wharf_runtime::{
    launch::{Found, LiveRun},
    logs::{Query, UnitLog},
};
use wharf_services::{Context, Service, Wanted};

use crate::{clear, engine::Shared, fit, hearing, strangers};

/// In a run's folder: the unit as it was when the run began.
pub const UNIT_FILE: &str = "unit.json";
/// One probe of a program that is starting may take this long.
const START_PROBE_MS: u64 = 1_000;
/// After the end of the main process, how long the rest of a run may take to be told together with it.
const LEFT_OVER_WAIT: Duration = Duration::from_millis(2);
/// How many of a dead run's last lines are told with its death.
const LAST_WORDS: usize = 10;
/// The shim or the kernel says within this how a main process ended, where either can.
const CODE_WAIT: Duration = Duration::from_millis(20);
/// Where the shim is held up or was killed, and init has to reap: many do so once a second.
const LATE_CODE_WAIT: Duration = Duration::from_millis(1_200);
/// How much of each: a line of minified code can have megabytes.
const LAST_WORD_CHARS: usize = 500;

/// The unit that an act is about.
pub fn unit_of(act: &Act) -> &UnitName {
    match act {
        Act::Place { unit, .. }
        | Act::Abandon { unit, .. }
        | Act::Launch { unit, .. }
        | Act::Probe { unit, .. }
        | Act::Terminate { unit, .. }
        | Act::Kill { unit, .. }
        | Act::Look { unit, .. }
        | Act::PostStart { unit, .. }
        | Act::Change { unit, .. }
        | Act::Forget { unit, .. }
        | Act::Remove { unit, .. } => unit,
    }
}

/// The run that an act is about.
fn run_of(act: &Act) -> Option<RunId> {
    match act {
        Act::Launch { run, .. }
        | Act::Probe { run, .. }
        | Act::Terminate { run, .. }
        | Act::Kill { run, .. }
        | Act::Look { run, .. }
        | Act::PostStart { run, .. }
        | Act::Change { run, .. }
        | Act::Forget { run, .. } => Some(*run),
        Act::Place { .. } | Act::Abandon { .. } | Act::Remove { .. } => None,
    }
}

/// Looks at every recorded run, ends those of `left_over` that nobody recorded meanwhile, then tells that all
/// were looked at. The list is older than the first ask: a run that begins meanwhile is none of it.
pub fn boot(shared: &Arc<Shared>, first: &Effects, mut left_over: Vec<(UnitName, RunId)>) {
    let looked_at = |act: &Act| match act {
        Act::Look { unit, run } => Some((unit.clone(), *run)),
        // A core that was just restored asks for nothing else.
        Act::Place { .. }
        | Act::Abandon { .. }
        | Act::Launch { .. }
        | Act::Probe { .. }
        | Act::Terminate { .. }
        | Act::Kill { .. }
        | Act::PostStart { .. }
        | Act::Change { .. }
        | Act::Forget { .. }
        | Act::Remove { .. } => None,
    };
    let looks: Vec<_> = first.acts.iter().filter_map(looked_at).collect();
    left_over.retain(|run| !looks.contains(run));
    let strangers = strangers::end(shared, left_over);
    let secrets = Secrets::before(shared);
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let begin = |(unit, run)| {
            let shared = shared.clone();
            shared.tasks.clone().spawn(async move { look(&shared, unit, run).await })
        };
        // All at once: a run that is just ending is waited for, and nobody waits behind it.
        let looking: Vec<_> = looks.into_iter().map(begin).collect();
        for looked in looking {
            if let Err(e) = looked.await {
                tracing::error!("a look at a run broke off: {e}");
            }
        }
        strangers.await;
        secrets.settle(&shared);
        shared.tell(Fact::Booted);
    });
}

/// Secrets that lay in memory before the first ask: those of runs that are over go.
struct Secrets(Vec<RunId>);

impl Secrets {
    fn before(shared: &Shared) -> Self {
        Self(shared.hands.credentials().runs().into_iter().map(|(run, _)| run).collect())
    }

    fn settle(self, shared: &Shared) {
        for run in self.0 {
            if shared.hands.live(run).is_none() {
                tracing::info!("the secrets of run {run} are removed: it is over");
                shared.hands.credentials().remove(run);
            }
        }
    }
}

/// Begins an act. It never waits here.
pub fn begin(shared: &Arc<Shared>, act: Act, unit: Option<&Unit>) {
    // The run of the act, which may not be the unit's present one by the end of a batch.
    let run_of_act = run_of(&act);
    let cx = unit.map(|u| {
        let mut cx = shared.context(u);
        cx.run = run_of_act;
        cx
    });
    let tasks = shared.tasks.clone();
    let shared = shared.clone();
    match act {
        Act::Place { unit: name, op, what } => {
            let Some(cx) = cx else { return };
            let placing = shared.clone();
            shared.placing(op, || {
                tasks.spawn(async move {
                    let shared = placing;
                    let result = unbroken(&name, place(&shared, &cx, what)).await;
                    shared.tell(Fact::Placed { unit: name, op, result });
                    shared.not_placing(op);
                })
            });
        }
        // Dropped where it waits: its tools are ended, and its staging folder goes.
        Act::Abandon { op, .. } => shared.not_placing(op).into_iter().for_each(|task| task.abort()),
        Act::Launch { run, .. } => {
            let (Some(unit), Some(cx)) = (unit.cloned(), cx) else { return };
            tasks.spawn(async move { launch::launch(&shared, unit, cx, run).await });
        }
        Act::Probe { unit: name, run } => {
            let Some(mut cx) = cx else { return };
            if let Some(Life::Starting { since_ms, .. }) = unit.map(|u| &u.life) {
                // A program that accepts before it can answer must not cost a whole time limit; one that
                // answers slowly gets longer and longer.
                let since_ms = crate::turn::now().boot_ms.saturating_sub(*since_ms);
                cx.probe_timeout_ms = cx.probe_timeout_ms.min(START_PROBE_MS.max(since_ms / 4));
            }
            tasks.spawn(async move {
                let health = unbroken(&name, async { Ok(probe(&shared, &cx).await) }).await;
                let health = health.unwrap_or_else(|failure| Health::unhealthy(failure.message));
                shared.tell(Fact::Probed { unit: name, run, health });
            });
        }
        Act::Terminate { run, .. } => {
            let Some(cx) = cx else { return };
            tasks.spawn(async move { terminate(&shared, &cx, run).await });
        }
        Act::Kill { run, .. } => match shared.hands.live(run) {
            Some(live) => drop(tasks.spawn_blocking(move || live.kill_all())),
            None => shared.not_launching(run),
        },
        Act::Look { unit: name, run } => {
            tasks.spawn(async move { look(&shared, name, run).await });
        }
        Act::Change { unit: name, run, change } => {
            let Some(cx) = cx else { return };
            tasks.spawn(async move {
                let result = unbroken(&name, put_away(&shared, &cx, change)).await;
                if let Err(failure) = &result {
                    tracing::warn!("{name} could not {}: {failure}", change.word());
                }
                shared.tell(Fact::Changed { unit: name, run, change, result });
            });
        }
        Act::PostStart { unit: name, .. } => {
            let Some(cx) = cx else { return };
            tasks.spawn(async move {
                if let Err(failure) = hook(&cx, &cx.policy.post_start).await {
                    tracing::warn!("{name}: its post_start failed: {failure}");
                }
            });
        }
        Act::Forget { unit: name, run } => {
            tasks.spawn(async move {
                shared.hands.drop_run(run);
                let _open = shared.clearing.later().await;
                shared.launcher.forget(&name, run).await;
            });
        }
        Act::Remove { unit: name, op, removal } => {
            tasks.spawn_blocking(move || {
                let result = remove::remove(&shared, &name, removal);
                shared.tell(Fact::Removed { unit: name, op, result });
            });
        }
    }
}

fn not_known(unit: &UnitName) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("this Wharf has no service for {unit}")).about(unit)
}

/// A service's code that panics is a failure like another: whoever waits for its fact gets one.
pub async fn unbroken<T>(unit: &UnitName, deed: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    std::panic::AssertUnwindSafe(deed).catch_unwind().await.unwrap_or_else(|_| {
        Err(Failure::new(ErrorKind::Internal, format!("the code of {unit} panicked"))
            .hint("the daemon's log says where"))
    })
}

async fn place(shared: &Shared, cx: &Context, what: Placing) -> Result<Option<Installed>, Failure> {
    let want = match what {
        Placing::Kept => return put_back(shared, cx).await,
        Placing::Built { version } => {
            let want = Wanted { version, ..Wanted::default() };
            let service = ready_to_place(shared, cx).await?;
            return service.build(cx, &want).await.map(|built| built.installed);
        }
        Placing::Fetched { version, reset, from } => Wanted { version, reset, from },
    };
    let service = ready_to_place(shared, cx).await?;
    if !service.needs_install() {
        // Nothing to place, but what it needs must be there.
        return service.install(cx, &want).await.map(|_| None);
    }
    service.install(cx, &want).await.map(Some)
}

async fn ready_to_place(shared: &Shared, cx: &Context) -> Result<Arc<dyn Service>, Failure> {
    let service = shared.service(&cx.unit).map_err(|_| not_known(&cx.unit))?.clone();
    fit::machine(shared, cx).await?;
    shared.layout.create_unit(&cx.unit)?;
    Ok(service)
}

/// The version that the unit has is what the store's links lead to.
async fn put_back(shared: &Shared, cx: &Context) -> Result<Option<Installed>, Failure> {
    let Some(installed) = cx.installed.clone() else { return Ok(None) };
    let (store, chosen) = (shared.hands.store().clone(), installed.clone());
    let done = tokio::task::spawn_blocking(move || store.make_current(&chosen)).await;
    done.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))??;
    Ok(Some(installed))
}

/// GPU memory is put away, or fetched again, by the service's code. How long that may take the arbiter knows.
async fn put_away(shared: &Shared, cx: &Context, change: Change) -> Result<(), Failure> {
    let service = shared.service(&cx.unit).map_err(|_| not_known(&cx.unit))?.clone();
    match change {
        Change::Downsize { to_bytes } => service.downsize(cx, to_bytes).await,
        Change::Park { .. } => service.park(cx).await,
        Change::Wake => service.wake(cx).await,
    }
}

/// A program of the policy, run to its end beside the unit.
async fn hook(cx: &Context, argv: &[String]) -> Result<(), Failure> {
    let Some((program, args)) = argv.split_first() else { return Ok(()) };
    cx.run(program.as_str()).args(args).success().await.map(drop)
}

/// Until nothing of the run lives. That it ended is told at once, how it ended as soon as anybody knows:
/// before it is told that all is over, since what follows from an end depends on how it was.
async fn watch(shared: &Arc<Shared>, unit: UnitName, run: RunId, live: LiveRun) {
    let known = match live.gone().await {
        Some(exit) => Some(exit),
        None => tokio::time::timeout(CODE_WAIT, live.exit_known()).await.ok(),
    };
    // As a rule nothing is left beside it: then its end is one piece of news, not two.
    let _ = tokio::time::timeout(LEFT_OVER_WAIT, live.emptied()).await;
    let mut clear = Box::pin(clear::up(shared.clone(), unit.clone(), run));
    let is_clear = live.is_empty() && clear.as_mut().now_or_never().is_some();
    let silent = std::fs::metadata(shared.layout.log(&unit, run)).is_ok_and(|log| log.len() == 0);
    let last_words = if silent { vec![] } else { last_words(shared.layout.logs(&unit), run).await };
    let (empty, exit) = (known.is_some() && is_clear, known.clone().unwrap_or(Exit::Unknown));
    shared.tell(Fact::Exited { unit: unit.clone(), run, exit, empty, last_words });
    let learn = async {
        let exit = live.exit_known().await;
        shared.tell(Fact::Learned { unit: unit.clone(), run, exit });
    };
    let mut learn = std::pin::pin!(learn);
    let is_known = known.is_some() || tokio::time::timeout(LATE_CODE_WAIT, &mut learn).await.is_ok();
    if !empty {
        live.emptied().await;
        if !is_clear {
            clear.await;
        }
        shared.tell(Fact::Emptied { unit: unit.clone(), run });
    }
    if !is_known {
        learn.await;
    }
}

/// The end of a run's log, cut to what a person reads.
async fn last_words(logs: PathBuf, run: RunId) -> Vec<String> {
    let query = Query { lines: LAST_WORDS, run: Some(run), ..Query::default() };
    let read = tokio::task::spawn_blocking(move || UnitLog::new(logs, None).last(&query).unwrap_or_default());
    let lines = read.await.unwrap_or_default().entries.into_iter().map(|e| e.text);
    lines.map(|line| line.chars().take(LAST_WORD_CHARS).collect()).collect()
}

/// Asks once. Whatever goes wrong with the asking is an answer too.
pub async fn probe(shared: &Shared, cx: &Context) -> Health {
    let Ok(service) = shared.service(&cx.unit) else { return Health::degraded("this Wharf has no such service") };
    let limit = Duration::from_millis(cx.probe_timeout_ms);
    match tokio::time::timeout(limit, service.health(cx)).await {
        Ok(Ok(health)) => health,
        Ok(Err(failure)) => Health::unhealthy(failure.message),
        Err(_) => Health::unhealthy(format!("no answer within {} ms", cx.probe_timeout_ms)),
    }
}

async fn terminate(shared: &Shared, cx: &Context, run: RunId) {
    let Some(live) = shared.hands.live(run) else {
        // Nothing to ask yet: the start itself is given up.
        shared.not_launching(run);
        return;
    };
    shared.doorman.fronts.drain(&cx.unit, run, Duration::from_millis(cx.policy.stop_timeout_ms)).await;
    let asked = match (cx.policy.stop_signal, shared.service(&cx.unit)) {
        (Some(signal), _) => cx.signal(signal).await,
        (None, Ok(service)) => service.stop(cx).await,
        (None, Err(_)) => Err(not_known(&cx.unit)),
    };
    // What cannot be asked by its own code is asked the common way.
    if let Err(failure) = asked {
        tracing::warn!("{}: {failure}; SIGTERM instead", cx.unit);
        if let Err(e) = live.signal(Signal::Term) {
            tracing::warn!("{}: SIGTERM could not be sent: {e}", cx.unit);
        }
    }
}

async fn look(shared: &Arc<Shared>, unit: UnitName, run: RunId) {
    let found = shared.launcher.find(&unit, run).await;
    let (told, live) = match found {
        Found::Alive(live) => (FoundRun::Alive { pid: live.pid() }, Some(live)),
        Found::Draining(live, exit) => (FoundRun::Draining { exit }, Some(live)),
        Found::Ended(exit) => (FoundRun::Ended { exit }, None),
        Found::NeverStarted => (FoundRun::NeverStarted, None),
    };
    let mut clear = Box::pin(clear::up(shared.clone(), unit.clone(), run));
    let told = match told {
        // With the machine everything outside has ended too, or was begun anew by others.
        FoundRun::Ended { exit } if exit != Exit::HostRebooted && clear.as_mut().now_or_never().is_none() => {
            FoundRun::Draining { exit }
        }
        FoundRun::Alive { .. } | FoundRun::Draining { .. } | FoundRun::Ended { .. } | FoundRun::NeverStarted => told,
    };
    tracing::info!(
        "{unit}: run {run} is {}",
        match &told {
            FoundRun::Alive { pid } => format!("alive (pid {pid}): adopted"),
            FoundRun::Draining { .. } => "ending".into(),
            FoundRun::Ended { exit } => format!("over: {exit}"),
            FoundRun::NeverStarted => "not begun".into(),
        }
    );
    if let Some(live) = &live {
        shared.hands.adopt(run, live.clone());
        // Before it is told: what was said while nobody was there comes first.
        hearing::again(shared, &unit, run, live);
    }
    let drains = matches!(told, FoundRun::Draining { .. });
    shared.tell(Fact::Found { unit: unit.clone(), run, found: told });
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        match live {
            Some(live) if !drains => watch(&shared, unit, run, live).await,
            live if drains => {
                if let Some(live) = live {
                    live.emptied().await;
                }
                clear.await;
                shared.tell(Fact::Emptied { unit, run });
            }
            Some(_) | None => {}
        }
    });
}
