//! What must be there before a start: each requirement is looked at, and what is missing is named.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use wharf_model::{ErrorKind, Failure, Requirement};

/// Looks at one. `variable` reads the unit's own environment, `version` asks a program for its version.
pub(crate) fn missing(requirement: &Requirement, variable: impl Fn(&str) -> Option<String>) -> Option<Failure> {
    match requirement {
        Requirement::Device(path) => unopened(path),
        Requirement::File(path) => (!path.exists()).then(|| {
            lacking(format!("{} does not exist", path.display())).hint("make it, or take the requirement back")
        }),
        Requirement::Env(name) => variable(name).is_none_or(|value| value.is_empty()).then(|| {
            lacking(format!("the variable {name} is not set"))
                .hint(format!("give it: --with env.{name}=VALUE, or a line in the env file"))
        }),
        Requirement::Program(program) => crate::which::first(program)
            .is_none()
            .then(|| lacking(format!("the program {program} is not in PATH")).hint(format!("install {program}"))),
        Requirement::Display => no_display(variable),
        // Asked by running it: see `too_old`.
        Requirement::Version { .. } => None,
        // Whoever hands GPUs out knows which there are.
        Requirement::Gpu(_) => None,
        Requirement::System(wanted) => (*wanted != system()).then(|| {
            lacking(format!("it runs on {wanted} only, and this is {}", system())).hint("run it on such a machine")
        }),
    }
}

/// This kind of machine: `linux-x86_64`.
fn system() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn lacking(text: String) -> Failure {
    Failure::new(ErrorKind::Precondition, text)
}

fn unopened(path: &Path) -> Option<Failure> {
    let error = OpenOptions::new().read(true).write(true).open(path).err()?;
    let text = format!("the device {} cannot be opened: {error}", path.display());
    Some(lacking(text).hint(match error.kind() {
        std::io::ErrorKind::NotFound => "this machine has no such device, or its driver is not loaded",
        std::io::ErrorKind::PermissionDenied => "give the user that Wharf runs as the right to use it",
        _ => "see what the kernel says: dmesg",
    }))
}

fn no_display(variable: impl Fn(&str) -> Option<String>) -> Option<Failure> {
    let wayland = variable("WAYLAND_DISPLAY").map(|name| {
        let dir = variable("XDG_RUNTIME_DIR").unwrap_or_default();
        Path::new(&dir).join(name)
    });
    let x11 = variable("DISPLAY").and_then(|display| {
        let number = display.strip_prefix(':')?.split('.').next()?.to_owned();
        Some(PathBuf::from(format!("/tmp/.X11-unix/X{number}")))
    });
    let reachable = [wayland, x11].into_iter().flatten().any(|socket| socket.exists());
    (!reachable).then(|| {
        lacking("there is no display: neither DISPLAY nor WAYLAND_DISPLAY leads to one".into())
            .hint("start it inside a graphical session, or under Xvfb with --with env.DISPLAY=:99")
    })
}

/// Whether a program's own words name a version that is old enough to fail. `None`: it is recent enough.
pub(crate) fn too_old(program: &str, at_least: &str, said: &str) -> Option<Failure> {
    let least = numbers(at_least);
    match version_in(said) {
        None => Some(lacking(format!("{program} does not say its version")).hint(format!("{program} --version"))),
        Some(found) if numbers(&found) < least => Some(
            lacking(format!("{program} is version {found}, and {at_least} or newer is needed"))
                .hint(format!("install {program} {at_least}, and see that it is the first in PATH")),
        ),
        Some(_) => None,
    }
}

/// The first word of digits and dots: `v20.11.1`, `Python 3.11.2`, `redis-server v=7.0.15`.
fn version_in(said: &str) -> Option<String> {
    let word = said
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(word.to_owned())
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (said, version) in [
            ("v20.11.1\n", "20.11.1"),
            ("Python 3.11.2", "3.11.2"),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
    }

    #[test]
    fn ten_is_newer_than_nine() {
        assert_eq!(too_old("node", "9.2", "v10.0.0"), None);
        let failure = too_old("node", "22", "v20.11.1").unwrap();
        assert_eq!(failure.message, "node is version 20.11.1, and 22 or newer is needed");
        assert!(too_old("x", "1", "no idea").unwrap().message.contains("does not say"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = |_: &str| None;
        let said = |requirement| missing(&requirement, none).map(|f| f.message).unwrap_or_default();
        assert!(said(Requirement::Device("/dev/no-such-device".into())).contains("/dev/no-such-device"));
        assert!(said(Requirement::Env("API_KEY".into())).contains("API_KEY"));
        assert!(said(Requirement::Program("no-such-program".into())).contains("no-such-program"));
        assert!(said(Requirement::File("/no/such/file".into())).contains("/no/such/file"));
        assert!(said(Requirement::Display).contains("display"));
        assert!(said(Requirement::System("plan9-mips".into())).contains("plan9-mips only, and this is linux-"));
        assert_eq!(said(Requirement::System(system())), "");
        assert_eq!(said(Requirement::Device("/dev/null".into())), "");
    }
}
