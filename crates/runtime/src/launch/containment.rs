//! How the processes of a run are held together: a cgroup of its own, or the shim's descendants.
//!
//! Owns our subtree of cgroup2. The shim stays outside of its run's cgroup, so that killing the
//! cgroup leaves it to write the exit down.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How runs are contained on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tier {
    /// A cgroup a run, below this folder: killing it reaches every process, also a fork bomb's.
    Cgroup {
        /// Our subtree.
        root: PathBuf,
    },
    /// The shim's descendants and who holds the run's lock. Best effort: a process that forks
    /// faster than we look can escape for a while.
    Session,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Session => "session",
        })
    }
}

/// What the kernel says of a cgroup that goes while it is read.
const ENODEV: i32 = 19;

/// Where a systemd-like hybrid and a pure machine have cgroup2.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Tries a cgroup out with a process; whatever fails means `Session`.
pub fn detect(installation: &str, shim: &Path) -> Tier {
    match candidate(installation).and_then(|root| try_out(&root, shim).map(|()| root)) {
        Ok(root) => Tier::Cgroup { root },
        Err(why) => {
            tracing::info!("no writable cgroup2, runs are contained by session only: {why}");
            Tier::Session
        }
    }
}

/// The subtree's place: below the daemon's own cgroup, the only one that it may be sure to own.
fn candidate(installation: &str) -> io::Result<PathBuf> {
    let mount = MOUNTS.iter().map(Path::new).find(|m| m.join("cgroup.controllers").exists());
    let mount = mount.ok_or_else(|| io::Error::other("cgroup2 is not mounted"))?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.ok_or_else(|| io::Error::other("the daemon is in no cgroup2"))?;
    let name: String = installation.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    Ok(mount.join(own).join(format!("wharf-{name}")))
}

/// Moves a shim that waits for its spec into a trial cgroup; it never gets one.
fn try_out(root: &Path, shim: &Path) -> io::Result<()> {
    let trial = root.join(format!("trial-{}", std::process::id()));
    fs::create_dir_all(&trial)?;
    let moved = move_one(&trial, shim);
    remove(&trial);
    moved
}

fn move_one(trial: &Path, shim: &Path) -> io::Result<()> {
    if !trial.join("cgroup.kill").exists() {
        return Err(io::Error::other("this kernel has no cgroup.kill (Linux 5.14)"));
    }
    let mut waiting = Command::new(shim);
    waiting.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawn_placed(|| waiting.spawn())?;
    let moved = fs::write(trial.join("cgroup.procs"), child.id().to_string());
    drop(child.stdin.take());
    child.wait()?;
    moved
}

/// A file written a moment ago can still be open for writing in a process that another thread is
/// just forking: the kernel then says "text file busy", and not for long.
pub fn spawn_placed<T>(mut spawn: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100 {
        match spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            other => return other,
        }
    }
    spawn()
}

/// Makes a run's cgroup.
pub fn make(cgroup: &Path) -> io::Result<()> {
    super::folder::once_more(cgroup, || fs::create_dir_all(cgroup))
}

/// Whether any process lives in it or below. A cgroup that is gone has none.
pub fn is_populated(cgroup: &Path) -> bool {
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => events.lines().any(|l| l == "populated 1"),
        // Removed, or being removed. Anything else (no descriptor left, say) is no proof of an end.
        Err(e) => e.kind() != io::ErrorKind::NotFound && e.raw_os_error() != Some(ENODEV),
    }
}

/// Sends SIGKILL to all of it at once; frozen processes and new forks included.
pub fn kill(cgroup: &Path) -> io::Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The processes in it and below.
pub fn pids(cgroup: &Path) -> Vec<i32> {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = procs.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(below(cgroup).iter().flat_map(|inner| self::pids(inner)));
    pids
}

/// Removes it with what the service made below it, then the emptied folders above: the unit's and
/// our subtree's. Whatever is in use stays.
pub fn remove(cgroup: &Path) {
    remove_tree(cgroup);
    for above in cgroup.ancestors().skip(1).take(2) {
        // The daemon's own cgroup is never a candidate: its name is not ours to know.
        if fs::remove_dir(above).is_err() || is_subtree(above) {
            break;
        }
    }
}

fn is_subtree(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"wharf-"))
}

fn remove_tree(cgroup: &Path) {
    for inner in below(cgroup) {
        remove_tree(&inner);
    }
    let _ = fs::remove_dir(cgroup);
}

fn below(cgroup: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cgroup) else { return vec![] };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}
