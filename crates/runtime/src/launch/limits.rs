//! What a run may use, and what of that this machine can enforce.
//!
//! Owns the choice of the means: a controller of cgroup2 in the run's own cgroup, a group of the old
//! kind beside it (hybrid machines), a limit of each process, or nothing. It refuses to know why a
//! unit has a limit.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use wharf_model::{ErrorKind, Failure, Limits};

use super::{Tier, containment};

/// By what a limit is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The run's own cgroup.
    Cgroup2,
    /// A group of the old kind, made for the run.
    Cgroup1,
    /// A limit of each process of the run, not of all together.
    Rlimit,
    /// It cannot be enforced here.
    None,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup1",
            Self::Rlimit => "rlimit",
            Self::None => "none",
        })
    }
}

/// What each limit is enforced by on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// `memory_bytes`.
    pub memory: By,
    /// `cpu_percent`.
    pub cpu: By,
    /// `pids`.
    pub pids: By,
    /// `open_files`, `core_bytes`, `umask`, `nice`: each process has its own everywhere.
    pub others: By,
}

/// How limits are set for one run.
#[derive(Debug, Default)]
pub struct Set {
    /// Groups of the old kind that the service must join.
    pub groups: Vec<PathBuf>,
    /// A limit of each process's data, in bytes.
    pub data_bytes: Option<u64>,
}

/// The means of this machine, found out once.
#[derive(Debug)]
pub struct Means {
    abilities: Abilities,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// The length over which processor time is dealt out, in microseconds: the kernel's usual one.
const PERIOD_US: u64 = 100_000;
/// The least share that the kernel takes, in microseconds of the period.
const LEAST_US: u64 = 1_000;

impl Means {
    /// Tries out what there is: the controllers that our cgroup2 subtree hands on, else our own
    /// place in the old hierarchies.
    pub fn find(tier: &Tier, installation: &str) -> Self {
        let own = |controller: &str| old_place(controller).map(|dir| dir.join(containment::subtree(installation)));
        let new_kind = match tier {
            Tier::Cgroup { root } => of_new_kind(root),
            Tier::Session => [false; 3],
        };
        let old_kind = |is_new: bool, controller: &str, file: &str| {
            if is_new { None } else { own(controller).filter(|root| can_be_set(root, file)) }
        };
        let memory = old_kind(new_kind[0], "memory", "memory.limit_in_bytes");
        let cpu = old_kind(new_kind[1], "cpu", "cpu.cfs_quota_us");
        let pids = old_kind(new_kind[2], "pids", "pids.max");
        let by = |is_new, old: &Option<PathBuf>, fallback| match (is_new, old) {
            (true, _) => By::Cgroup2,
            (false, Some(_)) => By::Cgroup1,
            (false, None) => fallback,
        };
        let abilities = Abilities {
            memory: by(new_kind[0], &memory, By::Rlimit),
            cpu: by(new_kind[1], &cpu, By::None),
            // RLIMIT_NPROC counts all processes of a user, and none of root's: it limits others than meant.
            pids: by(new_kind[2], &pids, By::None),
            others: By::Rlimit,
        };
        Self { abilities, memory, cpu, pids }
    }

    /// What each limit is enforced by.
    pub fn abilities(&self) -> Abilities {
        self.abilities.clone()
    }

    /// Sets the limits of a run whose cgroup is made. A limit that this machine cannot enforce is said in the log.
    pub fn set(&self, limits: &Limits, cgroup: Option<&Path>, name: &str) -> Result<Set, Failure> {
        let mut set = Set::default();
        let done = self.set_all(limits, cgroup, name, &mut set);
        done.map_err(|e| {
            remove(&set.groups);
            Failure::new(ErrorKind::Precondition, format!("its limits could not be set: {e}"))
                .hint("`wharf doctor` says which limits this machine can enforce")
        })?;
        Ok(set)
    }

