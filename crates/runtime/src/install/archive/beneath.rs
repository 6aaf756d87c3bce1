//! The only one that makes anything of what an archive says: beneath one folder, never through a link.
//!
//! Every name is checked here, and made through the folder's descriptor with `openat2`, so that the kernel holds what
//! the check promised. Links are made last: while files are made, there is none to be led astray by.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, chmodat, fchmod, linkat, mkdirat, openat2, symlinkat};
use wharf_model::Failure;

use super::{Limits, damaged, refused};
use crate::install::fault;

/// A name of one part is as long as the kernel takes, a path too.
const LONGEST_PATH: usize = 4_000;

/// What a name was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Folder,
    File,
    Link,
}

pub(super) struct Beneath {
    root: OwnedFd,
    place: PathBuf,
    limits: Limits,
    entries: u64,
    bytes: u64,
    /// By name in small letters: on some machines `README` and `readme` are one file.
    names: HashMap<String, (PathBuf, Made)>,
    links: Vec<(PathBuf, PathBuf)>,
    /// The folder that was made something in last: archives go folder by folder.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Beneath {
    /// Beneath this folder, which is empty.
    pub fn open(place: &Path, limits: Limits) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat2(CWD, place, flags, Mode::empty(), ResolveFlags::empty());
        let root = root.map_err(|e| super::unplaced(place, e.into()))?;
        let (names, links) = (HashMap::new(), vec![]);
        Ok(Self { root, place: place.to_owned(), limits, entries: 0, bytes: 0, names, links, last: None })
    }

    /// One more entry of the archive, of whatever kind.
    fn count(&mut self) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(refused(format_args!("it has more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    /// A folder. The same one may come twice.
    pub fn folder(&mut self, path: &Path) -> Result<(), Failure> {
        self.count()?;
        let path = self.inside(path)?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.make_folder(&path)
    }

    /// A file with what is read. `size`: what the archive says, which must be true.
    pub fn file(&mut self, path: &Path, mode: u32, size: Option<u64>, from: &mut dyn Read) -> Result<(), Failure> {
        self.count()?;
        let path = self.inside(path)?;
        let name = self.claim(&path, Made::File)?;
        if mode & 0o6000 != 0 {
            return Err(refused(format_args!("{} is setuid or setgid", path.display())));
        }
        if size.is_some_and(|size| size > self.limits.file_bytes) {
            return Err(self.too_large(&path));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = self.folder_of(&path)?;
        let made = openat2(folder, &name, flags, Mode::from_raw_mode(0o600), alone());
        let mut file = File::from(made.map_err(|e| self.unmade(&path, e.into()))?);
        let written = self.copy(&path, from, &mut file)?;
        if size.is_some_and(|size| size != written) {
            return Err(damaged(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} has {written} bytes of {}", path.display(), size.unwrap_or_default()),
            )));
        }
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| self.unmade(&path, e.into()))?;
        fault::point("install.unpacking");
        Ok(())
    }

    /// A symbolic link. It is made in the end.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), Failure> {
        self.count()?;
        let path = self.inside(path)?;
        self.claim(&path, Made::Link)?;
        if leads_out(&path, target) {
            return Err(refused(format_args!("{} is a link out of it, to {}", path.display(), target.display())));
        }
        self.links.push((path, target.to_owned()));
        Ok(())
    }

    /// A second name of a file that came before.
    pub fn hard_link(&mut self, path: &Path, to: &Path) -> Result<(), Failure> {
        self.count()?;
        let (path, to) = (self.inside(path)?, self.inside(to)?);
        let known = self.names.get(&small(&to)).is_some_and(|(exact, made)| *exact == to && *made == Made::File);
        if !known {
            let text = format_args!("{} is a hard link to {}, which is no file of it", path.display(), to.display());
            return Err(refused(text));
        }
        let name = self.claim(&path, Made::File)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = match to.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => Some(openat2(&self.root, parent, flags, Mode::empty(), alone())),
            None => None,
        };
        let from = from.transpose().map_err(|e| self.unmade(&to, e.into()))?;
        let from = from.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        // Another handle of the target's folder than the cache's: both may be the same.
        let from = from.try_clone_to_owned().map_err(|e| self.unmade(&to, e))?;
        let old_name = to.file_name().unwrap_or_default().to_owned();
        let folder = self.folder_of(&path)?;
        let linked = linkat(&from, &old_name, folder, &name, AtFlags::empty());
        linked.map_err(|e| self.unmade(&path, e.into()))
    }

    /// Anything else that an archive can hold: a device, a pipe, a socket.
    pub fn other(&self, path: &Path, what: &str) -> Failure {
        refused(format_args!("{} is {what}", path.display()))
    }

    /// Makes the links, and looks where each leads.
    pub fn finish(mut self) -> Result<(), Failure> {
        for (path, target) in std::mem::take(&mut self.links) {
            let name = path.file_name().unwrap_or_default().to_owned();
            let folder = self.folder_of(&path)?;
            symlinkat(&target, folder, &name).map_err(|e| self.unmade(&path, e.into()))?;
        }
        let links: Vec<PathBuf> =
            self.names.values().filter(|(_, m)| *m == Made::Link).map(|(p, _)| p.clone()).collect();
        for path in links {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match openat2(&self.root, &path, flags, Mode::empty(), beneath) {
                // It may lead to what another package would bring.
                Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(e) => {
                    return Err(refused(format_args!("{} is a link that leads nowhere sound: {e}", path.display())));
                }
            }
        }
        Ok(())
    }

    /// A name as the archive has it, as a path inside.
    fn inside(&self, path: &Path) -> Result<PathBuf, Failure> {
        let mut inside = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => inside.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(refused(format_args!("{} leads out of it", path.display())));
                }
            }
        }
        let depth = inside.components().count();
        if depth > self.limits.depth || inside.as_os_str().len() > LONGEST_PATH {
            let shown: String = inside.to_string_lossy().chars().take(80).collect();
            return Err(refused(format_args!("{shown}… is deeper than {} folders or too long", self.limits.depth)));
        }
        Ok(inside)
    }

    /// Takes a name, which nothing else may have, and answers its last part.
    fn claim(&mut self, path: &Path, made: Made) -> Result<OsString, Failure> {
        let Some(name) = path.file_name() else { return Err(refused("an entry has no name")) };
        if let Some((taken, _)) = self.names.get(&small(path)) {
            return Err(twice(path, taken));
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.make_folder(parent)?;
        }
        self.names.insert(small(path), (path.to_owned(), made));
        Ok(name.to_owned())
    }

    fn make_folder(&mut self, path: &Path) -> Result<(), Failure> {
        match self.names.get(&small(path)) {
            Some((exact, Made::Folder)) if exact == path => return Ok(()),
            Some((taken, _)) => return Err(twice(path, taken)),
            None => {}
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.make_folder(parent)?;
        }
        let name = path.file_name().unwrap_or_default().to_owned();
        let folder = self.folder_of(path)?;
        let mode = Mode::from_raw_mode(0o755);
        let made = mkdirat(folder, &name, mode).and_then(|()| chmodat(folder, &name, mode, AtFlags::empty()));
        made.map_err(|e| self.unmade(path, e.into()))?;
        self.names.insert(small(path), (path.to_owned(), Made::Folder));
        Ok(())
    }

    /// The open folder that a name is made in.
    fn folder_of(&mut self, path: &Path) -> Result<&OwnedFd, Failure> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(at, _)| at != parent) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat2(&self.root, parent, flags, Mode::empty(), alone());
            let opened = opened.map_err(|e| self.unmade(parent, e.into()))?;
            self.last = Some((parent.to_owned(), opened));
        }
        Ok(self.last.as_ref().map_or(&self.root, |(_, folder)| folder))
    }

    fn copy(&mut self, path: &Path, from: &mut dyn Read, to: &mut File) -> Result<u64, Failure> {
        let mut buffer = vec![0; 128 * 1024];
        let mut written = 0;
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok(written),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged(e)),
            };
            written += n as u64;
            self.bytes += n as u64;
            if written > self.limits.file_bytes {
                return Err(self.too_large(path));
            }
            if self.bytes > self.limits.bytes {
                return Err(refused(format_args!("unpacked it has more than {} bytes", self.limits.bytes)));
            }
            to.write_all(&buffer[..n]).map_err(|e| self.unmade(path, e))?;
        }
    }

    fn too_large(&self, path: &Path) -> Failure {
        refused(format_args!("{} has more than {} bytes", path.display(), self.limits.file_bytes))
    }

    fn unmade(&self, path: &Path, e: io::Error) -> Failure {
        super::unplaced(&self.place.join(path), e)
    }
}

/// Not through any link, and not out of the folder.
fn alone() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn small(path: &Path) -> String {
    path.as_os_str().to_string_lossy().to_lowercase()
}

fn twice(path: &Path, taken: &Path) -> Failure {
    if path == taken {
        return refused(format_args!("{} is in it twice", path.display()));
    }
    refused(format_args!("{} and {} differ in capital letters alone", taken.display(), path.display()))
}

/// Whether a link in this place leads out. `..` may only stand at its beginning: after the name of a folder that is
/// a link itself, it would lead elsewhere than it looks.
pub(super) fn leads_out(link: &Path, target: &Path) -> bool {
    let mut up = 0;
    let mut went_down = false;
    for part in target.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir if went_down => return true,
            Component::ParentDir => up += 1,
            Component::Normal(_) => went_down = true,
            Component::CurDir => {}
        }
    }
    let depth = link.parent().map_or(0, |p| p.components().count());
    up > depth || target.as_os_str() == OsStr::new("")
}
