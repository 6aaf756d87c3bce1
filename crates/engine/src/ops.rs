//! The ops log: every operation that has ended, a line each, in `ops.jsonl` of the state folder.
//!
//! A line is written after its commit, so a crash between the two leaves an operation without its
//! line: at the next start those of the journal that are not among the newest lines are added. An
//! operation is known by its number and its beginning: a lost journal counts from one again.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Deserialize;
use wharf_api::{OpList, OpListParams};
use wharf_model::{ErrorKind, Failure, OpOutcome, Operation, UnitName};

use crate::{engine::Engine, jsonl::Lines};

const MOST_BYTES: u64 = 2 << 20;
const KEPT: usize = 4;
const LIMIT: u32 = 100;
const MOST_LIMIT: u32 = 10_000;

/// By what an operation is known.
type Key = (u64, i64);

fn key(op: &Operation) -> Key {
    (op.id.0, op.began_at_ms)
}

/// The file.
pub struct OpsLog {
    lines: Arc<Mutex<Lines>>,
    is_failing: AtomicBool,
}

impl OpsLog {
    /// The log of a state folder; adds what the journal has and the file lacks.
    pub fn open(state: &Path, journal: &[Operation]) -> Self {
        let lines = Lines::new(state.join("ops.jsonl"), MOST_BYTES, KEPT);
        let missing = missing(&lines, journal);
        let log = Self { lines: Arc::new(Mutex::new(lines)), is_failing: AtomicBool::new(false) };
        missing.into_iter().for_each(|op| log.append(op));
        log
    }

    /// Adds an operation that has ended. What cannot be written is said once and given up: it is in the
    /// journal, and the next start adds it.
    pub fn append(&self, op: &Operation) {
        let Ok(line) = serde_json::to_string(op) else { return };
        let outcome = self.lines.lock().unwrap_or_else(PoisonError::into_inner).append(&line);
        if let Err(e) = &outcome
            && !self.is_failing.load(Ordering::Relaxed)
        {
            tracing::warn!("the log of operations cannot be written: {e}");
        }
        self.is_failing.store(outcome.is_err(), Ordering::Relaxed);
    }

    /// The newest lines that fit, newest first.
    async fn read(&self, unit: Option<UnitName>, most: usize) -> Result<Vec<Operation>, Failure> {
        let files = self.lines.lock().unwrap_or_else(PoisonError::into_inner).files();
        let read = move || {
            let mut found: Vec<Operation> = vec![];
            for path in files {
                for line in Lines::read(&path)?.iter().rev() {
                    // A line that was torn is no operation.
                    let Ok(op) = serde_json::from_str::<Operation>(line) else { continue };
                    if unit.as_ref().is_none_or(|unit| op.name == *unit) {
                        found.push(op);
                    }
                    if found.len() > most {
                        return Ok(found);
                    }
                }
            }
            Ok::<_, std::io::Error>(found)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
            .map_err(|e| Failure::from(e).while_doing("read the log of operations"))
    }
}

/// What has ended by the journal and has no line. Older than the newest two files is as good as there:
/// it was rotated away, or its line was written long ago.
fn missing<'a>(lines: &Lines, journal: &'a [Operation]) -> Vec<&'a Operation> {
    #[derive(Deserialize)]
    struct Known {
        id: u64,
        began_at_ms: i64,
    }
    let files = lines.files();
    let mut known = BTreeSet::new();
    for path in files.iter().take(2) {
        let read = Lines::read(path).unwrap_or_default();
        known.extend(read.iter().filter_map(|line| {
            let Known { id, began_at_ms } = serde_json::from_str(line).ok()?;
            Some((id, began_at_ms))
        }));
    }
    let oldest = match files.len() {
        0 | 1 => i64::MIN,
        _ => known.iter().map(|(_, began)| *began).min().unwrap_or(i64::MIN),
    };
    let is_missing =
        |op: &&Operation| op.outcome != OpOutcome::Running && op.began_at_ms >= oldest && !known.contains(&key(op));
    journal.iter().filter(is_missing).collect()
}

