//! Archives: looked at and unpacked by one parser, beneath one folder, within absolute limits.
//!
//! It runs in a process of its own (`wharf unpack`): what a decoder needs of memory, up to 200 MiB, and what a
//! hostile archive does to it, is not the daemon's. It refuses to know where an archive came from.
//!
//! ```text
//! file ── kind (by its first bytes) ── tar, zip or deb ── entry ── Beneath: the only one that makes anything
//! ```

mod beneath;
mod deb;
mod decoded;
mod tarball;
#[cfg(test)]
mod tests;
mod zipped;

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use wharf_model::{ErrorKind, Failure};

use super::{Job, pip::text, place::unplaced};
use crate::tool::Tool;
use beneath::Beneath;
use decoded::Packed;

/// What a decoder and a parser may take of memory: a window of 128 MiB, and 100,000 names.
const MEMORY: u64 = 1 << 30;
/// How long the largest archive may take on a slow disk.
const TIME: Duration = Duration::from_secs(1_800);
/// What a program that came packed alone is called until the plan names it.
const ALONE: &str = "program";

/// What an archive may hold, whatever it says of itself: absolute numbers, because honest files reach any ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub entries: u64,
    pub bytes: u64,
    pub file_bytes: u64,
    pub depth: usize,
}

impl Limits {
    pub const USUAL: Self = Self { entries: 100_000, bytes: 10 << 30, file_bytes: 2 << 30, depth: 32 };
}

/// What a file is, by its first bytes: names lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tar archive or a single file, packed by one of three programs or not at all.
    Stream(Packed),
    Zip,
    Deb,
    /// A program or anything else that is no archive.
    Bare,
}

impl Kind {
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut head = vec![];
        File::open(path)?.take(512).read_to_end(&mut head)?;
        let packed = Packed::of(&head);
        Ok(if packed != Packed::Not || tarball::is_tar(&head) {
            Self::Stream(packed)
        } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Self::Zip
        } else if head.starts_with(b"!<arch>\ndebian-binary") {
            Self::Deb
        } else {
            Self::Bare
        })
    }
}

/// Unpacks an archive into `tree`, in a process of its own that is `own_binary`.
pub(super) async fn unpack_apart(job: &Job<'_>, archive: &Path, what: &str) -> Result<(), Failure> {
    job.say(format!("unpacking {what}"));
    let output =
        Tool::new(job.own_binary).args(["unpack".into(), text(archive), text(&job.tree)]).limit(TIME).output().await?;
    match serde_json::from_str::<Result<(), Failure>>(output.stdout.trim()) {
        Ok(Ok(())) if output.code == 0 => Ok(()),
        Ok(Err(mut failure)) => {
            failure.message = format!("{what}: {}", failure.message);
            Err(failure)
        }
        Ok(Ok(())) | Err(_) => {
            let text = format!("{what} could not be unpacked: what unpacks it ended with {}", output.code);
            Err(Failure::new(ErrorKind::InstallFailed, text)
                .hint("the archive needs more memory than one GiB, or the machine has none left")
                .causes(crate::tool::last_lines(&output, 20)))
        }
    }
}

/// The whole of `wharf unpack`: unpacks, and writes how it went as JSON to standard output.
pub fn unpack(archive: &Path, into: &Path) {
    let most = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    let limited = setrlimit(Resource::As, most).map_err(|e| Failure::from(io::Error::from(e)));
    let done = limited.and_then(|()| extract(archive, into, Limits::USUAL));
    println!("{}", serde_json::to_string(&done).unwrap_or_default());
}

/// Does it, in this process.
fn extract(archive: &Path, into: &Path, limits: Limits) -> Result<(), Failure> {
    let mut file = File::open(archive).map_err(|e| unplaced(archive, e))?;
    let kind = Kind::of(archive).map_err(|e| unplaced(archive, e))?;
    let mut beneath = Beneath::open(into, limits)?;
    match kind {
        Kind::Stream(packed) => {
            file.rewind()?;
            stream(decoded::reader(packed, Box::new(file))?, &mut beneath)?;
        }
        Kind::Zip => zipped::extract(file, &mut beneath)?,
        Kind::Deb => deb::extract(file, &mut beneath)?,
        Kind::Bare => return Err(refused("it is no archive that Wharf knows (tar.gz, tar.xz, tar.zst, zip, deb)")),
    }
    beneath.finish()
}

/// A tar archive, or one packed file.
fn stream(mut reader: Box<dyn Read>, beneath: &mut Beneath) -> Result<(), Failure> {
    let mut head = vec![];
    reader.by_ref().take(512).read_to_end(&mut head).map_err(damaged)?;
    let is_tar = tarball::is_tar(&head);
    let whole: Box<dyn Read> = Box::new(io::Cursor::new(head).chain(reader));
    if is_tar {
        return tarball::extract(whole, beneath, tarball::LinksOut::Refused);
    }
    let mut whole = whole;
    beneath.file(Path::new(ALONE), 0o755, None, &mut whole)
}

/// Takes the one folder away that most archives put around everything: `prometheus-2.42.0.linux-amd64/`.
pub(super) fn without_its_only_folder(tree: &Path, scratch: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(tree)?;
    let (Some(only), None) = (entries.next().transpose()?, entries.next()) else { return Ok(()) };
    let name = only.file_name().to_string_lossy().into_owned();
    // These say what is in them, and do not stand around it.
    let is_part = ["bin", "sbin", "lib", "lib64", "usr", "opt", "etc", "share", "libexec"].contains(&name.as_str());
    if !only.file_type()?.is_dir() || is_part {
        return Ok(());
    }
    let aside: PathBuf = scratch.join("only-folder");
    fs::rename(tree.join(&name), &aside)?;
    fs::remove_dir(tree)?;
    fs::rename(&aside, tree)
}

/// Gives a program that came packed alone its name.
pub(super) fn name_alone(tree: &Path, name: &str) -> io::Result<()> {
    let alone = tree.join(ALONE);
    let mut entries = fs::read_dir(tree)?;
    match (entries.next().transpose()?, entries.next()) {
        (Some(only), None) if only.path() == alone && name != ALONE => fs::rename(alone, tree.join(name)),
        _ => Ok(()),
    }
}

/// An archive that is not unpacked, because of what it holds.
fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::InstallFailed, format!("the archive is refused: {why}"))
        .hint("nothing of it was kept; ask its publisher for another one, or try another version")
}

/// An archive that cannot be read to its end.
fn damaged(e: io::Error) -> Failure {
    if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Failure::from(e);
    }
    let text = format!("the archive is cut off or damaged: {e}");
    Failure::new(ErrorKind::InstallFailed, text)
        .hint("fetch it again; if that does not help, its publisher's is damaged")
}
