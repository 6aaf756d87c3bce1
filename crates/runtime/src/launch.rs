//! Starts runs so that they outlive the daemon, and finds them again.
//!
//! Owns the run folders, the cgroup subtree and the embedded shim. One run is one shim, forked from the
//! one launcher, one folder `<runs>/<unit>/<run>/` and, where the machine allows it, one cgroup. It refuses to know wants,
//! policies and health: whether something should run, or run again, is the core's to say.
//!
//! What is true of a run is asked in this order: the kernel (cgroup populated, run lock held, pidfd
//! inode), then the shim's files. No process is ever signalled by its bare pid.
//!
//! ```text
//! launch:  folder, cgroup, limits ─ spec ─> launcher ─ fork ─> shim ─┬─ it began ─ LiveRun
//!                                                                    └─ it could not ─ Failure
//!          nothing heard, the launcher killed: as `find`, and once more where it never started
//! find:    no `start` ─ claim that name: NeverStarted, for good
//!          other boot ─ Ended;  main process lives ─ Alive;  others live ─ Draining;  else Ended
//! ```

mod containment;
mod embedded;
mod find;
mod folder;
mod limits;
mod line;
mod live;
mod made;
mod members;
mod oom;
mod seen;
mod start;
pub mod vram;
pub(crate) mod watched;

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use wharf_model::{ErrorKind, Exit, Failure, Limits, RunId, UnitName, VramCap};

pub use containment::{Tier, subtree};
pub use limits::{Abilities, By};
pub use live::LiveRun;
pub use seen::Seen;
pub use watched::async_fd;

use folder::RunFolder;
use limits::Means;
use line::Line;
use made::{Made, UnderWay};
use oom::OomCount;

/// The user that a run's processes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All further groups.
    pub groups: Vec<u32>,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Whose run it is.
    pub unit: UnitName,
    /// Which one. Each is launched once.
    pub run: RunId,
    /// The program and its arguments. A name without a slash is looked for in the PATH of `env`.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited from the daemon.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in.
    pub cwd: PathBuf,
    /// The file that its standard output and error are added to; its folder is there. Not in the
    /// run's folder, which goes with [`Launcher::forget`].
    pub log: PathBuf,
    /// Another user than the daemon's.
    pub run_as: Option<RunAs>,
    /// What it may use.
    pub limits: Limits,
    /// What it may have of devices' memory.
    pub vram: Vec<VramCap>,
    /// Its output goes through a pipe into the log: for programs that open /dev/stdout again.
    pub pipe: bool,
    /// A bound datagram socket that the run's notices go to. The shim keeps it open, so that what is sent
    /// while no daemon lives waits in it: see [`LiveRun::notify_fd`].
    pub notify: Option<Arc<OwnedFd>>,
    /// Sockets that the service gets as descriptors 3 and up, with their names (LISTEN_FDS).
    pub listen_fds: Vec<(String, Arc<OwnedFd>)>,
}

impl RunPlan {
    /// A run of this program with nothing special: an empty environment, in `/`.
    pub fn new(unit: UnitName, run: RunId, argv: Vec<String>, log: PathBuf) -> Self {
        Self {
            unit,
            run,
            argv,
            env: vec![],
            cwd: "/".into(),
            log,
            run_as: None,
            limits: Limits::default(),
            vram: vec![],
            pipe: false,
            notify: None,
            listen_fds: vec![],
        }
    }
}

/// What has become of a run.
#[derive(Debug)]
pub enum Found {
    /// Its main process lives.
    Alive(LiveRun),
    /// Its main process has ended, others of the run live.
    Draining(LiveRun, Exit),
    /// Nothing of it lives.
    Ended(Exit),
    /// It never began, and cannot begin any more.
    NeverStarted,
}

/// Starts runs and finds them again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runs_dir: PathBuf,
    shim: PathBuf,
    tier: Tier,
    means: Means,
    boot_id: String,
    oom: Arc<OomCount>,
    line: Mutex<Option<Arc<Line>>>,
    /// Runs that are being started, or given up before anybody has taken them.
    under_way: watch::Sender<BTreeSet<RunId>>,
}

impl Launcher {
    /// Places the embedded shim below `shim_dir` and finds out how runs can be contained here.
    /// `installation` is a short id that names our cgroup subtree.
    pub fn new(runs_dir: PathBuf, shim_dir: PathBuf, installation: &str) -> Result<Self, Failure> {
        let shim = embedded::place(&shim_dir)?;
        let tier = containment::detect(installation, &shim);
        let launcher = Self::with_shim(runs_dir, shim, tier, installation)?;
        // So that the first start need not wait for it. What fails now is tried again, and told, then.
        if tokio::runtime::Handle::try_current().is_ok()
            && let Err(e) = launcher.shared.line()
        {
            tracing::warn!("the launcher could not be started: {e}");
        }
        Ok(launcher)
    }

    /// The same with a given containment, which is not tried out. For tests, and for operators who know better.
    pub fn with_tier(runs_dir: PathBuf, shim_dir: PathBuf, tier: Tier) -> Result<Self, Failure> {
        let shim = embedded::place(&shim_dir)?;
        let installation = match &tier {
            Tier::Cgroup { root } => root.file_name().map_or("", |name| name.to_str().unwrap_or("")).to_owned(),
            Tier::Session => format!("session-{}", std::process::id()),
        };
        Self::with_shim(runs_dir, shim, tier, installation.trim_start_matches("wharf-"))
    }

