//! Secrets on their way to a run: from where their unit's policy says, into files that only the run can read.
//!
//! It owns a folder a run in memory (tmpfs), named `CREDENTIALS_DIRECTORY` as systemd's is, and takes it
//! away when the run is over. It refuses to know what a secret is for. A value is read at the start of a run
//! and nowhere kept by the daemon, but in the redactor of this process.

mod place;
mod source;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use wharf_model::{ErrorKind, Failure, Policy, RunId, SecretRef, UnitName};
use zeroize::Zeroizing;

pub use source::Reference;

use crate::{account::Account, layout::Layout, redact::redactor};

/// The variable by which a program finds its secrets.
pub const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// How long the files of secrets may hold up the daemon's start.
const LEARN_TIME: Duration = Duration::from_secs(1);

/// The folders of one installation's runs.
#[derive(Debug)]
pub struct Credentials {
    places: Vec<PathBuf>,
    secrets: PathBuf,
}

/// A run's secrets lie there. Dropped before it is kept, they are taken away again.
#[derive(Debug)]
pub struct Delivered {
    credentials: Arc<Credentials>,
    run: Option<RunId>,
}

impl Delivered {
    /// The run has begun: they stay until it is forgotten.
    pub fn keep(mut self) {
        self.run = None;
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.credentials.remove(run);
        }
    }
}

impl Credentials {
    /// Looks where they can lie on this machine. Nothing is made before the first secret is delivered.
    pub fn new(layout: &Layout) -> Self {
        Self { places: place::candidates(layout), secrets: layout.secrets().to_owned() }
    }

    /// Where the secrets of new runs are put; none: this machine has no file system in memory.
    pub fn place(&self) -> Option<&Path> {
        self.places.first().map(PathBuf::as_path)
    }

    /// Loads a unit's secrets and puts them where its run finds them. `who` is the run's user, where it is not ours.
    ///
    /// # Errors
    /// `precondition`, naming the reference and never the value, where one cannot be had.
    pub async fn deliver(
        self: &Arc<Self>,
        unit: &UnitName,
        run: RunId,
        policy: &Policy,
        who: Option<&Account>,
    ) -> Result<Option<Delivered>, Failure> {
        if policy.secrets.is_empty() {
            return Ok(None);
        }
        let mut values = vec![];
        for (name, from) in &policy.secrets {
            let value = Reference::parse(&from.from)?.read(unit, name, &self.secrets).await?;
            redactor().learn(&value);
            if from.env {
                as_text(name, &value)?;
            }
            values.push((name.clone(), value));
        }
        let delivered = Delivered { credentials: self.clone(), run: Some(run) };
        let place = self.reachable(who)?;
        let who = who.cloned();
        let written = tokio::task::spawn_blocking(move || place::write(&place, run, &values, who.as_ref())).await;
        written
            .map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
            .map_err(|e| Failure::from(e).while_doing("put its secrets into memory"))?;
        Ok(Some(delivered))
    }

    fn reachable(&self, who: Option<&Account>) -> Result<PathBuf, Failure> {
        let reaches = |place: &&PathBuf| who.is_none_or(|who| who.can_reach(place).is_ok());
        self.places.iter().find(reaches).cloned().ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, "there is no file system in memory (tmpfs) to put its secrets into")
                .hint("mount one at /dev/shm: mount -t tmpfs tmpfs /dev/shm")
        })
    }

    /// The folder of a run's secrets, if it has any.
    pub fn folder(&self, run: RunId) -> Option<PathBuf> {
        self.places.iter().map(|place| place.join(run.to_string())).find(|folder| folder.is_dir())
    }

    /// What the environment of a run's programs has of its secrets.
    pub fn variables(&self, run: RunId, secrets: &BTreeMap<String, SecretRef>) -> BTreeMap<String, String> {
        let Some(folder) = (!secrets.is_empty()).then(|| self.folder(run)).flatten() else { return BTreeMap::new() };
        let as_variable = |(name, from): (&String, &SecretRef)| {
            let value = from.env.then(|| fs::read(folder.join(name)).map(Zeroizing::new).ok()).flatten()?;
            Some((name.clone(), as_text(name, &value).ok()?.to_owned()))
        };
        let mut variables: BTreeMap<_, _> = secrets.iter().filter_map(as_variable).collect();
        variables.insert(VARIABLE.into(), folder.display().to_string());
        variables
    }

    /// What an earlier daemon delivered, and what can be read again without running anything, is known before
    /// anybody asks: live runs print it, and old logs may hold it. A file that cannot be read in time is passed over.
    pub fn learn_again(&self, units: impl IntoIterator<Item = (UnitName, Arc<Policy>)>) {
        for (_, folder) in self.runs() {
            for file in fs::read_dir(folder).into_iter().flatten().flatten() {
                if let Ok(value) = fs::read(file.path()).map(Zeroizing::new) {
                    redactor().learn(&value);
                }
            }
        }
        let secrets = self.secrets.clone();
        let units: Vec<_> = units.into_iter().filter(|(_, policy)| !policy.secrets.is_empty()).collect();
        let (done, is_done) = std::sync::mpsc::channel();
        // A thread of its own: a file on a server that does not answer must not hold up the daemon.
        std::thread::spawn(move || {
            for (unit, policy) in &units {
                for (name, from) in &policy.secrets {
                    let reference = Reference::parse(&from.from).ok();
                    if let Some(value) = reference.and_then(|reference| reference.at_rest(unit, name, &secrets)) {
                        redactor().learn(&value);
                    }
                }
            }
            let _ = done.send(());
        });
        if is_done.recv_timeout(LEARN_TIME).is_err() {
            tracing::warn!("not every secret could be read in time: old logs may show those that were not");
        }
    }

    /// A run is over. The last one takes the place along.
    pub fn remove(&self, run: RunId) {
        for place in self.places.iter().filter(|place| place.exists()) {
            if let Err(e) = place::remove(&place.join(run.to_string())) {
                tracing::error!("the secrets of run {run} cannot be removed from {}: {e}", place.display());
            }
            let _ = fs::remove_dir(place);
        }
    }

    /// Every run whose secrets lie somewhere.
    pub fn runs(&self) -> Vec<(RunId, PathBuf)> {
        let folders = self.places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
        let run_of = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(RunId);
        folders.filter_map(|entry| Some((run_of(&entry)?, entry.path()))).collect()
    }

    /// The values that were generated for a unit go with its data.
    pub fn forget_generated(secrets: &Path, unit: &UnitName) -> io::Result<()> {
        let prefix = source::generated_name(unit, "");
        for file in fs::read_dir(secrets)?.flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

/// A value as a variable's: without the line's end.
fn as_text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Failure> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    let text = text.map(|text| text.strip_suffix('\n').unwrap_or(text));
    text.ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, format!("the secret {name} is no text and cannot be a variable"))
            .hint(format!("leave out `env` in policy.secrets.{name}: the program reads it from ${VARIABLE}/{name}"))
    })
}

#[cfg(test)]
mod tests;
