//! Acts: each is a task that does one thing through the service's code and ends in a fact.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use wharf_core::{Act, Effects, Fact, FoundRun, Life, Placing, Removal, Saved, Unit, arbiter::Change};
use wharf_model::{ErrorKind, Exit, Failure, Health, Installed, Phase, RunId, Signal, UnitName};
use wharf_runtime::{
    Credentials,
    launch::{Found, LiveRun},
    logs::{Query, UnitLog},
    ports,
};
use wharf_services::{Context, Service, Wanted};

use crate::{clear, defer, engine::Shared, fit, gpus, hearing, strangers};

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
            tasks.spawn(async move { launch(&shared, unit, cx, run).await });
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
                let result = remove(&shared, &name, removal);
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

/// Port preflight, the unit's folders, then the service's own start.
async fn launch(shared: &Arc<Shared>, unit: Unit, mut cx: Context, run: RunId) {
    let name = unit.name.clone();
    let limit = Duration::from_millis(unit.policy.start_timeout_ms);
    let cancelled = shared.launching(run);
    let made = tokio::select! {
        made = unbroken(&name, make_run(shared, &unit, &mut cx)) => made,
        _ = cancelled => Err(Failure::new(ErrorKind::Conflict, format!("{name} was stopped before it was made"))),
        () = tokio::time::sleep(limit) => Err(Failure::new(
            ErrorKind::Timeout,
            format!("{name} was not made within {} s", limit.as_secs()),
        )),
    };
    shared.not_launching(run);
    match made {
        Ok((pid, live)) => {
            tracing::info!("Started {name} with PID {pid}{}", ports_text(&cx.ports));
            remember_beside(shared, &unit, run, &cx.ports);
            gpus::limit(shared, &name, cx.vram, &live);
            shared.tell(Fact::Launched { unit: name.clone(), run, pid, ports: cx.ports });
            hearing::begin(shared, &name, run, &live);
            watch(shared, name, run, live).await;
        }
        Err(failure) => {
            // What was given up may be on its way: it is told as not launched when nothing of it can begin.
            shared.launcher.settled(run).await;
            // A start that failed after its spawn leaves nothing behind.
            if let Some(live) = shared.hands.live(run) {
                live.kill_all();
                live.emptied().await;
                clear::up(shared.clone(), name.clone(), run).await;
            }
            tracing::warn!("{name} was not started: {failure}");
            shared.tell(Fact::NotLaunched { unit: name.clone(), run, failure: failure.about(&name) });
        }
    }
}

fn ports_text(ports: &BTreeMap<String, u16>) -> String {
    let list: Vec<String> = ports.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if list.is_empty() { String::new() } else { format!(" on port {}", list.join(", ")) }
}

/// The unit's ports are free for its program, or are given to it as sockets.
async fn open_ports(
    shared: &Shared,
    unit: &Unit,
    ports: &BTreeMap<String, u16>,
    knocked: Vec<(String, std::os::fd::OwnedFd)>,
) -> Result<Vec<(String, std::os::fd::OwnedFd)>, Failure> {
    let passes = unit.policy.on_demand.as_ref().is_some_and(|o| o.pass_sockets);
    if !passes || !knocked.is_empty() {
        return Ok(knocked);
    }
    shared.doorman.open_to_pass(&unit.name, ports).map_err(Failure::from)
}

async fn make_run(shared: &Arc<Shared>, unit: &Unit, cx: &mut Context) -> Result<(i32, LiveRun), Failure> {
    let service = shared.service(&unit.name).map_err(|_| not_known(&unit.name))?.clone();
    shared.layout.create_unit(&unit.name)?;
    shared.strangers.gone(&unit.name).await?;
    shared.layout.clear_sockets(&unit.name);
    fit::gpus(shared, cx).await?;
    defer::to_others(cx).await?;
    let knocked = shared.doorman.make_way(&unit.name).await;
    // Before its ports are tried: the public ones are ours.
    shared.doorman.fronts.open_for(unit);
    // A unit without ports is not sent to another thread to find that out.
    cx.ports = BTreeMap::new();
    if !unit.wishes.is_empty() {
        let (ports_for, chooser) = (unit.clone(), shared.clone());
        let are_its_own = service.runs_already(cx).await?;
        let chosen = tokio::task::spawn_blocking(move || choose_ports(&chooser, &ports_for, are_its_own));
        cx.ports = chosen.await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))??;
    }
    let sockets = open_ports(shared, unit, &cx.ports, knocked).await?;
    shared.hands.give_sockets(cx.run.unwrap_or(RunId(0)), sockets);
    let made = service.start(cx).await?;
    let run = cx.run.unwrap_or(RunId(0));
    let live = shared.hands.live(run).ok_or_else(|| {
        Failure::new(ErrorKind::Internal, format!("the service's start made no run of {}", unit.name))
            .hint("a service's start must end in cx.run(…).spawn()")
    })?;
    Ok((made.pid, live))
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

