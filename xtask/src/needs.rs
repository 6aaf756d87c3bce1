//! What the tests need of the machine. Installed through apt when root; else named.

use std::{path::PathBuf, process::Command};

use crate::ground::step;

/// A program, the Debian package that brings it, and what needs it.
const PROGRAMS: [(&str, &str, &str); 16] = [
    ("cc", "build-essential", "the bundled SQLite and the shim"),
    ("apt-get", "apt", "the debian install source"),
    ("dpkg-deb", "dpkg", "the debian install source"),
    ("python3", "python3", "the wheel and venv install sources"),
    ("curl", "curl", "the raw JSON-RPC tests"),
    ("debootstrap", "debootstrap", "the machine with a real systemd"),
    ("docker", "docker.io", "the machine with a real systemd"),
    ("dockerd", "docker.io", "the machine with a real systemd"),
    ("docker-compose", "docker-compose", "compose projects"),
    ("busybox", "busybox-static", "compose projects"),
    ("setpriv", "util-linux", "tests as another user"),
    ("unshare", "util-linux", "pids and boot clocks of a test's own"),
    ("prlimit", "util-linux", "a daemon without descriptors"),
    ("chromium", "chromium", "the page of the services in a real browser"),
    ("chromedriver", "chromium-driver", "the page of the services in a real browser"),
    ("faketime", "faketime", "steps of the wall clock"),
];

/// Python modules, the Debian package, and what needs them.
const MODULES: [(&str, &str, &str); 2] =
    [("pip", "python3-pip", "the wheel install source"), ("venv", "python3-venv", "the venv install source")];

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

fn has_module(module: &str) -> bool {
    // ensurepip is what Debian leaves out of its python3: without it `venv` makes nothing usable.
    let import = if module == "venv" { "import venv, ensurepip" } else { "import pip" };
    Command::new("python3").args(["-c", import]).output().is_ok_and(|o| o.status.success())
}

fn missing() -> Vec<(&'static str, String)> {
    let programs = PROGRAMS
        .iter()
        .filter(|(program, _, _)| which(program).is_none())
        .map(|(program, package, why)| (*package, format!("{program} (Debian: {package}) for {why}")));
    let modules = MODULES
        .iter()
        .filter(|(module, _, _)| !has_module(module))
        .map(|(module, package, why)| (*package, format!("python3's {module} (Debian: {package}) for {why}")));
    programs.chain(modules).collect()
}

/// Everything is there, or is installed, or is named.
pub fn provide() -> Result<(), String> {
    let lacking = missing();
    if lacking.is_empty() {
        return Ok(());
    }
    let named: Vec<&str> = lacking.iter().map(|(_, text)| text.as_str()).collect();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    if !is_root || which("apt-get").is_none() {
        return Err(format!("missing, and only root can install it here:\n  {}", named.join("\n  ")));
    }
    println!("installing what the tests need:\n  {}", named.join("\n  "));
    step("apt-get update", Command::new("apt-get").args(["update", "-q"]))?;
    let packages: Vec<&str> = lacking.iter().map(|(package, _)| *package).collect();
    step(
        "apt-get install",
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    match missing().first() {
        None => Ok(()),
        Some((_, text)) => Err(format!("still missing after apt-get install: {text}")),
    }
}
