//! The engine from outside: how it is started, and the handle that callers hold.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast, oneshot, watch},
    task::JoinHandle,
};
use wharf_core::{Ask, Core, GpuAsk, Record, Saved, Unit, arbiter::Arbiter};
use wharf_model::{ErrorKind, Failure, LeaseId, OpId, Operation, Phase, Progress, RunId, UnitName};
use wharf_runtime::{
    Layout, RealHands,
    gpu::{Eye, Ground},
    launch::Launcher,
    logs::{self, LogKeeper},
};
use wharf_services::{Catalogue, Context, Dirs, Service};

use crate::{
    acts,
    audit::AuditLog,
    bus::Bus,
    calendar, clearing, discovery, doorman, fit, gpu, gpus, keeping,
    manifests::{self, Manifests},
    names,
    offer::{self, Offer},
    ops::OpsLog,
    port, progress, rpc,
    store::Store,
    strangers::Strangers,
    turn::{self, Mail, Turn},
};

/// All units as they were published last.
pub type World = BTreeMap<UnitName, Arc<Unit>>;

/// What an engine is started with.
pub struct Settings {
    /// Where everything lies.
    pub layout: Layout,
    /// The services that there are.
    pub catalogue: Catalogue,
    /// Wharf's own binary: `hello` runs it.
    pub own_binary: PathBuf,
}

/// What the loop, its acts and its callers share. Readers never take a lock.
pub struct Shared {
    pub layout: Layout,
    pub catalogue: Offer,
    pub hands: Arc<RealHands>,
    pub launcher: Launcher,
    pub world: ArcSwap<World>,
    /// How often the world was published.
    pub turns: AtomicU64,
    /// The same, for those who wait for it.
    pub published: watch::Sender<u64>,
    /// Who looks after what runs write.
    pub logs: LogKeeper,
    pub mail: mpsc::Sender<Mail>,
    pub progress: broadcast::Sender<(UnitName, Progress)>,
    pub bus: Arc<Bus>,
    pub ops: OpsLog,
    pub audit: AuditLog,
    pub tasks: Handle,
    /// Starts that have made no run yet: a stop cancels them. A lock, since acts are tasks of their
    /// own; it is held for a look-up and never across a wait.
    pub launching: Mutex<BTreeMap<RunId, oneshot::Sender<()>>>,
    /// Installs that are at work: a cancelled one ends. A lock for the same reason.
    pub placing: Mutex<BTreeMap<OpId, JoinHandle<()>>>,
    pub doorman: doorman::Doorman,
    pub ports: port::Desk,
    pub clearing: clearing::Clearing,
    /// Who may use which GPU, as it was published last.
    pub gpus: ArcSwap<Arbiter>,
    /// How often that was published, for those who wait for it.
    pub gpus_moved: watch::Sender<u64>,
    /// Looks at the devices.
    pub eye: Eye,
    /// Where the devices were last measured, and what was not told.
    pub gpu_sight: ArcSwap<gpu::Sight>,
    /// The devices are to be measured now.
    pub measure: Notify,
    pub scans: discovery::Turns,
    pub manifests: Manifests,
    pub strangers: Strangers,
    pub born: Instant,
}

impl Shared {
    /// Tells the loop. An engine that has ended is told in vain.
    pub fn tell(&self, fact: wharf_core::Fact) {
        let _ = self.mail.send(Mail::Fact(fact));
    }

    /// A start begins; what comes back tells when it is cancelled.
    pub fn launching(&self, run: RunId) -> oneshot::Receiver<()> {
        let (cancel, cancelled) = oneshot::channel();
        self.launching.lock().unwrap_or_else(PoisonError::into_inner).insert(run, cancel);
        cancelled
    }

    /// A start has ended, or is not wanted any more: the sender's end says so.
    pub fn not_launching(&self, run: RunId) {
        self.launching.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// An install begins. Its task is known before it can end.
    pub fn placing(&self, op: OpId, begin: impl FnOnce() -> JoinHandle<()>) {
        let mut placing = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
        placing.insert(op, begin());
    }

    /// An install has ended, or is not wanted any more.
    pub fn not_placing(&self, op: OpId) -> Option<JoinHandle<()>> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner).remove(&op)
    }

    /// The service of a unit.
    pub fn service(&self, unit: &UnitName) -> Result<Arc<dyn Service>, Failure> {
        names::resolve(&self.catalogue.load(), &self.manifests, unit).cloned()
    }

    /// What a service is given for a unit as it is.
    pub fn context(&self, unit: &Unit) -> Context {
        let dirs = Dirs {
            data: self.layout.data(&unit.name),
            run: self.layout.unit_run(&unit.name),
            store: self.layout.store().to_owned(),
        };
        let mut cx = Context::new(
            unit.name.clone(),
            unit.life.run(),
            unit.with.clone(),
            unit.ports.clone(),
            unit.installed.clone(),
            dirs,
            unit.policy.clone(),
            self.hands.clone(),
        );
        cx.starting = matches!(unit.life, wharf_core::Life::Starting { .. });
        cx.beside = fit::beside(self, unit);
        cx.gpus = gpus::of(&self.gpus.load(), unit);
        cx.vram = gpus::caps(&self.gpus.load(), unit);
        cx
    }
}

