//! Running programs, and where the repository is.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// `cargo` in the repository.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args).stdin(Stdio::null());
    command
}

/// Runs it, says what and how long, fails where it fails.
pub fn step(what: &str, command: &mut Command) -> Result<(), String> {
    println!("\n=== {what}");
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{what}: {e}"))?;
    println!("=== {what}: {status} after {:.0} s", began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}
