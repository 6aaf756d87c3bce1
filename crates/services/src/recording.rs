//! Hands that write down what they were asked to do, and do nothing.
//!
//! For a dry run and for tests of services. Every deed succeeds, as if the machine were perfect.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use wharf_model::{Health, Installed, Progress, Signal};

use crate::{Check, Command, Context, Hands, InstallPlan, Output, Probe, Result, Run, Secret, Source};

/// What a service asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// To place something.
    Place(InstallPlan),
    /// To run a program to its end.
    Exec(Command),
    /// To make the unit's run.
    Spawn(Command),
    /// To ask a question.
    Probe(Probe),
    /// To send a signal.
    Signal(Signal),
    /// To write a file.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        text: String,
        /// With which mode.
        mode: u32,
    },
    /// To make or read a secret of this name.
    Secret(String),
    /// To compare what is placed with its receipt.
    VerifyPlaced,
}

/// Writes down instead of acting.
#[derive(Debug, Default)]
pub struct Recording {
    deeds: Mutex<Vec<Deed>>,
    lacks: Vec<String>,
}

impl Recording {
    /// On a machine that lacks these programs.
    pub fn lacking(programs: &[&str]) -> Self {
        Self { lacks: programs.iter().map(|p| (*p).to_owned()).collect(), ..Self::default() }
    }

    /// What was asked for so far, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, deed: Deed) {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }
}

#[async_trait]
impl Hands for Recording {
    async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed> {
        let version = match &plan.source {
            Source::Wheel { version, .. } | Source::Venv { version, .. } => version.clone(),
            Source::BuiltIn | Source::Debian { .. } | Source::Cargo { .. } => "newest".into(),
        };
        let path = cx.dirs.store.join(&plan.service).join(&version);
        let at = |b: &crate::Binary| (b.name.clone(), path.join(&b.path));
        let binaries: BTreeMap<String, PathBuf> = plan.binaries.iter().map(at).collect();
        self.note(Deed::Place(plan));
        Ok(Installed { version, digest: "0".repeat(64), path, binaries, source: "recorded".into() })
    }

    async fn exec(&self, _cx: &Context, command: Command) -> Result<Output> {
        self.note(Deed::Exec(command));
        Ok(Output { code: 0, stdout: String::new(), stderr: String::new() })
    }

    async fn spawn(&self, _cx: &Context, command: Command) -> Result<Run> {
        self.note(Deed::Spawn(command));
        Ok(Run { pid: 0 })
    }

    async fn probe(&self, _cx: &Context, probe: Probe) -> Result<Health> {
        self.note(Deed::Probe(probe));
        Ok(Health::healthy("recorded, not asked"))
    }

    async fn signal(&self, _cx: &Context, signal: Signal) -> Result<()> {
        self.note(Deed::Signal(signal));
        Ok(())
    }

    async fn write(&self, _cx: &Context, path: &Path, text: &str, mode: u32) -> Result<()> {
        self.note(Deed::Write { path: path.to_owned(), text: text.into(), mode });
        Ok(())
    }

    async fn secret(&self, _cx: &Context, name: &str, _bytes: usize) -> Result<Secret> {
        self.note(Deed::Secret(name.into()));
        Ok(Secret::new(format!("<secret {name}>"), PathBuf::from(name)))
    }

    async fn verify_placed(&self, _cx: &Context) -> Result<Vec<Check>> {
        self.note(Deed::VerifyPlaced);
        Ok(vec![])
    }

    fn which(&self, program: &str) -> Option<PathBuf> {
        (!self.lacks.iter().any(|l| l == program)).then(|| Path::new("/usr/bin").join(program))
    }

    fn own_binary(&self) -> PathBuf {
        "/usr/bin/wharf".into()
    }

    fn progress(&self, _cx: &Context, _progress: Progress) {}
}