/// A handle on the running engine. Cheap to clone; the engine ends with `quit`, not with the last handle.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// The loop's end: `Ok` after `quit`, a failure when the journal could not be written.
pub type End = oneshot::Receiver<Result<(), Failure>>;

/// The highest run that has a log: a lost journal must not make two runs write to one file.
fn newest_log(layout: &Layout) -> u64 {
    let Ok(units) = std::fs::read_dir(layout.all_logs()) else { return 0 };
    let newest = |unit: std::fs::DirEntry| logs::highest_run(&unit.path()).map(|run| run.0);
    units.flatten().filter_map(newest).max().unwrap_or(0)
}

/// Units of runs that the journal does not know, since it was lost or is an older copy: as they stand beside
/// their newest run. A run is in the journal before it begins: of one with a number that the journal gave, it
/// knows all that there is to know, also that its unit was deleted.
fn recover(layout: &Layout, launcher: &Launcher, last_run: u64, units: &mut Vec<Saved>) -> Result<Vec<Saved>, Failure> {
    let mut newer: BTreeMap<UnitName, Vec<RunId>> = BTreeMap::new();
    for (unit, run) in launcher.runs()? {
        if run.0 > last_run {
            newer.entry(unit).or_default().push(run);
        }
    }
    let mut recovered = vec![];
    for (unit, mut runs) in newer {
        runs.sort();
        let Some(newest) = runs.last().copied() else { continue };
        let beside = |run: &RunId| {
            let path = layout.runs().join(unit.as_str()).join(run.to_string()).join(acts::UNIT_FILE);
            let saved: Saved = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            // Of the newest, made in the instant before its daemon died, only the number may be known.
            let phase = if *run == newest { saved.phase } else { Phase::Starting };
            (saved.name == unit).then_some(Saved { phase, ..saved })
        };
        let known = || units.iter().find(|known| known.name == unit).cloned();
        let known = || known().map(|known| Saved { phase: Phase::Starting, ..known });
        if let Some(saved) = runs.iter().rev().find_map(beside).or_else(known) {
            tracing::warn!("{unit}: the journal does not know its run {newest}: as it stands beside that");
            recovered.push(Saved { run: Some(newest), ..saved });
        }
    }
    units.retain(|known| !recovered.iter().any(|newer| newer.name == known.name));
    units.extend(recovered.iter().cloned());
    Ok(recovered)
}

