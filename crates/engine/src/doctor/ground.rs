//! What the checks look at: the units as they are written down, and what of them was seen.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use wharf_core::{Life, Saved, Unit};
use wharf_model::{Installed, Phase, Policy, RunId, UnitName, Want};
use wharf_runtime::{
    Credentials, Layout,
    launch::{Launcher, Seen},
};

use crate::{engine::Shared, offer::Found, store};

/// A unit as it is written down.
pub struct Known {
    pub name: UnitName,
    pub run: Option<RunId>,
    /// It is said to be up: its main process has been made and has not ended.
    pub is_up: bool,
    pub is_wanted: bool,
    pub with: Arc<Value>,
    pub policy: Arc<Policy>,
    pub ports: Vec<(String, u16)>,
    pub installed: Option<Installed>,
}

impl Known {
    fn of(unit: &Unit) -> Self {
        Self {
            name: unit.name.clone(),
            run: unit.life.run(),
            is_up: matches!(unit.life, Life::Up { .. }),
            is_wanted: unit.want == Want::Up,
            with: unit.with.clone(),
            policy: unit.policy.clone(),
            ports: unit.fixed_ports().map(|(name, number)| (name.to_owned(), number)).collect(),
            installed: unit.installed.clone(),
        }
    }

    fn saved(saved: Saved) -> Self {
        let number = |(name, wish): (&String, &Option<u16>)| {
            let number = wish.or_else(|| saved.ports.get(name).copied())?;
            Some((name.clone(), number))
        };
        Self {
            ports: saved.wishes.iter().filter_map(number).collect(),
            run: saved.run,
            is_up: matches!(saved.phase, Phase::Running | Phase::Degraded | Phase::Unhealthy),
            is_wanted: saved.want == Want::Up,
            with: saved.with,
            policy: saved.policy,
            installed: saved.installed,
            name: saved.name,
        }
    }
}

/// A cgroup of ours, in whatever hierarchy.
pub struct Group {
    pub path: PathBuf,
    /// Whose it is, by its name.
    pub run: Option<(UnitName, RunId)>,
    pub pids: Vec<i32>,
}

/// A daemon that runs and does not answer.
pub struct Silent {
    /// Its process, where it is known.
    pub pid: Option<i32>,
}

/// Everything that is looked at.
pub struct Ground {
    pub layout: Layout,
    pub units: Vec<Known>,
    /// Runs that have a folder.
    pub runs: Vec<(UnitName, RunId, Seen)>,
    /// Runs that are being made at this moment.
    pub launching: BTreeSet<RunId>,
    pub groups: Vec<Group>,
    pub credentials: Credentials,
    pub launcher: Option<Launcher>,
    /// This process is the daemon.
    pub is_daemon: bool,
    /// Another process is, and says nothing.
    pub silent: Option<Silent>,
    /// Why the journal says nothing.
    pub unread: Option<String>,
    /// What the daemon has heard of services that are executables.
    pub offer: Option<Arc<Found>>,
}

impl Ground {
    /// With the eyes of the daemon.
    pub fn of(shared: &Shared) -> Self {
        let world = shared.world.load_full();
        let launching = shared.launching.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let launching = launching.keys().copied().collect();
        let units = world.values().map(|unit| Known::of(unit)).collect();
        let (installation, unread) = match store::peek(&shared.layout.state_db()) {
            Ok((installation, _)) => (installation, None),
            Err(e) => (None, Some(e.to_string())),
        };
        let launcher = Some(shared.launcher.clone());
        let offer = Some(shared.catalogue.found());
        Self { offer, ..Self::seen(&shared.layout, units, launcher, installation, true, launching, unread) }
    }

    /// Without a daemon: what the state folder says.
    pub fn offline(layout: &Layout) -> Self {
        let is_there = layout.state_db().exists();
        let (installation, units, unread) = match is_there.then(|| store::peek(&layout.state_db())) {
            None => (None, vec![], None),
            Some(Ok((installation, units))) => (installation, units.into_iter().map(Known::saved).collect(), None),
            Some(Err(e)) => (None, vec![], Some(e.to_string())),
        };
        let of_installation =
            |installation: &String| Launcher::new(layout.runs(), layout.shim_dir(), installation).ok();
        let launcher = installation.as_ref().and_then(of_installation);
        Self::seen(layout, units, launcher, installation, false, BTreeSet::new(), unread)
    }

    fn seen(
        layout: &Layout,
        units: Vec<Known>,
        launcher: Option<Launcher>,
        installation: Option<String>,
        is_daemon: bool,
        launching: BTreeSet<RunId>,
        unread: Option<String>,
    ) -> Self {
        let runs = launcher.as_ref().map(|launcher| (launcher, launcher.runs().unwrap_or_default()));
        let runs = runs.into_iter().flat_map(|(launcher, runs)| {
            runs.into_iter().filter_map(|(unit, run)| Some((unit.clone(), run, launcher.see(&unit, run)?)))
        });
        Self {
            runs: runs.collect(),
            groups: installation.map(|id| groups(&format!("wharf-{id}"))).unwrap_or_default(),
            credentials: Credentials::new(layout),
            layout: layout.clone(),
            units,
            launching,
            launcher,
            is_daemon,
            silent: None,
            unread,
            offer: None,
        }
    }

    /// A unit has this run, or is just about to.
    pub fn is_known(&self, run: RunId) -> bool {
        self.launching.contains(&run) || self.units.iter().any(|unit| unit.run == Some(run))
    }

    /// What was seen of a run.
    pub fn run(&self, run: RunId) -> Option<&Seen> {
        self.runs.iter().find(|(_, number, _)| *number == run).map(|(_, _, seen)| seen)
    }
}

/// How deep a cgroup of ours can lie below a hierarchy's root.
const DEEPEST: usize = 8;

/// Our groups in all hierarchies: a daemon of another session may have had its own elsewhere.
fn groups(subtree: &str) -> Vec<Group> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_cgroup = |line: &&str| matches!(line.split(' ').nth(2), Some("cgroup" | "cgroup2"));
    let roots: BTreeSet<&str> = mounts.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(1)).collect();
    let mut found = vec![];
    roots.iter().for_each(|root| find(Path::new(root), subtree, DEEPEST, &mut found));
    let of_run = |path: &Path| {
        let (unit, run) = path.file_name()?.to_str()?.rsplit_once(':')?;
        Some((unit.parse().ok()?, RunId(run.parse().ok()?)))
    };
    let inner = found.iter().flat_map(|root| folders(root));
    inner.map(|path| Group { run: of_run(&path), pids: pids(&path), path }).collect()
}

fn find(dir: &Path, subtree: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for inner in folders(dir) {
        if inner.file_name().is_some_and(|name| name == subtree) {
            found.push(inner);
        } else if depth > 0 {
            find(&inner, subtree, depth - 1, found);
        }
    }
}

/// The processes in a cgroup and below it.
pub fn pids(group: &Path) -> Vec<i32> {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = procs.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(folders(group).iter().flat_map(|inner| self::pids(inner)));
    pids
}

/// The folders in a folder.
pub fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
