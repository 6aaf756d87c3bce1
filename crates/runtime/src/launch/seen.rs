//! A look at a run that changes nothing: for whoever compares what is with what is written down.

use std::path::PathBuf;

use wharf_model::{RunId, UnitName};

use super::{Launcher, containment, folder::Start};

/// What was seen of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The run's folder.
    pub folder: PathBuf,
    /// Its program began, in this boot of the machine.
    pub began: bool,
    /// How it ended is written down.
    pub ended: bool,
    /// Somebody holds its lock.
    pub locked: bool,
    /// Its cgroup, where it got one.
    pub cgroup: Option<PathBuf>,
    /// Somebody is in that cgroup.
    pub populated: bool,
    /// Its first main process, while that lives: the same process, not only the same number.
    pub main: Option<i32>,
    /// Its shim, while that lives.
    pub shim: Option<i32>,
}

impl Seen {
    /// Something of it lives.
    pub fn lives(&self) -> bool {
        self.locked || self.populated || self.main.is_some()
    }
}

impl Launcher {
    /// Looks at a run; none: it has no folder.
    pub fn see(&self, unit: &UnitName, run: RunId) -> Option<Seen> {
        let folder = self.shared.folder(unit, run);
        if !folder.path().is_dir() {
            return None;
        }
        let path = folder.path().to_owned();
        let (locked, ended) = (folder.is_locked(), folder.exit().is_some());
        let record = match folder.read_start() {
            Start::Recorded(record) if record.boot_id == self.shared.boot_id => record,
            Start::Recorded(_) | Start::Missing | Start::Void | Start::Torn => {
                let (cgroup, main, shim) = (None, None, None);
                return Some(Seen { folder: path, began: false, ended, locked, cgroup, populated: false, main, shim });
            }
        };
        let alive = |pid, identity| {
            let process = wharf_sys::pidfd::open_exact(pid, identity).ok()?;
            (!wharf_sys::pidfd::has_exited(process)).then_some(pid)
        };
        let populated = record.cgroup.as_deref().is_some_and(containment::is_populated);
        Some(Seen {
            folder: path,
            began: true,
            ended,
            locked,
            populated,
            main: alive(record.pid, record.pid_id),
            shim: alive(record.shim_pid, record.shim_id),
            cgroup: record.cgroup,
        })
    }
}
