//! The core's invariants, on the live machine: each unit has the run that it is said to have, and one alone.

use std::{collections::BTreeMap, fs};

use wharf_api::rpc::infra::Severity;
use wharf_model::UnitName;

use super::{
    ground::{Ground, Known},
    report::{Cure, Report},
};

pub fn check(ground: &Ground, report: &mut Report) {
    for unit in &ground.units {
        of_unit(ground, unit, report);
    }
    of_others(ground, report);
    twice(ground, report);
    shims(ground, report);
}

/// What is written down lives, and is what is written down.
fn of_unit(ground: &Ground, unit: &Known, report: &mut Report) {
    let Some(run) = unit.run.filter(|_| unit.is_up) else { return };
    let name = &unit.name;
    let Some(seen) = ground.run(run).filter(|seen| seen.lives()) else {
        let title = format!("{name} is said to run, and nothing of it lives");
        let what = if ground.is_daemon { "the daemon has not noticed" } else { "it ended while no daemon ran" };
        let severity = if ground.is_daemon { Severity::Error } else { Severity::Warning };
        let command = if ground.is_daemon { format!("wharf restart {name}") } else { "wharf up".into() };
        let found = report.say("run-lost", severity, title, format!("run {run}: {what}"));
        found.about([name.to_string()]).fix("it is looked at again and started if it is wanted", Some(command));
        found.fleeting();
        return;
    };
    let lock = if seen.locked { "its lock is held" } else { "its lock is free" };
    let group = match (&seen.cgroup, seen.populated) {
        (Some(_), true) => "its cgroup has processes",
        (Some(_), false) => "its cgroup is empty",
        (None, _) => "it has no cgroup",
    };
    let main = seen.main.map_or_else(|| "its first main process has ended".into(), |pid| format!("pid {pid} is it"));
    let facts = format!("run {run}: {lock}, {group}, {main}");
    // A program can close all its descriptors, and can name another main process: two of three must agree.
    let agree = [seen.locked, seen.cgroup.is_none() || seen.populated, seen.main.is_some()];
    if agree.iter().filter(|holds| **holds).count() >= 2 {
        report.fine("run-identity", format!("{name}: {facts}"));
    } else {
        let title = format!("the traces of {name} do not agree");
        let found = report.say("run-identity", Severity::Warning, title, facts);
        found.about([name.to_string()]).fleeting();
        found.fix("look at its processes; a restart makes it whole", Some(format!("wharf restart {name}")));
    }
}

/// Runs that no unit knows.
fn of_others(ground: &Ground, report: &mut Report) {
    for (name, run, seen) in ground.runs.iter().filter(|(_, run, _)| !ground.is_known(*run)) {
        if seen.lives() {
            let detail = format!("run {run} of {name}: {}", alive(seen.main, seen.shim));
            let title = format!("a run of {name} lives that the journal does not know");
            let found = report.say("run-unknown", Severity::Error, title, detail);
            found.about([format!("{name} run {run}")]).fleeting();
            found.fix("a daemon that starts ends it, or takes it over", Some("wharf daemon --replace --detach".into()));
        } else {
            let title = format!("a folder of a run of {name} was left behind");
            let found = report.say("run-leftover", Severity::Note, title, seen.folder.display().to_string());
            found.about([format!("{name} run {run}")]).cure(Cure::Forget(name.clone(), *run)).fleeting();
        }
    }
    if ground.runs.iter().all(|(_, run, _)| ground.is_known(*run)) {
        report.fine("run-unknown", format!("{} runs, all of them known", ground.runs.len()));
    }
}

fn alive(main: Option<i32>, shim: Option<i32>) -> String {
    match (main, shim) {
        (Some(main), _) => format!("pid {main} lives"),
        (None, Some(shim)) => format!("its shim (pid {shim}) lives"),
        (None, None) => "somebody holds its lock, or is in its cgroup".into(),
    }
}

/// No two runs of a unit live at once.
fn twice(ground: &Ground, report: &mut Report) {
    let mut live: BTreeMap<&UnitName, Vec<String>> = BTreeMap::new();
    for (name, run, _) in ground.runs.iter().filter(|(_, _, seen)| seen.lives()) {
        live.entry(name).or_default().push(run.to_string());
    }
    for (name, runs) in live.iter().filter(|(_, runs)| runs.len() > 1) {
        let title = format!("{} runs of {name} live at once", runs.len());
        let found = report.say("run-duplicate", Severity::Error, title, format!("runs {}", runs.join(", ")));
        found.about([name.to_string()]).fleeting();
        found.fix("stop it, see that nothing is left, and start it", Some(format!("wharf stop {name}")));
    }
    report.fine("run-duplicate", format!("{} units live", live.len()));
}

/// Shims of ours without a run.
fn shims(ground: &Ground, report: &mut Report) {
    let own = ground.layout.shim_dir();
    let known: Vec<i32> = ground.runs.iter().filter_map(|(_, _, seen)| seen.shim).collect();
    let daemon = ground.is_daemon.then(std::process::id);
    let mut count = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if !fs::read_link(entry.path().join("exe")).is_ok_and(|program| program.starts_with(&own)) {
            continue;
        }
        count += 1;
        // The launcher is the daemon's own child; what it forks is its child until it has its record.
        let is_launchers = |pid: i32| Some(parent(pid)) == daemon.map(u32::cast_signed);
        if known.contains(&pid) || is_launchers(pid) || is_launchers(parent(pid)) {
            continue;
        }
        let title = format!("a shim without a run: pid {pid}");
        let detail = format!("{} runs, and no run's record names it", entry.path().display());
        let found = report.say("shim-leftover", Severity::Warning, title, detail);
        found.about([format!("pid {pid}")]).fleeting();
        found.fix("see what it holds; it ends with its last process", Some(format!("cat /proc/{pid}/status")));
    }
    report.fine("shim-leftover", format!("{count} shims"));
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()).unwrap_or(0)
}
