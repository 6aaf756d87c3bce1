//! Placing what was fetched: looked at, listed, given a receipt, made visible.
//!
//! It owns the order of these steps and what makes two plans the same. What lies in the store afterwards is
//! `store.rs`'s; where it came from is each source's.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use wharf_model::{ErrorKind, Failure, Installed};
use wharf_services::{Crate, InstallPlan, Source};

use super::{
    Fetched, elf, fault, listing,
    receipt::{Program, Receipt, digest_of},
    staging::Staging,
    store::Store,
};
use crate::secret::hex;

/// What two plans that place the same have in common. `mark` is what the source found out.
pub(super) fn key(plan: &InstallPlan, mark: &str) -> String {
    let source = match &plan.source {
        Source::Cargo(Crate::Tree(tree)) => format!("cargo {}", tree.display()),
        // What is in it counts, which is its mark.
        Source::File { version, sha256, .. } => format!("file {version:?} {sha256:?}"),
        other => format!("{other:?}"),
    };
    let mut hash = Sha256::new();
    for part in [&plan.service, &source, mark, &format!("{:?}", plan.binaries), &format!("{:?}", plan.files)] {
        hash.update(part);
        hash.update([0]);
    }
    hex(&hash.finalize())
}

/// What was placed by this key before and is what it was.
pub(super) fn find(store: &Store, service: &str, key: &str) -> Option<Installed> {
    let kept = store.versions(service).into_iter().filter(|kept| kept.receipt.key == key);
    kept.map(|kept| kept.installed).find(|installed| installed.binaries.values().all(|b| b.exists()))
}

/// Checks what was fetched, writes list and receipt, and makes it visible.
pub(super) fn finish(
    store: &Store,
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
    fault::point("install.fetched");
    let binaries = programs(&tree, plan)?;
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).map_err(|e| unplaced(&tree, e))?;
    let receipt = Receipt {
        service: plan.service.clone(),
        digest: digest(plan, &fetched),
        version: fetched.version,
        source: fetched.source.into(),
        key,
        fetched: fetched.files,
        binaries,
        placed_at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
        origin: fetched.origin,
        runtimes: fetched.runtimes,
        is_runtime: fetched.is_runtime,
        files: listing::write(&tree).map_err(|e| unplaced(&tree, e))?,
    };
    let target = store.folder(&plan.service).join(format!("{}-{}", as_path(&receipt.version), &receipt.digest[..12]));
    let placed = receipt.write(&tree).and_then(|()| {
        fault::point("install.listed");
        store.publish(&tree, &plan.service, &target)
    });
    placed.map_err(|e| unplaced(&target, e))?;
    Ok(receipt.installed(&target))
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
                .causes(top_of(tree))
                .hint("its publisher has changed the package; try another version"));
        };
        let full = tree.join(&path);
        // A link to a program of the machine: what that is, is the machine's business.
        if leads_out(tree, &full) {
            let path = path.to_string_lossy().into_owned();
            programs.insert(binary.name.clone(), Program { path, sha256: None });
            continue;
        }
        if let Some(why) = elf::unfit(&full) {
            let text = format!("{} of {} {why}", binary.path, plan.service);
            return Err(Failure::new(ErrorKind::InstallFailed, text)
                .hint("its publisher has changed the package, or offers none for this machine; try another version"));
        }
        make_runnable(&full).map_err(|e| unplaced(&full, e))?;
        let sha256 = Some(digest_of(&full).map_err(|e| unplaced(&full, e))?.0);
        programs.insert(binary.name.clone(), Program { path: path.to_string_lossy().into_owned(), sha256 });
    }
    Ok(programs)
}

/// Where a path with at most one `*` segment is; of several, the last in the order of their numbers. A name alone that
/// is not at the top is the one file of that name.
pub(super) fn resolve(tree: &Path, path: &str) -> Option<PathBuf> {
    let Some((before, after)) = path.split_once("*/") else {
        let at_top = is_there(&tree.join(path));
        // A folder may bear the program's name.
        if at_top && (path.contains('/') || !tree.join(path).is_dir()) {
            return Some(PathBuf::from(path));
        }
        return if path.contains('/') { None } else { only_file(tree, path) };
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

/// The file of this name, if there is one and not several; one in a folder `bin` is it before others.
fn only_file(tree: &Path, name: &str) -> Option<PathBuf> {
    let mut found = vec![];
    collect_named(tree, Path::new(""), name, &mut found);
    let in_bin: Vec<&PathBuf> = found.iter().filter(|p| p.parent().is_some_and(|p| p.ends_with("bin"))).collect();
    match (in_bin.as_slice(), found.as_slice()) {
        ([only], _) => Some((*only).clone()),
        ([], [only]) => Some(only.clone()),
        _ => None,
    }
}

fn collect_named(tree: &Path, folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(tree.join(folder)).into_iter().flatten().flatten() {
        let path = folder.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_named(tree, &path, name, found);
        } else if kind.is_file() && entry.file_name() == name {
            found.push(path);
        }
    }
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

/// What lies at the top, for whoever must find the program in it.
fn top_of(tree: &Path) -> Vec<String> {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| format!("it has: {}", e.file_name().to_string_lossy())).collect();
    names.sort();
    names.truncate(20);
    names
}

/// HS-71, and readable by whom the service runs as.
fn make_runnable(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777 | 0o555))
}

