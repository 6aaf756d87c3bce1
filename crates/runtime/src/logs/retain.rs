//! What is kept of a unit's logs, and for how long. [`decide`] decides; the rest looks and removes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use wharf_model::{LogPolicy, RunId};

use super::{
    files::{self, RunLog, Span},
    gone,
};

/// What there is of one run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// The run.
    pub run: RunId,
    /// It is alive, for all that is known: its file is being written.
    pub is_live: bool,
    /// When it was last written, in milliseconds since 1970.
    pub written_ms: i64,
    /// Its archives, oldest first: the range, its size as stored, and when it was made, in
    /// milliseconds since 1970.
    pub archives: Vec<(Span, u64, i64)>,
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doomed {
    /// All of an ended run's log.
    Run(RunId),
    /// One archive: everything before the range's end is gone then.
    Archive(RunId, Span),
}

/// What is no longer kept.
pub fn decide(weights: &[Weight], policy: &LogPolicy, now_ms: i64) -> Vec<Doomed> {
    let oldest_ms = now_ms.saturating_sub(i64::try_from(policy.keep_s).unwrap_or(i64::MAX).saturating_mul(1000));
    let ended: Vec<&Weight> = weights.iter().filter(|w| !w.is_live).collect();
    let beyond = ended.len().saturating_sub(policy.keep_runs as usize);
    let is_gone = |w: &Weight| {
        let in_order = ended.iter().position(|e| e.run == w.run);
        in_order.is_some_and(|n| n < beyond) || (!w.is_live && w.written_ms < oldest_ms)
    };
    let mut doomed: Vec<Doomed> = weights.iter().filter(|w| is_gone(w)).map(|w| Doomed::Run(w.run)).collect();
    let kept = weights.iter().filter(|w| !is_gone(w));
    let archives: Vec<_> = kept.flat_map(|w| w.archives.iter().map(|a| (w.run, *a))).collect();
    let mut stored: u64 = archives.iter().map(|(_, (_, bytes, _))| bytes).sum();
    for (run, (span, bytes, made_ms)) in archives {
        if stored <= policy.keep_bytes && made_ms >= oldest_ms {
            continue;
        }
        stored -= bytes;
        doomed.push(Doomed::Archive(run, span));
    }
    doomed
}

/// Looks at all logs of a unit.
pub fn weigh(dir: &Path, is_live: impl Fn(RunId) -> bool) -> Vec<Weight> {
    files::runs(dir).into_iter().map(|run| weigh_run(&RunLog::new(dir, run), is_live(run))).collect()
}

fn weigh_run(log: &RunLog, is_live: bool) -> Weight {
    let archives = log.survey().map(|s| s.archives).unwrap_or_default();
    let sized = archives.into_iter().filter_map(|span| {
        let found = fs::metadata(log.archive(span)).ok()?;
        Some((span, found.len(), found.mtime() * 1000))
    });
    let written_ms = fs::metadata(log.live()).map_or(0, |found| found.mtime() * 1000);
    Weight { run: log.run(), is_live, written_ms, archives: sized.collect() }
}

/// Removes. What was removed of a run is a gap for its readers, of exactly so many bytes.
pub fn remove(dir: &Path, doomed: &Doomed) -> io::Result<()> {
    match doomed {
        Doomed::Run(run) => {
            let log = RunLog::new(dir, *run);
            gone::note(dir, *run, log.survey()?.end())?;
            log.remove()
        }
        Doomed::Archive(run, span) => {
            let log = RunLog::new(dir, *run);
            // The last archive's end is where the live file begins: said by name before it goes.
            log.mark(&log.gone(span.to))?;
            fs::remove_file(log.archive(*span))
        }
    }
}

