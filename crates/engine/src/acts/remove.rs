//! What a delete takes along. What others use stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use wharf_core::{Removal, Unit};
use wharf_model::{Failure, UnitName};
use wharf_runtime::Credentials;

use crate::engine::Shared;

/// Removes a folder that the keeper of logs, or a process that has just been killed, may still add to.
fn remove_tree(path: &Path) -> io::Result<()> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() == NotFound && !path.exists() => return Ok(()),
            Err(e) if matches!(e.kind(), NotFound | DirectoryNotEmpty) && tries < 50 => tries += 1,
            removed => return removed,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Its files are there, whatever service placed them.
fn is_placed_below(unit: &Unit, folder: &Path) -> bool {
    unit.installed.as_ref().is_some_and(|placed| placed.path.starts_with(folder))
}

/// Removes what a delete takes along. What others use stays.
pub(super) fn remove(shared: &Shared, name: &UnitName, removal: Removal) -> Result<(), Failure> {
    let gone = |path: PathBuf| {
        remove_tree(&path).map_err(|e| Failure::from(e).while_doing(format_args!("remove {}", path.display())))
    };
    gone(shared.layout.unit_run(name))?;
    if removal.data {
        gone(shared.layout.data(name))?;
        gone(shared.layout.logs(name))?;
        Credentials::forget_generated(shared.layout.secrets(), name)?;
    }
    let used_by_another = shared
        .world
        .load()
        .values()
        .any(|other| other.name != *name && is_placed_below(other, &shared.layout.store().join(name.service())));
    if removal.binaries && !used_by_another {
        let store = shared.layout.store();
        let doomed = store.join(".staging").join(format!("gone-{}-{}", name.service(), std::process::id()));
        // Out of the way by one rename first: a crash in between leaves no half of it to be found.
        match fs::rename(store.join(name.service()), &doomed) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => gone(doomed)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keeper of logs writes down a run's end while the unit is being deleted.
    #[test]
    fn a_folder_that_is_still_added_to_goes_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let doomed = dir.path().join("logs");
        let adds = doomed.clone();
        fs::create_dir(&doomed).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(60);
        let adding = std::thread::spawn(move || {
            for n in 0.. {
                let added = fs::create_dir(adds.join(n.to_string()));
                if std::time::Instant::now() > until || added.is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(5));
        remove_tree(&doomed).unwrap();
        adding.join().unwrap();
        assert!(!doomed.exists());
        remove_tree(&doomed).unwrap();
    }
}
