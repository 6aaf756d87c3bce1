//! Rounds over real files, with times that are given.

use super::*;
use crate::logs::{Bound, Query, UnitLog};
use std::{fs, io::Write, sync::Arc};
use wharf_model::{Policy, RunId};

struct Ground {
    dir: tempfile::TempDir,
    passes: Option<Passes>,
    policy: LogPolicy,
    now_ms: u64,
    ended: Option<RunId>,
}

fn unit() -> UnitName {
    "command@x".parse().unwrap()
}

/// On a disk with room, however full this machine's is.
fn passes(folder: &std::path::Path) -> Passes {
    Passes::new(folder.to_owned()).unwrap().with_space(|| Ok(50.0))
}

impl Ground {
    fn new(policy: LogPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("command@x")).unwrap();
        let passes = Some(passes(dir.path()));
        Self { dir, passes, policy, now_ms: 1_000_000, ended: None }
    }

    fn log(&self, run: u64) -> crate::logs::RunLog {
        crate::logs::RunLog::new(&self.dir.path().join("command@x"), RunId(run))
    }

    fn write(&self, run: u64, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.log(run).live()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn aim(&mut self, run: Option<u64>) {
        let policy = Arc::new(Policy { logs: self.policy.clone(), ..Policy::default() });
        let (unit, run, ended) = (unit(), run.map(RunId), self.ended);
        self.passes.as_mut().unwrap().aim(vec![Target { unit, run, ended, policy }], self.now_ms);
        self.ended = run;
    }

    /// A round, some milliseconds later.
    fn round(&mut self, later_ms: u64) -> Round {
        self.now_ms += later_ms;
        self.passes.as_mut().unwrap().round(self.now_ms, &BTreeSet::new())
    }

    /// As after a crash of the daemon.
    fn anew(&mut self) {
        assert_eq!(Passes::new(self.dir.path().to_owned()).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        self.passes = None;
        self.passes = Some(passes(self.dir.path()));
    }

    fn read(&self, run: u64) -> Vec<String> {
        let log = UnitLog::new(self.dir.path().join("command@x"), Some(RunId(run)));
        let page = log.read_on(RunId(run), 0, &Query { lines: 1_000_000, ..Query::default() }).unwrap();
        page.entries.into_iter().map(|e| e.text).collect()
    }
}

#[test]
fn nothing_is_done_while_nothing_is_written() {
    let mut ground = Ground::new(LogPolicy::default());
    ground.write(1, "a\n");
    ground.aim(Some(1));
    assert!(ground.round(1).grown.contains(&unit()));
    // The first sweep marks all once.
    ground.round(1);
    let round = ground.round(1);
    assert!(round.grown.is_empty() && round.news.is_empty());
    assert!(round.next_ms >= ground.now_ms + 50_000, "it wakes up in {} ms", round.next_ms - ground.now_ms);
    ground.write(1, "b\n");
    assert!(ground.round(200).grown.contains(&unit()));
    // A busy writer is looked at ten times a second.
    ground.write(1, "c\n");
    let round = ground.round(1);
    assert!(round.grown.is_empty());
    assert!(round.next_ms > ground.now_ms + 90 && round.next_ms <= ground.now_ms + 100, "{}", round.next_ms);
    assert!(ground.round(100).grown.contains(&unit()));
}

#[test]
fn a_log_is_put_away_as_it_grows_and_a_new_daemon_goes_on() {
    let mut ground = Ground::new(LogPolicy { rotate_bytes: 8192, ..LogPolicy::default() });
    ground.aim(Some(1));
    let mut all = vec![];
    for n in 0..40 {
        let lines: Vec<String> = (0..100).map(|m| format!("line {n} {m} {}", "x".repeat(20))).collect();
        ground.write(1, &(lines.join("\n") + "\n"));
        all.extend(lines);
        if n % 7 == 3 {
            ground.anew();
            ground.aim(Some(1));
        }
        ground.round(1000);
    }
    let survey = ground.log(1).survey().unwrap();
    assert!(survey.archives.len() >= 10 && survey.end() - survey.head < 3 * 8192, "{survey:?}");
    assert_eq!(ground.read(1), all);
    // Times stand beside it, also of what was put away.
    let log = UnitLog::new(ground.dir.path().join("command@x"), Some(RunId(1)));
    let page = log.last(&Query { lines: 1_000_000, since: Some(Bound::ago(60_000)), ..Query::default() }).unwrap();
    assert_eq!(page.entries.len(), all.len());
    assert!(page.entries.windows(2).all(|w| w[0].at_ms <= w[1].at_ms && w[0].at_ms.is_some()));
}

#[test]
fn t21_an_error_that_repeats_is_told_with_its_line_and_so_is_its_end() {
    let mut ground = Ground::new(LogPolicy { error_window_s: 60, ..LogPolicy::default() });
    ground.aim(Some(1));
    let now = u64::try_from(wharf_sys::clock::boottime_ms()).unwrap();
    ground.now_ms = now;
    let mut told = vec![];
    for n in 0..4 {
        ground.write(1, &format!("fine\nERROR no route, try {n}\n"));
        told.extend(ground.round(1000).news);
    }
    let fault = |line: Option<&str>| News::Fault { unit: unit(), run: RunId(1), line: line.map(str::to_owned) };
    assert_eq!(told, [fault(Some("ERROR no route, try 2"))]);
    let over = ground.round(61_000);
    assert_eq!(over.news, [fault(None)]);
    // A new daemon counts what was written before it came.
    ground.write(1, "ERROR no disk 1\nERROR no disk 2\n");
    ground.round(1000);
    ground.anew();
    ground.aim(Some(1));
    ground.write(1, "ERROR no disk 3\n");
    let told: Vec<News> = ground.round(1000).news;
    assert!(told.contains(&fault(Some("ERROR no disk 3"))), "{told:?}");
}

#[test]
fn a_burst_is_not_read_whole() {
    let mut ground = Ground::new(LogPolicy { rotate_bytes: 64 << 20, ..LogPolicy::default() });
    ground.write(1, "start\n");
    ground.aim(Some(1));
    ground.round(1);
    let burst = "ERROR the same\n".repeat(1_000_000);
    ground.write(1, &burst);
    let began = std::time::Instant::now();
    let news = ground.round(1000).news;
    println!("a look at {} MiB of new lines: {:?}", burst.len() >> 20, began.elapsed());
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
}

#[test]
fn a_run_that_truncates_its_own_log_is_told_of_and_read_on() {
    let mut ground = Ground::new(LogPolicy { rotate_bytes: 8192, ..LogPolicy::default() });
    ground.write(1, &"0123456789\n".repeat(5000));
    ground.aim(Some(1));
    while ground.round(1000).next_ms < ground.now_ms + 1000 {}
    let head = ground.log(1).survey().unwrap().head;
    assert!(head > 30_000);
    fs::write(ground.log(1).live(), "new 1\n").unwrap();
    let lost = 55_000 - head;
    let round = ground.round(1000);
    assert_eq!(round.news, [News::Truncated { unit: unit(), run: RunId(1), bytes: lost }]);
    ground.write(1, "new 2\n");
    assert_eq!(ground.round(1000).news, []);
    let log = UnitLog::new(ground.dir.path().join("command@x"), Some(RunId(1)));
    let page = log.read_on(RunId(1), 0, &Query { lines: 100_000, ..Query::default() }).unwrap();
    assert_eq!(page.gap_bytes, lost);
    let last: Vec<&str> = page.entries.iter().rev().take(3).map(|e| e.text.as_str()).collect();
    assert_eq!(last, ["new 2", "new 1", "0123456789"]);
    let page = log.read_on(RunId(1), 55_000, &Query { lines: 9, ..Query::default() }).unwrap();
    assert_eq!((page.entries.len(), page.gap_bytes, page.at), (2, 0, Some((RunId(1), 55_012))));
    // Truncated and as long again before anybody looked; and while no daemon lived.
    fs::write(ground.log(1).live(), "other\nother\nother\n").unwrap();
    assert_eq!(ground.round(1000).news, [News::Truncated { unit: unit(), run: RunId(1), bytes: 12 }]);
    ground.anew();
    fs::write(ground.log(1).live(), "x\n").unwrap();
    ground.aim(Some(1));
    assert_eq!(ground.round(1000).news, [News::Truncated { unit: unit(), run: RunId(1), bytes: 18 }]);
    assert_eq!(
        fs::read_dir(ground.log(1).folder())
            .unwrap()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "cut"))
            .count(),
        1
    );
}

