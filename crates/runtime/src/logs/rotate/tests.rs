//! Rotation: what is decided, and that no step of it can lose or double a byte.

use super::*;
use crate::logs::reader::{Piece, Reader};
use proptest::prelude::*;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use wharf_model::RunId;

const KIB: u64 = 1 << 10;

fn policy(rotate_bytes: u64) -> LogPolicy {
    LogPolicy { rotate_bytes, ..LogPolicy::default() }
}

fn facts(head: u64, end: u64) -> Facts {
    Facts { head, end, has_holes: true, ..Facts::default() }
}

fn append(log: &RunLog, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log.live()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// All bytes from an offset on, and the gaps between them.
fn read_all(log: &RunLog, from: u64) -> (String, u64) {
    let (mut text, mut gaps, mut block) = (vec![], 0, [0; 1000]);
    let mut reader = Reader::new(log.clone(), from).unwrap();
    loop {
        match reader.read(&mut block).unwrap() {
            Piece::Bytes(size) => text.extend_from_slice(&block[..size]),
            Piece::Gap(size) => gaps += size,
            Piece::End => return (String::from_utf8(text).unwrap(), gaps),
        }
    }
}

fn rotate(log: &RunLog, rotate_bytes: u64, steps: Steps<'_>) -> io::Result<bool> {
    let survey = log.survey()?;
    mend(log, &survey)?;
    let survey = log.survey()?;
    match decide(&facts(survey.head, survey.end()), &policy(rotate_bytes)) {
        Deed::Nothing => Ok(false),
        Deed::Archive(span) => archive(log, &survey, span, steps).map(|_| true),
        Deed::Discard(span) => discard(log, &survey, span).map(|_| true),
    }
}

#[test]
fn the_last_bytes_stay_and_older_ones_go_in_parts() {
    let span = |from, to| Span { from, to };
    assert_eq!(decide(&facts(0, 127 * KIB), &policy(64 * KIB)), Deed::Nothing);
    assert_eq!(decide(&facts(0, 128 * KIB), &policy(64 * KIB)), Deed::Archive(span(0, 64 * KIB)));
    assert_eq!(decide(&facts(900, 900 + 128 * KIB), &policy(64 * KIB)), Deed::Archive(span(900, 900 + 64 * KIB)));
    // However much is kept, an archive is no larger than what a reader can unpack.
    assert_eq!(decide(&facts(0, 4 << 30), &policy(1 << 30)), Deed::Archive(span(0, 16 << 20)));
    let low = Facts { is_low: true, ..facts(0, 128 * KIB) };
    assert_eq!(decide(&low, &policy(64 * KIB)), Deed::Discard(span(0, 64 * KIB)));
    let old = Facts { aged: 70 * KIB, ..facts(0, 100 * KIB) };
    assert_eq!(decide(&old, &policy(64 * KIB)), Deed::Discard(span(0, 70 * KIB)));
    let old_and_little = Facts { aged: 9 * KIB, ..facts(0, 10 * KIB) };
    assert_eq!(decide(&old_and_little, &policy(64 * KIB)), Deed::Nothing);
    let no_holes = Facts { has_holes: false, ..facts(0, 1 << 30) };
    assert_eq!(decide(&no_holes, &policy(64 * KIB)), Deed::Nothing);
}

#[test]
fn what_was_put_away_gives_its_room_back_and_keeps_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = RunLog::new(dir.path(), RunId(1));
    let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
    append(&log, &text);
    while rotate(&log, 64 * KIB, &mut |_| Ok(())).unwrap() {}
    let found = fs::metadata(log.live()).unwrap();
    assert_eq!(found.len(), text.len() as u64, "offsets moved");
    assert!(found.blocks() * 512 <= 192 * KIB, "{} bytes are still taken", found.blocks() * 512);
    let survey = log.survey().unwrap();
    assert!(survey.archives.windows(2).all(|w| w[0].to == w[1].from), "{survey:?}");
    for archive in &survey.archives {
        assert_eq!(&text[archive.to as usize - 1..archive.to as usize], "\n", "a line was cut");
    }
    for from in [0, 1, 60_000, survey.head - 1, survey.head, text.len() as u64] {
        assert!(read_all(&log, from) == (text[from as usize..].to_owned(), 0), "from {from}");
    }
}

