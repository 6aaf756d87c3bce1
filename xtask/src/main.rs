//! Wharf's development tasks: `cargo xtask test`, `chaos`, `sim`, `bench`, `catalogue`, `docs`.
//!
//! A task is one file and one line in `TASKS`.

mod bench;
mod bench_arbiter;
mod catalogue;
mod chaos;
mod docs;
mod gpu_check;
mod ground;
mod needs;
mod sim;
mod test;
mod told;

use std::process::ExitCode;

type Task = fn(&[String]) -> Result<(), String>;

const TASKS: [(&str, &str, Task); 7] = [
    ("test", "everything that a merge must pass; installs what it needs when root", test::run),
    ("bench", "the figures of README.md, each beside its floor, in one run", bench::run),
    (
        "chaos",
        "kills a real daemon a thousand times while its units are churned; --rounds N --seed N --release",
        chaos::run,
    ),
    ("sim", "the core in a simulated world with faults; `sim replay FILE` steps through a failure", sim::run),
    ("gpu-check", "what this machine's GPUs really do, as a report; --out FILE --short", gpu_check::run),
    (
        "catalogue",
        "installs, starts, asks, stops and deletes each service for real, and writes docs/catalogue.md; [NAME…] --with JSON",
        catalogue::run,
    ),
    ("docs", "writes docs/man/wharf.1 and docs/catalogue.md anew", docs::run),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((_, _, task)) = args.first().and_then(|name| TASKS.iter().find(|(n, _, _)| n == name)) else {
        eprintln!("usage: cargo xtask TASK\n");
        for (name, about, _) in TASKS {
            eprintln!("  {name:<9} {about}");
        }
        return ExitCode::from(2);
    };
    match task(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nxtask: {why}");
            ExitCode::FAILURE
        }
    }
}