#[test]
fn what_is_kept_is_what_the_unit_s_own_policy_says() {
    let mut ground = Ground::new(LogPolicy { keep_runs: 2, ..LogPolicy::default() });
    for run in 1..=6 {
        ground.write(run, "x\n");
        ground.aim(Some(run));
        ground.round(1000);
    }
    assert_eq!(crate::logs::runs(&ground.dir.path().join("command@x")), [RunId(4), RunId(5), RunId(6)]);
    ground.aim(None);
    let round = ground.round(1000);
    assert!(round.grown.contains(&unit()), "who follows must see that it ended");
    assert_eq!(crate::logs::runs(&ground.dir.path().join("command@x")), [RunId(5), RunId(6)]);
}

#[test]
fn the_log_of_a_run_that_nobody_has_told_of_yet_stays() {
    let mut ground = Ground::new(LogPolicy { keep_runs: 0, ..LogPolicy::default() });
    ground.write(1, "first\n");
    ground.aim(Some(1));
    ground.round(1000);
    // It ends, and the next one writes before the keeper has heard of it.
    ground.write(2, "second\n");
    ground.aim(None);
    ground.round(1000);
    assert_eq!(crate::logs::runs(&ground.dir.path().join("command@x")), [RunId(2)]);
    ground.aim(Some(2));
    ground.write(2, "third\n");
    ground.round(1000);
    assert_eq!(ground.read(2), ["second", "third"]);
    // One that is not kept goes as soon as it is known to be over.
    ground.aim(None);
    ground.round(1000);
    assert_eq!(crate::logs::runs(&ground.dir.path().join("command@x")), []);
}

