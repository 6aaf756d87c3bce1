//! Files that are written whole and taken back whole. The first line seals the rest: what somebody changed
//! is recognised without any record elsewhere, also by a later version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wharf_model::Failure;

/// How the first line begins.
const SEAL: &str = "# Written by `wharf setup`, taken back by `wharf setup --remove`. Seal: ";

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Written,
    Unchanged,
    /// Somebody changed it: left as it is.
    Differs,
    Removed,
    Absent,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Differs => "differs",
            Self::Removed => "removed",
            Self::Absent => "absent",
        }
    }
}

/// A file, and what became of it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    pub(super) state: State,
    /// What is there (-) and what would be written (+), where that is not done.
    pub(super) diff: String,
}

/// The text with its seal.
pub(super) fn sealed(text: &str) -> String {
    format!("{SEAL}{}\n{text}", digest(text))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is as some `wharf setup` wrote it.
fn is_ours(there: &str) -> bool {
    let Some((seal, text)) = there.split_once('\n') else { return false };
    seal.strip_prefix(SEAL).is_some_and(|seal| seal == digest(text))
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::from(e).while_doing(format_args!("read {}", path.display()))),
    }
}

/// Writes it, unless somebody changed what is there.
pub(super) fn write(path: &Path, text: &str, by_force: bool) -> Result<Written, Failure> {
    let wanted = sealed(text);
    let done = |state, diff| Ok(Written { path: path.to_owned(), state, diff });
    match read(path)? {
        Some(there) if there == wanted => return done(State::Unchanged, String::new()),
        Some(there) if !is_ours(&there) && !by_force => return done(State::Differs, diff(&there, &wanted)),
        Some(_) | None => {}
    }
    let place = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Whole or not at all.
        let fresh = path.with_extension("wharf-new");
        fs::write(&fresh, &wanted)?;
        fs::rename(&fresh, path)
    };
    place().map_err(|e| Failure::from(e).while_doing(format_args!("write {}", path.display())))?;
    done(State::Written, String::new())
}

/// Removes it, unless somebody changed what is there.
pub(super) fn remove(path: &Path, by_force: bool) -> Result<Written, Failure> {
    let done = |state, diff| Ok(Written { path: path.to_owned(), state, diff });
    match read(path)? {
        None => done(State::Absent, String::new()),
        Some(there) if !is_ours(&there) && !by_force => done(State::Differs, String::new()),
        Some(_) => {
            fs::remove_file(path)
                .map_err(|e| Failure::from(e).while_doing(format_args!("remove {}", path.display())))?;
            done(State::Removed, String::new())
        }
    }
}

/// Lines that are only there, and lines that are only wanted, in their order. Units are short: the table of
/// the longest common subsequence is small.
fn diff(there: &str, wanted: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (there.lines().collect(), wanted.lines().collect());
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push_str(&format!("    - {}\n", old[i]));
            i += 1;
        } else {
            out.push_str(&format!("    + {}\n", new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_changed_is_shown_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/wharf.service");
        assert_eq!(write(&path, "[Unit]\nA=1\n", false).unwrap().state, State::Written);
        assert_eq!(write(&path, "[Unit]\nA=1\n", false).unwrap().state, State::Unchanged);
        // Of a former version, and as that wrote it.
        assert_eq!(write(&path, "[Unit]\nA=2\n", false).unwrap().state, State::Written);
        let changed = fs::read_to_string(&path).unwrap().replace("A=2", "A=3");
        fs::write(&path, &changed).unwrap();
        let left = write(&path, "[Unit]\nA=2\n", false).unwrap();
        assert_eq!((left.state, left.diff.as_str()), (State::Differs, "    - A=3\n    + A=2\n"));
        assert_eq!(remove(&path, false).unwrap().state, State::Differs);
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
        assert_eq!(write(&path, "[Unit]\nA=2\n", true).unwrap().state, State::Written);
        assert_eq!(remove(&path, false).unwrap().state, State::Removed);
        assert_eq!(remove(&path, false).unwrap().state, State::Absent);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
