//! What a machine's GPUs really do, against what the arbiter relies on. Needs a driver, and no CUDA toolkit.
//!
//! Owns the report and its order. Memory is taken by processes of their own (`part`), looked at as the daemon
//! looks at it (`stage`). Changes no setting of a device, and takes plain memory only.

mod life;
mod memory;
mod part;
mod stage;

use std::{fmt::Write as _, fs, time::Instant};

use stage::Stage;

/// What a check found, in Markdown; or why it cannot be done here.
type Found = Result<String, String>;
type Check = fn(&Stage) -> Found;

/// In the order of the report. The numbers are those of the list that the arbiter was designed by.
const CHECKS: [(&str, Check); 11] = [
    ("1. What `total`, `free` and `reserved` mean", memory::fields),
    ("2. What 8 GiB cost, and what nobody is charged for", memory::declared),
    ("3. From death to memory", life::deaths),
    ("4. How much of what is free can be had", memory::fill),
    ("5. Whose numbers of processes", memory::numbers),
    ("6. Names in CUDA_VISIBLE_DEVICES", life::names),
    ("7. The price of a look", memory::price),
    ("8. Off the device and back", life::checkpoint),
    ("9. Two that load at once", life::two_at_once),
    ("10. The daemon with services that do not fit together", the_daemon),
    ("11. What a framework keeps", life::framework),
];

/// One of the program's words, or the whole report.
///
/// # Errors
/// Where a part fails, or the report cannot be written. A machine without a GPU is no error.
pub fn run(args: &[String]) -> Result<(), String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hold", bytes] => part::hold(bytes),
        ["fill"] => part::fill(),
        ["count"] => part::count(),
        ["checkpoint", pid] => part::checkpoint(pid),
        ["probe"] | ["gpu-probe"] => wharf_runtime::gpu::serve().map_err(|e| e.to_string()),
        _ => report(args),
    }
}

fn report(args: &[String]) -> Result<(), String> {
    let out = args.iter().position(|arg| arg == "--out").and_then(|at| args.get(at + 1));
    let is_short = args.iter().any(|arg| arg == "--short");
    let stage = match Stage::open(is_short) {
        Ok(stage) => stage,
        Err(why) => {
            println!("CANNOT BE DONE HERE: the check of GPUs, since {why}");
            return Ok(());
        }
    };
    let mut text = String::from("# What the GPUs of this machine do\n\n");
    let _ = writeln!(text, "{}", stage.machine());
    for (title, check) in CHECKS {
        let began = Instant::now();
        eprintln!("{title} ...");
        let found = check(&stage).unwrap_or_else(|why| format!("CANNOT BE DONE HERE: {why}"));
        let _ = writeln!(text, "## {title}\n\n{found}\n\n<small>{:.1} s</small>\n", began.elapsed().as_secs_f64());
    }
    println!("{text}");
    match out {
        Some(path) => fs::write(path, &text).map_err(|e| format!("{path}: {e}")),
        None => Ok(()),
    }
}

fn the_daemon(_: &Stage) -> Found {
    Err("it needs a daemon and its services; the end-to-end tests have them, on the stand-in driver".into())
}

/// The smallest, the middle, the 99th of a hundred and the largest of some figures, in milliseconds.
fn spread(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let at = |part: usize| figures.get(figures.len().saturating_sub(1) * part / 100).copied().unwrap_or(f64::NAN);
    format!("{:.1} | {:.1} | {:.1} | {:.1}", at(0), at(50), at(99), at(100))
}

/// Bytes for people.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn gib(bytes: u64) -> String {
    format!("{:.3} GiB", bytes as f64 / f64::from(1 << 30))
}
