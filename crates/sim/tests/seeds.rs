//! Every fault that the simulation has found, as the deeds that showed it: each was a failing test
//! before it was mended.
//!
//! A new one: `cargo xtask sim` writes target/sim/seed-N.jsonl; its lines `head` and `deed` go into
//! tests/found/NAME.jsonl, where NAME says what must hold.

use std::{fs, path::Path};

use wharf_sim::{
    deed::Deed,
    play::{self, Play},
    trace::Line,
};

#[test]
fn what_was_found_once_is_not_found_again() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut played = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut deeds: Vec<Deed> = vec![];
        for line in text.lines() {
            if let Line::Deed { deed } = serde_json::from_str(line).unwrap() {
                deeds.push(deed);
            }
        }
        let (_, ended) = play::deeds(&deeds, false);
        assert_eq!(ended, Ok(()), "{}", path.display());
        played += 1;
    }
    assert!(played >= 5, "{} holds {played} lists only", dir.display());
}

/// Seeds that once broke a rule through many units, or too long to be kept as lists.
#[test]
fn seeds_that_once_broke_a_rule_keep_all_of_them() {
    for (seed, units, why) in [
        (7, 8, "a unit that waits is woken when its need is no longer busy"),
        (28, 20, "a slow retry outlives the daemon"),
        (107, 5, "the end of a run that was never made is not told"),
        (259, 100, "who waits for one who waits in vain is told"),
    ] {
        let played = Play { seed, units: Some(units), steps: Some(2_000) }.run();
        assert_eq!(played.broken, None, "seed {seed}: {why}");
    }
}

#[test]
fn the_same_seed_is_the_same_world_bit_for_bit() {
    for seed in 1..20 {
        let play = Play { seed, units: Some(12), steps: Some(300) };
        let (first, second) = (play.run(), play.run());
        assert_eq!((first.digest, first.steps), (second.digest, second.steps), "seed {seed}");
        assert_eq!(first.deeds, second.deeds, "seed {seed}");
    }
}

/// What is written down can be read and done again, to the last digest.
#[test]
fn an_event_log_is_done_again_to_the_last_digest() {
    let played = Play { seed: 3, units: Some(6), steps: Some(400) }.run();
    let (world, _) = play::deeds(&played.deeds, true);
    let written = world.trace.unwrap();
    let text = written.to_jsonl(Some(3), None);
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1..], written.lines[..], "reading gives what was written");
    let deeds: Vec<Deed> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Deed { deed } => Some(deed.clone()),
            Line::Head { .. } | Line::Step { .. } => None,
        })
        .collect();
    let (again, _) = play::deeds(&deeds, true);
    assert_eq!(again.trace.unwrap().lines, written.lines);
}

#[test]
fn a_broken_rule_is_made_short() {
    let played = Play { seed: 5, units: Some(4), steps: Some(300) }.run();
    let mut deeds = played.deeds;
    deeds.truncate(200);
    // A rule that this world breaks early: nobody asks twice.
    let short = wharf_sim::shrink::least(deeds.clone(), &|list| {
        list.iter().filter(|deed| matches!(deed, Deed::Ask(_))).count() >= 2
    });
    assert_eq!(short.len(), 2, "{short:?}");
}
