//! Finds the folders of a machine that say by a `service.yaml` that a service is kept there.
//!
//! It owns the walk through folders and its limits. It refuses to know what is made of a manifest,
//! and changes nothing. Folders belong to other people: links in a ring, files that never end and
//! texts that unfold without end are refused with a reason, and the rest is found all the same.

mod file;
mod walk;
mod yaml;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// The name of a manifest's file.
pub const MANIFEST: &str = "service.yaml";

/// How deep is looked, unless somebody says: a folder of services has them one below it.
pub const USUAL_DEPTH: u32 = 3;

/// No scan goes deeper.
pub const DEEPEST: u32 = 16;

/// A folder with a sound manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The manifest's name, which no other one of the scan has.
    pub name: String,
    /// The manifest's file.
    pub path: PathBuf,
    /// When it was read: RFC 3339, UTC.
    pub discovered_at: String,
    /// All that it says, fields without a meaning to Wharf among it.
    pub manifest: Map<String, Value>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file or the folder.
    pub path: PathBuf,
    /// One sentence.
    pub message: String,
    /// The next thing to do.
    pub hint: String,
    /// The other file that it is about.
    pub other_path: Option<PathBuf>,
}

impl Fault {
    fn new(path: impl Into<PathBuf>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: hint.into(), other_path: None }
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// Sound manifests, by name.
    pub manifests: Vec<Found>,
    /// What is wrong, by path.
    pub faults: Vec<Fault>,
    /// All was looked at: no limit ended the scan.
    pub complete: bool,
}

/// Looks at these folders and those below them. It blocks: for a thread that may.
pub fn scan(folders: &[PathBuf], depth: u32) -> Scan {
    let walk::Walked { found, faults, complete } = walk::walk(folders, depth.min(DEEPEST), &walk::Limits::default());
    let (manifests, doubled) = named_once(found);
    let mut scan = Scan { manifests, faults, complete };
    scan.faults.extend(doubled);
    scan.faults.sort_by(|a, b| a.path.cmp(&b.path));
    scan
}

/// Reads the manifest of one folder. It blocks: for a thread that may.
///
/// # Errors
/// What is wrong with it, or that there is none.
pub fn read(folder: &Path) -> Result<Found, Fault> {
    let unread = |e: std::io::Error| {
        Fault::new(
            folder,
            format!("could not look into {}: {e}", folder.display()),
            "name the folder that the service is kept in",
        )
    };
    // As it is called everywhere: the containers that are brought up in it bear its name.
    let path = folder.canonicalize().map_err(unread)?.join(MANIFEST);
    match file::read(&path) {
        Some(sound) => sound.map(|sound| walk::found(path, sound)),
        None => {
            let text = format!("there is no {MANIFEST} in {}", folder.display());
            Err(Fault::new(path, text, "write one: `name: NAME` is enough (docs/discovery.md)"))
        }
    }
}

/// A name that two manifests have is nobody's: which one is meant is not for a scan to say.
fn named_once(mut found: Vec<Found>) -> (Vec<Found>, Vec<Fault>) {
    found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    let mut of_name: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for one in found {
        of_name.entry(one.name.clone()).or_default().push(one);
    }
    let (mut once, mut faults) = (vec![], vec![]);
    for (name, mut all) in of_name {
        if all.len() == 1 {
            once.append(&mut all);
            continue;
        }
        let (first, others) = (&all[0].path, &all[1..]);
        faults.extend(others.iter().map(|other| twice(&name, first, &other.path)));
    }
    (once, faults)
}

fn twice(name: &str, first: &Path, second: &Path) -> Fault {
    let message = format!("two manifests are called {name}: {} and {}", first.display(), second.display());
    let hint = "give one of them another name; until then neither is taken";
    Fault { other_path: Some(first.to_owned()), ..Fault::new(second, message, hint) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.manifests.iter().map(|m| m.name.as_str()).collect()
    }

    #[test]
    fn what_is_found_is_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("b/service.yaml"), "name: b\nfuture: {x: [1, two]}\n");
        write(&dir.path().join("a/service.yaml"), "name: a\n");
        write(&dir.path().join("x/y/z/service.yaml"), "name: deep\n");
        write(&dir.path().join("x/y/z/w/service.yaml"), "name: deeper\n");
        write(&dir.path().join(".git/service.yaml"), "name: hidden\n");
        write(&dir.path().join("_template/service.yaml"), "name: b\n");
        let scan = scan(&[dir.path().to_owned()], USUAL_DEPTH);
        assert_eq!((names(&scan), &scan.faults), (vec!["a", "b", "deep"], &vec![]));
        assert!(scan.complete);
        assert_eq!(scan.manifests[1].manifest["future"], serde_json::json!({ "x": [1, "two"] }));
        assert_eq!(scan.manifests[1].path, dir.path().join("b/service.yaml"));
        assert!(scan.manifests[0].discovered_at.ends_with('Z'), "{}", scan.manifests[0].discovered_at);
        // Named, a hidden folder is looked at like any other.
        assert_eq!(names(&super::scan(&[dir.path().join(".git")], 0)), ["hidden"]);
    }

    #[test]
    fn a_name_that_three_have_is_nobodys_and_each_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a", "b", "c"] {
            write(&dir.path().join(folder).join(MANIFEST), "name: same\n");
        }
        write(&dir.path().join("d").join(MANIFEST), "name: other\n");
        let scan = scan(&[dir.path().to_owned()], 1);
        assert_eq!((names(&scan), scan.faults.len()), (vec!["other"], 2));
        let (fault, first) = (&scan.faults[1], dir.path().join("a/service.yaml"));
        assert_eq!((&fault.path, fault.other_path.as_ref()), (&dir.path().join("c/service.yaml"), Some(&first)));
        for path in [&first, &fault.path] {
            assert!(fault.message.contains(path.to_str().unwrap()), "{fault:?}");
        }
    }

    #[test]
    fn links_in_a_ring_end_and_a_folder_that_is_reached_twice_is_one() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a").join(MANIFEST), "name: a\n");
        symlink(dir.path(), dir.path().join("a/up")).unwrap();
        symlink(dir.path().join("a"), dir.path().join("same")).unwrap();
        symlink("itself", dir.path().join("itself")).unwrap();
        fs::create_dir(dir.path().join("l")).unwrap();
        symlink(MANIFEST, dir.path().join("l").join(MANIFEST)).unwrap();
        let scan = scan(&[dir.path().to_owned(), dir.path().join("a")], DEEPEST);
        assert_eq!(names(&scan), ["a"]);
        assert_eq!(scan.faults.len(), 1, "{:?}", scan.faults);
        assert_eq!(scan.faults[0].path, dir.path().join("l").join(MANIFEST));
        assert!(scan.complete);
    }
}
