//! Zip archives. The list at the end of the file is what counts; each file's own header only says where it begins.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use wharf_model::Failure;
use zip::{ZipArchive, result::ZipError};

use super::{beneath::Beneath, damaged, refused};

/// A link's target is a path.
const LONGEST_LINK: u64 = 4_096;

/// Unpacks all entries.
pub(super) fn extract(file: File, beneath: &mut Beneath) -> Result<(), Failure> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(unreadable)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(unreadable)?;
        let name = entry.name().map_err(unreadable)?.into_owned();
        if name.contains(['\\', '\0']) {
            return Err(refused(format_args!("{name:?} is no name of a file")));
        }
        let (path, mode, size) = (PathBuf::from(&name), entry.unix_mode().unwrap_or(0o644), entry.size());
        if entry.is_dir() {
            beneath.folder(&path)?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            entry.by_ref().take(LONGEST_LINK).read_to_string(&mut target).map_err(damaged)?;
            beneath.symlink(&path, Path::new(&target))?;
        } else if is_special(mode) {
            return Err(beneath.other(&path, "a device or a pipe"));
        } else {
            beneath.file(&path, mode, Some(size), &mut entry)?;
        }
    }
    Ok(())
}

/// Neither a regular file nor without a kind.
fn is_special(mode: u32) -> bool {
    !matches!(mode & 0o170_000, 0 | 0o100_000)
}

fn unreadable(e: ZipError) -> Failure {
    match e {
        ZipError::Io(e) => damaged(e),
        other => damaged(io::Error::new(io::ErrorKind::InvalidData, other.to_string())),
    }
}