    fn with_shim(runs_dir: PathBuf, shim: PathBuf, tier: Tier, installation: &str) -> Result<Self, Failure> {
        folder::make_private(&runs_dir)
            .map_err(|e| Failure::from(e).while_doing(format_args!("make {}", runs_dir.display())))?;
        let means = Means::find(&tier, installation);
        let boot_id = wharf_sys::clock::boot_id()?;
        let (oom, line, under_way) = (Arc::default(), Mutex::default(), watch::Sender::default());
        Ok(Self { shared: Arc::new(Shared { runs_dir, shim, tier, means, boot_id, oom, line, under_way }) })
    }

    /// How runs are contained.
    pub fn tier(&self) -> Tier {
        self.shared.tier.clone()
    }

    /// By what each limit of a run is enforced on this machine.
    pub fn abilities(&self) -> Abilities {
        self.shared.means.abilities()
    }

    /// Starts a run: `Ok` once exec has happened. What fails leaves nothing behind, neither a
    /// process nor a folder; a caller that stops waiting has the run given up or ended for it, and
    /// can wait for that with [`Launcher::settled`].
    pub async fn launch(&self, plan: RunPlan) -> Result<LiveRun, Failure> {
        let (unit, shared) = (plan.unit.clone(), self.shared.clone());
        let (mut done, outcome) = tokio::sync::oneshot::channel();
        let under_way = UnderWay::begin(&shared, plan.run);
        // A task of its own: half a start must not be left when the caller's future is dropped.
        tokio::spawn(async move {
            let outcome = start::start(&shared, &plan, done.closed()).await;
            // What nobody waits for any more is dropped here or on its way, and so is ended.
            drop(done.send(outcome.map(|live| Made::new(plan.unit, live, under_way))));
        });
        let outcome = outcome
            .await
            .unwrap_or_else(|_| Err(Failure::new(ErrorKind::Internal, "the launch was cut off: the daemon is ending")));
        outcome.and_then(Made::take).map_err(|failure| failure.about(&unit))
    }

    /// Waits until a launch that nobody waits for any more has come to its end: nothing of that run
    /// lives then, and nothing of it can begin. At once where there is no such launch.
    pub async fn settled(&self, run: RunId) {
        let mut under_way = self.shared.under_way.subscribe();
        // The sender is this launcher's own: it cannot be gone.
        let _ = under_way.wait_for(|runs| !runs.contains(&run)).await;
    }

    /// Looks for a run that an earlier daemon may have started. `NeverStarted` is a promise: after
    /// it a late shim of that run gives up.
    pub async fn find(&self, unit: &UnitName, run: RunId) -> Found {
        find::find(&self.shared, unit, run).await
    }

    /// Every run that has a folder, also those that the database does not know.
    pub fn runs(&self) -> io::Result<Vec<(UnitName, RunId)>> {
        let mut runs = vec![];
        for unit in folder::names_in(&self.shared.runs_dir)? {
            let Ok(name) = unit.parse::<UnitName>() else { continue };
            let of_unit = folder::names_in(&self.shared.runs_dir.join(&unit))?;
            runs.extend(of_unit.iter().filter_map(|run| run.parse().ok()).map(|run| (name.clone(), RunId(run))));
        }
        runs.sort();
        Ok(runs)
    }

    /// Removes the run's folder and its empty cgroup. A run of which something lives keeps both.
    pub async fn forget(&self, unit: &UnitName, run: RunId) {
        self.shared.forget(unit, run).await;
    }
}

impl Shared {
    fn folder(&self, unit: &UnitName, run: RunId) -> RunFolder {
        RunFolder::new(self.runs_dir.join(unit.as_str()).join(run.to_string()))
    }

    /// The cgroup that a run started now gets.
    fn cgroup(&self, unit: &UnitName, run: RunId) -> Option<PathBuf> {
        match &self.tier {
            Tier::Cgroup { root } => Some(root.join(self.group_name(unit, run))),
            Tier::Session => None,
        }
    }

    /// A run's name among the groups: neither part can hold a colon.
    fn group_name(&self, unit: &UnitName, run: RunId) -> String {
        format!("{unit}:{run}")
    }

    /// The line to the launcher; a new one where there is none, or where its launcher has died.
    fn line(&self) -> io::Result<Arc<Line>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = line.as_ref().filter(|line| !line.is_cut()) {
            return Ok(open.clone());
        }
        let new = Line::open(&self.shim)?;
        *line = Some(new.clone());
        Ok(new)
    }

    async fn forget(&self, unit: &UnitName, run: RunId) {
        let folder = self.folder(unit, run);
        let start = folder.start();
        let (recorded, groups) = start.map_or((None, vec![]), |start| (start.cgroup, start.limit_groups));
        let cgroup = recorded.or_else(|| self.cgroup(unit, run));
        // A shim that has just written its last record is gone in a moment.
        for _ in 0..50 {
            if !folder.is_locked() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        if folder.is_locked() || cgroup.as_deref().is_some_and(containment::is_populated) {
            tracing::warn!(%unit, %run, "a run that still has processes is kept");
            return;
        }
        if let Some(cgroup) = cgroup {
            containment::remove(&cgroup);
        }
        limits::remove(&groups);
        if let Err(e) = folder.remove() {
            tracing::warn!(%unit, %run, "could not remove {}: {e}", Path::display(folder.path()));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(line) = self.line.get_mut().unwrap_or_else(PoisonError::into_inner) {
            line.close();
        }
    }
}
