//! The store: staging folders, the one rename, and finding what lies there.
//!
//! `store/.staging/SERVICE-PID-N/{tree,scratch}` becomes `store/SERVICE/VERSION-DIGEST/`, and
//! `store/SERVICE/current` points there. Whatever is interrupted leaves only a staging folder,
//! which the next try removes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
use sha2::{Digest, Sha256};
use wharf_model::{ErrorKind, Failure, Installed};
use wharf_services::{InstallPlan, Source};

use super::{
    Fetched,
    receipt::{Program, Receipt, digest_of},
};
use crate::secret::hex;

/// The staging folders that this process works in.
static ACTIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Held by whoever works in a staging folder: the pid in its name may be another's by now.
const LOCK: &str = "lock";

/// A staging folder; dropped, it is removed.
pub(super) struct Staging {
    folder: PathBuf,
    _lock: File,
}

impl Staging {
    /// A fresh one, after those that nobody works in any more were removed.
    pub fn make(store: &Path, service: &str) -> Result<Self, Failure> {
        let all = store.join(".staging");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&all).map_err(|e| unplaced(&all, e))?;
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = all.join(format!("{service}-{}-{n}", std::process::id()));
        let mut active = ACTIVE.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&all, &active);
        fs::create_dir_all(&folder).map_err(|e| unplaced(&folder, e))?;
        let lock = File::create(folder.join(LOCK)).and_then(|file| {
            wharf_sys::files::lock_exclusive(&file)?;
            Ok(file)
        });
        let staging = Self { _lock: lock.map_err(|e| unplaced(&folder, e))?, folder };
        for part in [staging.tree(), staging.scratch()] {
            fs::create_dir_all(&part).map_err(|e| unplaced(&part, e))?;
        }
        active.insert(staging.folder.clone());
        Ok(staging)
    }

    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

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

/// Whether somebody works in it; nothing where an older version made it.
fn is_locked(folder: &Path) -> Option<bool> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    wharf_sys::files::lock_shared(lock).ok().map(|taken| !taken)
}

/// Removes what an interrupted process left. A folder of another process that lives is left alone.
fn sweep(all: &Path, active: &BTreeSet<PathBuf>) {
    let own = std::process::id();
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
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// What two plans that place the same have in common. `mark` is what the source found out.
pub(super) fn key(plan: &InstallPlan, mark: &str) -> String {
    let source = match &plan.source {
        Source::Cargo { tree } => format!("cargo {}", tree.display()),
        other => format!("{other:?}"),
    };
    let mut hash = Sha256::new();
    for part in [&plan.service, &source, mark, &format!("{:?}", plan.binaries), &format!("{:?}", plan.files)] {
        hash.update(part);
        hash.update([0]);
    }
    hex(&hash.finalize())
}

/// What was placed by this key before and is whole.
pub(super) fn find(store: &Path, service: &str, key: &str) -> Result<Option<Installed>, Failure> {
    let folder = store.join(service);
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| !t.is_dir()) {
            continue;
        }
        let Ok(receipt) = Receipt::read(&path) else { continue };
        let installed = receipt.installed(&path);
        if receipt.key == key && installed.binaries.values().all(|b| b.exists()) {
            point_at(&folder, &path).map_err(|e| unplaced(&folder, e))?;
            return Ok(Some(installed));
        }
    }
    Ok(None)
}

/// Checks what was fetched, writes the receipt, and makes it visible.
pub(super) fn finish(
    store: &Path,
    staging: Staging,
    plan: &InstallPlan,
    key: String,
    fetched: Fetched,
) -> Result<Installed, Failure> {
    let tree = staging.tree();
    for (path, text) in &plan.files {
        let path = tree.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.map_err(|e| unplaced(&path, e))?;
    }
    let receipt = Receipt {
        service: plan.service.clone(),
        digest: digest(plan, &fetched),
        version: fetched.version,
        source: fetched.source.into(),
        key,
        fetched: fetched.files,
        binaries: programs(&tree, plan)?,
        placed_at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
    };
    let folder = store.join(&plan.service);
    let target = folder.join(format!("{}-{}", as_path(&receipt.version), &receipt.digest[..12]));
    publish(&tree, &folder, &target, &receipt).map_err(|e| unplaced(&target, e))?;
    Ok(receipt.installed(&target))
}

