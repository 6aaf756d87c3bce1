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
use trace::{GIB, Trace};

/// The rule that the others stand beside.
const BESIDE: usize = 0;
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
        Box::<policies::Wharf>::default(),
    ]
}

/// Reload seconds of each rule on each trace, beside the first rule's.
fn savings(wishes: &Wishes) -> Result<Vec<String>, String> {
    let traces: Vec<(String, Trace)> = if wishes.traces.is_empty() {
        (1..=wishes.seeds).map(|seed| (format!("seed {seed}"), trace::made(seed, trace::USUAL))).collect()
    } else {
        let read = |path: &PathBuf| Ok((path.display().to_string(), trace::read(path)?));
        wishes.traces.iter().map(read).collect::<Result<_, String>>()?
    };
    let mut parts: Vec<Vec<f64>> = vec![vec![]; policies().len()];
    let (mut seconds, mut loads) = (vec![0u64; parts.len()], vec![0u64; parts.len()]);
    let (mut requests, mut impossible) = (0, 0);
    for (_, trace) in &traces {
        let costs: Vec<replay::Cost> =
            policies().iter_mut().map(|policy| replay::replay(trace, &wishes.sizes, &mut **policy)).collect();
        requests += trace.requests.len();
        impossible += costs[BESIDE].impossible;
        for (n, cost) in costs.iter().enumerate() {
            parts[n].push(cost.reload_ms as f64 / costs[BESIDE].reload_ms.max(1) as f64);
            seconds[n] += cost.reload_ms / 1000;
            loads[n] += cost.loads;
        }
    }
    let sizes: Vec<String> = wishes.sizes.iter().map(|size| (size / GIB).to_string()).collect();
    println!("\n{} traces, {requests} requests, devices of {} GiB", traces.len(), sizes.join(", "));
    if impossible > 0 {
        println!("{impossible} requests are of services that fit on none of these devices: left out");
    }
    println!("\n{:<50} {:>10} {:>7} {:>7}  {:<12}", "who is sent away", "reload, s", "loads", "mean", "range");
    let mut ours = f64::NAN;
    for (n, policy) in policies().iter().enumerate() {
        let (sum, count) = (parts[n].iter().sum::<f64>(), parts[n].len() as f64);
        ours = sum / count;
        let least = parts[n].iter().copied().fold(f64::INFINITY, f64::min);
        let most = parts[n].iter().copied().fold(0.0, f64::max);
        println!("{:<50} {:>10} {:>7} {ours:>7.2}  {least:.2} to {most:.2}", policy.name(), seconds[n], loads[n]);
    }
    let met = ours <= 0.70 || !wishes.traces.is_empty();
    Ok(if met { vec![] } else { vec![format!("reload seconds {ours:.2} of the least recently used's, goal 0.70")] })
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
