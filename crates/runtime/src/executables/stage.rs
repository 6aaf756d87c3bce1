//! A folder that an executable's `install` fills. What it left there goes into the store the way of any archive: with
//! the same limits, checks and receipt, and by one rename.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use wharf_model::{ErrorKind, Failure, Installed};
use wharf_services::{Context, InstallPlan, Source, Staged};

use crate::{install::Placer, layout::Layout};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// So that no folder of the staged ones is taken for the one that an archive has around everything.
const MADE_BY: &str = "made-by";

/// The folder. Dropped, it goes.
pub(crate) struct Stage {
    folder: PathBuf,
    tree: PathBuf,
    placer: Placer,
}

impl Stage {
    /// A fresh one, after those of processes that are gone were removed.
    pub fn make(layout: &Layout, placer: &Placer, cx: &Context) -> Result<Self, Failure> {
        let all = layout.cache().join("staged");
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        sweep(&all);
        let folder = all.join(format!("{}-{}-{n}", cx.unit.service(), std::process::id()));
        let tree = folder.join("tree");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&tree)
            .map_err(|e| Failure::from(e).while_doing(format_args!("make {}", tree.display())).about(&cx.unit))?;
        Ok(Self { folder, tree, placer: placer.clone() })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn sweep(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if !pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[async_trait]
impl Staged for Stage {
    fn path(&self) -> &Path {
        &self.tree
    }

    async fn place(self: Box<Self>, cx: &Context, version: &str, paths: &[String]) -> Result<Installed, Failure> {
        let sound = |path: &&String| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if let Some(bad) = paths.iter().find(|path| !sound(path)) {
            let text = format!("{bad:?} is no path below the staging folder");
            return Err(Failure::new(ErrorKind::InstallFailed, text)
                .hint("for example \"bin/server\"")
                .about(&cx.unit));
        }
        let (tree, packed) =
            (self.tree.clone(), self.folder.join(format!("{}-{version}.tar", cx.unit.service()).replace('/', "_")));
        let (to, made_by) = (packed.clone(), format!("{} {version}\n", cx.unit.service()));
        let done = tokio::task::spawn_blocking(move || pack(&tree, &to, &made_by)).await;
        let done = done.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
        done.map_err(|e| Failure::from(e).while_doing("pack what was installed").about(&cx.unit))?;
        let source = Source::File { path: packed, version: Some(version.to_owned()), sha256: None };
        let service = cx.unit.service().to_owned();
        let plan = InstallPlan { service, source, binaries: vec![], files: vec![], reset: false };
        let plan = paths.iter().fold(plan, |plan, path| plan.binary(path));
        self.placer.place(cx, plan).await
    }
}

/// The tree as an archive. The same tree is the same archive, byte for byte: its digest is the version's.
fn pack(tree: &Path, to: &Path, made_by: &str) -> io::Result<()> {
    let mut archive = tar::Builder::new(File::create(to)?);
    archive.append_data(
        &mut header(tar::EntryType::Regular, 0o644, made_by.len() as u64),
        MADE_BY,
        made_by.as_bytes(),
    )?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(tree.join(&folder))?.flatten().map(|entry| folder.join(entry.file_name())).collect();
        entries.sort();
        for path in entries {
            let whole = tree.join(&path);
            let found = fs::symlink_metadata(&whole)?;
            let mode = found.permissions().mode() & 0o777;
            if found.is_dir() {
                archive.append_data(&mut header(tar::EntryType::Directory, mode, 0), &path, io::empty())?;
                folders.push(path);
            } else if found.is_symlink() {
                let target = fs::read_link(&whole)?;
                archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), &path, target)?;
            } else if found.is_file() {
                archive.append_data(
                    &mut header(tar::EntryType::Regular, mode, found.len()),
                    &path,
                    File::open(&whole)?,
                )?;
            } else {
                let text = format!("{} is no file, folder or link", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    archive.into_inner()?.sync_all()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_is_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/clock"), "#!/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("clock", tree.join("bin/watch")).unwrap();
        let packed = |name: &str| {
            pack(&tree, &dir.path().join(name), "clock 1\n").unwrap();
            fs::read(dir.path().join(name)).unwrap()
        };
        let first = packed("a.tar");
        fs::write(tree.join("bin/clock"), "#!/bin/sh\n").unwrap();
        assert_eq!(first, packed("b.tar"));
        fs::write(tree.join("bin/clock"), "#!/bin/sh\ndate\n").unwrap();
        assert_ne!(first, packed("c.tar"));
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
        assert!(pack(&tree, &dir.path().join("d.tar"), "").is_err());
    }
}
