//! The kill loop: a real daemon killed over and over while its units are churned.

use std::process::Command;

use crate::ground::{cargo, root, step};

/// `cargo xtask chaos [--rounds 1000] [--seed N] [--release]`; with WHARF_BIN that binary is killed.
pub fn run(args: &[String]) -> Result<(), String> {
    let is_release = args.iter().any(|arg| arg == "--release");
    let mut build = vec!["build", "--locked", "--package", "wharf", "--package", "wharf-tests", "--bins"];
    if is_release {
        build.push("--release");
    }
    step("build", &mut cargo(&build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let program = target.join(if is_release { "release" } else { "debug" }).join("wharf-chaos");
    step("kill loop", Command::new(program).args(args.iter().filter(|arg| *arg != "--release")))
}
