//! Going round: which logs are due, and what is kept of those that are not written any more.
//! Everything here is done when it is called and blocks; nothing waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

use wharf_model::{LogPolicy, UnitName};
use wharf_sys::files;

use super::{
    News, Target,
    kept::{self, Ground, Kept},
    watch::{Mark, Watch},
};
use crate::logs::{retain, rotate, time};

/// Between two looks at one log, in milliseconds: while nobody waits for it, and while somebody does.
const GAP_MS: (u64, u64) = (100, 20);
/// A log that is not there yet is looked for this often, in milliseconds, so many times; then as `POLL_MS` says.
const MISSING_MS: u64 = 20;
const MISSING_TIMES: u32 = 100;
/// A log that cannot be waited for is looked at this often, in milliseconds.
const POLL_MS: u64 = 1_000;
/// Between two looks at the disk, in milliseconds: while something is written, and while nothing is.
const SPACE_MS: (u64, u64) = (1_000, 60_000);
/// Between two looks at what is too old, in milliseconds.
const SWEEP_MS: u64 = 3_600_000;
/// Errors are looked for in so many bytes of all logs of one round.
const SCANNED: u64 = 1 << 20;
/// Below so much free space, in percent, archives go; below so much more it is told.
const LOW: f64 = 5.0;
const SCARCE: f64 = 10.0;
/// So much more must be free before it is told again.
const SLACK: f64 = 2.0;
/// Archives that go in one round: the disk is looked at between them.
const DROPPED: usize = 32;

/// Held by who looks after the logs.
const LOCK: &str = ".lock";

/// What came of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// To be told.
    pub news: Vec<News>,
    /// Units with something new to read.
    pub grown: BTreeSet<UnitName>,
    /// When the next round is due, by the boot clock.
    pub next_ms: u64,
}

/// All logs that are looked after.
pub struct Passes {
    all: PathBuf,
    /// Held for as long as anything is done here: two that make one archive would spoil it.
    _lock: File,
    watch: Watch,
    free_percent: Box<dyn Fn() -> io::Result<f64> + Send>,
    ground: Ground,
    is_scarce: bool,
    targets: BTreeMap<UnitName, Target>,
    kept: BTreeMap<UnitName, Kept>,
    marks: BTreeMap<Mark, UnitName>,
    /// When each is looked at next, and when it was looked at last, by the boot clock.
    due: BTreeMap<UnitName, u64>,
    looked: BTreeMap<UnitName, u64>,
    /// How often each was looked for in vain.
    missed: BTreeMap<UnitName, u32>,
    /// Units of which something may be too much.
    heavy: BTreeSet<UnitName>,
    grown: BTreeSet<UnitName>,
    space_ms: u64,
    /// `None`: until the units are known nothing is swept.
    sweep_ms: Option<u64>,
}

impl Passes {
    /// Over the units' folders below `all`. `WouldBlock`: another daemon that is ending still puts
    /// something away there.
    pub fn new(all: PathBuf) -> io::Result<Self> {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(all.join(LOCK))?;
        if !files::lock_exclusive(&lock)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let watch = Watch::new()?;
        let has_holes = rotate::has_holes(&all);
        if !has_holes {
            tracing::warn!("{}: its file system has no holes: logs of live runs are not put away", all.display());
        }
        let disk = all.clone();
        Ok(Self {
            all,
            _lock: lock,
            watch,
            free_percent: Box::new(move || retain::free_percent(&disk)),
            ground: Ground { boot: time::this_boot(), has_holes, is_low: false, scan_bytes: kept::SCANNED },
            is_scarce: false,
            targets: BTreeMap::new(),
            kept: BTreeMap::new(),
            marks: BTreeMap::new(),
            due: BTreeMap::new(),
            looked: BTreeMap::new(),
            missed: BTreeMap::new(),
            heavy: BTreeSet::new(),
            grown: BTreeSet::new(),
            space_ms: 0,
            sweep_ms: None,
        })
    }

