//! The hands that act: what a service asks of its context is done here, on this machine.
//!
//! It owns the registry of live runs and the translation of a service's command into a run: program,
//! environment, user, folders. It refuses to know when something should be done, and what its
//! outcome means.

mod command;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write,
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wharf_model::{ErrorKind, Failure, Health, Installed, Policy, Progress, RunId, Signal, UnitName};
use wharf_services::{Check, Command, Container, Context, Hands, InstallPlan, Output, Probe, Run, Secret, Staged};

use crate::{
    account::Account,
    addresses,
    credentials::Credentials,
    docker::{self, Docker},
    environment::{self, Base},
    executables,
    install::{self, LookedUp, Placer, Say, Store},
    launch::{Launcher, LiveRun, RunAs, RunPlan},
    layout::Layout,
    notify::{Ear, Socket},
    ports::Listens,
    probe::{self, LogLines},
    requirements, secret, which,
};

/// So long after its start a program listens where it means to; before, it is not asked where that is.
const SETTLED_MS: i64 = 1_000;

/// A text that a service reads is no longer, in bytes.
const SMALL_TEXT: u64 = 1 << 20;

/// Listening sockets and what they are called.
type Sockets = Vec<(String, OwnedFd)>;

/// Acts on this machine. Cheap to clone; all clones share one registry.
#[derive(Clone)]
pub struct RealHands {
    layout: Layout,
    launcher: Launcher,
    own_binary: PathBuf,
    services_user: Result<Option<Account>, Failure>,
    placer: Placer,
    say: Say,
    // A HashMap, because nothing is decided by its order.
    live: Arc<Mutex<HashMap<RunId, LiveRun>>>,
    sockets: Arc<Mutex<HashMap<RunId, Sockets>>>,
    log_lines: Arc<LogLines>,
    ears: Arc<Mutex<HashMap<RunId, Ear>>>,
    credentials: Arc<Credentials>,
}

impl RealHands {
    /// `own_binary` is Wharf's own program; `progress` is told how far an install is.
    pub fn new(
        layout: Layout,
        launcher: Launcher,
        own_binary: PathBuf,
        progress: impl Fn(&UnitName, Progress) + Send + Sync + 'static,
    ) -> Self {
        let say: Say = Arc::new(progress);
        let services_user = Account::of_services();
        let placer = Placer::new(layout.clone(), own_binary.clone(), services_user.clone().ok().flatten(), say.clone());
        let credentials = Arc::new(Credentials::new(&layout));
        Self {
            layout,
            launcher,
            own_binary,
            services_user,
            placer,
            say,
            live: Arc::default(),
            sockets: Arc::default(),
            log_lines: Arc::default(),
            ears: Arc::default(),
            credentials,
        }
    }

    /// The secrets of runs.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Takes over a run that an earlier daemon made.
    pub fn adopt(&self, run: RunId, live: LiveRun) {
        self.registry().insert(run, live);
    }

    /// A run that these hands made or adopted.
    pub fn live(&self, run: RunId) -> Option<LiveRun> {
        self.registry().get(&run).cloned()
    }

    /// Forgets a run. Its processes are not touched.
    pub fn drop_run(&self, run: RunId) {
        self.registry().remove(&run);
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        self.log_lines.forget(run);
        self.ears().remove(&run);
        Socket::remove(&self.layout.notify(run));
        self.credentials.remove(run);
    }

    /// Listening sockets for a run that will be spawned: it gets them as LISTEN_FDS.
    pub fn give_sockets(&self, run: RunId, sockets: Vec<(String, OwnedFd)>) {
        let mut given = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if !sockets.is_empty() {
            given.insert(run, sockets);
        }
    }

    /// Listens to a run that these hands made: once, and only where its policy says so.
    pub fn ear(&self, run: RunId) -> Option<Ear> {
        self.ears().remove(&run)
    }

    /// Listens again to a run that an earlier daemon made; `None`: its policy does not say so.
    pub fn ear_again(
        &self,
        run: RunId,
        live: &LiveRun,
        policy: &Policy,
        is_starting: bool,
    ) -> Result<Option<Ear>, Failure> {
        if !is_heard(policy) {
            return Ok(None);
        }
        Ok(Some(Ear::again(&self.layout.notify(run), live.notify_fd(), is_starting, live.clone())?))
    }

    fn take_sockets(&self, run: RunId) -> Vec<(String, Arc<OwnedFd>)> {
        let given = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        given.into_iter().flatten().map(|(name, socket)| (name, Arc::new(socket))).collect()
    }

    /// What the machine itself lacks of what a unit needs: then not even an install makes sense.
    pub fn lacking(&self, cx: &Context) -> Result<(), Failure> {
        let env = environment::build(cx, &Command::default(), None, Base::Daemon)?;
        let variable = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        let of_machine = cx.policy.requires.iter().filter(|r| r.is_of_machine());
        let lacking = of_machine.filter_map(|r| requirements::missing(r, variable)).next();
        lacking.map_or(Ok(()), |failure| Err(failure.about(&cx.unit)))
    }

