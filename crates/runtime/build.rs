//! Builds the shim, so that the daemon carries it: one file to install, and the two always fit.
//!
//! A nested cargo, since a program cannot be a dependency of a library: its own target folder (no
//! lock is shared with the outer one), no network, and none of the outer build's flags or wrappers.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Static and at a fixed place: no dynamic linker, no relocations, few private pages. The separator is cargo's.
const STATIC: &str = "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static";
/// The outer cargo speaks to build scripts through these; a nested one would take them for its own.
const FOREIGN: [&str; 7] =
    ["RUSTFLAGS", "RUSTC", "RUSTDOC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOCFLAGS", "CLIPPY_ARGS"];

fn main() {
    for input in ["shim/src", "shim/Cargo.toml", "sys/src", "sys/Cargo.toml"] {
        println!("cargo::rerun-if-changed=../{input}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(wanted("OUT_DIR"));
    let shim = match build(&out.join("shim"), STATIC) {
        Ok(shim) => shim,
        Err(why) => {
            println!("cargo::warning=the shim is linked dynamically, it takes more memory: {why}");
            build(&out.join("shim-dynamic"), "").unwrap_or_else(|why| panic!("could not build the shim: {why}"))
        }
    };
    println!("cargo::rustc-env=WHARF_SHIM={}", shim.display());
}

fn wanted(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

fn build(target_dir: &Path, flags: &str) -> Result<PathBuf, String> {
    // Named even where it is the host: only then do the flags stay away from build scripts.
    let target = wanted("TARGET");
    let mut cargo = Command::new(wanted("CARGO"));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = text.starts_with("CARGO") && text != "CARGO_HOME";
        if inherited || FOREIGN.contains(&&*text) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--quiet", "--offline", "--profile", "shim", "--bin", "wharf-shim"])
        .args(["--manifest-path", "../shim/Cargo.toml", "--target", &target, "--target-dir"])
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    let done = cargo.output().map_err(|e| format!("could not run cargo: {e}"))?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).replace('\n', " "));
    }
    Ok(target_dir.join(target).join("shim").join("wharf-shim"))
}
