//! What this kernel and this machine can do for Wharf, tried rather than read off a version where that is possible.

use std::{fs, io::Write, os::fd::AsFd};

use wharf_api::rpc::infra::Severity;
use wharf_model::{Limits, UnitName};
use wharf_runtime::launch::{By, Tier};

use super::{ground::Ground, report::Report};

pub fn check(ground: &Ground, report: &mut Report) {
    containment(ground, report);
    limits(ground, report);
    processes(report);
    holes(ground, report);
    memory(ground, report);
    yama(report);
}

fn containment(ground: &Ground, report: &mut Report) {
    let Some(launcher) = &ground.launcher else { return };
    match launcher.tier() {
        Tier::Cgroup { root } => {
            report.fine("containment", format!("each run has a cgroup below {}", root.display()));
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            let has = if controllers.trim().is_empty() { "no controllers" } else { controllers.trim() };
            report.fine("kernel-cgroup2", format!("cgroup2 can be written: {has}"));
            report.fine("kernel-cgroup-kill", "a run can be ended as a whole (cgroup.kill)");
            release(report, "kernel-clone-into-cgroup", (5, 7), "a process can be born in its cgroup");
        }
        Tier::Session => {
            let detail = "runs are held together by their shims and locks alone: a program that forks faster than \
                          it is looked at can escape for a while, and limits hold for each process only";
            // Without a daemon only this session's rights are seen: a service of the system can have more.
            let severity = if ground.is_daemon { Severity::Warning } else { Severity::Note };
            let found = report.say("containment", severity, "runs have no cgroup of their own", detail);
            let text = "give the daemon a writable cgroup2: run it as a system service with Delegate=yes";
            found.fix(text, Some("wharf setup".into()));
            let mounted = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
            let is_mounted = mounted.iter().any(|path| fs::metadata(path).is_ok());
            let why = if is_mounted { "it is mounted, and cannot be written to" } else { "it is not mounted" };
            report.say("kernel-cgroup2", Severity::Note, "cgroup2 cannot be used here", why);
        }
    }
}

fn limits(ground: &Ground, report: &mut Report) {
    let Some(abilities) = ground.launcher.as_ref().map(|launcher| launcher.abilities()) else { return };
    let users = |has: fn(&Limits) -> bool| -> Vec<&UnitName> {
        ground.units.iter().filter(|unit| has(&unit.policy.limits)).map(|unit| &unit.name).collect()
    };
    for (id, what, by, users) in [
        ("limit-memory", "memory", abilities.memory, users(|l| l.memory_bytes.is_some())),
        ("limit-cpu", "processor time", abilities.cpu, users(|l| l.cpu_percent.is_some())),
        ("limit-pids", "processes", abilities.pids, users(|l| l.pids.is_some())),
    ] {
        let detail = match by {
            By::Cgroup2 | By::Cgroup1 => {
                report.fine(id, format!("{what} is limited by {by}"));
                continue;
            }
            By::Rlimit => format!("{what} is limited for each process of a run, not for all together (rlimit)"),
            By::None => format!("a limit of {what} is not enforced"),
        };
        let severity = if users.is_empty() || !ground.is_daemon { Severity::Note } else { Severity::Warning };
        let title = format!("{what} of a run cannot be limited as a whole");
        report.say(id, severity, title, detail).about(users).fix(
            "give the daemon a cgroup2 with its controllers: a system service with Delegate=yes",
            Some("wharf setup".into()),
        );
    }
}

fn processes(report: &mut Report) {
    let own = std::process::id().cast_signed();
    let Ok(process) = wharf_sys::pidfd::open(own) else {
        let found = report.say("kernel-pidfd", Severity::Error, "this kernel has no pidfds", "Linux 5.4 is the oldest");
        found.fix("use a newer kernel", None);
        return;
    };
    report.fine("kernel-pidfd", "processes are held by descriptors, not by numbers");
    // A pidfs inode is small; what is made of start times has the highest bit.
    match wharf_sys::pidfd::identity(&process, own) {
        Ok(identity) if identity >> 63 == 0 => {
            report.fine("kernel-pidfs", "a process has a number of its own for ever")
        }
        Ok(_) | Err(_) => {
            let detail = "processes are told apart by pid and start time (Linux 6.9 has better)";
            report.say("kernel-pidfs", Severity::Note, "no pidfs inodes", detail);
        }
    }
    match wharf_sys::pidfd::cgroup_id(&process) {
        Some(_) => release(report, "kernel-pidfd-exit", (6, 15), "how a process ended is known without its parent"),
        None => {
            let detail = "how a run ended is known from its shim alone: with a killed shim it is unknown (Linux 6.15)";
            report.say("kernel-pidfd-exit", Severity::Note, "the kernel does not tell how strangers ended", detail);
        }
    }
}

/// What cannot be tried without harm is read off the version.
fn release(report: &mut Report, id: &'static str, since: (u32, u32), what: &str) {
    let uname = rustix::system::uname();
    let text = uname.release().to_string_lossy().into_owned();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= since {
        report.fine(id, format!("{what} (Linux {text})"));
    } else {
        let (major, minor) = since;
        report.say(id, Severity::Note, format!("not on Linux {text}: {what}"), format!("Linux {major}.{minor} can"));
    }
}

/// The logs of live runs are shortened from the front.
fn holes(ground: &Ground, report: &mut Report) {
    use rustix::fs::{FallocateFlags, fallocate};
    let path = ground.layout.all_logs().join(format!(".doctor-{}", std::process::id()));
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let tried = fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(&[1; 8192])?;
        fallocate(file.as_fd(), flags, 0, 4096).map_err(std::io::Error::from)
    });
    let _ = fs::remove_file(&path);
    match tried {
        Ok(()) => report.fine("log-punch-hole", "the logs of live runs give back their room"),
        // No folder yet: nothing to look at.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            let detail = format!("the file system of {}: {e}", ground.layout.all_logs().display());
            let found = report.say(
                "log-punch-hole",
                Severity::Warning,
                "logs of live runs cannot give back their room",
                detail,
            );
            found.fix("put the logs on ext4, xfs, btrfs or tmpfs, or restart chatty units now and then", None);
        }
    }
}

fn memory(ground: &Ground, report: &mut Report) {
    let users: Vec<&UnitName> =
        ground.units.iter().filter(|unit| !unit.policy.secrets.is_empty()).map(|unit| &unit.name).collect();
    match ground.credentials.place() {
        Some(place) => {
            report.fine("credentials-tmpfs", format!("secrets of runs lie in memory, at {}", place.display()))
        }
        None => {
            let severity = if users.is_empty() { Severity::Note } else { Severity::Error };
            let title = "there is no file system in memory for secrets";
            let found = report.say("credentials-tmpfs", severity, title, "units with secrets are blocked");
            found.about(users).fix("mount one", Some("mount -t tmpfs tmpfs /dev/shm".into()));
        }
    }
}

fn yama(report: &mut Report) {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "" | "0" => {
            let detail = "a process of a user can look into the user's other processes, and so into services and \
                          what they were given; the daemon itself is closed";
            let found = report.say("yama", Severity::Note, "processes of one user are open to each other", detail);
            found.fix("forbid it", Some("sysctl kernel.yama.ptrace_scope=1".into()));
        }
        scope => report.fine("yama", format!("ptrace_scope is {scope}")),
    }
}