/// Every port is tried by a real bind before anything is started, unless what listens there is its own, and is nobody
/// else's by the ledger.
fn choose_ports(shared: &Shared, unit: &Unit, are_its_own: bool) -> Result<BTreeMap<String, u16>, Failure> {
    let mut desk = shared.ports.choosing();
    let world = shared.world.load();
    let mut promised: BTreeSet<u16> = world
        .values()
        .filter(|other| other.name != unit.name)
        .flat_map(|other| other.fixed_ports().map(|(_, n)| n).collect::<Vec<_>>())
        .collect();
    promised.extend(desk.of_others(&unit.name));
    let mut chosen = BTreeMap::new();
    for (port, wish) in &unit.wishes {
        let sticky = || {
            let kept = unit.ports.get(port).copied().filter(|n| desk.promised(&unit.name, *n).is_none());
            kept.filter(|n| shared.doorman.holds(&unit.name, *n) || ports::check(*n).is_ok())
        };
        let number = match wish {
            Some(number) if shared.doorman.holds(&unit.name, *number) => *number,
            Some(number) => {
                desk.promised(&unit.name, *number).map_or(Ok(()), Err)?;
                let tried = if are_its_own { Ok(()) } else { ports::check(*number) };
                tried.map_err(|holder| desk.known(shared, &holder, holder.failure(&unit.name, port)))?;
                *number
            }
            None => match sticky() {
                Some(number) => number,
                None => ports::free_but(&promised)?,
            },
        };
        tracing::debug!("✓ Port {number} available for {} service", unit.name);
        promised.insert(number);
        chosen.insert(port.clone(), number);
    }
    desk.claim(&unit.name, chosen.values().copied());
    drop(desk);
    crate::port::advise(shared, unit, &chosen);
    Ok(chosen)
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
    let silent = fs::metadata(shared.layout.log(&unit, run)).is_ok_and(|log| log.len() == 0);
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

/// The unit as it is, beside its run: should the journal be lost, the run is still known for what it is.
fn remember_beside(shared: &Shared, unit: &Unit, run: RunId, ports: &BTreeMap<String, u16>) {
    let saved = Saved { phase: Phase::Running, ports: ports.clone(), ..unit.saved() };
    let path = unit_file(shared, &unit.name, run);
    let written = serde_json::to_vec(&saved).map_err(io::Error::from).and_then(|bytes| fs::write(&path, bytes));
    if let Err(e) = written {
        tracing::warn!("{}: {e}", path.display());
    }
}

fn unit_file(shared: &Shared, unit: &UnitName, run: RunId) -> PathBuf {
    shared.layout.runs().join(unit.as_str()).join(run.to_string()).join(UNIT_FILE)
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

/// Removes a folder that the keeper of logs, or a process that has just been killed, may still add to.
fn remove_tree(path: &Path) -> io::Result<()> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() == NotFound && !path.exists() => return Ok(()),
            Err(e) if matches!(e.kind(), NotFound | DirectoryNotEmpty) && tries < 50 => tries += 1,
            removed => return removed,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Its files are there, whatever service placed them.
fn is_placed_below(unit: &Unit, folder: &Path) -> bool {
    unit.installed.as_ref().is_some_and(|placed| placed.path.starts_with(folder))
}

/// Removes what a delete takes along. What others use stays.
fn remove(shared: &Shared, name: &UnitName, removal: Removal) -> Result<(), Failure> {
    let gone = |path: PathBuf| {
        remove_tree(&path).map_err(|e| Failure::from(e).while_doing(format_args!("remove {}", path.display())))
    };
    gone(shared.layout.unit_run(name))?;
    if removal.data {
        gone(shared.layout.data(name))?;
        gone(shared.layout.logs(name))?;
        Credentials::forget_generated(shared.layout.secrets(), name)?;
    }
    let used_by_another = shared
        .world
        .load()
        .values()
        .any(|other| other.name != *name && is_placed_below(other, &shared.layout.store().join(name.service())));
    if removal.binaries && !used_by_another {
        let store = shared.layout.store();
        let doomed = store.join(".staging").join(format!("gone-{}-{}", name.service(), std::process::id()));
        // Out of the way by one rename first: a crash in between leaves no half of it to be found.
        match fs::rename(store.join(name.service()), &doomed) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => gone(doomed)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keeper of logs writes down a run's end while the unit is being deleted.
    #[test]
    fn a_folder_that_is_still_added_to_goes_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let doomed = dir.path().join("logs");
        let adds = doomed.clone();
        fs::create_dir(&doomed).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(60);
        let adding = std::thread::spawn(move || {
            for n in 0.. {
                let added = fs::create_dir(adds.join(n.to_string()));
                if std::time::Instant::now() > until || added.is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(5));
        remove_tree(&doomed).unwrap();
        adding.join().unwrap();
        assert!(!doomed.exists());
        remove_tree(&doomed).unwrap();
    }
}
