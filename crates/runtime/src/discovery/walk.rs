//! From folders to the folders below them, nearest first, each once.
//!
//! It owns the limits of a scan: whatever is below a folder, a scan ends soon and holds little.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Fault, Found, MANIFEST, file};

/// What a scan does at most.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) folders: usize,
    pub(super) entries: usize,
    pub(super) manifests: usize,
    /// Of the texts of all manifests.
    pub(super) bytes: usize,
    pub(super) faults: usize,
    pub(super) time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            folders: 20_000,
            entries: 500_000,
            manifests: 2_000,
            bytes: 16 * 1024 * 1024,
            faults: 1_000,
            time: Duration::from_secs(20),
        }
    }
}

/// What a walk brought.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) found: Vec<Found>,
    pub(super) faults: Vec<Fault>,
    pub(super) complete: bool,
}

/// Looks at these folders and at those below them.
pub(super) fn walk(roots: &[PathBuf], depth: u32, limits: &Limits) -> Walked {
    let mut walk = Walk {
        limits,
        until: Instant::now() + limits.time,
        seen: HashSet::new(),
        entries: 0,
        bytes: 0,
        walked: Walked::default(),
    };
    // The nearest first: a folder that is reached by two ways is reached by the shorter one.
    let mut queue: VecDeque<(PathBuf, u32)> = roots.iter().map(|root| (root.clone(), 0)).collect();
    while let Some((folder, level)) = queue.pop_front() {
        if let Some(limit) = walk.limit() {
            let text = format!("could not look further than {}: {limit}", folder.display());
            walk.walked.faults.push(Fault::new(
                folder,
                text,
                "name the folders of services themselves, or a smaller depth",
            ));
            return walk.walked;
        }
        for below in walk.look(&folder, level == 0, level < depth) {
            queue.push_back((below, level + 1));
        }
    }
    walk.walked.complete = true;
    walk.walked
}

struct Walk<'a> {
    limits: &'a Limits,
    until: Instant,
    /// By device and inode: links may lead anywhere, also back.
    seen: HashSet<(u64, u64)>,
    entries: usize,
    bytes: usize,
    walked: Walked,
}

impl Walk<'_> {
    /// The limit that is reached.
    fn limit(&self) -> Option<String> {
        let Limits { folders, entries, manifests, bytes, faults, time } = self.limits;
        if self.seen.len() >= *folders {
            Some(format!("{folders} folders were looked at"))
        } else if self.entries >= *entries {
            Some(format!("{entries} files and folders were looked at"))
        } else if self.walked.found.len() >= *manifests {
            Some(format!("{manifests} manifests were found"))
        } else if self.bytes >= *bytes {
            Some(format!("the manifests hold {bytes} bytes"))
        } else if self.walked.faults.len() >= *faults {
            Some(format!("{faults} things are wrong"))
        } else if Instant::now() >= self.until {
            Some(format!("it has taken {} s", time.as_secs()))
        } else {
            None
        }
    }

    /// Looks at one folder, and says which are below it.
    fn look(&mut self, folder: &Path, is_root: bool, further: bool) -> Vec<PathBuf> {
        match fs::metadata(folder) {
            Ok(found) if !found.is_dir() => {
                if is_root {
                    let text = format!("could not look into {}: it is no folder", folder.display());
                    self.walked.faults.push(Fault::new(folder, text, "name the folder that it lies in"));
                }
                return vec![];
            }
            Ok(found) if !self.seen.insert((found.dev(), found.ino())) => return vec![],
            Ok(_) => {}
            Err(e) => {
                self.walked.faults.push(closed(folder, &e));
                return vec![];
            }
        }
        self.take(&folder.join(MANIFEST));
        if !further {
            return vec![];
        }
        match self.below(folder) {
            Ok(below) => below,
            Err(e) => {
                self.walked.faults.push(closed(folder, &e));
                vec![]
            }
        }
    }

    fn take(&mut self, path: &Path) {
        match file::read(path) {
            None => {}
            Some(Err(fault)) => self.walked.faults.push(fault),
            Some(Ok(sound)) => {
                self.bytes += sound.bytes;
                self.walked.found.push(found(path.to_owned(), sound));
            }
        }
    }

    /// The folders in a folder, by name. Hidden ones and templates (`_template`) are left out.
    fn below(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut below = vec![];
        for entry in fs::read_dir(folder)? {
            self.entries += 1;
            if self.entries >= self.limits.entries {
                break;
            }
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".")
                || entry.file_name().as_encoded_bytes().starts_with(b"_")
            {
                continue;
            }
            let kind = entry.file_type()?;
            // A link that leads nowhere, or in a ring, leads to no folder.
            if kind.is_dir() || kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()) {
                below.push(entry.path());
            }
        }
        below.sort();
        Ok(below)
    }
}

/// What a file says, with the time of the look.
pub(super) fn found(path: PathBuf, sound: file::Sound) -> Found {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    Found { name: sound.name, path, discovered_at: now.to_string(), manifest: sound.fields }
}

fn closed(folder: &Path, e: &io::Error) -> Fault {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied => "let the user that Wharf runs as read it, or leave it out",
        io::ErrorKind::NotFound => "is it written right? A path is of the machine that the daemon runs on",
        _ => "look at it with `ls -ld`",
    };
    Fault::new(folder, format!("could not look into {}: {e}", folder.display()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..count {
            let folder = dir.path().join(format!("s{n}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(MANIFEST), format!("name: s{n}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_limit_ends_the_walk_and_is_told_and_what_was_found_stays() {
        let dir = many(30);
        let roots = [dir.path().to_owned()];
        let usual = Limits::default;
        for (limits, found, says) in [
            (Limits { folders: 11, ..usual() }, 10, "11 folders"),
            (Limits { manifests: 5, ..usual() }, 5, "5 manifests"),
            (Limits { bytes: 40, ..usual() }, 5, "40 bytes"),
            (Limits { time: Duration::ZERO, ..usual() }, 0, "it has taken 0 s"),
        ] {
            let walked = walk(&roots, 3, &limits);
            assert_eq!((walked.found.len(), walked.complete), (found, false), "{says}: {:?}", walked.faults);
            assert!(walked.faults.iter().any(|f| f.message.contains(says)), "{says}: {:?}", walked.faults);
        }
        let walked = walk(&roots, 0, &usual());
        assert_eq!((walked.found.len(), walked.complete), (0, true), "depth 0 is the folder itself");
    }

    #[test]
    fn what_is_no_folder_is_told_where_it_was_named() {
        let dir = many(1);
        let file = dir.path().join("s0").join(MANIFEST);
        let walked = walk(&[file.clone(), dir.path().join("absent"), dir.path().to_owned()], 1, &Limits::default());
        let told: Vec<&Path> = walked.faults.iter().map(|f| f.path.as_path()).collect();
        assert_eq!(told, [file.as_path(), &dir.path().join("absent")]);
        assert_eq!(walked.found.len(), 1, "the others are found all the same");
    }
}