    fn set_all(&self, limits: &Limits, cgroup: Option<&Path>, name: &str, set: &mut Set) -> io::Result<()> {
        let abilities = &self.abilities;
        if let Some(bytes) = limits.memory_bytes {
            match (abilities.memory, cgroup, &self.memory) {
                (By::Cgroup2, Some(dir), _) => {
                    write(dir, "memory.max", bytes)?;
                    // A limit that pushes a run into swap ends nothing, and slows down everybody.
                    let _ = write(dir, "memory.swap.max", 0);
                    let _ = write(dir, "memory.oom.group", 1);
                }
                (By::Cgroup1, _, Some(root)) => {
                    let dir = group(root, name, set)?;
                    write(&dir, "memory.limit_in_bytes", bytes)?;
                    let _ = write(&dir, "memory.memsw.limit_in_bytes", bytes);
                }
                _ => set.data_bytes = Some(bytes),
            }
        }
        if let Some(percent) = limits.cpu_percent {
            let share = (u64::from(percent) * PERIOD_US / 100).max(LEAST_US);
            match (abilities.cpu, cgroup, &self.cpu) {
                (By::Cgroup2, Some(dir), _) => fs::write(dir.join("cpu.max"), format!("{share} {PERIOD_US}"))?,
                (By::Cgroup1, _, Some(root)) => {
                    let dir = group(root, name, set)?;
                    write(&dir, "cpu.cfs_period_us", PERIOD_US)?;
                    write(&dir, "cpu.cfs_quota_us", share)?;
                }
                _ => tracing::warn!("{name}: this machine cannot limit processor time"),
            }
        }
        if let Some(count) = limits.pids {
            match (abilities.pids, cgroup, &self.pids) {
                (By::Cgroup2, Some(dir), _) => write(dir, "pids.max", count.into())?,
                (By::Cgroup1, _, Some(root)) => write(&group(root, name, set)?, "pids.max", count.into())?,
                _ => tracing::warn!("{name}: this machine cannot limit processes"),
            }
        }
        Ok(())
    }
}

/// Removes a run's groups of the old kind, and what the service made below them.
pub fn remove(groups: &[PathBuf]) {
    for group in groups {
        containment::remove(group);
    }
}

/// Makes a run's group of the old kind.
fn group(root: &Path, name: &str, set: &mut Set) -> io::Result<PathBuf> {
    let dir = root.join(name);
    super::folder::once_more(&dir, || fs::create_dir_all(&dir))?;
    set.groups.push(dir.clone());
    Ok(dir)
}

fn write(dir: &Path, file: &str, value: u64) -> io::Result<()> {
    fs::write(dir.join(file), value.to_string())
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", dir.join(file).display())))
}

/// Which of memory, cpu and pids a run's cgroup has, from one that is made for the question.
fn of_new_kind(root: &Path) -> [bool; 3] {
    let trial = containment::trial(root);
    let has = |file: &str| trial.join(file).exists();
    let found = match containment::make(&trial) {
        Ok(()) => [has("memory.max"), has("cpu.max"), has("pids.max")],
        Err(_) => [false; 3],
    };
    containment::remove(&trial);
    found
}

/// Whether a group below `root` can be made and has this file to be written.
fn can_be_set(root: &Path, file: &str) -> bool {
    containment::sweep_trials(root);
    let trial = containment::trial(root);
    let can = fs::create_dir_all(&trial).is_ok() && fs::OpenOptions::new().write(true).open(trial.join(file)).is_ok();
    containment::remove(&trial);
    can
}

/// Our own group in the hierarchy of a controller of the old kind.
fn old_place(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mount = mounts.lines().find_map(|line| mounted_for(line, controller))?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|c| c == controller).then(|| fields.next())?
    })?;
    Some(PathBuf::from(mount).join(own.trim_start_matches('/'))).filter(|dir| dir.is_dir())
}

/// The place of a mount of the old kind that has this controller.
fn mounted_for<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let mut fields = line.split(' ').skip(1);
    let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
    (kind == "cgroup" && options.split(',').any(|option| option == controller)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_found_among_the_mounts() {
        let line = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0";
        assert_eq!(mounted_for(line, "cpu"), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounted_for(line, "pids"), None);
        assert_eq!(mounted_for("cgroup2 /sys/fs/cgroup cgroup2 rw,cpu 0 0", "cpu"), None);
    }
}
