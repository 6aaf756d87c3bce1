//! Which processes belong to a run, read from /proc.
//!
//! A member is in the run's cgroup, or below the shim or the main process, or holds the run's lock.
//! It refuses to signal by pid: each process is opened, looked at again, and signalled through its pidfd.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use wharf_sys::pidfd;

use super::containment;

/// Where to look.
pub struct Roots {
    /// The living shim: all its descendants are members, it is not.
    pub shim: Option<i32>,
    /// The shim's pid, living or not.
    pub shim_pid: i32,
    /// The living main process.
    pub main: Option<i32>,
    /// The run's lock file.
    pub lock: PathBuf,
    /// The run's cgroup.
    pub cgroup: Option<PathBuf>,
}

/// One process of a run, as it was when we looked.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    pub pid: i32,
    /// SIGSTOP has reached it: it cannot fork.
    pub is_stopped: bool,
    start_ticks: u64,
}

impl Member {
    /// The process, if it is still the one that was found.
    pub fn open(&self) -> Option<OwnedFd> {
        let fd = pidfd::open(self.pid).ok()?;
        // Read after the open: if this is the process that was found, so is what the pidfd names,
        // unless it has ended, and then it tells so.
        stat(self.pid).filter(|now| now.start_ticks == self.start_ticks).map(|_| fd)
    }

    /// Signals it if it is still the process that was found.
    pub fn signal(&self, signal: i32) {
        if let Some(fd) = self.open() {
            let _ = pidfd::signal(&fd, signal);
        }
    }
}

struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

/// All live processes of the run; the shim, ourselves and zombies are none.
pub fn find(roots: &Roots) -> Vec<Member> {
    let all: BTreeMap<i32, Stat> = every_pid().into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut members: BTreeSet<i32> =
        roots.cgroup.as_deref().map(containment::pids).unwrap_or_default().into_iter().collect();
    members.extend(roots.main);
    if roots.shim.is_none() {
        // With a living subreaper the tree is whole, and the walk through all descriptors is spared.
        members.extend(holders(&roots.lock, all.keys().copied()));
    }
    add_descendants(&mut members, roots.shim, &all);
    members.remove(&std::process::id().cast_signed());
    if roots.shim.is_some() {
        members.remove(&roots.shim_pid);
        members.retain(|pid| !is_pump(*pid, roots.shim_pid, &all));
    }
    let member = |pid| {
        let stat = all.get(&pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
        Some(Member { pid, is_stopped: matches!(stat.state, 'T' | 't'), start_ticks: stat.start_ticks })
    };
    members.into_iter().filter_map(member).collect()
}

/// The shim's own helper, which empties the run's pipe and ends by itself. The name alone would let
/// anybody hide: it must also be the shim's child, and run the shim's program.
fn is_pump(pid: i32, shim_pid: i32, all: &BTreeMap<i32, Stat>) -> bool {
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    all.get(&pid).is_some_and(|stat| stat.parent == shim_pid)
        && fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_ascii_end() == wharf_shim::PUMP.to_bytes())
        && program(pid).is_some_and(|own| Some(own) == program(shim_pid))
}

fn add_descendants(members: &mut BTreeSet<i32>, shim: Option<i32>, all: &BTreeMap<i32, Stat>) {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut open: Vec<i32> = members.iter().copied().chain(shim).collect();
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if members.insert(*child) {
                open.push(*child);
            }
        }
    }
}

/// Who has the run's lock open and holds it, exclusively, with that very descriptor. The daemon opens the
/// file too, and shares the lock for an instant, to ask; a child that it is just making has a copy then.
fn holders(lock: &Path, pids: impl Iterator<Item = i32>) -> Vec<i32> {
    let Ok(wanted) = fs::metadata(lock) else { return vec![] };
    let wanted = (wanted.dev(), wanted.ino());
    let holds = |pid: &i32| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten().any(|fd| {
            let same = fs::metadata(fd.path()).is_ok_and(|file| (file.dev(), file.ino()) == wanted);
            same && holds_lock(*pid, &fd.file_name().to_string_lossy())
        })
    };
    pids.filter(holds).collect()
}

fn holds_lock(pid: i32, fd: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).is_ok_and(|text| text.lines().any(is_the_runs))
}

fn is_the_runs(line: &str) -> bool {
    line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE")
}

fn every_pid() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold any of them.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for the lock, copied into a child that is just being made, must not make that child a member.
    #[test]
    fn who_only_asks_for_the_lock_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let own = std::process::id().cast_signed();
        let file = fs::File::create(&path).unwrap();
        assert_eq!(holders(&path, [own].into_iter()), [0; 0]);
        assert!(wharf_sys::files::lock_shared(&file).unwrap());
        assert_eq!(holders(&path, [own].into_iter()), [0; 0]);
        assert!(wharf_sys::files::lock_exclusive(&file).unwrap());
        assert_eq!(holders(&path, [own].into_iter()), [own]);
    }

    #[test]
    fn our_own_stat_is_read() {
        let own = stat(std::process::id().cast_signed()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(own.start_ticks > 0 && own.state != 'Z');
    }
}
