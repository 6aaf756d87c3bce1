//! Hands that write down what they were asked to do, and do nothing.
//!
//! For a dry run and for tests of services. Every deed succeeds, as if the machine were perfect.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Progress, RunId, Signal, UnitName};

use crate::{
    Check, Command, Container, Context, Dirs, Hands, InstallPlan, Output, PortChoice, Probe, Result, Run, Secret,
    Service, Staged,
};

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
    /// To place what it has put into a folder itself.
    PlaceStaged {
        /// Which version it is.
        version: String,
        /// Its programs.
        paths: Vec<String>,
    },
}

/// Writes down instead of acting.
#[derive(Debug, Default)]
pub struct Recording {
    deeds: Arc<Mutex<Vec<Deed>>>,
    lacks: Vec<String>,
    answers: Vec<(String, Output)>,
    texts: BTreeMap<PathBuf, String>,
    containers: Vec<Container>,
    addresses: Vec<(String, IpAddr)>,
}

impl Recording {
    /// On a machine that lacks these programs.
    pub fn lacking(programs: &[&str]) -> Self {
        Self { lacks: programs.iter().map(|p| (*p).to_owned()).collect(), ..Self::default() }
    }

    /// Where a program is run to its end with this first argument, it leaves this.
    #[must_use]
    pub fn answering(mut self, first_argument: &str, output: Output) -> Self {
        self.answers.push((first_argument.into(), output));
        self
    }

    /// On a machine with this text file.
    #[must_use]
    pub fn with_text(mut self, path: impl Into<PathBuf>, text: &str) -> Self {
        self.texts.insert(path.into(), text.into());
        self
    }

    /// Where the container engine has this container, whatever project is asked for.
    #[must_use]
    pub fn with_container(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    /// Where an interface of this name has this address.
    #[must_use]
    pub fn with_address(mut self, interface: &str, address: IpAddr) -> Self {
        self.addresses.push((interface.into(), address));
        self
    }

    /// What was asked for so far, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a service's methods are given in a test: run 1 of the unit that bears the service's name (or of the first
    /// of its instances) with these parameters. A port that is left to Wharf is 40000 and up.
    pub fn context(self: &Arc<Self>, service: &dyn Service, with: Value) -> Result<Context> {
        let Facts { name, instances, .. } = service.facts();
        let unit = UnitName::new(&name, instances.first().map(String::as_str));
        let unit = unit.map_err(|e| Failure::new(ErrorKind::InvalidParams, e.to_string()))?;
        service.params().check(&with)?;
        let wishes = service.ports(&unit, &with)?.into_iter().zip(40_000..);
        let number = |choice: PortChoice, free: u16| match choice {
            PortChoice::Number(number) => number,
            PortChoice::Auto(_) => free,
        };
        let ports = wishes.map(|(wish, free)| (wish.name, number(wish.choice, free))).collect();
        let dirs = Dirs { data: "/data".into(), run: "/run".into(), store: "/store".into() };
        let policy = Arc::new(service.policy(&with));
        Ok(Context::new(unit, Some(RunId(1)), Arc::new(with), ports, None, dirs, policy, self.clone()))
    }

    fn note(&self, deed: Deed) {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }
}

#[async_trait]
impl Hands for Recording {
    async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed> {
        let version = plan.source.version().unwrap_or_else(|| "newest".into());
        let path = cx.dirs.store.join(&plan.service).join(&version);
        let at = |b: &crate::Binary| (b.name.clone(), path.join(&b.path));
        let binaries: BTreeMap<String, PathBuf> = plan.binaries.iter().map(at).collect();
        self.note(Deed::Place(plan));
        Ok(Installed { version, digest: "0".repeat(64), path, binaries, source: "recorded".into() })
    }

    async fn exec(&self, _cx: &Context, command: Command) -> Result<Output> {
        let first = command.args.first().cloned().unwrap_or_default();
        self.note(Deed::Exec(command));
        let told = self.answers.iter().find(|(argument, _)| *argument == first).map(|(_, output)| output.clone());
        Ok(told.unwrap_or(Output { code: 0, stdout: String::new(), stderr: String::new() }))
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

    fn engine(&self, named: Option<&str>, _podman: bool) -> Result<String> {
        Ok(named.unwrap_or("unix:///run/docker.sock").to_owned())
    }

    async fn containers(&self, _engine: &str, _project: &str) -> Result<Vec<Container>> {
        Ok(self.containers.clone())
    }

    fn addresses(&self) -> Vec<(String, IpAddr)> {
        self.addresses.clone()
    }

    fn text(&self, path: &Path) -> Option<String> {
        self.texts.get(path).cloned()
    }

    fn which(&self, program: &str) -> Option<PathBuf> {
        (!self.lacks.iter().any(|l| l == program)).then(|| Path::new("/usr/bin").join(program))
    }

    fn own_binary(&self) -> PathBuf {
        "/usr/bin/wharf".into()
    }

    fn progress(&self, _cx: &Context, _progress: Progress) {}

    async fn check_code(&self, _file: &Path) -> Result<()> {
        Ok(())
    }

    fn said(&self, _cx: &Context, _verb: &str, _text: &str) {}

    async fn stage(&self, cx: &Context) -> Result<Box<dyn Staged>> {
        let path = cx.dirs.store.join(".staging").join(cx.unit.as_str());
        Ok(Box::new(RecordedStage { path, deeds: self.deeds.clone() }))
    }
}

struct RecordedStage {
    path: PathBuf,
    deeds: Arc<Mutex<Vec<Deed>>>,
}

#[async_trait]
impl Staged for RecordedStage {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn place(self: Box<Self>, cx: &Context, version: &str, paths: &[String]) -> Result<Installed> {
        let deed = Deed::PlaceStaged { version: version.into(), paths: paths.to_vec() };
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
        let path = cx.dirs.store.join(cx.unit.service()).join(version);
        let name = |p: &String| p.rsplit('/').next().unwrap_or(p).to_owned();
        let binaries = paths.iter().map(|p| (name(p), path.join(p))).collect();
        Ok(Installed { version: version.into(), digest: "0".repeat(64), path, binaries, source: "recorded".into() })
    }
}
