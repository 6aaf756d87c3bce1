//! Requests of services that do not all fit at once: made from a seed, or read from a file.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

pub const GIB: u64 = 1 << 30;

/// A program that must be loaded before it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    pub bytes: u64,
    pub reload_ms: u64,
}

/// Who was wanted when.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub programs: Vec<Program>,
    /// Milliseconds, and which program.
    pub requests: Vec<(u64, usize)>,
}

/// Chance from a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From 0 to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.part()
    }
}

/// What a day with a box of models looks like.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub programs: usize,
    pub requests: usize,
    /// How unequally they are liked.
    pub zipf: f64,
    /// How often the next request is for one of the last three.
    pub locality: f64,
    /// After how many requests others are liked, about.
    pub shift: u64,
    /// Between two requests, about, in milliseconds.
    pub pause_ms: f64,
    /// What engines do before they answer.
    pub engines: Engines,
}

/// What engines do before they answer, beside reading their model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// Half of them next to nothing; half compile and capture graphs for one to three minutes.
    TwoKinds,
    /// Anything from a second to two minutes, short more often than long: hardest to tell apart.
    Alike,
}

/// 14 programs of 3 to 42 GiB, half a minute between requests: two days and more.
pub const USUAL: Habits = Habits {
    programs: 14,
    requests: 6_000,
    zipf: 1.0,
    locality: 0.4,
    shift: 1_200,
    pause_ms: 30_000.0,
    engines: Engines::TwoKinds,
};

fn programs(dice: &mut Dice, habits: Habits) -> Vec<Program> {
    (0..habits.programs)
        .map(|_| {
            let gib = dice.between(3f64.ln(), 42f64.ln()).exp();
            let starts_s = match habits.engines {
                Engines::TwoKinds if dice.below(2) == 0 => dice.between(0.5, 3.0),
                Engines::TwoKinds => dice.between(40.0, 180.0),
                Engines::Alike => dice.between(0.0, 120f64.ln()).exp(),
            };
            // Read from memory, or from a disk.
            let reload_s = gib * dice.between(0.2, 1.5) + starts_s;
            Program { bytes: (gib * GIB as f64) as u64, reload_ms: (reload_s * 1000.0) as u64 }
        })
        .collect()
}

/// Some are liked much better than others, and whoever was wanted is soon wanted again; what is liked shifts.
pub fn liked(seed: u64, habits: Habits) -> Trace {
    let mut dice = Dice(seed);
    let programs = programs(&mut dice, habits);
    let mut ranks: Vec<usize> = (0..habits.programs).collect();
    let shuffle = |ranks: &mut Vec<usize>, dice: &mut Dice, swaps: usize| {
        for _ in 0..swaps {
            let (a, b) = (dice.below(ranks.len() as u64) as usize, dice.below(ranks.len() as u64) as usize);
            ranks.swap(a, b);
        }
    };
    shuffle(&mut ranks, &mut dice, 50);
    let weights: Vec<f64> = (1..=habits.programs).map(|rank| 1.0 / (rank as f64).powf(habits.zipf)).collect();
    let all: f64 = weights.iter().sum();
    let (mut requests, mut now, mut recent) = (vec![], 0.0, vec![]);
    for _ in 0..habits.requests {
        if dice.below(habits.shift) == 0 {
            shuffle(&mut ranks, &mut dice, 4);
        }
        now += -habits.pause_ms * (1.0 - dice.part()).ln();
        let which = if !recent.is_empty() && dice.part() < habits.locality {
            recent[dice.below(recent.len() as u64) as usize]
        } else {
            let mut at = dice.part() * all;
            let rank = weights.iter().position(|weight| {
                at -= weight;
                at < 0.0
            });
            ranks[rank.unwrap_or(0)]
        };
        recent.push(which);
        if recent.len() > 3 {
            recent.remove(0);
        }
        requests.push((now as u64, which));
    }
    Trace { programs, requests }
}

/// Things that people do, each with one to three programs.
const ACTIVITIES: u64 = 12;

/// People's days: activities that want one to three programs in turn, many times over, then something else; nights.
pub fn sessions(seed: u64, habits: Habits) -> Trace {
    let mut dice = Dice(seed);
    let programs = programs(&mut dice, habits);
    let activities: Vec<Vec<usize>> = (0..ACTIVITIES)
        .map(|_| (0..=dice.below(3)).map(|_| dice.below(habits.programs as u64) as usize).collect())
        .collect();
    let (mut requests, mut day, mut now) = (vec![], 0.0, 8.0 * 3_600_000.0);
    while requests.len() < habits.requests {
        // The smaller of two: some are liked more.
        let activity = &activities[dice.below(ACTIVITIES).min(dice.below(ACTIVITIES)) as usize];
        let pause_ms = dice.between(0.1, 2.0) * habits.pause_ms;
        for _ in 0..2 + dice.below(12) {
            for which in activity {
                now += 500.0 - pause_ms * (1.0 - dice.part()).ln();
                requests.push((now as u64, *which));
            }
        }
        now += -600_000.0 * (1.0 - dice.part()).ln();
        if now - day > 22.0 * 3_600_000.0 {
            day += 24.0 * 3_600_000.0;
            now = day + 8.0 * 3_600_000.0;
        }
    }
    Trace { programs, requests }
}

/// JSON lines `{"t": 12.5, "service": "qwen-32b", "bytes": 23000000000, "reload_s": 12}`: `t` in seconds, ascending.
/// `bytes` and `reload_s` may be left out after a service's first line.
pub fn read(path: &Path) -> Result<Trace, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut trace = Trace { programs: vec![], requests: vec![] };
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| format!("{}:{}: {what}", path.display(), n + 1);
        let value: Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
        let name = value["service"].as_str().ok_or_else(|| wrong("no \"service\""))?;
        let t = value["t"].as_f64().filter(|t| *t >= 0.0).ok_or_else(|| wrong("no \"t\" in seconds"))?;
        let (bytes, reload_s) = (value["bytes"].as_u64(), value["reload_s"].as_f64().filter(|s| *s >= 0.0));
        let which = match names.get(name) {
            Some(which) => *which,
            None => {
                let bytes = bytes.ok_or_else(|| wrong("the first line of a service needs \"bytes\""))?;
                let reload_s = reload_s.ok_or_else(|| wrong("the first line of a service needs \"reload_s\""))?;
                trace.programs.push(Program { bytes, reload_ms: ((reload_s * 1000.0) as u64).max(1) });
                names.insert(name.to_owned(), trace.programs.len() - 1);
                trace.programs.len() - 1
            }
        };
        let at_ms = (t * 1000.0) as u64;
        if trace.requests.last().is_some_and(|(before, _)| *before > at_ms) {
            return Err(wrong("\"t\" goes back"));
        }
        trace.requests.push((at_ms, which));
    }
    if trace.requests.is_empty() { Err(format!("{}: no requests", path.display())) } else { Ok(trace) }
}
