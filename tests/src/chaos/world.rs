//! Which processes there are, from one look through /proc.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process of the kill loop's world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// The main process of a unit's life.
    Main { unit: String, pid: i32 },
    /// What a life left behind.
    Left { unit: String, pid: i32, of: i32 },
    /// The shim of a run.
    Shim { unit: String, run: u64, pid: i32 },
    /// What forks shims.
    Launcher { pid: i32 },
}

/// All of the world whose Wharf lives in `home` and whose witnesses write to `dir`.
pub fn look(home: &Path, dir: &Path) -> Vec<Process> {
    let (home, dir) = (home.display().to_string(), dir.display().to_string());
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(|pid| name(pid, &home, &dir)).collect()
}

fn name(pid: i32, home: &str, dir: &str) -> Option<Process> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let words: Vec<&str> = line.split('\0').collect();
    let program = words.first()?;
    if program.ends_with("/wharf-shim") && program.starts_with(home) {
        let title = words.get(1)?;
        if *title == "launcher" {
            return Some(Process::Launcher { pid });
        }
        let run = words.get(2)?.trim().parse().ok()?;
        return Some(Process::Shim { unit: (*title).to_owned(), run, pid });
    }
    if !program.ends_with("/wharf-witness") || *words.get(1)? != dir || !crate::alive(pid) {
        return None;
    }
    let unit = (*words.get(2)?).to_owned();
    if *words.get(3)? == "left" {
        return Some(Process::Left { unit, pid, of: words.get(4)?.parse().ok()? });
    }
    Some(Process::Main { unit, pid })
}

/// The kernel's start time of a live process.
pub fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit(')').next()?.split_whitespace();
    let state = rest.next()?;
    let ticks = rest.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(ticks)
}

/// `kill -9`.
pub fn kill_9(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