    /// What is waited on.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        self.watch.readable()
    }

    /// Another way to ask for the free space.
    #[cfg(test)]
    pub fn with_space(mut self, free_percent: impl Fn() -> io::Result<f64> + Send + 'static) -> Self {
        self.free_percent = Box::new(free_percent);
        self
    }

    /// All units as they are now.
    pub fn aim(&mut self, targets: Vec<Target>, now_ms: u64) {
        let targets: BTreeMap<_, _> = targets.into_iter().map(|t| (t.unit.clone(), t)).collect();
        let ended = self.kept.iter().filter(|(unit, kept)| targets.get(*unit).and_then(|t| t.run) != Some(kept.run));
        let ended: Vec<UnitName> = ended.map(|(unit, _)| unit.clone()).collect();
        for unit in ended {
            self.let_go(&unit);
        }
        for target in targets.values() {
            match self.kept.get_mut(&target.unit) {
                Some(kept) => kept.policy = target.policy.clone(),
                None if target.run.is_some() => drop(self.due.entry(target.unit.clone()).or_insert(now_ms)),
                None => {}
            }
        }
        self.targets = targets;
        self.sweep_ms.get_or_insert(now_ms);
    }

    /// A run has ended: its last words, then it is one of those that are kept for a while.
    fn let_go(&mut self, unit: &UnitName) {
        let Some(mut kept) = self.kept.remove(unit) else { return };
        if let Some(mark) = kept.mark.take() {
            self.watch.disarm(mark);
            self.marks.remove(&mark);
        }
        // An error of a run that is over is no fault of the next one.
        if let Err(e) = kept.look(&self.ground, &mut vec![]) {
            tracing::debug!("{}: {e}", kept.live().display());
        }
        self.due.remove(unit);
        self.looked.remove(unit);
        self.missed.remove(unit);
        self.grown.insert(unit.clone());
        self.heavy.insert(unit.clone());
    }

    /// One round. Somebody waits for what the units of `followed` write.
    pub fn round(&mut self, now_ms: u64, followed: &BTreeSet<UnitName>) -> Round {
        let mut round = Round::default();
        self.take_marks(now_ms, followed);
        let due: Vec<UnitName> = self.due.iter().filter(|(_, at)| **at <= now_ms).map(|(u, _)| u.clone()).collect();
        let share = SCANNED / due.len().max(1) as u64;
        self.ground.scan_bytes = share.clamp(4 << 10, kept::SCANNED);
        let is_busy = !due.is_empty();
        for unit in due {
            self.due.remove(&unit);
            if let Err(e) = self.look(&unit, now_ms, &mut round) {
                tracing::warn!("the log of {unit}: {e}");
                self.due.insert(unit, now_ms + POLL_MS);
            }
        }
        for kept in self.kept.values_mut().filter(|k| k.next_ms().is_some_and(|at| at <= now_ms)) {
            kept.pass_time(now_ms, &mut round.news);
        }
        if now_ms >= self.space_ms || (is_busy && now_ms + SPACE_MS.1 >= self.space_ms + SPACE_MS.0) {
            self.look_at_space(&mut round);
            self.space_ms = now_ms + SPACE_MS.1;
        }
        if self.sweep_ms.is_some_and(|at| at <= now_ms) {
            self.sweep();
            self.sweep_ms = Some(now_ms + SWEEP_MS);
        }
        std::mem::take(&mut self.heavy).iter().for_each(|unit| self.retain(unit));
        round.grown.append(&mut self.grown);
        let faults = self.kept.values().filter_map(Kept::next_ms);
        let dates = self.due.values().copied().chain(faults).chain(self.sweep_ms).chain([self.space_ms]);
        round.next_ms = dates.min().unwrap_or(now_ms + SPACE_MS.1);
        round
    }

    /// What was written to is due, and no earlier than a moment after its last look.
    fn take_marks(&mut self, now_ms: u64, followed: &BTreeSet<UnitName>) {
        let units: Vec<UnitName> = match self.watch.fired() {
            Some(marks) => marks.iter().filter_map(|mark| self.marks.remove(mark)).collect(),
            None => std::mem::take(&mut self.marks).into_values().collect(),
        };
        for unit in units {
            if let Some(kept) = self.kept.get_mut(&unit) {
                kept.mark = None;
                let gap_ms = if followed.contains(&unit) { GAP_MS.1 } else { GAP_MS.0 };
                let at = self.looked.get(&unit).map_or(now_ms, |last| now_ms.max(last + gap_ms));
                self.due.insert(unit, at);
            }
        }
    }

    fn look(&mut self, unit: &UnitName, now_ms: u64, round: &mut Round) -> io::Result<()> {
        let Some(Target { run: Some(run), policy, .. }) = self.targets.get(unit).cloned() else { return Ok(()) };
        if !self.kept.contains_key(unit) {
            let dir = self.all.join(unit.as_str());
            let kept = Kept::new(&dir, unit.clone(), run, policy)?;
            if !kept::has_file(&kept.live()) {
                let missed = self.missed.entry(unit.clone()).or_default();
                *missed += 1;
                self.due.insert(unit.clone(), now_ms + if *missed < MISSING_TIMES { MISSING_MS } else { POLL_MS });
                return Ok(());
            }
            self.missed.remove(unit);
            self.kept.insert(unit.clone(), kept);
        }
        let Some(kept) = self.kept.get_mut(unit) else { return Ok(()) };
        // Armed before the look: what is written after it is told.
        if kept.mark.is_none() {
            match self.watch.arm(&kept.live()) {
                Ok(mark) => {
                    kept.mark = Some(mark);
                    self.marks.insert(mark, unit.clone());
                }
                Err(e) => {
                    tracing::debug!("the log of {unit} is looked at once a second: {e}");
                    self.due.insert(unit.clone(), now_ms + POLL_MS);
                }
            }
        }
        let before = round.news.len();
        let looked = kept.look(&self.ground, &mut round.news)?;
        self.looked.insert(unit.clone(), now_ms);
        if looked.has_grown || round.news.len() > before {
            round.grown.insert(unit.clone());
        }
        if looked.again {
            // Others come first.
            self.due.insert(unit.clone(), now_ms + 1);
        }
        if looked.has_grown {
            self.heavy.insert(unit.clone());
        }
        Ok(())
    }

    /// What a unit has too much of goes.
    fn retain(&self, unit: &UnitName) {
        let target = self.targets.get(unit);
        let policy = target.map_or_else(LogPolicy::default, |t| t.policy.logs.clone());
        let dir = self.all.join(unit.as_str());
        // Of a unit that is no more all runs are over.
        let weights = retain::weigh(&dir, |run| target.is_some_and(|t| !t.is_over(run)));
        for doomed in retain::decide(&weights, &policy, wharf_sys::clock::wall_ms()) {
            if let Err(e) = retain::remove(&dir, &doomed) {
                tracing::warn!("{}: {doomed:?} was not removed: {e}", dir.display());
            }
        }
    }

    /// What is too old goes, of units that are no more too.
    fn sweep(&mut self) {
        self.kept.values_mut().for_each(Kept::age);
        self.due.extend(self.kept.keys().map(|unit| (unit.clone(), 0)));
        let Ok(entries) = std::fs::read_dir(&self.all) else { return };
        let units = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        self.heavy.extend(units);
    }

    /// Nearly full: archives go, the oldest first, whosever they are.
    fn look_at_space(&mut self, round: &mut Round) {
        let Ok(mut free) = (self.free_percent)() else { return };
        let mut dropped = 0;
        while free < LOW && dropped < DROPPED {
            let Some((dir, doomed)) = retain::oldest_archive(&self.all) else { break };
            if let Err(e) = retain::remove(&dir, &doomed) {
                tracing::warn!("{}: {doomed:?} was not removed: {e}", dir.display());
                break;
            }
            dropped += 1;
            free = (self.free_percent)().unwrap_or(free);
        }
        let was_low = std::mem::replace(&mut self.ground.is_low, free < LOW);
        let is_scarce = free < SCARCE + if self.is_scarce { SLACK } else { 0.0 };
        let was_scarce = std::mem::replace(&mut self.is_scarce, is_scarce);
        if dropped > 0 || (self.ground.is_low && !was_low) || was_scarce != is_scarce {
            round.news.push(News::Space { free_percent: free, is_scarce, dropped });
        }
    }
}

#[cfg(test)]
mod tests;
