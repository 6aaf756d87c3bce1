//! Who belongs to a run: by the cgroup that the kernel names for a process, also for one that has
//! ended; where there is none, by descent.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use wharf_sys::pidfd;

use super::Crowd;
use crate::launch::LiveRun;

/// How deep programs make cgroups of their own within their run's.
const DEEPEST: usize = 4;

impl Crowd for LiveRun {
    fn holds(&self, pidfd: Option<&OwnedFd>, pid: i32) -> bool {
        if let (Some(pidfd), Some(cgroup)) = (pidfd, self.cgroup())
            && let Some(id) = pidfd::cgroup_id(pidfd)
            && is_within(cgroup, id, DEEPEST)
        {
            return true;
        }
        // A pid alone may be another process's by now: what is found must be what the pidfd names.
        self.pids().contains(&pid) && pidfd.is_none_or(|fd| !pidfd::has_exited(fd))
    }
}

fn is_within(cgroup: &Path, id: u64, deeper: usize) -> bool {
    if fs::metadata(cgroup).is_ok_and(|found| found.ino() == id) {
        return true;
    }
    let folders = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let mut folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    deeper > 0 && folders.any(|entry| is_within(&entry.path(), id, deeper - 1))
}
