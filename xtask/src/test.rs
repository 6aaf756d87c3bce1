//! Everything that a merge must pass, in the order in which it fails fastest.

use crate::{
    chaos,
    ground::{cargo, step},
    needs, sim,
    told::Told,
};

/// Kills of the daemon in each run: a minute of them.
const ROUNDS: &str = "200";

/// `cargo xtask test [FILTER]`: a filter runs only the end-to-end tests whose names hold it.
pub fn run(args: &[String]) -> Result<(), String> {
    needs::provide()?;
    if let [filter] = args {
        step("build", &mut cargo(&["build", "--locked", "--workspace", "--bins"]))?;
        return step(
            "end to end",
            &mut cargo(&["test", "--locked", "--package", "wharf-tests", "--test", "e2e", "--", filter]),
        );
    }
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", &mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("build", &mut cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    step(
        "unit, property and simulation tests",
        &mut cargo(&["test", "--locked", "--workspace", "--exclude", "wharf-tests"]),
    )?;
    sim::merge()?;
    chaos::run(&["--rounds".into(), ROUNDS.into()])?;
    let mut told = Told::default();
    // Two at a time: each has a daemon of its own, and two cores are what there is.
    let tests = ["test", "--locked", "--package", "wharf-tests", "--", "--test-threads", "2", "--show-output"];
    let ended = told.step("end to end", &mut cargo(&tests));
    told.tell();
    ended
}
