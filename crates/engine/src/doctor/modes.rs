//! Who can read and write what is ours, and what units are given.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use wharf_api::rpc::infra::Severity;
use wharf_runtime::{Account, Reference, executables};

use super::{
    ground::Ground,
    report::{Cure, Report},
};

pub fn check(ground: &Ground, report: &mut Report) {
    let layout = &ground.layout;
    let closed = [
        layout.sockets(),
        layout.runs(),
        layout.state().to_owned(),
        layout.all_logs().to_owned(),
        layout.secrets().to_owned(),
        layout.shim_dir(),
    ];
    for folder in &closed {
        mode(folder, 0o700, "mode-folder", Severity::Error, report);
        owner(folder, report);
    }
    report.fine("mode-folder", "the folders of Wharf are closed to others");
    report.fine("owner-folder", "the folders of Wharf are Wharf's own");
    for socket in [layout.service_sock(), layout.rpc_sock(), layout.admin_sock()] {
        mode(&socket, 0o600, "mode-socket", Severity::Error, report);
    }
    report.fine("mode-socket", "the sockets are closed to others");
    for file in fs::read_dir(layout.secrets()).into_iter().flatten().flatten() {
        mode(&file.path(), 0o600, "mode-secret", Severity::Error, report);
    }
    report.fine("mode-secret", "generated secrets are closed to others");
    of_units(ground, report);
    executable(ground, report);
    own_services(ground, report);
}

/// The folder of services that are executables: as the daemon found it, else by what can be seen without running them.
fn own_services(ground: &Ground, report: &mut Report) {
    let listed = executables::list(&ground.layout.services_dir()).unusable;
    let told = ground.offer.iter().flat_map(|found| found.unusable.iter());
    let told = told.filter(|one| one.path.exists() && listed.iter().all(|other| other.path != one.path));
    for one in listed.iter().chain(told) {
        let title = format!("{} is no service", one.path.display());
        let found = report.say("service-unusable", Severity::Warning, title, one.message.clone());
        found.about([one.path.display()]).fix(one.hint.clone(), None);
    }
    report.fine("service-unusable", "the services that are executables of your own");
}

/// Rights beyond those that it may have.
fn mode(path: &Path, wanted: u32, id: &'static str, severity: Severity, report: &mut Report) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let has = found.permissions().mode() & 0o777;
    if has & !wanted == 0 || found.file_type().is_symlink() {
        return;
    }
    let title = format!("{} is open to others", path.display());
    let found = report.say(id, severity, title, format!("its mode is {has:03o} and should be {wanted:03o}"));
    found.about([path.display()]).fix("close it", Some(format!("chmod {wanted:o} {}", path.display())));
    found.cure(Cure::Close(path.to_owned(), wanted));
}

fn owner(path: &Path, report: &mut Report) {
    let own = wharf_runtime::Account::own().map(|own| own.uid);
    if let Ok(found) = fs::symlink_metadata(path)
        && own.is_some_and(|own| own != found.uid())
    {
        let title = format!("{} belongs to uid {}", path.display(), found.uid());
        let found = report.say("owner-folder", Severity::Error, title, "it should be the daemon's own");
        found.about([path.display()]);
        found.fix("give it to the daemon's user, or run the doctor as that user", None);
    }
}

/// What units read, and whom they run as.
fn of_units(ground: &Ground, report: &mut Report) {
    for unit in &ground.units {
        let name = &unit.name;
        for (secret, from) in &unit.policy.secrets {
            let Ok(Reference::File(path)) = Reference::parse(&from.from) else { continue };
            readable(&path, "secret-file-open", Severity::Warning, &format!("the secret {secret} of {name}"), report);
        }
        if let Some(path) = unit.with.get("env_file").and_then(|file| file.as_str()).map(PathBuf::from) {
            readable(&path, "env-file-open", Severity::Note, &format!("the env file of {name}"), report);
        }
        if let Some(user) = &unit.policy.run_as
            && let Err(failure) = Account::of_policy(user)
        {
            let title = format!("{name} cannot run as {user}");
            let found = report.say("user-unknown", Severity::Error, title, failure.message);
            found.about([name]).fix(failure.hint.unwrap_or_default(), None);
        }
    }
    report.fine("secret-file-open", "the files that secrets come from");
    report.fine("env-file-open", "the env files of units");
    report.fine("user-unknown", "the users that units run as");
}

fn readable(path: &Path, id: &'static str, severity: Severity, what: &str, report: &mut Report) {
    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o044 != 0 {
        let title = format!("{what} can be read by others");
        let found = report.say(id, severity, title, format!("{} has mode {mode:03o}", path.display()));
        found.about([path.display()]).fix("close it", Some(format!("chmod go= {}", path.display())));
    }
}

/// Programs are run from there.
fn executable(ground: &Ground, report: &mut Report) {
    for folder in [ground.layout.store(), &ground.layout.shim_dir()] {
        let flags = rustix::fs::statvfs(folder).map(|found| found.f_flag);
        if flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC)) {
            let title = format!("nothing can be run from {}", folder.display());
            let found = report.say("store-noexec", Severity::Error, title, "its file system is mounted noexec");
            found.about([folder.display()]);
            found.fix("set WHARF_HOME to a folder on another file system, or mount it without noexec", None);
        }
    }
    report.fine("store-noexec", "the file systems of the store and of the shim");
}