#[test]
fn a_crash_after_any_step_costs_nothing_and_is_mended() {
    for broken in [Step::Written, Step::Synced, Step::Named, Step::NameSynced, Step::Punched] {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::new(dir.path(), RunId(1));
        let mut text = String::new();
        for round in 0..20 {
            let more: String = (0..1000).map(|n| format!("line {round} {n}\n")).collect();
            append(&log, &more);
            text += &more;
            let crash = &mut |step| if step == broken { Err(io::Error::other("crash")) } else { Ok(()) };
            while matches!(rotate(&log, 16 * KIB, crash), Ok(true)) {}
            assert!(read_all(&log, 0) == (text.clone(), 0), "lost or doubled after {broken:?}");
        }
        while rotate(&log, 16 * KIB, &mut |_| Ok(())).unwrap() {}
        assert!(read_all(&log, 0) == (text, 0), "lost or doubled after {broken:?}");
        let survey = log.survey().unwrap();
        assert!(survey.left_over.is_empty() && survey.archives.len() > 10, "{survey:?}");
        assert!(fs::metadata(log.live()).unwrap().blocks() * 512 < 64 * KIB, "{broken:?}: a hole is missing");
    }
}

#[test]
fn what_is_thrown_away_is_a_gap_of_exactly_so_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let log = RunLog::new(dir.path(), RunId(1));
    let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    append(&log, &text);
    let span = discard(&log, &log.survey().unwrap(), Span { from: 0, to: 50_000 }).unwrap();
    assert!(span.to > 49_900 && span.to <= 50_000);
    assert!(read_all(&log, 0) == (text[span.to as usize..].to_owned(), span.to));
}

#[test]
fn a_file_that_its_run_truncated_meanwhile_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = RunLog::new(dir.path(), RunId(1));
    append(&log, &"0123456789\n".repeat(10_000));
    let survey = log.survey().unwrap();
    let truncate = &mut |step| match step {
        Step::Written => fs::write(log.live(), "new\n"),
        Step::Synced | Step::Named | Step::NameSynced | Step::Punched => Ok(()),
    };
    assert_eq!(archive(&log, &survey, Span { from: 0, to: 50_000 }, truncate).unwrap(), None);
    assert_eq!(fs::read_to_string(log.live()).unwrap(), "new\n");
    assert_eq!(fs::read_dir(log.folder()).unwrap().count(), 0, "half an archive was left");
}

#[derive(Debug, Clone)]
enum Event {
    Write(u8, u16),
    Rotate,
    CrashAfter(u8),
    Read(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<u8>(), 0..3000_u16).prop_map(|(letter, size)| Event::Write(b'a' + letter % 26, size)),
        2 => Just(Event::Rotate),
        2 => (0..5_u8).prop_map(Event::CrashAfter),
        2 => any::<u16>().prop_map(Event::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Archives and live file together are what was written, whatever happens between.
    #[test]
    fn in_any_order_the_archives_and_the_live_file_are_what_was_written(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::new(dir.path(), RunId(1));
        append(&log, "");
        let mut text = String::new();
        for event in events {
            match event {
                Event::Write(letter, size) => {
                    let line = format!("{}\n", char::from(letter).to_string().repeat(size.into()));
                    append(&log, &line);
                    text += &line;
                }
                Event::Rotate => drop(rotate(&log, 4 * KIB, &mut |_| Ok(())).unwrap()),
                Event::CrashAfter(count) => {
                    let mut left = count;
                    let _ = rotate(&log, 4 * KIB, &mut |_| {
                        left = left.checked_sub(1).ok_or_else(|| io::Error::other("crash"))?;
                        Ok(())
                    });
                }
                Event::Read(at) => {
                    let from = usize::from(at).min(text.len());
                    prop_assert_eq!(read_all(&log, from as u64), (text[from..].to_owned(), 0));
                }
            }
            let survey = log.survey().unwrap();
            prop_assert!(survey.archives.windows(2).all(|w| w[0].to == w[1].from), "{:?}", survey);
            prop_assert_eq!(survey.end(), text.len() as u64);
        }
        prop_assert_eq!(read_all(&log, 0), (text, 0));
    }
}
