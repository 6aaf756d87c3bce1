//! Where to look: this machine, or what a test puts in its place.
//!
//! Owns the paths and the cheap questions about them.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{LIBRARY, Program, Runs, SIMULATED, simulated};
use crate::{Layout, launch};

/// A driver that answers later than this is taken for hung.
const DEADLINE: Duration = Duration::from_secs(2);
/// What NVIDIA's kernel driver leaves to be seen; the last is WSL's.
const TRACES: [&str; 4] = ["dev/nvidiactl", "proc/driver/nvidia/version", "sys/module/nvidia", "dev/dxg"];
/// The machine's first PID namespace always has this number (`PROC_PID_INIT_INO`).
const FIRST_PIDS: &str = "pid:[4026531836]";

/// Where to look, and how.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The process that asks NVIDIA's driver. Its variables name the library, where `nvml` does.
    pub program: Program,
    /// NVIDIA's library, where a person has named it.
    pub nvml: Option<PathBuf>,
    /// Where /sys, /proc and /dev are.
    pub root: PathBuf,
    /// The file with the simulated devices.
    pub simulated: PathBuf,
    /// The folder where programs write what they have of these, unless the file names another.
    pub held: PathBuf,
    /// How this installation's runs are known.
    pub runs: Runs,
    /// Whose numbers of processes the driver tells.
    pub pids: Pids,
}

/// Whose numbers of processes NVIDIA's driver tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pids {
    /// The machine's, which are ours in its first namespace. In another they are believed with a proof only.
    #[default]
    FindOut,
    /// As in another namespace.
    OfAnotherNamespace,
}

impl Ground {
    /// This machine, for the installation of this id. `WHARF_NVML_LIB` and `WHARF_GPUS` count.
    pub fn of_machine(layout: &Layout, installation: &str) -> Self {
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Also after the daemon's own file was replaced: a new version speaks to a new version only.
        let argv: Vec<OsString> = vec!["/proc/self/exe".into(), "gpu-probe".into()];
        Self {
            program: Program { argv, env: vec![], deadline: DEADLINE },
            nvml: named(LIBRARY),
            root: "/".into(),
            simulated: named(SIMULATED).unwrap_or_else(|| layout.simulated_gpus()),
            held: layout.units().join(".gpus"),
            runs: Runs {
                subtree: Some(launch::subtree(installation)),
                folder: layout.runs(),
                units: layout.units().to_owned(),
            },
            pids: Pids::FindOut,
        }
    }

    /// Where programs write what they have of simulated devices.
    pub fn simulated_folder(&self) -> PathBuf {
        let declared = simulated::read(&self.simulated).ok().flatten();
        declared.and_then(|declared| declared.folder).unwrap_or_else(|| self.held.clone())
    }

    /// Whether NVIDIA's driver can be there at all. Nothing is loaded for that.
    pub fn has_nvidia(&self) -> bool {
        match &self.nvml {
            Some(path) => !path.as_os_str().is_empty(),
            None => TRACES.iter().any(|trace| self.root.join(trace).exists()),
        }
    }
}

/// Whether our numbers of processes are the machine's.
pub fn is_first_pid_namespace(root: &Path) -> bool {
    fs::read_link(root.join("proc/self/ns/pid")).is_ok_and(|link| link == Path::new(FIRST_PIDS))
}

/// Whether a process has a device of NVIDIA's open.
pub fn has_nvidia_open(root: &Path, pid: i32) -> bool {
    let Ok(entries) = fs::read_dir(root.join(format!("proc/{pid}/fd"))) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        target.starts_with("/dev/nvidia") || target == "/dev/dxg"
    })
}

/// The machine's memory in bytes: all, and what can be had.
pub fn machine_memory(root: &Path) -> (u64, u64) {
    let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    (of("MemTotal:").unwrap_or(0), of("MemAvailable:").unwrap_or(0))
}

/// A folder like /tmp: services of other users write in it. One that is there is left as it is.
pub fn make_open_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777))
}