pub(super) fn unplaced(path: &Path, e: io::Error) -> Failure {
    let mut failure = Failure::from(e);
    failure.message = format!("could not place {}: {}", path.display(), failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{receipt, seal::Seals};

    fn plan(files: &[(&str, &str)], reset: bool) -> InstallPlan {
        let plan = InstallPlan { service: "s".into(), source: Source::BuiltIn, binaries: vec![], files: vec![], reset };
        files.iter().fold(plan, |plan, (path, text)| plan.file(path, text)).binary("bin/run")
    }

    fn place(store: &Path, plan: &InstallPlan) -> Result<Installed, Failure> {
        let staging = Staging::make(store, &plan.service)?;
        finish(&Store::new(store), staging, plan, key(plan, ""), Fetched::new("1:2~3", "built-in", vec![]))
    }

    /// T43: what was left by a killed install is gone, and nothing half is taken for whole.
    #[test]
    fn an_interrupted_install_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let plan = plan(&[("bin/run", "#!/bin/sh\n")], false);
        for left in ["s-999999999-0", &format!("s-{}-777", std::process::id())] {
            fs::create_dir_all(dir.path().join(".staging").join(left).join("tree/bin")).unwrap();
        }
        let first = place(dir.path(), &plan).unwrap();
        fs::remove_file(first.path.join("receipt.json")).unwrap();
        assert_eq!(find(&store, "s", &key(&plan, "")), None, "a folder without a receipt is not whole");
        let second = place(dir.path(), &plan).unwrap();
        assert_eq!(first, second);
        assert_eq!(find(&store, "s", &key(&plan, "")), Some(second.clone()));
        assert_eq!(fs::read_dir(dir.path().join(".staging")).unwrap().count(), 0, "nothing is left over");
        assert_eq!(store.current("s"), Some(second.clone()));
        assert!(!second.path.display().to_string().contains(':'));
    }

    #[test]
    fn a_new_version_lies_beside_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let old = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\n")], false)).unwrap();
        let new = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\ntrue\n")], false)).unwrap();
        assert!(old.path.exists() && new.path.exists() && old.path != new.path);
        assert_eq!(Store::new(dir.path()).previous("s"), Some(old));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&new.binaries["run"]) & 0o111, 0o111);
        assert_eq!(mode(&new.path), 0o755, "staged closed, placed open");
    }

    #[test]
    fn what_is_no_program_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let failure = place(dir.path(), &plan(&[("bin/run", "<html>404</html>")], false)).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InstallFailed);
        assert!(failure.message.contains("bin/run of s is an HTML page and no program"), "{failure}");
        assert!(!dir.path().join("s").exists());
        assert_eq!(fs::read_dir(dir.path().join(".staging")).unwrap().count(), 0);
    }

    #[test]
    fn a_change_of_any_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&[("bin/run", "#!/bin/sh\n"), ("app/page", "hello")], false);
        let placed = place(dir.path(), &plan).unwrap();
        assert!(receipt::verify(&placed).iter().all(|c| c.ok), "{:?}", receipt::verify(&placed));
        fs::write(placed.path.join("app/page"), "HELLO").unwrap();
        let checks = receipt::verify(&placed);
        let wrong: Vec<_> = checks.iter().filter(|c| !c.ok).collect();
        assert_eq!(wrong.len(), 1, "{checks:?}");
        assert!(wrong[0].check == "files" && wrong[0].detail.contains("app/page: sha256 is "), "{checks:?}");
        fs::write(&placed.binaries["run"], "#!/bin/evil\n").unwrap();
        let checks = receipt::verify(&placed);
        assert!(checks.iter().any(|c| c.check == "digest of bin/run" && !c.ok), "{checks:?}");
    }

    #[test]
    fn a_changed_program_is_not_started_and_a_restored_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let placed = place(dir.path(), &plan(&[("bin/run", "#!/bin/sh\n")], false)).unwrap();
        let seals = Seals::default();
        seals.check(dir.path(), &placed).unwrap();
        seals.check(dir.path(), &placed).unwrap();
        let program = &placed.binaries["run"];
        // As long as the old one, and with its time of change: only the content differs.
        let before = fs::metadata(program).unwrap().modified().unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(program, "#!/bin/ss\n").unwrap();
        fs::File::options().write(true).open(program).unwrap().set_modified(before).unwrap();
        let failure = seals.check(dir.path(), &placed).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert!(failure.message.contains("run of s is not the program that was placed"), "{failure}");
        assert!(failure.hint.as_deref().unwrap().contains("wharf install s --reset"), "{failure}");
        fs::write(program, "#!/bin/sh\n").unwrap();
        seals.check(dir.path(), &placed).unwrap();
        fs::remove_file(program).unwrap();
        assert!(seals.check(dir.path(), &placed).unwrap_err().message.contains("cannot be read"));
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

    #[test]
    fn a_name_alone_is_looked_for_and_must_be_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let found = |name: &str| resolve(dir.path(), name).map(|p| p.display().to_string());
        write("thing/lib/thing");
        assert_eq!(found("thing").as_deref(), Some("thing/lib/thing"), "not the folder of that name");
        write("share/thing");
        assert_eq!(found("thing"), None, "which of the two?");
        write("usr/bin/thing");
        assert_eq!(found("thing").as_deref(), Some("usr/bin/thing"), "where programs are");
        write("other");
        assert_eq!(found("other").as_deref(), Some("other"));
        assert_eq!(found("bin/other"), None, "a path is meant as it is written");
    }
}
