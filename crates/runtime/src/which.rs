//! Programs of the machine, by the daemon's PATH.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The first program of this name.
pub(crate) fn first(program: &str) -> Option<PathBuf> {
    all(program).next()
}

/// All programs of this name, in PATH's order.
pub(crate) fn all(program: &str) -> impl Iterator<Item = PathBuf> + Send {
    let folders: Vec<PathBuf> = match program.contains('/') {
        true => vec![PathBuf::new()],
        false => env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
    };
    let program = program.to_owned();
    folders.into_iter().map(move |f| f.join(&program)).filter(|p| is_runnable(p))
}

/// A file that somebody may execute.
pub(crate) fn is_runnable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
