//! Staging folders: where one install works until what it made becomes visible by one rename.
//!
//! `store/.staging/SERVICE-PID-N/{tree,scratch}`. Whatever is interrupted leaves only such a folder,
//! and the next install or `gc` removes it. It refuses to know what is made there.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use wharf_model::Failure;

use super::{fault, place::unplaced};

/// The staging folders that this process works in.
static ACTIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Held by whoever works in a staging folder: the pid in its name may be another's by now.
const LOCK: &str = "lock";

/// Where they lie in the store.
pub(super) const FOLDER: &str = ".staging";

/// A staging folder; dropped, it is removed.
pub(super) struct Staging {
    folder: PathBuf,
    _lock: File,
}

impl Staging {
    /// A fresh one, after those that nobody works in any more were removed.
    pub fn make(store: &Path, service: &str) -> Result<Self, Failure> {
        let all = store.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&all).map_err(|e| unplaced(&all, e))?;
        let folder = all.join(unused_name(service));
        let mut active = ACTIVE.lock().unwrap_or_else(PoisonError::into_inner);
        for left in left_over(&all, &active) {
            let _ = remove(&left);
        }
        // Nobody else may look in before it was checked.
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|e| unplaced(&folder, e))?;
        let lock = File::create(folder.join(LOCK)).and_then(|file| {
            wharf_sys::files::lock_exclusive(&file)?;
            Ok(file)
        });
        let staging = Self { _lock: lock.map_err(|e| unplaced(&folder, e))?, folder };
        for part in [staging.tree(), staging.scratch()] {
            fs::create_dir_all(&part).map_err(|e| unplaced(&part, e))?;
        }
        active.insert(staging.folder.clone());
        fault::point("install.staged");
        Ok(staging)
    }

    /// What becomes the version's folder.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// For what is fetched and not kept.
    pub fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        ACTIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.folder);
    }
}

fn unused_name(service: &str) -> String {
    format!("{service}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What nobody works in any more.
pub(super) fn abandoned(store: &Path) -> Vec<PathBuf> {
    let active = ACTIVE.lock().unwrap_or_else(PoisonError::into_inner);
    left_over(&store.join(FOLDER), &active)
}

/// Whether an install is at work in any process.
pub(super) fn is_at_work(store: &Path) -> bool {
    let all = fs::read_dir(store.join(FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path());
    let left = abandoned(store);
    all.into_iter().any(|folder| !left.contains(&folder))
}

/// Takes a folder of the store out of sight by one rename, then removes it: a crash in between leaves no half of it.
pub(super) fn take_away(store: &Path, doomed: &Path) -> io::Result<()> {
    let all = store.join(FOLDER);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&all)?;
    let gone = all.join(unused_name("gone"));
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(gone.clone());
    let done = fs::rename(doomed, &gone).and_then(|()| remove(&gone));
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&gone);
    done
}

/// Removes a folder into which a tool that is just dying may still write.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && tries < 20 => tries += 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return fs::remove_file(folder),
            done => return done,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether somebody works in it; nothing where an older version made it.
fn is_locked(folder: &Path) -> Option<bool> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    wharf_sys::files::lock_shared(lock).ok().map(|taken| !taken)
}

/// What an interrupted process left. A folder of another process that lives is not among it.
fn left_over(all: &Path, active: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let own = std::process::id();
    let mut left = vec![];
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        let in_use = match pid {
            Some(pid) if pid == own => active.contains(&path),
            Some(pid) => is_locked(&path).unwrap_or_else(|| Path::new(&format!("/proc/{pid}")).exists()),
            None => false,
        };
        if !in_use {
            left.push(path);
        }
    }
    left.sort();
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its number may be another's by now: the first process of the machine lives for ever.
    #[test]
    fn a_staging_folder_is_in_use_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join(FOLDER);
        let lock_of = |name: &str| {
            fs::create_dir_all(all.join(name)).unwrap();
            File::create(all.join(name).join(LOCK)).unwrap()
        };
        drop(lock_of("s-1-0"));
        let held = lock_of("s-1-1");
        assert!(wharf_sys::files::lock_exclusive(&held).unwrap());
        let ours = Staging::make(dir.path(), "s").unwrap();
        let theirs = Staging::make(dir.path(), "s").unwrap();
        let mut there: Vec<_> = fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().path()).collect();
        there.sort();
        let mut wanted = vec![all.join("s-1-1"), ours.folder.clone(), theirs.folder.clone()];
        wanted.sort();
        assert_eq!(there, wanted);
        assert_eq!(abandoned(dir.path()), [] as [PathBuf; 0]);
        drop(held);
        assert_eq!(abandoned(dir.path()), [all.join("s-1-1")]);
    }

    #[test]
    fn what_is_taken_away_is_gone_from_sight_and_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let doomed = dir.path().join("s/1");
        fs::create_dir_all(doomed.join("bin")).unwrap();
        take_away(dir.path(), &doomed).unwrap();
        assert!(!doomed.exists());
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
    }
}