    /// What a plan would place now: whether what is placed is the newest is for others to say.
    pub async fn look_up(&self, plan: &InstallPlan) -> Result<LookedUp, Failure> {
        self.placer.look_up(plan).await
    }

    /// Everything that is placed.
    pub fn store(&self) -> &Store {
        self.placer.store()
    }

    /// The folders.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn ears(&self) -> MutexGuard<'_, HashMap<RunId, Ear>> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry(&self) -> MutexGuard<'_, HashMap<RunId, LiveRun>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl probe::Around for RealHands {
    fn run_to_end<'a>(&'a self, cx: &'a Context, command: Command) -> BoxFuture<'a, Result<Output, Failure>> {
        Box::pin(Self::run_to_end(self, cx, command, Base::Clean))
    }

    fn log(&self, cx: &Context, pattern: &str) -> Option<(PathBuf, probe::Cursor)> {
        let run = cx.run?;
        // Held, so that the run is not forgotten between the look and the new cursor.
        let registry = self.registry();
        let lives = registry.contains_key(&run);
        lives.then(|| (self.layout.log(&cx.unit, run), self.log_lines.cursor(run, pattern)))
    }

    fn listens<'a>(&'a self, cx: &'a Context) -> BoxFuture<'a, Option<Listens>> {
        let live = cx.run.and_then(|run| self.live(run));
        let now = wharf_sys::clock::wall_ms();
        let live = live.filter(|live| now - live.started_at_ms() >= SETTLED_MS);
        // It reads a good deal of /proc.
        Box::pin(async { tokio::task::spawn_blocking(move || Some(Listens::of(&live?.pids()))).await.ok().flatten() })
    }
}

/// Whether a program can say something of itself.
fn is_heard(policy: &Policy) -> bool {
    policy.notify || policy.watchdog_ms.is_some()
}

/// Tells a program where it is heard. WATCHDOG_PID is not known yet, and may be left out.
fn say_where(socket: &Socket, policy: &Policy, env: &mut Vec<(String, String)>) {
    env.retain(|(name, _)| !["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].contains(&name.as_str()));
    env.push(("NOTIFY_SOCKET".into(), socket.path().to_string_lossy().into_owned()));
    let usec = policy.watchdog_ms.map(|ms| ms.saturating_mul(1000).to_string());
    env.extend(usec.map(|usec| ("WATCHDOG_USEC".into(), usec)));
}

/// Writes a whole file or none, readable by whom the folder belongs to.
fn write_file(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut mark = [0; 6];
    secret::fill(&mut mark)?;
    // The folder can be the service's own: a name that it cannot guess, and no link is followed.
    let draft = folder.join(format!(".{name}.{}", secret::hex(&mark)));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
        let owner = fs::symlink_metadata(folder)?;
        if owner.uid() != nix::unistd::geteuid().as_raw() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&draft, path)
    });
    written.inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[async_trait]
impl Hands for RealHands {
    async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed, Failure> {
        self.placer.place(cx, plan).await
    }

    async fn exec(&self, cx: &Context, command: Command) -> Result<Output, Failure> {
        // In an install, the user's proxies and mirrors hold; beside a run, only what the run sees.
        let base = if cx.run.is_none() { Base::Daemon } else { Base::Clean };
        self.run_to_end(cx, command, base).await.map_err(|f| f.about(&cx.unit))
    }

