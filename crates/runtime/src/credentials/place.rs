//! The folders in memory: which there are, and how a run's is made and taken away.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wharf_model::RunId;
use zeroize::Zeroizing;

use crate::{account::Account, layout::Layout, secret};

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// Where secrets can lie, the best first. A place of one installation is no other's.
pub fn candidates(layout: &Layout) -> Vec<PathBuf> {
    let digest = Sha256::digest(layout.state().as_os_str().as_encoded_bytes());
    let uid = nix::unistd::geteuid();
    let own = format!("wharf-{uid}-{}", secret::hex(&digest[..6]));
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let system = uid.is_root().then(|| PathBuf::from("/run"));
    let shared = Some(PathBuf::from("/dev/shm"));
    let beside = layout.units().to_owned();
    let mut places: Vec<PathBuf> = is_in_memory(&beside).then(|| beside.join(".credentials")).into_iter().collect();
    let others = [session, system, shared].into_iter().flatten().filter(|dir| is_in_memory(dir));
    places.extend(others.map(|dir| dir.join(&own)));
    places
}

/// What is written there never reaches a disk, but by swap.
fn is_in_memory(dir: &Path) -> bool {
    let can_write = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
    can_write && rustix::fs::statfs(dir).is_ok_and(|found| matches!(found.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Makes the folder of a run: 0500, with a 0400 file a secret, and the run's user's.
pub fn write(
    place: &Path,
    run: RunId,
    values: &[(String, Zeroizing<Vec<u8>>)],
    who: Option<&Account>,
) -> io::Result<()> {
    let folder = place.join(run.to_string());
    let make = || {
        make_ours(place)?;
        remove(&folder)?;
        DirBuilder::new().mode(0o700).create(&folder)
    };
    // The end of another run may have taken the place along just then.
    make().or_else(|e| if e.kind() == io::ErrorKind::NotFound { make() } else { Err(e) })?;
    for (name, value) in values {
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        file.write_all(value)?;
        own(&path, who)?;
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o500))?;
    own(&folder, who)
}

fn own(path: &Path, who: Option<&Account>) -> io::Result<()> {
    who.map_or(Ok(()), |who| chown(path, Some(who.uid), Some(who.gid)))
}

/// In a folder that all may write to, another user can have been first.
fn make_ours(place: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(place) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(place)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is another user's", place.display())));
    }
    // Whatever umask the daemon has: passed by those who know a run's number, listed by nobody.
    fs::set_permissions(place, Permissions::from_mode(0o711))
}

/// Takes a run's folder away. What is not there is gone.
pub fn remove(folder: &Path) -> io::Result<()> {
    let gone = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // Nothing can be removed from a folder that its owner may not write to.
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => gone(fs::set_permissions(folder, Permissions::from_mode(0o700)))?,
        Ok(_) => return gone(fs::remove_file(folder)),
        Err(e) => return gone(Err(e)),
    }
    gone(fs::remove_dir_all(folder))
}
