//! Starts runs so that they outlive the daemon, and finds them again.
//!
//! Owns the run folders, the cgroup subtree and the embedded shim. One run is one shim, one folder
//! `<runs>/<unit>/<run>/` and, where the machine allows it, one cgroup. It refuses to know wants,
//! policies and health: whether something should run, or run again, is the core's to say.
//!
//! What is true of a run is asked in this order: the kernel (cgroup populated, run lock held, pidfd
//! inode), then the shim's files. No process is ever signalled by its bare pid.
//!
//! ```text
//! launch:  folder, cgroup ─ shim ─ spec ─┬─ `running` ─ LiveRun
//!                                        └─ `exit` (could not begin), or the shim ended ─ Failure
//! find:    no `start` ─ claim that name: NeverStarted, for good
//!          other boot ─ Ended;  main process lives ─ Alive;  others live ─ Draining;  else Ended
//! ```

mod containment;
mod embedded;
mod find;
mod folder;
mod live;
mod members;
mod start;
mod watched;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use wharf_model::{ErrorKind, Exit, Failure, RunId, UnitName};

pub use containment::Tier;
pub use live::LiveRun;

use folder::RunFolder;

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
}

impl Launcher {
    /// Places the embedded shim below `shim_dir` and finds out how runs can be contained here.
    /// `installation` is a short id that names our cgroup subtree.
    pub fn new(runs_dir: PathBuf, shim_dir: PathBuf, installation: &str) -> Result<Self, Failure> {
        let shim = embedded::place(&shim_dir)?;
        let tier = containment::detect(installation, &shim);
        Self::with_shim(runs_dir, shim, tier)
    }

    /// The same with a given containment, which is not tried out. For tests, and for operators who know better.
    pub fn with_tier(runs_dir: PathBuf, shim_dir: PathBuf, tier: Tier) -> Result<Self, Failure> {
        let shim = embedded::place(&shim_dir)?;
        Self::with_shim(runs_dir, shim, tier)
    }

    fn with_shim(runs_dir: PathBuf, shim: PathBuf, tier: Tier) -> Result<Self, Failure> {
        folder::make_private(&runs_dir)
            .map_err(|e| Failure::from(e).while_doing(format_args!("make {}", runs_dir.display())))?;
        Ok(Self { shared: Arc::new(Shared { runs_dir, shim, tier }) })
    }

    /// How runs are contained.
    pub fn tier(&self) -> Tier {
        self.shared.tier.clone()
    }

    /// Starts a run: `Ok` once exec has happened. What fails leaves nothing behind, neither a
    /// process nor a folder; a caller that stops waiting has the run ended for it.
    pub async fn launch(&self, plan: RunPlan) -> Result<LiveRun, Failure> {
        let (unit, shared) = (plan.unit.clone(), self.shared.clone());
        let (done, outcome) = tokio::sync::oneshot::channel();
        // A task of its own: half a start must not be left when the caller's future is dropped.
        tokio::spawn(async move {
            let outcome = start::start(&shared, &plan).await;
            if let Err(Ok(unwanted)) = done.send(outcome) {
                unwanted.kill_all();
                unwanted.emptied().await;
                shared.forget(&plan.unit, plan.run).await;
            }
        });
        let outcome = outcome
            .await
            .unwrap_or_else(|_| Err(Failure::new(ErrorKind::Internal, "the launch was cut off: the daemon is ending")));
        outcome.map_err(|failure| failure.about(&unit))
    }

    /// Looks for a run that an earlier daemon may have started. `NeverStarted` is a promise: after
    /// it a late shim of that run gives up.
    pub async fn find(&self, unit: &UnitName, run: RunId) -> Found {
        find::find(self.shared.folder(unit, run), unit, run).await
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
            Tier::Cgroup { root } => Some(root.join(unit.as_str()).join(run.to_string())),
            Tier::Session => None,
        }
    }

    async fn forget(&self, unit: &UnitName, run: RunId) {
        let folder = self.folder(unit, run);
        let recorded = folder.start().and_then(|start| start.cgroup);
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
        if let Err(e) = folder.remove() {
            tracing::warn!(%unit, %run, "could not remove {}: {e}", Path::display(folder.path()));
        }
    }
}
