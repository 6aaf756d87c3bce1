//! `wharf-sim`: plays seeds until the time is up, and steps through event logs.
//!
//! `cargo xtask sim` calls it. It owns the command line, the clock and the threads that play several
//! worlds at once; no world knows of any of them.

mod replay;
mod seeds;

use std::process::ExitCode;

use wharf_sim::leases;

const USAGE: &str = "\
usage: cargo xtask sim [--seconds N] [--seed N] [--units N] [--steps N] [--jobs N]
       cargo xtask sim replay FILE [--until STEP] [--step]
       cargo xtask sim scenarios
       cargo xtask sim crowd [N]
       cargo xtask sim leases [--deeds N] [--seed N] [--length N] [--jobs N]

  --seconds N   plays seeds for this long (60)
  --seed N      plays this seed only; with --seconds: begins with it
  --units N     so many units in every world (else as the seed says)
  --steps N     so many deeds in every world (else as fits the units)
  --jobs N      so many worlds at once (2)
  --counts      prints how often each thing was seen
  replay FILE   does an event log again and compares; --until STEP ends there, --step waits for Enter
  scenarios     every scenario, with the death of the daemon after each of its effects
  crowd [N]     N units (10,000) in chains of ten, all up, through a death of the daemon: the core's pace
  leases        the arbiter alone: N deeds (1,000,000) in worlds of so many (2,000) each, from the seed on (1)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("--help" | "-h" | "help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some("replay") => replay::run(&args[1..]),
        Some("scenarios") => seeds::scenarios(),
        Some("crowd") => crowd_of(&args[1..]),
        Some("leases") => leases_of(&args[1..]),
        Some(_) | None => seeds::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Many units at once: how fast the core is with them.
fn crowd_of(args: &[String]) -> Result<(), String> {
    let units = args.first().map_or(Ok(10_000), |n| n.parse()).map_err(|_| USAGE.to_owned())?;
    for (what, steps, took) in seeds::crowd(units)? {
        let pace = steps as f64 / took.as_secs_f64();
        println!("{what:<28} {steps:>8} steps in {:>6.2} s: {pace:>8.0} steps/s", took.as_secs_f64());
    }
    Ok(())
}

/// The arbiter alone.
fn leases_of(args: &[String]) -> Result<(), String> {
    known_only(args, &["--deeds", "--seed", "--length", "--jobs"], &[])?;
    let deeds = number(args, "--deeds")?.unwrap_or(1_000_000);
    let first = number(args, "--seed")?.unwrap_or(1);
    let length = number(args, "--length")?.unwrap_or(2_000).max(1);
    let jobs = number(args, "--jobs")?.unwrap_or(2).max(1);
    let worlds = deeds.div_ceil(length);
    let began = std::time::Instant::now();
    let play = |job: u64| -> Result<leases::Seen, String> {
        let mut all = leases::Seen::default();
        for seed in (first..first + worlds).skip(job as usize).step_by(jobs as usize) {
            let seen = std::panic::catch_unwind(|| leases::play(seed, length))
                .map_err(|_| format!("seed {seed}: it broke off"))
                .and_then(|played| played)
                .map_err(|why| {
                    format!("{why}\nagain: cargo xtask sim leases --seed {seed} --deeds {length} --length {length}")
                })?;
            all.add(&seen);
        }
        Ok(all)
    };
    let parts: Vec<Result<leases::Seen, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..jobs).map(|job| scope.spawn(move || play(job))).collect();
        running.into_iter().map(|job| job.join().unwrap_or_else(|_| Err("a job broke off".into()))).collect()
    });
    let mut all = leases::Seen::default();
    for part in parts {
        all.add(&part?);
    }
    println!("{all} in {:.1} s", began.elapsed().as_secs_f64());
    let began = std::time::Instant::now();
    let states = leases::small::explore(2_000_000)?;
    let took_s = began.elapsed().as_secs_f64();
    println!("every history of 2 devices, 3 clients and one crash: {states} states, no rule broken, in {took_s:.1} s");
    Ok(())
}

/// The number behind an option.
fn number(args: &[String], option: &str) -> Result<Option<u64>, String> {
    let Some(at) = args.iter().position(|arg| arg == option) else { return Ok(None) };
    let text = args.get(at + 1).ok_or_else(|| format!("{option} needs a number\n\n{USAGE}"))?;
    text.parse().map(Some).map_err(|_| format!("{option}: {text:?} is no number\n\n{USAGE}"))
}

/// Nothing stands there that nobody reads.
fn known_only(args: &[String], with_number: &[&str], alone: &[&str]) -> Result<(), String> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if with_number.contains(&arg.as_str()) {
            rest.next();
        } else if !alone.contains(&arg.as_str()) {
            return Err(format!("{arg:?} is not known here\n\n{USAGE}"));
        }
    }
    Ok(())
}
