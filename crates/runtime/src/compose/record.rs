//! Which containers a unit has, beside its other files: so that whose a port or a GPU's memory is can be told.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use wharf_model::{RunId, UnitName};
use wharf_services::Container;

use super::say;

/// The name of the file, in a unit's folder of what is made anew.
pub(super) const FILE: &str = "containers.json";
/// No honest file is longer.
const LONGEST: u64 = 1 << 20;

/// The containers of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The unit.
    pub unit: UnitName,
    /// Its run.
    pub run: RunId,
    /// Their ids.
    pub containers: Vec<String>,
    /// The ports of this machine that lead to them.
    pub ports: Vec<u16>,
}

/// Writes down what there is, where this process is a run's. That it cannot is no reason to stop.
pub(super) fn write(path: &Path, found: &[Container]) {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(unit) = variable("WHARF_UNIT").and_then(|unit| unit.parse().ok()) else { return };
    let Some(run) = variable("WHARF_RUN").and_then(|run| run.parse().ok()).map(RunId) else { return };
    let living = || found.iter().filter(|c| c.lives());
    let ports = living().flat_map(|c| c.published.iter().map(std::net::SocketAddr::port)).collect();
    let record = Record { unit, run, containers: living().map(|c| c.id.clone()).collect(), ports };
    if let Err(e) = written(path, &record) {
        say(format_args!("wharf: {} cannot be written: {e}", path.display()));
    }
}

fn written(path: &Path, record: &Record) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(record)?)?;
    fs::rename(&draft, path)
}

/// What is written down of the units in this folder.
pub fn recorded(units: &Path) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(units) else { return vec![] };
    entries.flatten().filter_map(|entry| read(entry.path().join(FILE))).collect()
}

fn read(path: PathBuf) -> Option<Record> {
    let found = fs::symlink_metadata(&path).ok().filter(|found| found.is_file() && found.len() <= LONGEST)?;
    // Not in a unit's own hands: a service's user could claim another's containers.
    use std::os::unix::fs::MetadataExt;
    (found.uid() == nix::unistd::geteuid().as_raw())
        .then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record {
            unit: "compose@sd".parse().unwrap(),
            run: RunId(4),
            containers: vec!["a".into()],
            ports: vec![8000],
        };
        for unit in ["compose@sd", "redis"] {
            fs::create_dir(dir.path().join(unit)).unwrap();
        }
        written(&dir.path().join("compose@sd").join(FILE), &record).unwrap();
        fs::write(dir.path().join("redis").join(FILE), "nonsense").unwrap();
        assert_eq!(recorded(dir.path()), [record]);
        assert_eq!(recorded(Path::new("/nowhere")), []);
    }
}
