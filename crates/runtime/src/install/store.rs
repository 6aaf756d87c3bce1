//! The store: which versions of a service are kept, which of them is current, and the way back.
//!
//! `store/SERVICE/VERSION-DIGEST/` is a version and is never changed once it is there; `current` and `previous` are
//! links to two of them. Each step is one rename. It owns these folders and links. It refuses to know which unit runs
//! what: whoever collects garbage says what is in use.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use wharf_model::{ErrorKind, Failure, Installed};

use super::{fault, place::unplaced, receipt::Receipt, staging};

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";

/// The folder of everything that is placed. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// As a service sees it.
    pub installed: Installed,
    /// What is known of it.
    pub receipt: Receipt,
    /// `current` leads to it.
    pub is_current: bool,
    /// `previous` leads to it.
    pub is_previous: bool,
}

/// Something in the store that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Where it lies.
    pub path: PathBuf,
    /// For people: `redis 7.0.15`, `half an install of redis`.
    pub what: String,
    /// What removing it frees.
    pub bytes: u64,
}

/// Held while the links of one service are changed, by whichever process.
struct Held {
    _folder: File,
}

impl Store {
    /// The one in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn folder(&self, service: &str) -> PathBuf {
        self.root.join(service)
    }

    /// The versions of a service that are whole, the newest first.
    pub fn versions(&self, service: &str) -> Vec<Kept> {
        let folder = self.folder(service);
        let (current, previous) = (leads_to(&folder, CURRENT), self.previous_folder(service));
        let mut kept: Vec<Kept> = versions_in(&folder)
            .into_iter()
            .filter_map(|path| {
                let receipt = Receipt::read(&path).ok()?;
                let is = |link: &Option<PathBuf>| link.as_ref() == Some(&path);
                let (is_current, is_previous) = (is(&current), is(&previous));
                Some(Kept { installed: receipt.installed(&path), receipt, is_current, is_previous })
            })
            .collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.receipt.placed_at_ms));
        kept
    }

    /// The version that was placed or chosen last.
    pub fn current(&self, service: &str) -> Option<Installed> {
        let path = leads_to(&self.folder(service), CURRENT)?;
        Some(Receipt::read(&path).ok()?.installed(&path))
    }

    /// The one before it, to which there is a way back.
    pub fn previous(&self, service: &str) -> Option<Installed> {
        let path = self.previous_folder(service)?;
        Some(Receipt::read(&path).ok()?.installed(&path))
    }

    /// A killed flip may leave both links at one version: then there is no way back.
    fn previous_folder(&self, service: &str) -> Option<PathBuf> {
        let folder = self.folder(service);
        let previous = leads_to(&folder, PREVIOUS)?;
        (leads_to(&folder, CURRENT).as_ref() != Some(&previous)).then_some(previous)
    }

    /// Makes the previous version the current one, and the other way round: one step, so that doing it twice undoes it.
    pub fn flip_back(&self, service: &str) -> Result<Installed, Failure> {
        let _held = self.hold(service)?;
        let Some(previous) = self.previous(service) else {
            return Err(Failure::new(ErrorKind::Conflict, format!("no earlier version of {service} is kept"))
                .hint(format!("place the one that you want: wharf install {service} --version VERSION")));
        };
        self.point_at(service, &previous.path).map_err(|e| unplaced(&previous.path, e))?;
        Ok(previous)
    }

    /// Makes a version current that is kept; the one that was current becomes the previous one.
    pub fn make_current(&self, installed: &Installed) -> Result<(), Failure> {
        let service = self.service_of(&installed.path)?;
        let _held = self.hold(&service)?;
        if Receipt::read(&installed.path).is_err() {
            let text = format!("{service} {} is not kept any more", installed.version);
            return Err(Failure::new(ErrorKind::NotFound, text)
                .hint(format!("place it again: wharf install {service} --version {}", installed.version)));
        }
        self.point_at(&service, &installed.path).map_err(|e| unplaced(&installed.path, e))
    }

    fn service_of(&self, version: &Path) -> Result<String, Failure> {
        let below = version.strip_prefix(&self.root).ok().filter(|p| p.components().count() == 2);
        let service = below.and_then(|p| p.parent()).map(|p| p.to_string_lossy().into_owned());
        service.ok_or_else(|| {
            Failure::new(ErrorKind::Internal, format!("{} is no version in the store", version.display()))
        })
    }

    /// Makes what was staged visible, and current.
    pub(super) fn publish(&self, tree: &Path, service: &str, target: &Path) -> io::Result<()> {
        let folder = self.folder(service);
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            File::open(&self.root)?.sync_all()?;
        }
        // All files and folders of the tree at once: one by one, a tree of thousands takes many seconds.
        rustix::fs::syncfs(File::open(tree)?)?;
        fault::point("install.synced");
        let _held = self.hold(service).map_err(io::Error::other)?;
        match renameat_with(CWD, tree, CWD, target, RenameFlags::NOREPLACE) {
            // The old tree comes to lie in the staging folder and goes with it; who runs from it keeps its files.
            Err(rustix::io::Errno::EXIST) => renameat_with(CWD, tree, CWD, target, RenameFlags::EXCHANGE)?,
            other => other?,
        }
        File::open(&folder)?.sync_all()?;
        fault::point("install.renamed");
        self.point_at(service, target)
    }

    /// Makes `current` lead to a version that was found, as an install of it would.
    pub(super) fn choose(&self, service: &str, target: &Path) -> io::Result<()> {
        let _held = self.hold(service).map_err(io::Error::other)?;
        self.point_at(service, target)
    }

    /// Makes `current` lead to a version; what was current becomes `previous`, first, so that it is never lost.
    fn point_at(&self, service: &str, target: &Path) -> io::Result<()> {
        let folder = self.folder(service);
        let old = leads_to(&folder, CURRENT);
        if old.as_deref() == Some(target) {
            return Ok(());
        }
        if old.is_some() && self.previous_folder(service).as_deref() == Some(target) {
            let both = (folder.join(CURRENT), folder.join(PREVIOUS));
            match renameat_with(CWD, &both.0, CWD, &both.1, RenameFlags::EXCHANGE) {
                Ok(()) => return File::open(&folder)?.sync_all(),
                // The file system cannot exchange: in two steps then.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(old) = old {
            point(&folder, PREVIOUS, &old)?;
            fault::point("install.previous");
        }
        point(&folder, CURRENT, target)?;
        fault::point("install.flipped");
        Ok(())
    }

    fn hold(&self, service: &str) -> Result<Held, Failure> {
        let path = self.folder(service);
        loop {
            let folder = File::open(&path).map_err(|e| unplaced(&path, e))?;
            flock(&folder, FlockOperation::LockExclusive).map_err(|e| unplaced(&path, e.into()))?;
            // It may have been deleted and made anew while we waited.
            let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
            let ours = folder.metadata().map_err(|e| unplaced(&path, e))?;
            if fs::metadata(&path).is_ok_and(|now| same(now, ours)) {
                return Ok(Held { _folder: folder });
            }
        }
    }

    /// What nobody needs: halves of installs, and versions that are neither current nor previous, nor in `in_use`,
    /// nor a runtime of one that is kept. Removed, or with `dry_run` only named. What failed to go is not named.
    pub fn collect_garbage(&self, in_use: &BTreeSet<PathBuf>, dry_run: bool) -> Result<Vec<Garbage>, Failure> {
        let mut found: Vec<Garbage> = staging::abandoned(&self.root).into_iter().map(half_install).collect();
        if !dry_run {
            found.retain(|half| staging::remove(&half.path).is_ok());
        }
        // What links to runtimes first, so that these are known to be free.
        let (runtimes, services): (Vec<_>, Vec<_>) =
            self.services()?.into_iter().partition(|service| self.is_runtime(service));
        // An install at work may have placed a runtime, and not yet what links to it.
        let free = if staging::is_at_work(&self.root) { vec![] } else { runtimes };
        for service in services.iter().chain(&free) {
            // Held first: what is placed meanwhile is needed, and is seen to be.
            let held = (!dry_run).then(|| self.hold(service)).transpose();
            if held.is_err() && !self.folder(service).exists() {
                continue;
            }
            let _held = held?;
            let needed = self.needed(in_use);
            for garbage in self.garbage_of(service, &needed) {
                if dry_run || staging::take_away(&self.root, &garbage.path).is_ok() {
                    found.push(garbage);
                }
            }
            let folder = self.folder(service);
            if !dry_run && self.is_empty(service) {
                let _ = fs::remove_dir_all(folder);
            }
        }
        Ok(found)
    }

    /// The names of everything that is placed.
    pub fn services(&self) -> Result<Vec<String>, Failure> {
        let mut names = vec![];
        for entry in fs::read_dir(&self.root).map_err(|e| unplaced(&self.root, e))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether this is no service but a runtime that services share.
    pub fn is_runtime(&self, service: &str) -> bool {
        let mut versions = versions_in(&self.folder(service)).into_iter();
        versions.any(|path| Receipt::read(&path).is_ok_and(|receipt| receipt.is_runtime))
    }

    fn is_empty(&self, service: &str) -> bool {
        let folder = self.folder(service);
        leads_to(&folder, CURRENT).is_none() && versions_in(&folder).is_empty()
    }

    /// The folders that stay, whatever else goes.
    fn needed(&self, in_use: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let mut needed = in_use.clone();
        for service in self.services().unwrap_or_default() {
            if self.is_runtime(&service) {
                continue;
            }
            needed.extend(leads_to(&self.folder(&service), CURRENT));
            needed.extend(self.previous_folder(&service));
        }
        let receipts: Vec<Receipt> = needed.iter().filter_map(|path| Receipt::read(path).ok()).collect();
        needed.extend(receipts.iter().flat_map(|r| &r.runtimes).map(|runtime| self.root.join(runtime)));
        needed
    }

    fn garbage_of(&self, service: &str, needed: &BTreeSet<PathBuf>) -> Vec<Garbage> {
        let folder = self.folder(service);
        let mut found = vec![];
        for path in versions_in(&folder) {
            if needed.contains(&path) {
                continue;
            }
            let what = match Receipt::read(&path) {
                Ok(receipt) => format!("{service} {}", receipt.version),
                Err(_) => format!("{service}, a version without a receipt"),
            };
            found.push(Garbage { bytes: bytes_below(&path), path, what });
        }
        for path in drafts_in(&folder) {
            found.push(Garbage { bytes: 0, path, what: format!("a link of {service} that was never made") });
        }
        found
    }
}

fn half_install(path: PathBuf) -> Garbage {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // SERVICE-PID-N.
    let service = name.rsplitn(3, '-').nth(2).unwrap_or(&name).to_owned();
    Garbage { bytes: bytes_below(&path), path, what: format!("half an install of {service}") }
}

/// The versions' folders, whole or not.
fn versions_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_version = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|t| t.is_dir());
    let mut found: Vec<PathBuf> = entries.filter(is_version).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Links that a killed flip left beside the two.
