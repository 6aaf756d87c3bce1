//! A daemon's life: the core, the acts that are under way and the letters that lie in its mailbox.
//! All of it is gone when the daemon dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wharf_core::{Act, Core, Effects, Fact};
use wharf_model::{RunId, UnitName};

use crate::deed::TaskKind;

/// An act under way: by unit and kind, then by age.
pub type TaskKey = (UnitName, TaskKind, u64);

/// How many letters that were read can come once more.
const READ_KEPT: usize = 64;

/// A daemon.
#[derive(Debug, Default)]
pub struct Daemon {
    /// The how-manieth.
    pub life: u32,
    /// Its decisions.
    pub core: Core,
    /// Acts under way, and when each is broken off.
    pub tasks: BTreeMap<TaskKey, (u64, Act)>,
    pub(crate) due: BTreeSet<(u64, TaskKey)>,
    pub(crate) begun: u64,
    /// Starts that are not wanted any more.
    pub cancelled: BTreeSet<RunId>,
    /// Letters that were not read yet.
    pub mail: VecDeque<Fact>,
    /// Letters that were read, oldest first.
    pub read: VecDeque<Fact>,
    /// Recorded runs that were not looked at yet.
    pub looks: VecDeque<(UnitName, RunId)>,
    /// Runs that have a folder and stand in no record.
    pub strangers: VecDeque<(UnitName, RunId)>,
    /// The devices are to be measured.
    pub measure: bool,
    /// It has said that it looked at everything.
    pub booted: bool,
    /// Effects that wait for their commit, and for how many letters more.
    pub held: Vec<Effects>,
    /// So many letters more share the commit.
    pub hold: u8,
    /// It dies after so many effects; what it was starting is made or not by the second number.
    pub fuse: Option<(u32, u32)>,
}

impl Daemon {
    /// An act begins.
    pub fn begin(&mut self, kind: TaskKind, unit: UnitName, due_ms: u64, act: Act) {
        self.begun += 1;
        let key = (unit, kind, self.begun);
        self.due.insert((due_ms, key.clone()));
        self.tasks.insert(key, (due_ms, act));
    }

    /// The oldest act of a kind that is under way for a unit.
    pub fn oldest(&self, unit: &UnitName, kind: TaskKind) -> Option<TaskKey> {
        let from = (unit.clone(), kind, 0);
        let (key, _) = self.tasks.range(from..).next()?;
        (key.0 == *unit && key.1 == kind).then(|| key.clone())
    }

    /// Takes an act that ends.
    pub fn take(&mut self, key: &TaskKey) -> Option<Act> {
        let (due_ms, act) = self.tasks.remove(key)?;
        self.due.remove(&(due_ms, key.clone()));
        Some(act)
    }

    /// When the next act is broken off.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// An act whose time is over.
    pub fn overdue(&self, now_ms: u64) -> Option<TaskKey> {
        self.due.first().filter(|(at, _)| *at <= now_ms).map(|(_, key)| key.clone())
    }

    /// The start of this run is under way.
    pub fn is_launching(&self, unit: &UnitName, run: RunId) -> bool {
        let from = (unit.clone(), TaskKind::Launch, 0);
        let launches = self.tasks.range(from..).take_while(|(key, _)| key.0 == *unit && key.1 == TaskKind::Launch);
        launches.into_iter().any(|(_, (_, act))| matches!(act, Act::Launch { run: r, .. } if *r == run))
    }

    /// Takes a letter; those about the life of one run stay in their order.
    pub fn letter(&mut self, nth: u32) -> Option<Fact> {
        if self.mail.is_empty() {
            return None;
        }
        let at = nth as usize % self.mail.len();
        let first = match life_of(&self.mail[at]) {
            None => at,
            Some(run) => self.mail.iter().position(|other| life_of(other) == Some(run)).unwrap_or(at),
        };
        let fact = self.mail.remove(first)?;
        if self.read.len() == READ_KEPT {
            self.read.pop_front();
        }
        self.read.push_back(fact.clone());
        Some(fact)
    }

    /// A letter says what became of a recorded run.
    pub fn has_findings(&self) -> bool {
        self.mail.iter().any(|fact| matches!(fact, Fact::Found { .. }))
    }
}

/// The run whose life a letter is about: one task tells these, in order.
fn life_of(fact: &Fact) -> Option<RunId> {
    match fact {
        Fact::Launched { run, .. }
        | Fact::NotLaunched { run, .. }
        | Fact::Exited { run, .. }
        | Fact::Learned { run, .. }
        | Fact::Emptied { run, .. }
        | Fact::Found { run, .. } => Some(*run),
        Fact::Placed { .. }
        | Fact::Probed { .. }
        | Fact::Changed { .. }
        | Fact::Notified { .. }
        | Fact::LogFault { .. }
        | Fact::Used { .. }
        | Fact::Unused { .. }
        | Fact::Scheduled { .. }
        | Fact::Due { .. }
        | Fact::Removed { .. }
        | Fact::Booted => None,
    }
}