fn publish(tree: &Path, folder: &Path, target: &Path, receipt: &Receipt) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))?;
    receipt.write(tree)?;
    // All files of the tree at once: one by one, a tree of thousands takes many seconds.
    syncfs(File::open(tree)?)?;
    match renameat_with(CWD, tree, CWD, target, RenameFlags::NOREPLACE) {
        // The old tree comes to lie in the staging folder and goes with it; who runs from it keeps its files.
        Err(rustix::io::Errno::EXIST) => renameat_with(CWD, tree, CWD, target, RenameFlags::EXCHANGE)?,
        other => other?,
    }
    File::open(folder)?.sync_all()?;
    point_at(folder, target)
}

/// Makes `current` point at a version.
fn point_at(folder: &Path, target: &Path) -> io::Result<()> {
    let current = folder.join("current");
    let name = Path::new(target.file_name().unwrap_or_default());
    if fs::read_link(&current).is_ok_and(|to| to == name) {
        return Ok(());
    }
    let draft = folder.join(format!(".current-{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    symlink(name, &draft)?;
    fs::rename(&draft, &current)?;
    File::open(folder)?.sync_all()
}

fn digest(plan: &InstallPlan, fetched: &Fetched) -> String {
    let mut lines: Vec<String> = fetched.files.iter().map(|f| format!("{}  {}\n", f.sha256, f.name)).collect();
    let own = |(path, text): &(String, String)| format!("{}  {path}\n", hex(&Sha256::digest(text)));
    lines.extend(plan.files.iter().map(own));
    lines.sort();
    hex(&Sha256::digest(lines.concat()))
}

/// A version as a name of a folder: no ':' (it would part a search path) and nothing that leads elsewhere.
fn as_path(version: &str) -> String {
    let sound = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+') { c } else { '_' };
    let text: String = version.chars().map(sound).collect();
    text.trim_start_matches('.').to_owned()
}

/// The plan's programs, found and looked at.
fn programs(tree: &Path, plan: &InstallPlan) -> Result<BTreeMap<String, Program>, Failure> {
    let mut programs = BTreeMap::new();
    for binary in &plan.binaries {
        let Some(path) = resolve(tree, &binary.path) else {
            let text = format!("{} was fetched, but there is no {} in it", plan.service, binary.path);
            return Err(Failure::new(ErrorKind::InstallFailed, text)
                .hint("its publisher has changed the package; try another version"));
        };
        let full = tree.join(&path);
        // A link to a program of the machine: what that is, is the machine's business.
        if leads_out(tree, &full) {
            let path = path.to_string_lossy().into_owned();
            programs.insert(binary.name.clone(), Program { path, sha256: None });
            continue;
        }
        looks_runnable(&full).map_err(|why| {
            Failure::new(ErrorKind::InstallFailed, format!("{} of {} {why}", binary.path, plan.service))
                .hint("its publisher has changed the package; try another version")
        })?;
        let sha256 = Some(digest_of(&full).map_err(|e| unplaced(&full, e))?.0);
        programs.insert(binary.name.clone(), Program { path: path.to_string_lossy().into_owned(), sha256 });
    }
    Ok(programs)
}

/// Where a path with at most one `*` segment is; of several, the last in the order of their numbers.
pub(super) fn resolve(tree: &Path, path: &str) -> Option<PathBuf> {
    let Some((before, after)) = path.split_once("*/") else {
        return is_there(&tree.join(path)).then(|| PathBuf::from(path));
    };
    let entries = fs::read_dir(tree.join(before)).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| Path::new(before).join(e.file_name()).join(after))
        .filter(|p| is_there(&tree.join(p)))
        .collect();
    found.sort_by_key(|p| {
        let digits: String = p.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        (digits.parse::<u64>().unwrap_or_default(), p.clone())
    });
    found.pop()
}

fn leads_out(tree: &Path, path: &Path) -> bool {
    match (fs::canonicalize(tree), fs::canonicalize(path)) {
        (Ok(tree), Ok(real)) => !real.starts_with(tree),
        _ => false,
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// An ELF file or a script, made executable. A registry's error page is neither.
fn looks_runnable(path: &Path) -> Result<(), String> {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut f| io::Read::read(&mut f, &mut magic));
    read.map_err(|e| format!("cannot be read: {e}"))?;
    if &magic != b"\x7fELF" && &magic[..2] != b"#!" {
        return Err("is neither an ELF program nor a script".into());
    }
    let mode = fs::metadata(path).map_err(|e| e.to_string())?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777 | 0o555)).map_err(|e| e.to_string())
}