fn drafts_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_draft = |entry: &fs::DirEntry| {
        entry.file_type().is_ok_and(|t| t.is_symlink()) && entry.file_name().to_string_lossy().starts_with('.')
    };
    entries.filter(is_draft).map(|entry| entry.path()).collect()
}

/// Where a link leads, if a folder is there.
fn leads_to(folder: &Path, link: &str) -> Option<PathBuf> {
    let target = folder.join(fs::read_link(folder.join(link)).ok()?);
    target.is_dir().then_some(target)
}

fn point(folder: &Path, link: &str, target: &Path) -> io::Result<()> {
    let draft = folder.join(format!(".{link}"));
    let _ = fs::remove_file(&draft);
    symlink(target.file_name().unwrap_or_default(), &draft)?;
    fs::rename(&draft, folder.join(link))?;
    File::open(folder)?.sync_all()
}

/// What the files below take, links not followed.
pub fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return if found.is_file() { found.len() } else { 0 };
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes_below(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::receipt::Receipt;

    /// A version as an install would leave it.
    fn lay(store: &Store, service: &str, version: &str, change: impl FnOnce(&mut Receipt)) -> PathBuf {
        let target = store.folder(service).join(format!("{version}-0123456789ab"));
        let mut receipt = Receipt {
            service: service.into(),
            version: version.into(),
            digest: "0".repeat(64),
            source: "built-in".into(),
            key: version.into(),
            fetched: vec![],
            binaries: Default::default(),
            placed_at_ms: version.parse().unwrap_or(0),
            origin: None,
            runtimes: vec![],
            is_runtime: false,
            files: 0,
        };
        change(&mut receipt);
        let staging = staging::Staging::make(store.root(), service).unwrap();
        fs::write(staging.tree().join("data"), "0123456789").unwrap();
        receipt.write(&staging.tree()).unwrap();
        store.publish(&staging.tree(), service, &target).unwrap();
        target
    }

    fn of(installed: Option<Installed>) -> Option<String> {
        installed.map(|i| i.version)
    }

    #[test]
    fn the_version_before_is_kept_and_there_is_a_way_back_and_forth() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert_eq!(store.current("s"), None);
        lay(&store, "s", "1", |_| ());
        assert_eq!((of(store.current("s")), of(store.previous("s"))), (Some("1".into()), None));
        let failure = store.flip_back("s").unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Conflict);
        lay(&store, "s", "2", |_| ());
        lay(&store, "s", "3", |_| ());
        assert_eq!((of(store.current("s")), of(store.previous("s"))), (Some("3".into()), Some("2".into())));
        assert_eq!(store.flip_back("s").unwrap().version, "2");
        assert_eq!((of(store.current("s")), of(store.previous("s"))), (Some("2".into()), Some("3".into())));
        assert_eq!(store.flip_back("s").unwrap().version, "3");
        let names: Vec<String> = store.versions("s").into_iter().map(|k| k.installed.version).collect();
        assert_eq!(names, ["3", "2", "1"], "the newest first");
        let first = store.versions("s").pop().unwrap();
        store.make_current(&first.installed).unwrap();
        let rows = store.versions("s");
        assert!(rows[2].is_current && rows[0].is_previous && !rows[1].is_current && !rows[1].is_previous);
        assert!(drafts_in(&store.folder("s")).is_empty());
    }

    #[test]
    fn the_same_version_placed_twice_is_not_its_own_previous_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        for version in ["1", "2", "2"] {
            lay(&store, "s", version, |_| ());
        }
        assert_eq!((of(store.current("s")), of(store.previous("s"))), (Some("2".into()), Some("1".into())));
    }

    /// A kill between the two links of a flip leaves both at the old version.
    #[test]
    fn two_links_at_one_version_are_no_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let one = lay(&store, "s", "1", |_| ());
        point(&store.folder("s"), PREVIOUS, &one).unwrap();
        assert_eq!(store.previous("s"), None);
        lay(&store, "s", "2", |_| ());
        assert_eq!(of(store.previous("s")), Some("1".into()));
    }

    #[test]
    fn garbage_is_what_is_neither_current_nor_previous_nor_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let all: Vec<PathBuf> = ["1", "2", "3", "4"].iter().map(|v| lay(&store, "s", v, |_| ())).collect();
        fs::create_dir_all(dir.path().join(".staging/s-999999999-0/tree")).unwrap();
        fs::write(dir.path().join(".staging/s-999999999-0/tree/half"), "12345").unwrap();
        fs::create_dir_all(store.folder("s").join("5-torn")).unwrap();
        symlink("nowhere", store.folder("s").join(".current")).unwrap();
        let in_use = BTreeSet::from([all[0].clone()]);
        let named = store.collect_garbage(&in_use, true).unwrap();
        let what: Vec<&str> = named.iter().map(|g| g.what.as_str()).collect();
        let wanted =
            ["half an install of s", "s 2", "s, a version without a receipt", "a link of s that was never made"];
        assert_eq!(what, wanted);
        assert_eq!(named[0].bytes, 5);
        assert!(named[1].bytes > 10, "the receipt counts too: {named:?}");
        assert!(all.iter().all(|v| v.exists()), "a dry run removes nothing");
        assert_eq!(store.collect_garbage(&in_use, false).unwrap(), named);
        assert_eq!(all.iter().map(|v| v.exists()).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!(store.collect_garbage(&in_use, false).unwrap(), []);
        assert_eq!(fs::read_dir(dir.path().join(".staging")).unwrap().count(), 0);
        assert_eq!((of(store.current("s")), of(store.previous("s"))), (Some("4".into()), Some("3".into())));
    }

    #[test]
    fn a_shared_runtime_stays_as_long_as_one_that_is_kept_links_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        lay(&store, "node", "20", |r| r.is_runtime = true);
        lay(&store, "node", "24", |r| r.is_runtime = true);
        lay(&store, "web", "1", |r| r.runtimes = vec!["node/24-0123456789ab".into()]);
        assert!(store.is_runtime("node") && !store.is_runtime("web"));
        let gone = store.collect_garbage(&BTreeSet::new(), false).unwrap();
        assert_eq!(gone.iter().map(|g| g.what.as_str()).collect::<Vec<_>>(), ["node 20"]);
        fs::remove_dir_all(store.folder("web")).unwrap();
        let gone = store.collect_garbage(&BTreeSet::new(), false).unwrap();
        assert_eq!(gone.iter().map(|g| g.what.as_str()).collect::<Vec<_>>(), ["node 24"]);
        assert_eq!(store.services().unwrap(), [] as [String; 0]);
    }
}
