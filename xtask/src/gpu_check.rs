//! What this machine's GPUs really do.

use std::process::Command;

use crate::ground::{cargo, root, step};

/// `cargo xtask gpu-check [--out docs/FILE.md] [--short]`.
pub fn run(args: &[String]) -> Result<(), String> {
    step("build", &mut cargo(&["build", "--locked", "--package", "wharf-tests", "--bin", "wharf-gpu-check"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    step("the check", Command::new(target.join("debug/wharf-gpu-check")).args(args))
}
