//! Whose a process is: its unit and run, its container or systemd unit, its user, its parents.
//!
//! Owns the reading of /proc for that. It refuses to know memory and devices.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use wharf_model::{DeviceProcess, ProcessKind, RunId, UnitName};
use wharf_shim::{START, StartRecord};
use wharf_sys::pidfd;

use crate::{
    compose::{self, Record},
    ports::{belongs_to, owner_in},
};

/// A tree of parents deeper than this is cut: no honest one is.
const DEEPEST: usize = 64;

/// How this installation's runs are known.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// The name of our subtree of cgroups: `wharf-0f3a`. None: nothing is ours by its cgroup.
    pub subtree: Option<String>,
    /// The folder of the shims' records, for runs without a cgroup.
    pub folder: PathBuf,
    /// The folder where units write down which containers are theirs.
    pub units: PathBuf,
}

/// What was read of processes in one look. Each is read once.
pub struct Whose<'a> {
    runs: &'a Runs,
    /// By shim and by main process, with identities: runs that have no cgroup.
    recorded: OnceCell<BTreeMap<(i32, u64), (UnitName, RunId)>>,
    /// By container: those of compose projects live in the engine's cgroups.
    contained: OnceCell<BTreeMap<String, (UnitName, RunId)>>,
    seen: RefCell<BTreeMap<i32, Option<Seen>>>,
}

/// A process that lives.
#[derive(Debug, Clone)]
struct Seen {
    identity: u64,
    parent: i32,
    cgroup: String,
    program: Option<String>,
    uid: Option<u32>,
}

impl<'a> Whose<'a> {
    /// Nothing is read yet.
    pub fn new(runs: &'a Runs) -> Self {
        Self { runs, recorded: OnceCell::new(), contained: OnceCell::new(), seen: RefCell::default() }
    }

    /// Everything that is known of a process that holds memory.
    pub fn process(&self, pid: i32, used_bytes: Option<u64>, kind: ProcessKind) -> DeviceProcess {
        let nobody = DeviceProcess::new(pid, used_bytes, kind);
        let Some(seen) = self.see(pid) else { return nobody };
        let parents = self.parents(&seen);
        let by_cgroup = self.runs.subtree.as_deref().and_then(|subtree| run_in(&seen.cgroup, subtree));
        let by_container = || self.run_by_container(&seen.cgroup);
        let unit = by_cgroup.or_else(by_container).or_else(|| self.run_by_record((pid, seen.identity), &parents));
        let belongs_to = if unit.is_some() { None } else { owner_in(&seen.cgroup) };
        let Seen { identity, program, uid, .. } = seen;
        DeviceProcess { identity: Some(identity), unit, program, uid, belongs_to, parents, ..nobody }
    }

    /// Whether a process of this number lives here.
    pub fn lives(&self, pid: i32) -> bool {
        self.see(pid).is_some()
    }

    fn see(&self, pid: i32) -> Option<Seen> {
        self.seen.borrow_mut().entry(pid).or_insert_with(|| see(pid)).clone()
    }

    fn parents(&self, of: &Seen) -> Vec<(i32, u64)> {
        let mut parents: Vec<(i32, u64)> = vec![];
        let mut next = of.parent;
        while next > 0 && parents.len() < DEEPEST && parents.iter().all(|(pid, _)| *pid != next) {
            let Some(seen) = self.see(next) else { break };
            parents.push((next, seen.identity));
            next = seen.parent;
        }
        parents
    }

    fn run_by_container(&self, cgroup: &str) -> Option<(UnitName, RunId)> {
        let id = cgroup.lines().find_map(|line| belongs_to(line).1)?;
        let contained = self.contained.get_or_init(|| {
            let of =
                |record: Record| record.containers.into_iter().map(move |id| (id, (record.unit.clone(), record.run)));
            compose::recorded(&self.runs.units).into_iter().flat_map(of).collect()
        });
        contained.get(&id).cloned()
    }

    fn run_by_record(&self, own: (i32, u64), parents: &[(i32, u64)]) -> Option<(UnitName, RunId)> {
        let recorded = self.recorded.get_or_init(|| recorded(&self.runs.folder));
        std::iter::once(&own).chain(parents).find_map(|process| recorded.get(process).cloned())
    }
}

/// A process's identity and facts. None: it does not live.
fn see(pid: i32) -> Option<Seen> {
    let process: OwnedFd = pidfd::open(pid).ok()?;
    let identity = pidfd::identity(&process, pid).ok()?;
    let path = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| fs::read_to_string(path.join(name)).ok();
    let status = read("status").unwrap_or_default();
    let name = || read("comm").map(|name| name.trim_end().to_owned());
    let exe = fs::read_link(path.join("exe")).ok();
    let program = exe.and_then(|exe| exe.file_name().map(|name| name.to_string_lossy().into_owned()));
    let seen = Seen {
        identity,
        parent: number_in(&status, "PPid:").unwrap_or(0),
        cgroup: read("cgroup").unwrap_or_default(),
        program: program.map(|exe| exe.trim_end_matches(" (deleted)").to_owned()).or_else(name),
        uid: number_in(&status, "Uid:"),
    };
    // What was read is of the process behind the descriptor only if that still has its number. A zombie
    // has given its memory back.
    (!pidfd::has_exited(&process)).then_some(seen)
}

