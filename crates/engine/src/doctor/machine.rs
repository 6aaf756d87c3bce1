//! Room, limits and time: what the machine gives.

use std::{fs, path::Path, process::Command, time::SystemTime};

use wharf_api::rpc::infra::Severity;

use super::{ground::Ground, report::Report};

/// So much room is little, and so much is too little, in percent.
const SCARCE: (f64, f64) = (10.0, 5.0);
/// Fewer open files are too few, with two a run.
const LEAST_FILES: u64 = 4096;
/// When this was written: no clock is right that is before it. Seconds since 1970.
const WRITTEN: u64 = 1_750_000_000;

pub fn check(ground: &Ground, report: &mut Report) {
    disk("disk-state", "the state", ground.layout.state(), report);
    disk("disk-logs", "the logs", ground.layout.all_logs(), report);
    files(report);
    pids(ground, report);
    zone(ground, report);
    clock(ground, report);
    session(ground, report);
    kill_mode(ground, report);
}

fn disk(id: &'static str, what: &str, folder: &Path, report: &mut Report) {
    let Ok(found) = rustix::fs::statvfs(folder) else { return };
    let percent = |free: u64, all: u64| if all == 0 { 100.0 } else { free as f64 * 100.0 / all as f64 };
    let (room, inodes) = (percent(found.f_bavail, found.f_blocks), percent(found.f_favail, found.f_files));
    let free = room.min(inodes);
    let megabytes = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
    let detail = format!("{}: {room:.1} % ({megabytes} MiB) and {inodes:.1} % of the inodes free", folder.display());
    let severity = match free {
        free if free < SCARCE.1 => Severity::Error,
        free if free < SCARCE.0 => Severity::Warning,
        _ => return report.fine(id, detail),
    };
    let title = format!("the disk of {what} is nearly full");
    let found = report.say(id, severity, title, detail);
    found.about([folder.display()]);
    found
        .fix("free some room; without it only stop, status and logs work", Some(format!("df -h {}", folder.display())));
}

fn files(report: &mut Report) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    // Beside a daemon it is the daemon's own; without one, what a daemon started from here would have.
    let hard = line.split_whitespace().nth(4).map_or(0, |n| n.parse().unwrap_or(u64::MAX));
    if hard >= LEAST_FILES {
        report.fine("open-files", format!("{hard} open files"));
    } else {
        let title = format!("the daemon may open {hard} files only");
        let detail = "it needs two a run and one a connection";
        let found = report.say("open-files", Severity::Warning, title, detail);
        found.fix("raise the hard limit: LimitNOFILE= of its service, or limits.conf", Some("ulimit -Hn".into()));
    }
}

fn pids(ground: &Ground, report: &mut Report) {
    let most: u64 =
        fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    // A number comes again the sooner, the fewer there are; identities do not rest on it where pidfs is.
    let wanted = 32_768.max(ground.units.len() as u64 * 64);
    if most >= wanted {
        report.fine("pid-max", format!("{most} process numbers"));
    } else {
        let title = format!("there are only {most} process numbers");
        let found = report.say("pid-max", Severity::Warning, title, format!("{wanted} would do"));
        found.fix("raise it", Some("sysctl kernel.pid_max=4194304".into()));
    }
}

fn zone(ground: &Ground, report: &mut Report) {
    let named = std::env::var("TZ").ok().filter(|tz| !tz.is_empty());
    let readable = match named.as_deref() {
        None => fs::read("/etc/localtime").is_ok_and(|zone| zone.starts_with(b"TZif")),
        // A rule as `CET-1CEST` needs no file.
        Some(name) => {
            let name = name.trim_start_matches(':');
            name == "UTC" || name.contains(',') || fs::metadata(Path::new("/usr/share/zoneinfo").join(name)).is_ok()
        }
    };
    if readable {
        return report.fine("time-zone", named.unwrap_or_else(|| "/etc/localtime".into()));
    }
    let scheduled = ground.units.iter().filter(|unit| unit.policy.schedule.is_some()).map(|unit| &unit.name);
    let scheduled: Vec<_> = scheduled.collect();
    let severity = if scheduled.is_empty() { Severity::Note } else { Severity::Warning };
    let title = "the time zone cannot be read: schedules are in UTC";
    let detail = named.map_or_else(|| "/etc/localtime is missing".into(), |tz| format!("TZ is {tz:?}"));
    report
        .say("time-zone", severity, title, detail)
        .about(scheduled)
        .fix("set it, and install the zones (tzdata)", Some("timedatectl set-timezone Europe/Berlin".into()));
}

fn clock(ground: &Ground, report: &mut Report) {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let written = fs::metadata(ground.layout.state_db()).and_then(|found| found.modified()).ok();
    let ahead = written.and_then(|at| at.duration_since(now).ok()).map_or(0, |ahead| ahead.as_secs());
    if seconds < WRITTEN || ahead > 3600 {
        let detail = match seconds < WRITTEN {
            true => format!("it says {seconds} seconds since 1970"),
            false => format!("the journal was written {ahead} seconds from now"),
        };
        let found = report.say("clock", Severity::Warning, "the machine's clock is wrong", detail);
        let text = "set it; Wharf decides by another clock, but schedules, logs and certificates need this one";
        found.fix(text, Some("timedatectl set-ntp true".into()));
    } else {
        report.fine("clock", "the clock is later than the journal");
    }
}

fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A user's services end with the last session, unless the user lingers.
fn session(ground: &Ground, report: &mut Report) {
    let Some(own) = wharf_runtime::Account::own().filter(|own| own.uid != 0 && is_systemd()) else {
        return report.fine("linger", "no login session ends the services");
    };
    if Path::new("/var/lib/systemd/linger").join(&own.name).exists() {
        return report.fine("linger", format!("{} lingers", own.name));
    }
    let severity = if ground.units.iter().any(|unit| unit.is_wanted) { Severity::Warning } else { Severity::Note };
    let title = format!("services end when {} logs out", own.name);
    let found = report.say("linger", severity, title, "systemd ends a user's processes with the last session");
    found.fix("let the user linger", Some(format!("loginctl enable-linger {}", own.name)));
}

/// systemd ends what is in the service's cgroup when it ends the daemon, unless it is told not to.
fn kill_mode(ground: &Ground, report: &mut Report) {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let parts = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    let service = parts().rfind(|part| part.ends_with(".service")).map(str::to_owned);
    // Only the daemon's own is of interest; user@1000.service is the manager of a user.
    let service = service.filter(|name| ground.is_daemon && is_systemd() && !name.starts_with("user@"));
    let Some(service) = service else { return report.fine("kill-mode", "systemd does not run the daemon") };
    let mut asked = Command::new("systemctl");
    if wharf_runtime::Account::own().is_some_and(|own| own.uid != 0) {
        asked.arg("--user");
    }
    let said = asked.args(["show", "-p", "KillMode", "--value", &service]).output();
    let mode = said.ok().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    match mode.as_str() {
        "process" | "none" => report.fine("kill-mode", format!("{service}: KillMode={mode}")),
        "" => report.fine("kill-mode", format!("{service} could not be asked")),
        mode => {
            let title = "systemd ends all services with the daemon";
            let detail = format!("{service} has KillMode={mode}");
            let found = report.say("kill-mode", Severity::Error, title, detail);
            found.about([service]).fix("set KillMode=process and Delegate=yes in its unit", Some("wharf setup".into()));
        }
    }
}
