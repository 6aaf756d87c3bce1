//! Questions and their answers, over archives, runs and gaps.

use super::*;
use crate::logs::{
    files::Span,
    rotate,
    time::{Moment, append},
};
use proptest::prelude::*;
use std::fs;

struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn log(&self, run: u64) -> RunLog {
        RunLog::new(self.dir.path(), RunId(run))
    }

    fn write(&self, run: u64, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.log(run).live()).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn put_away(&self, run: u64, bytes: u64) {
        let (log, part) = (self.log(run), self.log(run).survey().unwrap());
        rotate::archive(&log, &part, Span { from: part.head, to: part.head + bytes }, &mut |_| Ok(())).unwrap();
    }

    fn unit(&self, live: Option<u64>) -> UnitLog {
        UnitLog::new(self.dir.path(), live.map(RunId))
    }
}

fn query(lines: usize) -> Query {
    Query { lines, ..Query::default() }
}

fn texts(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|e| e.text.as_str()).collect()
}

#[test]
fn the_last_lines_come_from_archives_and_earlier_runs_as_from_one_file() {
    let ground = Ground::new();
    let lines = |run: u64| (0..2000).map(move |n| format!("run {run} line {n}"));
    for run in 1..=3 {
        ground.write(run, &lines(run).map(|l| l + "\n").collect::<String>());
        ground.put_away(run, 9_000);
        ground.put_away(run, 9_000);
    }
    let all: Vec<String> = (1..=3).flat_map(lines).collect();
    for count in [0, 1, 3, 1999, 2000, 2001, 5999, 6000, 7000] {
        let page = ground.unit(Some(3)).last(&query(count)).unwrap();
        assert_eq!(texts(&page), all[all.len().saturating_sub(count)..], "{count}");
        assert_eq!(page.more, count < 6000, "{count}");
        assert_eq!(page.at, Some((RunId(3), fs::metadata(ground.log(3).live()).unwrap().len())));
    }
    let page = ground.unit(Some(3)).last(&Query { run: Some(RunId(2)), ..query(1) }).unwrap();
    assert_eq!(texts(&page), ["run 2 line 1999"]);
    assert_eq!(ground.unit(Some(3)).tail(1).unwrap(), ["run 3 line 1999"]);
}

#[test]
fn reading_on_goes_over_archives_and_runs_and_misses_nothing() {
    let ground = Ground::new();
    ground.write(1, "a\nb\nc");
    assert_eq!(texts(&ground.unit(Some(1)).read_on(RunId(1), 0, &query(9)).unwrap()), ["a", "b"]);
    let page = ground.unit(Some(1)).last(&query(9)).unwrap();
    assert_eq!((texts(&page), page.at), (vec!["a", "b", "c"], Some((RunId(1), 4))));
    assert!(!page.entries[2].is_ended, "its end may still come");
    ground.put_away(1, 2);
    // The run has ended: what it wrote last is a line, and the next run follows.
    ground.write(2, "d\ne\n");
    let page = ground.unit(Some(2)).read_on(RunId(1), 0, &query(3)).unwrap();
    assert_eq!((texts(&page), page.at, page.more), (vec!["a", "b", "c"], Some((RunId(1), 5)), true));
    let page = ground.unit(Some(2)).read_on(RunId(1), 5, &query(3)).unwrap();
    assert_eq!((texts(&page), page.at, page.more), (vec!["d", "e"], Some((RunId(2), 4)), false));
    assert_eq!(page.entries[0].run, RunId(2));
    let page = ground.unit(Some(2)).read_on(RunId(2), 4, &query(3)).unwrap();
    assert_eq!((texts(&page), page.at), (vec![], Some((RunId(2), 4))));
}

#[test]
fn a_line_that_is_being_written_is_read_once_it_is_whole() {
    let ground = Ground::new();
    ground.write(1, "whole\nha");
    let page = ground.unit(Some(1)).read_on(RunId(1), 0, &query(9)).unwrap();
    assert_eq!((texts(&page), page.at), (vec!["whole"], Some((RunId(1), 6))));
    ground.write(1, "lf\nno en");
    let page = ground.unit(Some(1)).read_on(RunId(1), 6, &query(9)).unwrap();
    assert_eq!((texts(&page), page.at), (vec!["half"], Some((RunId(1), 11))));
    ground.write(1, "d");
    let page = ground.unit(None).read_on(RunId(1), 11, &query(9)).unwrap();
    assert_eq!(texts(&page), ["no end"], "nothing more is written to it");
}

#[test]
fn what_is_no_longer_there_is_told_in_bytes() {
    let ground = Ground::new();
    (1..=3).for_each(|run| ground.write(run, "0123456\nabc\n"));
    crate::logs::retain::remove(ground.dir.path(), &crate::logs::retain::Doomed::Run(RunId(1))).unwrap();
    crate::logs::retain::remove(ground.dir.path(), &crate::logs::retain::Doomed::Run(RunId(2))).unwrap();
    ground.log(3).mark(&ground.log(3).gone(8)).unwrap();
    let page = ground.unit(Some(3)).read_on(RunId(1), 5, &query(9)).unwrap();
    assert_eq!((texts(&page), page.gap_bytes), (vec!["abc"], 7 + 12 + 8));
    assert_eq!(page.entries[0].gap_bytes, 27);
}

