//! `cargo xtask sim`: the simulation of the core, built fast and run on both cores.

use crate::ground::{cargo, root, step};

/// How long a merge is simulated, in seconds.
const MERGE_S: &str = "60";

/// How many deeds the arbiter alone is tried with in a merge. Ten million take some minutes.
const LEASE_DEEDS: &str = "400000";

fn build() -> Result<(), String> {
    let status = cargo(&["build", "--quiet", "--locked", "--profile", "sim", "--package", "wharf-sim"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the simulation does not build ({status})")),
        Err(e) => Err(format!("cargo: {e}")),
    }
}

/// `cargo xtask sim [OPTIONS]`, `sim replay FILE`, `sim scenarios`, `sim leases`: see docs/simulation.md.
pub fn run(args: &[String]) -> Result<(), String> {
    build()?;
    let mut sim = program();
    let status = sim.args(args).status().map_err(|e| format!("{}: {e}", sim.get_program().display()))?;
    if status.success() { Ok(()) } else { Err("the simulation has found something: see above".into()) }
}

/// What a merge must pass: every scenario, the first seeds for a minute, and once 10,000 units. The
/// same seeds each time: a merge fails by its own doing. Other seeds are for whoever looks for faults.
pub fn merge() -> Result<(), String> {
    build()?;
    step("simulation: scenarios", program().arg("scenarios"))?;
    step("simulation: seeds", program().args(["--seconds", MERGE_S, "--jobs", "2", "--seed", "1"]))?;
    step("simulation: leases", program().args(["leases", "--deeds", LEASE_DEEDS]))?;
    step("simulation: 10,000 units", program().args(["--seed", "1", "--units", "10000", "--steps", "30000"]))?;
    step("simulation: 10,000 units, all up", program().args(["crowd", "10000"]))
}

fn program() -> std::process::Command {
    let mut command = std::process::Command::new(root().join("target/sim/wharf-sim"));
    command.current_dir(root());
    command
}
