//! Plays seed after seed, on a few threads; each world is alone on its own.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use wharf_core::{Declared, Goal, Wishes};
use wharf_model::{Need, Policy};
use wharf_sim::{
    counts::Counts,
    deed::Deed,
    play::{self, Play},
    scenario,
    shrink::shrink,
    world::{Broken, World},
};

/// How long a list of deeds may be made shorter.
const SHRINK_LIMIT: Duration = Duration::from_secs(60);
/// A run of at least this long must have met everything.
const MEETS_ALL: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Total {
    seeds: u64,
    steps: u64,
    counts: Counts,
    failed: Option<(Play, Vec<Deed>, Broken)>,
}

/// `cargo xtask sim`.
pub fn run(args: &[String]) -> Result<(), String> {
    crate::known_only(args, &["--seconds", "--seed", "--units", "--steps", "--jobs"], &["--counts"])?;
    let number = |option| crate::number(args, option);
    let (units, steps) = (number("--units")?, number("--steps")?);
    let (seed, seconds) = (number("--seed")?, number("--seconds")?);
    let jobs = number("--jobs")?.unwrap_or(2).clamp(1, 64);
    let one_only = seed.is_some() && seconds.is_none();
    let limit = Duration::from_secs(seconds.unwrap_or(60));
    let first = seed.unwrap_or(1);
    // What the core says when it panics is told once, with the seed.
    std::panic::set_hook(Box::new(|_| {}));

    let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..if one_only { 1 } else { jobs } {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let play = Play { seed: next.fetch_add(1, Ordering::Relaxed), units, steps };
                    let played = play.run();
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.seeds += 1;
                    total.steps += played.steps;
                    total.counts.add(&played.counts);
                    if let Some(broken) = played.broken {
                        total.failed.get_or_insert((play, played.deeds, broken));
                        enough.store(true, Ordering::Relaxed);
                    }
                    if one_only || began.elapsed() >= limit {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let rate = total.steps as f64 / took.as_secs_f64();
    println!("{} seeds, {} steps in {:.1} s: {:.0} steps/s", total.seeds, total.steps, took.as_secs_f64(), rate);
    if args.iter().any(|arg| arg == "--counts") {
        total.counts.all().for_each(|(name, n)| println!("{n:>12} {name}"));
    }
    if let Some((play, deeds, broken)) = total.failed {
        return Err(told(play, deeds, &broken));
    }
    let missing = total.counts.missing();
    if took >= MEETS_ALL && !missing.is_empty() {
        return Err(format!("never seen, so never tried: {}", missing.join(", ")));
    }
    Ok(())
}

/// Makes it shorter, writes it down, says how it is played again.
fn told(play: Play, deeds: Vec<Deed>, broken: &Broken) -> String {
    eprintln!("seed {}: {}: {}", play.seed, broken.rule, broken.text);
    let option = |name: &str, n: Option<u64>| n.map(|n| format!(" --{name} {n}")).unwrap_or_default();
    let again =
        format!("cargo xtask sim --seed {}{}{}", play.seed, option("units", play.units), option("steps", play.steps));
    let (before, rule) = (deeds.len(), broken.rule);
    let least = shrink(deeds, rule, SHRINK_LIMIT);
    let (world, ended) = play::deeds(&least, true);
    let log = world.trace.unwrap_or_default().to_jsonl(Some(play.seed), ended.as_ref().err());
    let path = PathBuf::from("target/sim").join(format!("seed-{}.jsonl", play.seed));
    let written = fs::create_dir_all("target/sim").and_then(|()| fs::write(&path, log));
    let log = match written {
        Ok(()) => format!("cargo xtask sim replay {}", path.display()),
        Err(e) => format!("the event log could not be written to {}: {e}", path.display()),
    };
    let what = ended.err().map(|broken| broken.text).unwrap_or_default();
    format!(
        "\nthe rule {rule:?} does not hold after {} of {before} deeds: {what}\n  again:        {again}\n  step by step: {log}",
        least.len()
    )
}

/// Every scenario, with the death of the daemon after each of its effects.
pub fn scenarios() -> Result<(), String> {
    std::panic::set_hook(Box::new(|_| {}));
    let (mut counts, mut worlds, began) = (Counts::default(), 0, Instant::now());
    let all = wharf_sim::scripts::all();
    let mut failed = vec![];
    for scenario in &all {
        match scenario.play(4, &mut counts) {
            Ok(played) => worlds += played,
            Err(broken) => failed.push(format!("{}: {}", broken.rule, broken.text)),
        }
    }
    println!("{} scenarios, {worlds} worlds in {:.1} s", all.len(), began.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Starts so many units in chains of ten, lets them live for two minutes, and has a new daemon adopt them.
pub fn crowd(units: u64) -> Result<Vec<(&'static str, u64, Duration)>, String> {
    let mut world = World::new();
    world.judge.blind = true;
    let mut told = vec![];
    let mut part = |what, world: &mut World, deeds: Vec<Deed>| {
        let (began, before) = (Instant::now(), world.steps);
        deeds.iter().try_for_each(|deed| world.deed(deed)).map_err(|b| format!("{}: {}", b.rule, b.text))?;
        told.push((what, world.steps - before, began.elapsed()));
        Ok::<(), String>(())
    };
    part("a daemon for nobody", &mut world, vec![Deed::Boot, Deed::Work])?;
    part("asked to start", &mut world, (0..units).map(|n| Deed::Ask(Box::new(start(n)))).collect())?;
    part("started", &mut world, vec![Deed::Work])?;
    part("two minutes of probes", &mut world, vec![Deed::Calm])?;
    let adopted = vec![Deed::Crash { after: 0, salt: 0 }, Deed::Wait { ms: 60_000 }, Deed::Boot, Deed::Work];
    part("adopted by a new daemon", &mut world, adopted)?;
    Ok(told)
}

/// A start of the unit with this number, which needs the one before it but for the first of ten.
fn start(number: u64) -> wharf_core::Ask {
    let name = |number| scenario::named(&format!("u{number}"));
    let needs = match number % 10 {
        0 => vec![],
        _ => vec![Need { unit: name(number - 1), soft: false }],
    };
    let policy = Policy { needs, ..Policy::default() };
    let declared = Declared { wishes: Wishes::new(), ..scenario::declared(policy) };
    wharf_core::Ask {
        unit: name(number),
        goal: Goal::Start { reset: false },
        declared: Some(declared),
        wait: true,
        force: false,
    }
}