#[test]
fn lines_are_found_by_expression_and_level() {
    let ground = Ground::new();
    for n in 0..3000 {
        ground.write(1, &format!("INFO request {n}\n"));
    }
    ground.write(1, "{\"level\":\"error\",\"msg\":\"no\"}\nERROR request 9\n");
    ground.put_away(1, 20_000);
    let unit = ground.unit(Some(1));
    let grep = Query { grep: Some(Regex::new("request 1?7$").unwrap()), ..query(9) };
    assert_eq!(texts(&unit.last(&grep).unwrap()), ["INFO request 7", "INFO request 17"]);
    assert_eq!(texts(&unit.read_on(RunId(1), 0, &grep).unwrap()), ["INFO request 7", "INFO request 17"]);
    let serious = Query { level: Some(LogLevel::Warn), ..query(9) };
    let page = unit.last(&serious).unwrap();
    assert_eq!(page.entries.len(), 2);
    assert_eq!(page.entries[0].said.message.as_deref(), Some("no"));
}

#[test]
fn lines_are_found_by_time() {
    let ground = Ground::new();
    for n in 0..10_u64 {
        ground.write(1, &format!("line {n}\n"));
        ground.log(1).make_folder().unwrap();
        let moment = Moment { offset: (n + 1) * 7, wall_ms: n.cast_signed() * 1000, boot_ms: n * 1000, boot: 1 };
        append(&ground.log(1).time(), moment).unwrap();
    }
    ground.put_away(1, 21);
    let unit = ground.unit(Some(1));
    let between = Query { since: Some(Bound::wall(2000)), until: Some(Bound::wall(5000)), ..query(99) };
    let page = unit.last(&between).unwrap();
    assert_eq!(texts(&page), ["line 2", "line 3", "line 4"]);
    assert_eq!(page.entries[0].at_ms, Some(2000));
    assert_eq!(page.at, Some((RunId(1), 35)), "reading on begins where it ends");
    assert_eq!(texts(&unit.read_on(RunId(1), 0, &between).unwrap()), ["line 2", "line 3", "line 4"]);
    let since = Query { since: Some(Bound::wall(8500)), ..query(99) };
    assert_eq!(texts(&unit.last(&since).unwrap()), ["line 9"]);
    let older = Query { since: Some(Bound::ago(-3_600_000)), ..query(99) };
    assert_eq!(texts(&ground.unit(None).last(&older).unwrap()), Vec::<&str>::new(), "it ended before that");
}

#[test]
fn a_long_line_is_cut_and_an_answer_is_no_larger_than_it_may_be() {
    let ground = Ground::new();
    ground.write(1, &format!("{}\r\n\u{fffd}", "x".repeat(100_000)));
    let mut file = fs::OpenOptions::new().append(true).open(ground.log(1).live()).unwrap();
    io::Write::write_all(&mut file, b"\xff\n").unwrap();
    let page = ground.unit(Some(1)).last(&query(2)).unwrap();
    assert!(page.entries[0].is_cut && page.entries[0].text.len() == 64 << 10);
    assert_eq!(page.entries[1].text, "\u{fffd}\u{fffd}");
    for _ in 0..100 {
        ground.write(1, &format!("{}\n", "y".repeat(60_000)));
    }
    for page in [
        ground.unit(Some(1)).last(&query(200)).unwrap(),
        ground.unit(Some(1)).read_on(RunId(1), 0, &query(200)).unwrap(),
    ] {
        let size: usize = page.entries.iter().map(|e| e.text.len()).sum();
        assert!(page.more && size > MOST_TEXT - 100_000 && size < MOST_TEXT + 100_000, "{size}");
    }
    let page = ground.unit(None).last(&query(1)).unwrap();
    assert_eq!(page.entries[0].text.len(), 60_000);
}

#[test]
fn an_unended_line_longer_than_any_window_is_found() {
    let ground = Ground::new();
    ground.write(1, &format!("first\n{}", "z".repeat(700_000)));
    let page = ground.unit(Some(1)).last(&query(5)).unwrap();
    assert_eq!(page.entries.len(), 2);
    assert_eq!((page.entries[1].from, page.entries[1].is_ended, page.at), (6, false, Some((RunId(1), 6))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However it is asked in pages, and whatever is put away between them: each line once, in order.
    #[test]
    fn pages_are_the_whole_log(
        lines in prop::collection::vec(prop::collection::vec(0..200_usize, 1..120), 1..4),
        page_lines in 1..40_usize,
        rotations in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let ground = Ground::new();
        let mut all = vec![];
        for (run, sizes) in (1..).zip(&lines) {
            for (n, size) in sizes.iter().enumerate() {
                let line = format!("{run}.{n} {}", "x".repeat(*size));
                ground.write(run, &format!("{line}\n"));
                all.push(line);
            }
        }
        let newest = lines.len() as u64;
        let unit = ground.unit(Some(newest));
        let (mut at, mut found) = ((RunId(1), 0), vec![]);
        for rotates in rotations.iter().cycle() {
            let page = unit.read_on(at.0, at.1, &query(page_lines)).unwrap();
            found.extend(page.entries.iter().map(|e| e.text.clone()));
            prop_assert_eq!(page.gap_bytes, 0);
            at = page.at.unwrap();
            if page.entries.is_empty() {
                break;
            }
            let survey = ground.log(at.0.0).survey().unwrap();
            if *rotates && survey.end() > survey.head {
                ground.put_away(at.0.0, (survey.end() - survey.head).min(2000));
            }
        }
        prop_assert_eq!(&found, &all);
        let last = unit.last(&query(page_lines)).unwrap();
        prop_assert_eq!(texts(&last), &all[all.len().saturating_sub(page_lines)..]);
        prop_assert_eq!(last.at, Some(at));
    }
}
