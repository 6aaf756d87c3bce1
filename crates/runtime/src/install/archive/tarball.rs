//! Tar archives: headers by the `tar` crate, what extends them read here, within limits.
//!
//! The crate's own extraction is not used: names, sizes and links go through `Beneath`, which is the one judge.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use tar::{Archive, Entry, EntryType};
use wharf_model::Failure;

use super::{
    beneath::{Beneath, leads_out},
    damaged, refused,
};

/// A long name or a set of attributes has at most so many bytes.
const LONGEST_EXTENSION: u64 = 64 * 1024;

/// What becomes of links that lead out of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinksOut {
    Refused,
    /// Debian's policy has absolute links between top folders.
    LeftOut,
}

/// Whether a first block is a tar archive's.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// What the next entry is really called.
#[derive(Default)]
struct Extended {
    path: Option<PathBuf>,
    link: Option<PathBuf>,
    size: Option<u64>,
}

/// Unpacks all entries.
pub(super) fn extract(from: impl Read, beneath: &mut Beneath, links: LinksOut) -> Result<(), Failure> {
    let mut archive = Archive::new(from);
    let mut extended = Extended::default();
    // Raw: what extends an entry is read here, with a limit.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extended.path = Some(long_name(&mut entry)?),
            EntryType::GNULongLink => extended.link = Some(long_name(&mut entry)?),
            EntryType::XHeader => attributes(&mut entry, &mut extended)?,
            // What it says of all entries, times and comments, is not used.
            EntryType::XGlobalHeader => {}
            _ => one(&mut entry, std::mem::take(&mut extended), beneath, links)?,
        }
    }
    Ok(())
}

fn one(entry: &mut Entry<'_, impl Read>, extended: Extended, to: &mut Beneath, links: LinksOut) -> Result<(), Failure> {
    let header = entry.header();
    let kind = header.entry_type();
    let path = match extended.path {
        Some(path) => path,
        None => header.path().map_err(damaged)?.into_owned(),
    };
    let size = header.entry_size().map_err(damaged)?;
    if extended.size.is_some_and(|said| said != size) {
        return Err(refused(format_args!("it says two sizes of {}", path.display())));
    }
    let target = match extended.link {
        Some(link) => Some(link),
        None => header.link_name().map_err(damaged)?.map(std::borrow::Cow::into_owned),
    };
    let target = target.unwrap_or_default();
    let mode = header.mode().map_err(damaged)?;
    match kind {
        // An old archive marks a folder by its name alone.
        EntryType::Regular | EntryType::Continuous if header.path_bytes().ends_with(b"/") => to.folder(&path),
        EntryType::Regular | EntryType::Continuous => to.file(&path, mode, Some(size), entry),
        EntryType::Directory => to.folder(&path),
        EntryType::Symlink if links == LinksOut::LeftOut && leads_out(&path, &target) => Ok(()),
        EntryType::Symlink => to.symlink(&path, &target),
        EntryType::Link => to.hard_link(&path, &target),
        EntryType::Char | EntryType::Block => Err(to.other(&path, "a device")),
        EntryType::Fifo => Err(to.other(&path, "a pipe")),
        _ => Err(to.other(&path, "of a kind that Wharf does not unpack")),
    }
}

/// A GNU extension: the whole entry is a name, ended by a zero.
fn long_name(entry: &mut Entry<'_, impl Read>) -> Result<PathBuf, Failure> {
    let mut name = bounded(entry)?;
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    Ok(PathBuf::from(OsStr::from_bytes(&name)))
}

/// A POSIX extension: lines of `LENGTH NAME=VALUE`.
fn attributes(entry: &mut Entry<'_, impl Read>, extended: &mut Extended) -> Result<(), Failure> {
    let all = bounded(entry)?;
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let (name, value, next) = attribute(rest).ok_or_else(|| {
            damaged(io::Error::new(io::ErrorKind::InvalidData, "the attributes of an entry make no sense"))
        })?;
        let as_path = || Path::new(OsStr::from_bytes(value)).to_owned();
        match name {
            b"path" => extended.path = Some(as_path()),
            b"linkpath" => extended.link = Some(as_path()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                extended.size = Some(size.ok_or_else(|| refused("an entry's size is no number"))?);
            }
            other if other.starts_with(b"GNU.sparse") => return Err(refused("it has files with holes")),
            // Owners, times and the like.
            _ => {}
        }
        rest = next;
    }
    Ok(())
}

fn attribute(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = line.iter().take(8).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let record = line.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &line[length..]))
}

fn bounded(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, Failure> {
    let size = entry.header().entry_size().map_err(damaged)?;
    if size > LONGEST_EXTENSION {
        return Err(refused(format_args!("a name in it has {size} bytes")));
    }
    let mut bytes = vec![];
    entry.take(LONGEST_EXTENSION).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 != size {
        return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}