/// The first number of a line of a `/proc/PID/status`.
fn number_in<T: std::str::FromStr>(status: &str, key: &str) -> Option<T> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

/// The run in the lines of a `/proc/PID/cgroup`: `…/wharf-<id>/<unit>:<run>[/…]`, in any hierarchy.
pub fn run_in(cgroup: &str, subtree: &str) -> Option<(UnitName, RunId)> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        let mut segments = path.split('/').skip_while(|segment| *segment != subtree).skip(1);
        let (unit, run) = segments.next()?.rsplit_once(':')?;
        Some((unit.parse().ok()?, RunId(run.parse().ok()?)))
    })
}

/// Every run that the shims have written down, by its shim and by its main process. One of an earlier boot
/// has identities that nobody has.
fn recorded(folder: &Path) -> BTreeMap<(i32, u64), (UnitName, RunId)> {
    let mut found = BTreeMap::new();
    let Ok(boot_id) = wharf_sys::clock::boot_id() else { return found };
    for unit in names_in(folder) {
        let Ok(name) = unit.parse::<UnitName>() else { continue };
        for run in names_in(&folder.join(&unit)) {
            let Ok(number) = run.parse() else { continue };
            let record = fs::read(folder.join(&unit).join(&run).join(START)).ok();
            let Some(record) = record.and_then(|bytes| StartRecord::decode(&bytes).ok()) else { continue };
            if record.boot_id == boot_id {
                for process in [(record.shim_pid, record.shim_id), (record.pid, record.pid_id)] {
                    found.insert(process, (name.clone(), RunId(number)));
                }
            }
        }
    }
    found
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_read_from_the_cgroup_and_another_installations_is_not_ours() {
        let text = "9:name=systemd:/\n0::/system.slice/wharf.service/wharf-0f3a/llama@a:12/worker\n";
        let (unit, run) = run_in(text, "wharf-0f3a").unwrap();
        assert_eq!((unit.as_str(), run), ("llama@a", RunId(12)));
        assert_eq!(run_in(text, "wharf-0f3"), None);
        assert_eq!(run_in("0::/wharf-0f3a/trial-77\n", "wharf-0f3a"), None);
        assert_eq!(run_in("0::/wharf-0f3a\n", "wharf-0f3a"), None);
        let limited = "8:pids:/wharf-0f3a/llama:3\n0::/\n";
        assert_eq!(run_in(limited, "wharf-0f3a").unwrap().1, RunId(3));
    }

    #[test]
    fn a_child_has_us_among_its_parents_and_a_dead_one_has_no_identity() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let own = std::process::id().cast_signed();
        let runs = Runs::default();
        let process = Whose::new(&runs).process(pid, Some(5), ProcessKind::Compute);
        let identity = pidfd::identity(pidfd::open(pid).unwrap(), pid).unwrap();
        assert_eq!((process.identity, process.used_bytes), (Some(identity), Some(5)));
        assert_eq!(process.parents[0].0, own);
        assert_eq!(process.uid, Some(nix::unistd::geteuid().as_raw()));
        child.kill().unwrap();
        // Dead and not reaped: its number is taken, and it holds nothing.
        while !pidfd::has_exited(pidfd::open(pid).unwrap()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(Whose::new(&runs).process(pid, Some(5), ProcessKind::Compute).identity, None);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_in_a_container_is_of_the_unit_that_wrote_it_down() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        let record = serde_json::json!({ "unit": "compose@sd", "run": 7, "containers": [id], "ports": [] });
        fs::create_dir(dir.path().join("compose@sd")).unwrap();
        fs::write(dir.path().join("compose@sd/containers.json"), record.to_string()).unwrap();
        let runs = Runs { units: dir.path().to_owned(), ..Runs::default() };
        let whose = Whose::new(&runs);
        for cgroup in [format!("0::/system.slice/docker-{id}.scope\n"), format!("5:memory:/docker/{id}\n0::/\n")] {
            assert_eq!(whose.run_by_container(&cgroup), Some(("compose@sd".parse().unwrap(), RunId(7))), "{cgroup}");
        }
        assert_eq!(whose.run_by_container(&format!("0::/docker/{}\n", "f".repeat(64))), None);
    }

    #[test]
    fn a_run_without_a_cgroup_is_known_by_its_shim() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let shim_id = pidfd::identity(pidfd::open(own).unwrap(), own).unwrap();
        let record = StartRecord {
            boot_id: wharf_sys::clock::boot_id().unwrap(),
            shim_pid: own,
            shim_id,
            pid: 1,
            pid_id: 7,
            wall_ms: 0,
            boottime_ms: 0,
            cgroup: None,
            limit_groups: vec![],
            notify_fd: None,
        };
        let folder = dir.path().join("llama@b/4");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(START), record.encode()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let runs = Runs { folder: dir.path().to_owned(), ..Runs::default() };
        let process = Whose::new(&runs).process(child.id().cast_signed(), None, ProcessKind::Compute);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.unit, Some(("llama@b".parse().unwrap(), RunId(4))));
    }
}
