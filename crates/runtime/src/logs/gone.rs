//! How long the logs were that are no longer there: who reads on from a cursor is told how much is
//! missing. Only the last ones are remembered.

use std::{fs, io, io::Write, path::Path};

use wharf_model::RunId;

use super::files::sync_dir;

const NAME: &str = "gone";
const MOST_RUNS: usize = 500;

fn read(dir: &Path) -> Vec<(RunId, u64)> {
    let text = fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    let row = |line: &str| {
        let (run, end) = line.split_once(' ')?;
        Some((RunId(run.parse().ok()?), end.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// Notes that a run's log of this many bytes goes.
pub fn note(dir: &Path, run: RunId, end: u64) -> io::Result<()> {
    let mut rows = read(dir);
    rows.retain(|(known, _)| *known != run);
    rows.push((run, end));
    rows.sort();
    let kept = &rows[rows.len().saturating_sub(MOST_RUNS)..];
    let text: String = kept.iter().map(|(run, end)| format!("{run} {end}\n")).collect();
    let part = dir.join("gone.part");
    let mut file = fs::File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, dir.join(NAME))?;
    sync_dir(dir)
}

/// How long the log of a run was that is gone.
pub fn end_of(dir: &Path, run: RunId) -> Option<u64> {
    read(dir).into_iter().find(|(known, _)| *known == run).map(|(_, end)| end)
}

/// How many bytes of the runs between these two are gone.
pub fn between(dir: &Path, after: RunId, before: RunId) -> u64 {
    read(dir).into_iter().filter(|(run, _)| *run > after && *run < before).map(|(_, end)| end).sum()
}

/// The highest run whose log is gone.
pub fn highest(dir: &Path) -> Option<RunId> {
    read(dir).into_iter().map(|(run, _)| run).max()
}