/// Which start of the machine this is.
fn kernel_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Engine {
    /// Opens the journal, looks at every recorded run, adopts what lives, and goes on.
    /// Call it inside a tokio runtime: acts run there, the loop on a thread of its own.
    pub fn start(settings: Settings) -> Result<(Self, End), Failure> {
        let Settings { layout, catalogue, own_binary } = settings;
        layout.create()?;
        let mut store = Store::open(&layout.state_db())?;
        let installation = store.installation()?;
        let launcher = Launcher::new(layout.runs(), layout.shim_dir(), &installation)?;
        let eye = Eye::new(Ground::of_machine(&layout, &installation));
        let mut restored = store.restore()?;
        let recovered = recover(&layout, &launcher, restored.next_run, &mut restored.units)?;
        let left_over = launcher.runs()?;
        let newest_dir = left_over.iter().map(|(_, run)| run.0).max().unwrap_or(0);
        let next_run = restored.next_run.max(newest_dir).max(newest_log(&layout));
        if !recovered.is_empty() {
            // With their numbers, in one commit: the next daemon must not take them for deleted.
            let records: Vec<_> = recovered.into_iter().map(|saved| Record::Unit(Box::new(saved))).collect();
            store.commit(&records, next_run, restored.next_op)?;
        }
        let ops = OpsLog::open(layout.state(), &restored.ops);
        let bus = Arc::new(Bus::new(rpc::boot()?));
        let audit = AuditLog::open(layout.state(), bus.boot());
        let (mut core, mut first) = Core::restore(restored.units, restored.ops, next_run, restored.next_op);
        let rebooted = store.is_new_boot(&kernel_boot())?;
        let ports = port::Desk::restore(&store.ports()?, !rebooted)?;
        core.restore_gpus(turn::now(), restored.book, restored.leases, rebooted, &mut first);

        let (mail, letters) = mpsc::channel();
        let (progress, _) = broadcast::channel(256);
        let logs = keeping::start(&layout, mail.clone(), bus.clone())?;
        let told = progress.clone();
        // A progress that nobody listens to is no loss.
        let on_progress = move |unit: &UnitName, p: Progress| drop(told.send((unit.clone(), p)));
        let hands = RealHands::new(layout.clone(), launcher.clone(), own_binary, on_progress);
        hands.credentials().learn_again(core.units().map(|u| (u.name.clone(), u.policy.clone())));
        let catalogue = Offer::recall(catalogue, &layout);
        let manifests = Manifests::new(layout.services_dir());
        let world: World = core.units().map(|u| (u.name.clone(), Arc::new(u.clone()))).collect();
        let shared = Arc::new(Shared {
            layout,
            catalogue,
            hands: Arc::new(hands),
            launcher,
            world: ArcSwap::from_pointee(world),
            turns: AtomicU64::new(0),
            published: watch::Sender::new(0),
            logs,
            mail,
            progress,
            bus,
            ops,
            audit,
            tasks: Handle::current(),
            launching: Mutex::default(),
            placing: Mutex::default(),
            doorman: doorman::Doorman::default(),
            ports,
            clearing: clearing::Clearing::default(),
            gpus: ArcSwap::from_pointee(core.arbiter().clone()),
            gpus_moved: watch::Sender::new(0),
            eye,
            gpu_sight: ArcSwap::default(),
            measure: Notify::new(),
            scans: discovery::Turns::default(),
            manifests,
            strangers: Strangers::default(),
            born: Instant::now(),
        });
        rpc::tell_of_start(&shared);
        acts::boot(&shared, &first, left_over);
        offer::keep(&shared);
        manifests::keep(&shared);
        keeping::tell_of_units(&shared);
        calendar::keep(&shared);
        progress::keep(&shared);
        doorman::keep(&shared);
        gpus::keep(&shared);
        port::keep(&shared)?;
        let first = wharf_core::Effects { acts: vec![], ..first };
        let turn = Turn::new(core, store, shared.clone());
        let (tell_end, end) = oneshot::channel();
        let run = move || {
            let ended = turn.run(&letters, first);
            let _ = tell_end.send(ended);
        };
        std::thread::Builder::new().name("engine".into()).spawn(run)?;
        Ok((Self { shared }, end))
    }

    /// Removes at once what ended runs have left: before the daemon ends.
    pub async fn clear_up(&self) {
        self.shared.clearing.finish().await;
    }

    /// Ends the loop. Services go on.
    pub fn quit(&self) {
        let _ = self.shared.mail.send(Mail::Quit);
    }

    /// The state that was published last.
    pub(crate) fn world(&self) -> arc_swap::Guard<Arc<World>> {
        self.shared.world.load()
    }

    /// A unit, if somebody has made it.
    pub(crate) fn unit(&self, name: &UnitName) -> Option<Arc<Unit>> {
        self.world().get(name).cloned()
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Operation, Failure> {
        let (caller, answer) = oneshot::channel();
        let gone = || Failure::new(ErrorKind::Internal, "the daemon is ending").hint("wharf up starts it again");
        self.shared.mail.send(Mail::Ask(Box::new(ask), caller)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Has an operation given up, and waits for the answer.
    pub(crate) async fn cancel(&self, op: OpId) -> Result<Operation, Failure> {
        let (caller, answer) = oneshot::channel();
        let gone = || Failure::new(ErrorKind::Internal, "the daemon is ending").hint("wharf up starts it again");
        self.shared.mail.send(Mail::Cancel(op, caller)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Who may use which GPU, as it was published last. Nobody is waited for.
    pub(crate) fn gpus(&self) -> Arc<Arbiter> {
        self.shared.gpus.load_full()
    }

    /// Asks the arbiter, and waits for the answer: for an acquire until it is its turn.
    pub(crate) async fn ask_gpu(&self, ask: GpuAsk) -> Result<LeaseId, Failure> {
        let (caller, answer) = oneshot::channel();
        let gone = || Failure::new(ErrorKind::Internal, "the daemon is ending").hint("wharf up starts it again");
        self.shared.mail.send(Mail::AskGpu(Box::new(ask), caller)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Whether there is room on the disk for something new.
    pub(crate) async fn room(&self) -> bool {
        let (caller, answer) = oneshot::channel();
        self.shared.mail.send(Mail::Room(caller)).is_ok() && answer.await.unwrap_or(false)
    }

    /// Whether the loop takes letters and answers them: it is waited for. For a watchdog.
    pub async fn answers(&self) -> bool {
        let (caller, answer) = oneshot::channel();
        self.shared.mail.send(Mail::Room(caller)).is_ok() && answer.await.is_ok()
    }

    /// Until every executable that no earlier daemon has heard was asked what it is.
    pub async fn knows_its_services(&self) {
        self.shared.catalogue.complete().await;
    }

    /// How often the state was published. For tests and metrics.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }
}