impl Engine {
    /// Operations, the newest first.
    pub(crate) async fn listed(&self, p: OpListParams) -> Result<OpList, Failure> {
        let most = p.limit.unwrap_or(LIMIT).clamp(1, MOST_LIMIT) as usize;
        let world = self.world().clone();
        let units = world.values().filter(|unit| p.unit.as_ref().is_none_or(|name| unit.name == *name));
        let mut found: Vec<Operation> =
            units.flat_map(|unit| unit.ops.iter().cloned().chain(unit.under_way())).collect();
        if p.all {
            let at_hand: BTreeSet<Key> = found.iter().map(key).collect();
            let filed = self.shared.ops.read(p.unit.clone(), most + at_hand.len()).await?;
            found.extend(filed.into_iter().filter(|op| !at_hand.contains(&key(op))));
        }
        if let Some(name) = &p.unit
            && found.is_empty()
            && !world.contains_key(name)
        {
            // Never heard of: then it is the name that is wrong.
            self.shared.service(name)?;
        }
        found.sort_by_key(|op| std::cmp::Reverse((op.began_at_ms, op.id.0)));
        let more = found.len() > most;
        found.truncate(most);
        Ok(OpList { operations: found, more })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wharf_model::{OpId, OpKind};

    use super::*;

    fn op(id: u64, outcome: OpOutcome) -> Operation {
        let began_at_ms = 1_000 + id as i64;
        let name = "redis".parse().unwrap();
        let ended_at_ms = (outcome != OpOutcome::Running).then_some(began_at_ms + 5);
        Operation { id: OpId(id), name, kind: OpKind::Start, began_at_ms, ended_at_ms, outcome }
    }

    fn ids(state: &Path) -> Vec<u64> {
        let log = OpsLog::open(state, &[]);
        let files = log.lines.lock().unwrap().files();
        let lines = files.iter().rev().flat_map(|path| Lines::read(path).unwrap()).collect::<Vec<_>>();
        lines.iter().filter_map(|line| serde_json::from_str::<Operation>(line).ok()).map(|op| op.id.0).collect()
    }

    #[test]
    fn a_crash_between_commit_and_line_is_made_good_and_nothing_is_there_twice() {
        let dir = tempfile::tempdir().unwrap();
        let journal: Vec<Operation> =
            (1..=6).map(|n| op(n, OpOutcome::Done)).chain([op(7, OpOutcome::Running)]).collect();
        let log = OpsLog::open(dir.path(), &[]);
        // The third and the last one were committed, and the daemon died before their lines.
        for n in [0, 1, 3, 4] {
            log.append(&journal[n]);
        }
        // One died in the middle of its line.
        let path = dir.path().join("ops.jsonl");
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"id\":6,\"na").unwrap();
        for _ in 0..3 {
            drop(OpsLog::open(dir.path(), &journal));
            assert_eq!(ids(dir.path()), [1, 2, 4, 5, 3, 6], "what runs still has no line");
        }
    }

    #[test]
    fn a_lost_journal_counts_again_and_its_operations_are_not_taken_for_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        drop(OpsLog::open(dir.path(), &[op(1, OpOutcome::Done), op(2, OpOutcome::Done)]));
        let again = Operation { began_at_ms: 9_000, ..op(1, OpOutcome::Interrupted) };
        drop(OpsLog::open(dir.path(), &[again]));
        assert_eq!(ids(dir.path()), [1, 2, 1]);
    }

    #[test]
    fn what_was_rotated_away_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let log = OpsLog::open(dir.path(), &[]);
        for n in 0..110_000 {
            log.append(&op(n, OpOutcome::Done));
        }
        let before = ids(dir.path());
        assert!(before[0] > 0, "the oldest have gone");
        drop(OpsLog::open(
            dir.path(),
            &[op(0, OpOutcome::Done), op(109_999, OpOutcome::Done), op(110_000, OpOutcome::Done)],
        ));
        let after = ids(dir.path());
        assert_eq!(after.last(), Some(&110_000));
        assert_eq!(after.iter().filter(|id| **id == 0).count(), 0);
    }
}
