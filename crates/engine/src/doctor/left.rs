//! What was left behind: groups, sockets, secrets, half installs, binaries of deleted units.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use wharf_api::rpc::infra::Severity;
use wharf_model::RunId;

use super::{
    ground::{Ground, folders},
    report::{Cure, Report},
};

/// An install that is still busy is younger.
const STAGING_AGE: Duration = Duration::from_secs(3600);

pub fn check(ground: &Ground, report: &mut Report) {
    groups(ground, report);
    sockets(ground, report);
    secrets(ground, report);
    staging(ground, report);
    store(ground, report);
}

fn groups(ground: &Ground, report: &mut Report) {
    for group in &ground.groups {
        let is_known = group.run.as_ref().is_some_and(|(_, run)| ground.is_known(*run) || ground.run(*run).is_some());
        let path = group.path.display().to_string();
        match (is_known, group.pids.is_empty()) {
            (true, _) => {}
            (false, false) => {
                let pids: Vec<String> = group.pids.iter().map(|pid| format!("pid {pid}")).collect();
                let title = format!("{} processes of ours belong to no unit", pids.len());
                let found = report.say("cgroup-populated", Severity::Error, title, path.clone());
                found.about(pids).fleeting();
                let command = group.path.join("cgroup.kill").exists().then(|| format!("echo 1 > {path}/cgroup.kill"));
                found.fix("look at them; if nobody needs them, end them all", command);
            }
            (false, true) => {
                let found =
                    report.say("cgroup-leftover", Severity::Note, "an empty cgroup was left behind", path.clone());
                found.about([path]).cure(Cure::RemoveGroup(group.path.clone())).fleeting();
            }
        }
    }
    report.fine("cgroup-leftover", format!("{} cgroups", ground.groups.len()));
}

fn sockets(ground: &Ground, report: &mut Report) {
    if !ground.is_daemon {
        let all = [ground.layout.service_sock(), ground.layout.rpc_sock(), ground.layout.admin_sock()];
        for path in all.into_iter().filter(|path| is_dead(path)) {
            let detail = path.display().to_string();
            let title = "a socket of a daemon that is gone";
            let found = report.say("socket-leftover", Severity::Note, title, detail.clone());
            found.about([detail]).cure(Cure::Unlink(path));
        }
    }
    let folder = ground.layout.notify(RunId(0));
    let entries = folder.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let run = name.split('.').next().and_then(|number| number.parse().ok()).map(RunId);
        if run.is_none_or(|run| !ground.is_known(run) && !ground.run(run).is_some_and(|seen| seen.lives())) {
            let detail = entry.path().display().to_string();
            let title = "a notify socket of a run that is over";
            let found = report.say("notify-leftover", Severity::Note, title, detail.clone());
            found.about([detail]).cure(Cure::Unlink(entry.path())).fleeting();
        }
    }
    report.fine("socket-leftover", "the sockets of daemons and of runs");
}

/// A socket at which nobody listens.
pub fn is_dead(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn secrets(ground: &Ground, report: &mut Report) {
    for (run, path) in ground.credentials.runs() {
        if ground.is_known(run) || ground.run(run).is_some_and(|seen| seen.lives()) {
            continue;
        }
        let detail = path.display().to_string();
        let title = format!("secrets of run {run}, which is over, are still in memory");
        let found = report.say("credentials-leftover", Severity::Warning, title, detail.clone());
        found.about([detail]).cure(Cure::RemoveSecrets(run)).fleeting();
    }
    report.fine("credentials-leftover", "the secrets of runs");
}

fn staging(ground: &Ground, report: &mut Report) {
    for folder in folders(&ground.layout.store().join(".staging")) {
        let age = fs::metadata(&folder).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STAGING_AGE) {
            let detail = folder.display().to_string();
            let found =
                report.say("staging-leftover", Severity::Note, "half an install was left behind", detail.clone());
            found.about([detail]).cure(Cure::RemoveFolder(folder));
        }
    }
    report.fine("staging-leftover", "the store's staging folder");
}

/// Binaries that no unit uses.
fn store(ground: &Ground, report: &mut Report) {
    for folder in folders(ground.layout.store()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_used = ground.units.iter().any(|unit| unit.installed.is_some() && unit.name.service() == name);
        // What services share has no unit of its own; `gc` takes it when nobody links to it any more.
        let is_shared = wharf_runtime::Store::new(ground.layout.store()).is_runtime(&name);
        if name.starts_with('.') || is_used || is_shared || ground.unread.is_some() {
            continue;
        }
        let title = format!("binaries of {name} are placed, and no unit uses them");
        let found = report.say("store-leftover", Severity::Note, title, folder.display().to_string());
        found.about([name.clone()]);
        found.fix("use them again, or remove them", Some(format!("wharf delete {name} --purge-binaries")));
    }
    report.fine("store-leftover", "the store");
}
