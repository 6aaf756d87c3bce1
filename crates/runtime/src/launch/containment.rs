//! How the processes of a run are held together: a cgroup of its own, or the shim's descendants.
//!
//! Owns our subtree of cgroup2. The shim stays outside of its run's cgroup, so that killing the
//! cgroup leaves it to write the exit down.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::io::Interest;

use super::watched::async_fd;

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

/// Where the kernel cannot tell of an end (no descriptor is left, say), it is asked this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the names of trials begin. No run's name has no colon.
const TRIAL: &str = "trial-";

/// The controllers that limit what a run may use.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "dmem"];

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

/// The subtree's place: below the daemon's own cgroup, the only one that it may be sure to own. Where
/// systemd has put the daemon into a leaf of what it delegated (`DelegateSubgroup=`), beside that leaf:
/// there controllers can be handed on.
fn candidate(installation: &str) -> io::Result<PathBuf> {
    let mount = MOUNTS.iter().map(Path::new).find(|m| m.join("cgroup.controllers").exists());
    let mount = mount.ok_or_else(|| io::Error::other("cgroup2 is not mounted"))?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = mount.join(own.ok_or_else(|| io::Error::other("the daemon is in no cgroup2"))?);
    let above = own.parent().filter(|above| is_delegated(above) && !is_delegated(&own)).map(Path::to_path_buf);
    Ok(above.unwrap_or(own).join(subtree(installation)))
}

/// The name of our subtree, in every hierarchy.
pub fn subtree(installation: &str) -> String {
    let name: String = installation.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    format!("wharf-{name}")
}

/// systemd marks what it leaves to a unit.
fn is_delegated(cgroup: &Path) -> bool {
    let mut value = [0; 8];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(cgroup, *name, &mut value).is_ok_and(|length| value[..length] == *b"1"))
}

/// A name for something to try out, which tells whose it is.
pub fn trial(root: &Path) -> PathBuf {
    root.join(format!("{TRIAL}{}", std::process::id()))
}

/// Removes what daemons that were killed in the middle of a trial have left.
pub fn sweep_trials(root: &Path) {
    for dir in below(root) {
        let whose = dir.file_name().and_then(|name| name.to_str()?.strip_prefix(TRIAL)?.parse::<u32>().ok());
        if whose.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Moves a shim that waits for its spec into a trial cgroup; it never gets one.
fn try_out(root: &Path, shim: &Path) -> io::Result<()> {
    sweep_trials(root);
    let trial = trial(root);
    make(&trial)?;
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

/// Makes a run's cgroup, and our subtree where this is the first.
pub fn make(cgroup: &Path) -> io::Result<()> {
    let make = || match fs::create_dir(cgroup) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(root) = cgroup.parent() {
                fs::create_dir_all(root)?;
                hand_on_controllers(root);
            }
            fs::create_dir(cgroup)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && cgroup.exists() => Ok(()),
        other => other,
    };
    super::folder::once_more(cgroup, make)
}

/// Each by itself: one that is not there, or that the kernel keeps in a cgroup with processes, must not
/// cost the others.
fn hand_on_controllers(root: &Path) {
    for dir in root.parent().into_iter().chain([root]) {
        for controller in CONTROLLERS {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// Waits until no process lives in it or below. The kernel tells; nothing is asked again and again.
pub async fn emptied(cgroup: &Path) {
    let events = File::open(cgroup.join("cgroup.events")).and_then(|file| async_fd(file, Interest::PRIORITY));
    let Ok(events) = events else {
        // It is gone, and so is all that lived in it; or no descriptor is left to be told by.
        while is_populated(cgroup) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        return;
    };
    while is_populated(cgroup) {
        match events.ready(Interest::PRIORITY).await {
            Ok(mut ready) => {
                ready.clear_ready();
                // The kernel tells of changes since the file was last read through this descriptor.
                let _ = events.get_ref().read_at(&mut [0; 128], 0);
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
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

/// Removes it with what the service made below it, then the emptied folders above, up to our subtree's.
/// (Earlier versions had a folder a unit between.) Whatever is in use stays.
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