#[test]
fn on_a_disk_that_is_nearly_full_archives_go_and_lost_bytes_are_counted() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut ground = Ground::new(LogPolicy { rotate_bytes: 8192, ..LogPolicy::default() });
    let free = Arc::new(AtomicU64::new(50));
    let asked = free.clone();
    ground.passes = ground.passes.map(|p| p.with_space(move || Ok(asked.load(Ordering::Relaxed) as f64)));
    ground.aim(Some(1));
    ground.write(1, &"0123456789\n".repeat(5000));
    (0..5).for_each(|_| drop(ground.round(1000)));
    let kept = ground.log(1).survey().unwrap().archives.len();
    assert!(kept > 2);
    free.store(8, Ordering::Relaxed);
    ground.write(1, "x\n");
    assert_eq!(ground.round(2000).news, [News::Space { free_percent: 8.0, is_scarce: true, dropped: 0 }]);
    free.store(3, Ordering::Relaxed);
    ground.write(1, "x\n");
    let news = ground.round(2000).news;
    assert_eq!(news, [News::Space { free_percent: 3.0, is_scarce: true, dropped: kept }]);
    assert!(ground.log(1).survey().unwrap().archives.is_empty());
    ground.write(1, &"0123456789\n".repeat(5000));
    let before = ground.log(1).survey().unwrap().head;
    let news: Vec<News> = (0..5).flat_map(|_| ground.round(2000).news).collect();
    let lost: u64 = news.iter().map(|n| if let News::Lost { bytes, .. } = n { *bytes } else { 0 }).sum();
    let survey = ground.log(1).survey().unwrap();
    assert!(lost > 40_000 && survey.head == before + lost && survey.archives.is_empty(), "{lost} {survey:?}");
    free.store(50, Ordering::Relaxed);
    ground.write(1, "x\n");
    assert_eq!(ground.round(2000).news, [News::Space { free_percent: 50.0, is_scarce: false, dropped: 0 }]);
}
