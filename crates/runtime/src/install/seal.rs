//! Whether a program that is about to start is the one that was placed.
//!
//! Each is hashed before its first start in a daemon's life; after that a look at its inode is enough, as long
//! as nobody touched it. It owns what was seen. It refuses to know who starts what.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use wharf_model::{ErrorKind, Failure, Installed};

use super::receipt::{Program, Receipt, digest_of};

/// What an inode looks like while nobody writes to it. Nobody but the kernel sets a change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The programs that were hashed and found to be what they were.
#[derive(Debug, Default)]
pub(super) struct Seals {
    // A HashMap, because nothing is decided by its order.
    seen: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

impl Seals {
    /// Fails where a program of what is placed is not what it was.
    pub fn check(&self, store: &Path, installed: &Installed) -> Result<(), Failure> {
        let folder = &installed.path;
        let receipt = Receipt::read(folder).map_err(|e| lost(installed, &e))?;
        if receipt.digest != installed.digest {
            return Err(Failure::new(
                ErrorKind::Precondition,
                format!("{} holds something else than {} {}", folder.display(), receipt.service, installed.version),
            )
            .hint(again(&receipt.service)));
        }
        for (name, program) in &receipt.binaries {
            self.check_program(store, folder, &receipt.service, name, program)?;
        }
        Ok(())
    }

    fn check_program(
        &self,
        store: &Path,
        folder: &Path,
        service: &str,
        name: &str,
        program: &Program,
    ) -> Result<(), Failure> {
        let path = folder.join(&program.path);
        let (path, wanted) = match &program.sha256 {
            Some(sha256) => (path, sha256.clone()),
            // A link: to a program of a runtime in the store, which has a receipt too, or of the machine, which has none.
            None => match of_runtime(store, &path) {
                Some(found) => found,
                None => return Ok(()),
            },
        };
        let found = self.digest(&path).map_err(|e| {
            Failure::new(ErrorKind::Precondition, format!("{name} of {service} cannot be read: {e}"))
                .hint(again(service))
        })?;
        if found == wanted {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::Precondition,
            format!("{name} of {service} is not the program that was placed, so it is not started"),
        )
        .cause(format!("{} has sha256 {found}, and had {wanted}", path.display()))
        .hint(again(service)))
    }

    fn digest(&self, path: &Path) -> io::Result<String> {
        let before = Stamp::of(path)?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some((_, sha256)) = seen.filter(|(stamp, _)| *stamp == before) {
            return Ok(sha256);
        }
        let (sha256, _) = digest_of(path)?;
        // What was written to while it was read is read again next time.
        if Stamp::of(path)? == before {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.retain(|path, _| path.exists());
            seen.insert(path.to_owned(), (before, sha256.clone()));
        }
        Ok(sha256)
    }
}

fn again(service: &str) -> String {
    format!("place it again: wharf install {service} --reset; `wharf verify {service}` shows what has changed")
}

fn lost(installed: &Installed, e: &io::Error) -> Failure {
    let path = installed.path.display();
    Failure::new(ErrorKind::Precondition, format!("what was placed in {path} is not whole: {e}"))
        .hint("place it again: wharf install NAME --reset")
}

/// The program that a link leads to, and its digest, where it belongs to a version in the store.
fn of_runtime(store: &Path, link: &Path) -> Option<(PathBuf, String)> {
    let store = fs::canonicalize(store).ok()?;
    let real = fs::canonicalize(link).ok()?;
    let below = real.strip_prefix(&store).ok()?;
    let folder: PathBuf = below.components().take(2).collect();
    let inner = below.strip_prefix(&folder).ok()?;
    let receipt = Receipt::read(&store.join(&folder)).ok()?;
    let sha256 = receipt.binaries.values().find(|p| Path::new(&p.path) == inner)?.sha256.clone()?;
    Some((real, sha256))
}
