//! `cargo xtask gpu-check`: what this machine's GPUs really do, as a report in Markdown.
//!
//! ```text
//! wharf-gpu-check [--out FILE] [--short]   the report
//! wharf-gpu-check hold BYTES               takes memory and waits to be killed    (a part of it)
//! wharf-gpu-check fill                     takes all that can be had, and says so
//! wharf-gpu-check count                    says how many devices CUDA shows
//! wharf-gpu-check checkpoint PID           off the device and back, with times
//! wharf-gpu-check probe                    asks NVIDIA's driver, for the report
//! ```
//!
//! The program alone is enough: it can be carried to a machine that has no cargo.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match wharf_tests::gpu_check::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("gpu-check: {why}");
            ExitCode::FAILURE
        }
    }
}
