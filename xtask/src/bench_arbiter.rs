//! `cargo xtask bench arbiter`: what the planner saves beside other rules, and how long it takes.
//!
//! ```text
//!   --seeds N          made traces (12)
//!   --trace FILE       one of your own instead: JSON lines {"t": s, "service": …, "bytes": …, "reload_s": …}
//!   --devices 46,46    GiB of the devices that it is replayed on
//!   --boards N         boards of each kind that are timed (1,500); 0: none
//! ```

mod boards;
mod policies;
mod replay;
mod trace;

use std::path::PathBuf;

use crate::ground::{cargo, root, step};
use policies::Policy;
use replay::{Cost, replay};
use trace::{Engines, GIB, Habits, Trace};

/// The rule that the others stand beside.
const BESIDE: usize = 0;
/// Reload seconds beside it, at most, over all traces.
const GOAL_PART: f64 = 0.70;
/// A grant's goals, in microseconds.
const GOAL_P50_US: u128 = 100;
const GOAL_WORST_US: u128 = 5_000;

struct Wishes {
    seeds: u64,
    traces: Vec<PathBuf>,
    sizes: Vec<u64>,
    boards: usize,
}

pub fn run(args: &[String]) -> Result<(), String> {
    if cfg!(debug_assertions) {
        step("release build", &mut cargo(&["build", "--release", "--locked", "--package", "xtask"]))?;
        let mut again = std::process::Command::new(root().join("target/release/xtask"));
        let status = again.args(["bench", "arbiter"]).args(args).status().map_err(|e| e.to_string())?;
        return if status.success() { Ok(()) } else { Err("see above".into()) };
    }
    let wishes = Wishes::read(args)?;
    let mut short = savings(&wishes)?;
    if wishes.boards > 0 {
        short.extend(times(wishes.boards));
    }
    if short.is_empty() { Ok(()) } else { Err(format!("missed: {}", short.join("; "))) }
}

impl Wishes {
    fn read(args: &[String]) -> Result<Self, String> {
        let mut wishes = Self { seeds: 12, traces: vec![], sizes: vec![46 * GIB, 46 * GIB], boards: 1_500 };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
            let number = || value.parse::<u64>().map_err(|e| format!("{name} {value}: {e}"));
            match &**name {
                "--seeds" => wishes.seeds = number()?,
                "--boards" => wishes.boards = number()? as usize,
                "--trace" => wishes.traces.push(value.into()),
                "--devices" => {
                    let sizes = value.split(',').map(|gib| gib.parse::<u64>().map(|gib| gib * GIB));
                    wishes.sizes = sizes.collect::<Result<_, _>>().map_err(|e| format!("--devices {value}: {e}"))?;
                }
                _ => return Err(format!("{name} is none of --seeds, --trace, --devices, --boards")),
            }
        }
        Ok(wishes)
    }
}

fn policies() -> Vec<Box<dyn Policy>> {
    vec![
        Box::<policies::LruThere>::default(),
        Box::<policies::LruAnywhere>::default(),
        Box::<policies::GreedyDual>::default(),
        Box::<policies::Landlord>::default(),
        Box::<policies::LoadTimesRate>::default(),
        Box::<policies::Wharf>::default(),
    ]
}

