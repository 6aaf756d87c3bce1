//! The shim that this program carries, placed where it can be run.
//!
//! Its path holds its digest: a newer Wharf places its own beside it and never touches the one
//! that runs.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wharf_model::Failure;

use super::folder::make_private;

const SHIM: &[u8] = include_bytes!(env!("WHARF_SHIM"));

/// Where the shim is, after it has been placed there.
pub fn place(shim_dir: &Path) -> Result<PathBuf, Failure> {
    let digest: String = Sha256::digest(SHIM).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let path = shim_dir.join(digest).join("wharf-shim");
    write(&path)
        .map_err(|e| Failure::from(e).while_doing(format_args!("place the shim at {}", path.display())))
        .map(|()| path)
}

fn write(path: &Path) -> io::Result<()> {
    // The digest in the path is not trusted: a full disk may have left half of it there.
    if fs::read(path).is_ok_and(|there| there == SHIM) {
        return Ok(());
    }
    let Some(dir) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    make_private(dir)?;
    let temporary = dir.join(format!("wharf-shim.{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o700).open(&temporary)?;
    file.write_all(SHIM)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)
}