pub(super) fn unplaced(path: &Path, e: io::Error) -> Failure {
    let mut failure = Failure::from(e);
    failure.message = format!("could not place {}: {}", path.display(), failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(files: &[(&str, &str)], reset: bool) -> InstallPlan {
        let plan = InstallPlan { service: "s".into(), source: Source::BuiltIn, binaries: vec![], files: vec![], reset };
        files.iter().fold(plan, |plan, (path, text)| plan.file(path, text)).binary("bin/run")
    }

    fn place(store: &Path, plan: &InstallPlan) -> Result<Installed, Failure> {
        let staging = Staging::make(store, &plan.service)?;
        let fetched = Fetched { version: "1:2~3".into(), source: "built-in", files: vec![] };
        finish(store, staging, plan, key(plan, ""), fetched)
    }

    /// T43: what was left by a killed install is gone, and nothing half is taken for whole.
    #[test]
    fn an_interrupted_install_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let plan = plan(&[("bin/run", "#!/bin/sh\n")], false);
        for left in ["s-999999999-0", &format!("s-{}-777", std::process::id())] {
            fs::create_dir_all(store.join(".staging").join(left).join("tree/bin")).unwrap();
        }
        let first = place(store, &plan).unwrap();
        fs::remove_file(first.path.join("receipt.json")).unwrap();
        assert_eq!(find(store, "s", &key(&plan, "")).unwrap(), None, "a folder without a receipt is not whole");
        let second = place(store, &plan).unwrap();
        assert_eq!(first, second);
        assert_eq!(find(store, "s", &key(&plan, "")).unwrap(), Some(second.clone()));
        assert_eq!(fs::read_dir(store.join(".staging")).unwrap().count(), 0, "nothing is left over");
        assert_eq!(fs::read_link(store.join("s/current")).unwrap(), Path::new(second.path.file_name().unwrap()));
        assert!(!second.path.display().to_string().contains(':'));
    }

    /// Its number may be another's by now: the first process of the machine lives for ever.
    #[test]
    fn a_staging_folder_is_in_use_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join(".staging");
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
    }

    #[test]
    fn a_new_version_lies_beside_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let old = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\n")], false)).unwrap();
        let new = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\ntrue\n")], false)).unwrap();
        assert!(old.path.exists() && new.path.exists() && old.path != new.path);
        let mode = fs::metadata(&new.binaries["run"]).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }

    #[test]
    fn what_is_no_program_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let failure = place(dir.path(), &plan(&[("bin/run", "<html>404</html>")], false)).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InstallFailed);
        assert!(failure.message.contains("neither an ELF program nor a script"), "{failure}");
        assert!(!dir.path().join("s").exists());
    }

    #[test]
    fn a_change_of_a_program_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let placed = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\n")], false)).unwrap();
        assert!(super::super::receipt::verify(&placed).iter().all(|c| c.ok));
        fs::write(&placed.binaries["run"], "#!/bin/evil\n").unwrap();
        let checks = super::super::receipt::verify(&placed);
        assert!(checks.iter().any(|c| c.check == "digest of bin/run" && !c.ok), "{checks:?}");
    }

    #[test]
    fn of_several_versions_the_highest_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for v in ["9", "15", "13"] {
            fs::create_dir_all(dir.path().join("usr/lib/pg").join(v).join("bin")).unwrap();
            fs::write(dir.path().join("usr/lib/pg").join(v).join("bin/postgres"), "").unwrap();
        }
        assert_eq!(resolve(dir.path(), "usr/lib/pg/*/bin/postgres").unwrap(), Path::new("usr/lib/pg/15/bin/postgres"));
    }
}