/// Reload seconds of each rule, beside the first rule's: on the made traces and on ours, or on the caller's own.
fn savings(wishes: &Wishes) -> Result<Vec<String>, String> {
    let made = |make: fn(u64, Habits) -> Trace, engines| -> Vec<Trace> {
        let habits = Habits { engines, ..trace::USUAL };
        (1..=wishes.seeds).map(|seed| make(seed, habits)).collect()
    };
    if !wishes.traces.is_empty() {
        for path in &wishes.traces {
            compare(&path.display().to_string(), &[trace::read(path)?], &wishes.sizes);
        }
        return Ok(vec![]);
    }
    let kept = root().join("xtask/traces/four-days.jsonl");
    let (wide, two, alike) = (&wishes.sizes[..], Engines::TwoKinds, Engines::Alike);
    let costs = [
        compare("liked unequally, engines of two kinds", &made(trace::liked, two), wide),
        compare("liked unequally, engines much alike", &made(trace::liked, alike), wide),
        compare("sessions, engines of two kinds", &made(trace::sessions, two), wide),
        compare("sessions, engines much alike", &made(trace::sessions, alike), wide),
        compare("xtask/traces/four-days.jsonl", &[trace::read(&kept)?], &[24 * GIB, 24 * GIB]),
    ];
    let (theirs, ours) = costs.iter().fold((0, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
    let part = ours as f64 / theirs as f64;
    println!(
        "\nof {} s of loading with the first rule {} s are left with the last: {part:.2}",
        theirs / 1000,
        ours / 1000
    );
    let is_met = part <= GOAL_PART;
    Ok(if is_met { vec![] } else { vec![format!("{part:.2} of the reload seconds, goal {GOAL_PART}")] })
}

/// Prints a table; returns milliseconds of loading with the first rule and with the last.
fn compare(name: &str, traces: &[Trace], sizes: &[u64]) -> (u64, u64) {
    let mut rows: Vec<(&str, Vec<f64>, Cost)> =
        policies().iter().map(|policy| (policy.name(), vec![], Cost::default())).collect();
    for trace in traces {
        let costs: Vec<Cost> = policies().iter_mut().map(|policy| replay(trace, sizes, &mut **policy)).collect();
        for ((_, parts, sum), cost) in rows.iter_mut().zip(&costs) {
            parts.push(part(cost, &costs[BESIDE]));
            sum.reload_ms += cost.reload_ms;
            sum.loads += cost.loads;
            sum.impossible += cost.impossible;
        }
    }
    let requests: usize = traces.iter().map(|trace| trace.requests.len()).sum();
    let gib: Vec<String> = sizes.iter().map(|size| (size / GIB).to_string()).collect();
    println!("\n{name}: {} traces, {requests} requests, devices of {} GiB", traces.len(), gib.join(" and "));
    if rows[BESIDE].2.impossible > 0 {
        println!("{} requests are of services that fit on none of these devices: left out", rows[BESIDE].2.impossible);
    }
    println!(
        "{:<48} {:>9} {:>7} {:>5} {:>5}  of single traces",
        "who is sent away", "reload, s", "loads", "part", "mean"
    );
    let beside = rows[BESIDE].2;
    for (name, parts, sum) in &rows {
        let (least, most) = parts.iter().fold((f64::INFINITY, 0f64), |(a, b), part| (a.min(*part), b.max(*part)));
        let (part, mean) = (part(sum, &beside), parts.iter().sum::<f64>() / parts.len() as f64);
        let seconds = sum.reload_ms / 1000;
        println!("{name:<48} {seconds:>9} {:>7} {part:>5.2} {mean:>5.2}  {least:.2} to {most:.2}", sum.loads);
    }
    (beside.reload_ms, rows.last().map_or(0, |(_, _, sum)| sum.reload_ms))
}

fn part(cost: &Cost, beside: &Cost) -> f64 {
    cost.reload_ms as f64 / beside.reload_ms.max(1) as f64
}

/// How long decisions take.
fn times(boards: usize) -> Vec<String> {
    let seen = boards::time(boards);
    println!(
        "\n{:<50} {:>7} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "16 devices", "boards", "p50", "p99", "worst", "exact", "greedy"
    );
    for kind in &seen {
        println!(
            "{:<50} {:>7} {:>6} µs {:>6} µs {:>6} µs {:>5.1} % {:>7.2}",
            kind.name,
            kind.boards,
            kind.p50.as_micros(),
            kind.p99.as_micros(),
            kind.worst.as_micros(),
            kind.exact,
            kind.greedy
        );
    }
    println!("exact: nothing cheaper exists for certain. greedy: what the first answer costs beside the last, mean.");
    let mut short = vec![];
    if seen[0].p50.as_micros() >= GOAL_P50_US {
        short.push(format!("{} at p50, goal {GOAL_P50_US} µs", seen[0].p50.as_micros()));
    }
    for kind in seen.iter().filter(|kind| kind.worst.as_micros() > GOAL_WORST_US) {
        short.push(format!("{}: {} µs, goal {GOAL_WORST_US}", kind.name, kind.worst.as_micros()));
    }
    short
}
