//! The file: read and changed by the library, by fake engines and by tests at the same time.
//!
//! Owns its locking: whoever changes it holds the lock file beside it, and readers see whole states only.

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::State;

/// Names the file.
pub const VARIABLE: &str = "WHARF_FAKE_NVML";

/// The file of this process's environment.
pub(crate) fn named() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// Reads it. A missing file is a machine without devices.
///
/// # Errors
/// Where it cannot be read or understood.
pub fn read(path: &Path) -> io::Result<State> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(e) => Err(e),
    }
}

/// Writes it, as a whole.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, state: &State) -> io::Result<()> {
    edit(path, |old| *old = state.clone())
}

/// Changes it while nobody else does.
///
/// # Errors
/// Where it cannot be locked, read or written.
pub fn edit<T>(path: &Path, change: impl FnOnce(&mut State) -> T) -> io::Result<T> {
    let lock = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
    // Engines may run as other users; who may not change it has it from somebody who has.
    let _ = lock.set_permissions(fs::Permissions::from_mode(0o666));
    flock(&lock, FlockOperation::LockExclusive)?;
    let mut state = read(path)?;
    let before = state.clone();
    let outcome = change(&mut state);
    if state != before || !path.exists() {
        let draft = path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(&state)?)?;
        fs::rename(draft, path)?;
    }
    Ok(outcome)
}

/// Milliseconds since the machine was started.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// When a living process started, in ticks since boot. None: it does not live.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
