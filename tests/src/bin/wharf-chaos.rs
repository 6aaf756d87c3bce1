//! The kill loop as a program: `wharf-chaos [--rounds N] [--seed N]`. Ends with 1 where a promise was broken.

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use wharf_tests::chaos::{Plan, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos().into());
    let mut plan = Plan { rounds: 1_000, seed: clock };
    for pair in args.chunks(2) {
        match pair {
            [flag, value] if flag == "--rounds" && value.parse::<u32>().is_ok() => {
                plan.rounds = value.parse().unwrap_or(plan.rounds);
            }
            [flag, value] if flag == "--seed" && value.parse::<u64>().is_ok() => {
                plan.seed = value.parse().unwrap_or(plan.seed);
            }
            _ => {
                eprintln!("usage: wharf-chaos [--rounds N] [--seed N]");
                return ExitCode::from(2);
            }
        }
    }
    let report = run(plan);
    print!("{}", report.text());
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