/// The oldest archive below a folder of units' folders.
pub fn oldest_archive(all: &Path) -> Option<(PathBuf, Doomed)> {
    let units = fs::read_dir(all).ok()?.flatten().map(|e| e.path());
    let archives = units.flat_map(|dir| {
        let of_run = |w: Weight| w.archives.into_iter().map(move |(span, _, made_ms)| (made_ms, w.run, span));
        let found: Vec<_> = weigh(&dir, |_| false).into_iter().flat_map(of_run).collect();
        found.into_iter().map(move |(made_ms, run, span)| (made_ms, span, run, dir.clone()))
    });
    archives.min().map(|(_, span, run, dir)| (dir, Doomed::Archive(run, span)))
}

/// How much of the file system of a folder is free, in percent.
pub fn free_percent(dir: &Path) -> io::Result<f64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(if found.f_blocks == 0 { 100.0 } else { found.f_bavail as f64 * 100.0 / found.f_blocks as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(n: u64) -> Span {
        Span { from: n * 100, to: (n + 1) * 100 }
    }

    fn weight(run: u64, written_ms: i64, archives: u64) -> Weight {
        let archives = (0..archives).map(|n| (span(n), 10, written_ms)).collect();
        Weight { run: RunId(run), is_live: false, written_ms, archives }
    }

    const NOW: i64 = 100 * 24 * 3600 * 1000;

    #[test]
    fn the_last_ended_runs_are_kept_and_the_live_one_is_no_part_of_them() {
        let mut weights: Vec<Weight> = (1..=8).map(|run| weight(run, NOW, 0)).collect();
        weights[7].is_live = true;
        let policy = LogPolicy::default();
        assert_eq!(decide(&weights, &policy, NOW), [Doomed::Run(RunId(1)), Doomed::Run(RunId(2))]);
        let none = LogPolicy { keep_runs: 0, ..policy };
        assert_eq!(decide(&weights, &none, NOW).len(), 7, "the live one stays");
    }

    #[test]
    fn what_is_too_old_goes_and_the_live_runs_file_stays() {
        let policy = LogPolicy { keep_s: 3600, ..LogPolicy::default() };
        let mut live = weight(3, NOW, 2);
        (live.is_live, live.archives[0].2) = (true, NOW - 3_700_000);
        let weights = [weight(1, NOW - 3_601_000, 3), weight(2, NOW - 3_599_000, 1), live];
        assert_eq!(decide(&weights, &policy, NOW), [Doomed::Run(RunId(1)), Doomed::Archive(RunId(3), span(0))]);
    }

    #[test]
    fn archives_beyond_their_room_go_oldest_first() {
        let policy = LogPolicy { keep_bytes: 35, ..LogPolicy::default() };
        let weights = [weight(1, NOW, 3), weight(2, NOW, 2)];
        let doomed = decide(&weights, &policy, NOW);
        assert_eq!(doomed, [Doomed::Archive(RunId(1), span(0)), Doomed::Archive(RunId(1), span(1))]);
    }

    #[test]
    fn what_is_removed_leaves_word_of_how_much_it_was() {
        let dir = tempfile::tempdir().unwrap();
        for run in 1..=2 {
            let log = RunLog::new(dir.path(), RunId(run));
            fs::write(log.live(), [b'x'; 300]).unwrap();
            for n in 0..2 {
                log.mark(&log.archive(span(n))).unwrap();
            }
        }
        assert_eq!(weigh(dir.path(), |run| run == RunId(2)).iter().filter(|w| w.is_live).count(), 1);
        let log = RunLog::new(dir.path(), RunId(2));
        for n in 0..2 {
            remove(dir.path(), &Doomed::Archive(RunId(2), span(n))).unwrap();
            assert_eq!(log.survey().unwrap().head, 200);
        }
        assert_eq!(log.survey().unwrap().first(), 200);
        remove(dir.path(), &Doomed::Run(RunId(1))).unwrap();
        assert_eq!(files::runs(dir.path()), [RunId(2)]);
        assert_eq!(gone::end_of(dir.path(), RunId(1)), Some(300));
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(oldest_archive(parent.path()), None);
    }
}
