//! Clearing away. Each deed looks again: what has come to life since it was found is left alone.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use wharf_api::rpc::infra::{MendRow, Mended};

use super::{
    ground::{Ground, pids},
    left,
    report::{Cure, Report},
};

/// Does what can be done about what was found, of these kinds alone where some are named. `ground` is what is now.
pub async fn all(ground: &Ground, report: Report, ids: Option<&[String]>) -> Mended {
    let mut mended = vec![];
    for found in report.found {
        let id = found.finding.id;
        if ids.is_some_and(|ids| !ids.contains(&id)) {
            continue;
        }
        for cure in found.cures {
            let failed = match apply(ground, &cure).await {
                Ok(()) => None,
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => Some(e.to_string()),
            };
            mended.push(MendRow { id: id.clone(), object: words(&cure), failed });
        }
    }
    Mended { mended }
}

fn words(cure: &Cure) -> String {
    match cure {
        Cure::Forget(unit, run) => format!("removed run {run} of {unit}"),
        Cure::Unlink(path) | Cure::RemoveGroup(path) | Cure::RemoveFolder(path) => {
            format!("removed {}", path.display())
        }
        Cure::RemoveSecrets(run) => format!("removed the secrets of run {run}"),
        Cure::Close(path, mode) => format!("set the mode of {} to {mode:o}", path.display()),
    }
}

async fn apply(ground: &Ground, cure: &Cure) -> io::Result<()> {
    match cure {
        Cure::Forget(unit, run) => {
            let Some(launcher) = &ground.launcher else { return Err(io::Error::other("the runs cannot be looked at")) };
            if ground.is_known(*run) || launcher.see(unit, *run).is_some_and(|seen| seen.lives()) {
                return Err(io::Error::other("it lives"));
            }
            launcher.forget(unit, *run).await;
            let is_left = launcher.see(unit, *run).is_some();
            if is_left { Err(io::Error::other("its folder could not be removed")) } else { Ok(()) }
        }
        Cure::Unlink(path) => {
            let is_notify = path.parent().is_some_and(|folder| folder.ends_with(".notify"));
            if is_notify || left::is_dead(path) { fs::remove_file(path) } else { Err(io::Error::other("it is in use")) }
        }
        // The kernel itself refuses where somebody is in it.
        Cure::RemoveGroup(path) => {
            if pids(path).is_empty() {
                remove_groups(path)
            } else {
                Err(io::Error::other("somebody is in it"))
            }
        }
        Cure::RemoveSecrets(run) => {
            if ground.is_known(*run) || ground.run(*run).is_some_and(|seen| seen.lives()) {
                return Err(io::Error::other("its run lives"));
            }
            ground.credentials.remove(*run);
            Ok(())
        }
        Cure::RemoveFolder(path) => fs::remove_dir_all(path),
        Cure::Close(path, mode) => {
            let found = fs::symlink_metadata(path)?;
            if found.file_type().is_symlink() || found.uid() != wharf_runtime::Account::own().map_or(0, |own| own.uid) {
                return Err(io::Error::other("it is not ours"));
            }
            fs::set_permissions(path, fs::Permissions::from_mode(found.permissions().mode() & mode))
        }
    }
}

fn remove_groups(path: &Path) -> io::Result<()> {
    for inner in super::ground::folders(path) {
        remove_groups(&inner)?;
    }
    fs::remove_dir(path)
}