    async fn spawn(&self, cx: &Context, command: Command) -> Result<Run, Failure> {
        let run = cx.run.ok_or_else(|| Failure::new(ErrorKind::Internal, "a spawn without a run").about(&cx.unit))?;
        let who = self.account(cx, &command).map_err(|f| f.about(&cx.unit))?;
        let secrets = self.credentials.deliver(&cx.unit, run, &cx.policy, who.as_ref()).await;
        let secrets = secrets.map_err(|f| f.about(&cx.unit))?;
        let mut resolved = self.resolve(cx, &command, Base::Clean).await.map_err(|f| f.about(&cx.unit))?;
        // Named before anything is made: a unit that lacks something is blocked, not in a crash loop.
        if let Some(installed) = &cx.installed {
            self.placer.check_seals(installed).await.map_err(|f| f.about(&cx.unit))?;
        }
        self.check_requirements(cx, &command, &resolved.env).await.map_err(|f| f.about(&cx.unit))?;
        self.preflight(cx, &command).await.map_err(|f| f.about(&cx.unit))?;
        let log = self.layout.log(&cx.unit, run);
        if let Some(folder) = log.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let owner = resolved.account.as_ref().map(|who| (who.uid, who.gid));
        let socket = is_heard(&cx.policy).then(|| Socket::bind(&self.layout.notify(run), owner)).transpose()?;
        if let Some(socket) = &socket {
            say_where(socket, &cx.policy, &mut resolved.env);
        }
        let notify = socket.as_ref().map(|s| s.as_fd().try_clone_to_owned()).transpose()?.map(Arc::new);
        let argv = std::iter::once(resolved.program.to_string_lossy().into_owned()).chain(command.args).collect();
        let plan = RunPlan {
            unit: cx.unit.clone(),
            run,
            argv,
            env: resolved.env,
            cwd: resolved.cwd,
            log,
            run_as: resolved.account.map(|who| RunAs { uid: who.uid, gid: who.gid, groups: who.groups() }),
            limits: cx.policy.limits.clone(),
            vram: cx.vram.clone(),
            pipe: cx.policy.logs.pipe,
            notify,
            listen_fds: self.take_sockets(run),
        };
        let live = self.launcher.launch(plan).await.map_err(|f| {
            Socket::remove(&self.layout.notify(run));
            f.about(&cx.unit)
        })?;
        // Known first: whatever fails from here on, the run is not forgotten but ended.
        let pid = live.pid();
        self.adopt(run, live.clone());
        if let Some(socket) = socket {
            self.ears().insert(run, Ear::new(socket, true, live)?);
        }
        if let Some(secrets) = secrets {
            secrets.keep();
        }
        Ok(Run { pid })
    }

    async fn probe(&self, cx: &Context, probe: Probe) -> Result<Health, Failure> {
        probe::ask(cx, probe, self).await.map_err(|f| f.about(&cx.unit))
    }

    async fn signal(&self, cx: &Context, signal: Signal) -> Result<(), Failure> {
        let Some(live) = cx.run.and_then(|run| self.live(run)) else {
            return Err(Failure::new(ErrorKind::Conflict, format!("{} has no live run", cx.unit)).about(&cx.unit));
        };
        live.signal(signal).map_err(|e| {
            Failure::new(ErrorKind::Permission, format!("could not send {signal:?} to {}: {e}", cx.unit))
                .about(&cx.unit)
        })
    }

    async fn write(&self, cx: &Context, path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
        let folder = path.parent().and_then(|p| fs::canonicalize(p).ok()).unwrap_or_default();
        let own = [&cx.dirs.data, &cx.dirs.run].into_iter().filter_map(|d| fs::canonicalize(d).ok());
        if !own.into_iter().any(|own| folder.starts_with(own)) {
            let text = format!("{} is not in an existing folder of {}", path.display(), cx.unit);
            return Err(Failure::new(ErrorKind::Permission, text).about(&cx.unit));
        }
        write_file(path, text, mode).map_err(|e| {
            let mut failure = Failure::from(e).about(&cx.unit);
            failure.message = format!("could not write {}: {}", path.display(), failure.message);
            failure
        })
    }

    async fn secret(&self, cx: &Context, name: &str, bytes: usize) -> Result<Secret, Failure> {
        secret::once(self.layout.secrets(), name, bytes).map_err(|f| f.about(&cx.unit))
    }

    async fn verify_placed(&self, cx: &Context) -> Result<Vec<Check>, Failure> {
        let Some(installed) = cx.installed.clone() else {
            return Ok(vec![Check::new("placed", false, "nothing is placed")]);
        };
        let looked = tokio::task::spawn_blocking(move || install::verify(&installed)).await;
        looked.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))
    }

    fn engine(&self, named: Option<&str>, podman: bool) -> Result<String, Failure> {
        docker::find(named, podman)
    }

    async fn containers(&self, engine: &str, project: &str) -> Result<Vec<Container>, Failure> {
        Docker::at(engine)?.containers(project).await
    }

    fn addresses(&self) -> Vec<(String, IpAddr)> {
        addresses::all()
    }

    fn text(&self, path: &Path) -> Option<String> {
        let small = |found: &fs::Metadata| found.is_file() && found.len() <= SMALL_TEXT;
        fs::metadata(path).ok().filter(small).and_then(|_| fs::read_to_string(path).ok())
    }

    fn which(&self, program: &str) -> Option<PathBuf> {
        which::first(program)
    }

    fn own_binary(&self) -> PathBuf {
        self.own_binary.clone()
    }

    fn progress(&self, cx: &Context, progress: Progress) {
        (self.say)(&cx.unit, progress);
    }

    async fn check_code(&self, file: &Path) -> Result<(), Failure> {
        executables::sound(file).map_err(Failure::from)
    }

    fn said(&self, cx: &Context, verb: &str, text: &str) {
        executables::log(cx.unit.as_str(), verb, text);
    }

    async fn stage(&self, cx: &Context) -> Result<Box<dyn Staged>, Failure> {
        Ok(Box::new(executables::Stage::make(&self.layout, &self.placer, cx)?))
    }
}
