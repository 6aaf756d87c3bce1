//! What a service is given: its unit's facts, and hands to act with.
//!
//! The context is a capability. The real hands act; recording hands give `--dry-run` and
//! snapshot tests; simulated ones run in `sim`. A service that keeps to its context can be
//! tried in all three.

use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wharf_model::{DeviceId, ErrorKind, Failure, Health, Installed, Policy, Progress, RunId, Signal, UnitName, Vendor};

use crate::{
    Check, Command, Exchange, HttpProbe, InstallPlan, Probe, Result, Source, Wanted, command::Bound, probe::Endpoint,
};

/// What a spawn answers: the run has begun. Ready comes later, by probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its main process.
    pub pid: i32,
}

/// A value that is never printed.
#[derive(Clone)]
pub struct Secret {
    value: String,
    /// The 0600 file that keeps it.
    pub file: PathBuf,
}

impl Secret {
    /// Only for hands.
    pub fn new(value: String, file: PathBuf) -> Self {
        Self { value, file }
    }

    /// The value, to be put into an environment or a file.
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.file.display())
    }
}

/// The folders of one unit. All exist when a service is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// What the service must not lose. Deleted only by a purge.
    pub data: PathBuf,
    /// Files that are made anew at each start: configurations, sockets.
    pub run: PathBuf,
    /// Below it everything that is placed.
    pub store: PathBuf,
}

/// What acts for a service. `cx` names the unit and the run that it is for.
#[async_trait]
pub trait Hands: Send + Sync {
    /// Fetches, checks and places what the plan says, atomically; answers at once where it lies there already.
    async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed>;
    /// Runs a program to its end.
    async fn exec(&self, cx: &Context, command: Command) -> Result<crate::Output>;
    /// Makes the unit's run.
    async fn spawn(&self, cx: &Context, command: Command) -> Result<Run>;
    /// Asks one question, within the policy's probe time limit.
    async fn probe(&self, cx: &Context, probe: Probe) -> Result<Health>;
    /// Sends a signal to the run's main process and its group.
    async fn signal(&self, cx: &Context, signal: Signal) -> Result<()>;
    /// Writes a file atomically, readable by whom the service runs as.
    async fn write(&self, cx: &Context, path: &Path, text: &str, mode: u32) -> Result<()>;
    /// A random value of this many bytes, in hex, made once in an installation and kept in a 0600 file.
    async fn secret(&self, cx: &Context, name: &str, bytes: usize) -> Result<Secret>;
    /// Compares what lies in the store with its receipt.
    async fn verify_placed(&self, cx: &Context) -> Result<Vec<Check>>;
    /// Where a program of the machine is, by the daemon's PATH.
    fn which(&self, program: &str) -> Option<PathBuf>;
    /// Wharf's own binary.
    fn own_binary(&self) -> PathBuf;
    /// Says how far the operation is.
    fn progress(&self, cx: &Context, progress: Progress);
}

/// What a service is given.
#[derive(Clone)]
pub struct Context {
    /// The unit.
    pub unit: UnitName,
    /// The run that is being made, asked or stopped; `None` in an install.
    pub run: Option<RunId>,
    /// Its parameters, checked against `params()`.
    pub with: Arc<Value>,
    /// The ports, resolved to numbers that were free a moment ago.
    pub ports: BTreeMap<String, u16>,
    /// What is placed.
    pub installed: Option<Installed>,
    /// Its folders.
    pub dirs: Dirs,
    /// How it is supervised.
    pub policy: Arc<Policy>,
    /// One probe may take this long, in milliseconds.
    pub probe_timeout_ms: u64,
    /// The run is not ready yet: what is asked now is whether it is.
    pub starting: bool,
    /// The devices that it was granted: none, where this machine hands GPUs out and it asked for none. `None`: there
    /// are none to hand out.
    pub gpus: Option<Vec<(Vendor, DeviceId)>>,
    hands: Arc<dyn Hands>,
}

impl Context {
    /// For the engine and for tests; a service never makes one.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        unit: UnitName,
        run: Option<RunId>,
        with: Arc<Value>,
        ports: BTreeMap<String, u16>,
        installed: Option<Installed>,
        dirs: Dirs,
        policy: Arc<Policy>,
        hands: Arc<dyn Hands>,
    ) -> Self {
        let probe_timeout_ms = policy.probe_timeout_ms;
        Self { unit, run, with, ports, installed, dirs, policy, probe_timeout_ms, starting: false, gpus: None, hands }
    }

    /// What acts.
    pub fn hands(&self) -> &dyn Hands {
        &*self.hands
    }

    /// The parameters as the struct that `params()` declared. They were checked before.
    pub fn with<T: DeserializeOwned>(&self) -> Result<T> {
        let empty = json!({});
        let with = if self.with.is_null() { &empty } else { &*self.with };
        T::deserialize(with).map_err(|e| Failure::new(ErrorKind::InvalidParams, format!("with: {e}")).about(&self.unit))
    }

    /// The number of a port that `ports()` named; 0 for one that it did not.
    pub fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or_default()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.dirs.data
    }

    /// Its folder for files that are made anew at each start.
    pub fn run_dir(&self) -> &Path {
        &self.dirs.run
    }

    /// A program to run.
    pub fn run(&self, program: impl Into<String>) -> Bound<'_> {
        Bound::new(self, program)
    }

    /// Debian packages to place.
    pub fn debian(&self, package: &str, want: &Wanted) -> Placing<'_> {
        let first = want.version.as_ref().map_or_else(|| package.to_owned(), |v| format!("{package}={v}"));
        self.placing(Source::Debian { packages: vec![first] }, want)
    }

    /// A pinned wheel to place.
    pub fn wheel(&self, package: &str, version: &str, sha256: &[&str], want: &Wanted) -> Placing<'_> {
        let sha256 = sha256.iter().map(|s| (*s).to_owned()).collect();
        self.placing(Source::Wheel { package: package.into(), version: version.into(), sha256 }, want)
    }

    /// A virtual environment to make from a lock file with hashes.
    pub fn venv(&self, version: &str, requirements: &str, want: &Wanted) -> Placing<'_> {
        self.placing(Source::Venv { version: version.into(), requirements: requirements.into() }, want)
    }

    /// A source tree to build with cargo.
    pub fn cargo(&self, tree: impl Into<PathBuf>, want: &Wanted) -> Placing<'_> {
        self.placing(Source::Cargo { tree: tree.into() }, want)
    }

    fn placing(&self, source: Source, want: &Wanted) -> Placing<'_> {
        let service = self.unit.service().to_owned();
        let plan = InstallPlan { service, source, binaries: vec![], files: vec![], reset: want.reset };
        Placing { cx: self, plan }
    }

    /// `GET path` on 127.0.0.1 at the port of this name.
    pub fn http(&self, port: &str, path: &str) -> Exchange<'_> {
        Exchange::new(self, Probe::Http(HttpProbe::new(Endpoint::Port(self.port(port)), path)))
    }

    /// `GET path` over a Unix socket.
    pub fn http_unix(&self, socket: impl Into<PathBuf>, path: &str) -> Exchange<'_> {
        Exchange::new(self, Probe::Http(HttpProbe::new(Endpoint::Socket(socket.into()), path)))
    }

    /// A TCP connection to this port.
    pub fn tcp(&self, port: u16) -> Exchange<'_> {
        Exchange::new(self, Probe::Connect(Endpoint::Port(port)))
    }

    /// An inline command as Redis understands it; name the answer with `expect`.
    pub fn resp(&self, port: u16, command: &str) -> Exchange<'_> {
        let send = format!("{command}\r\n").into_bytes();
        Exchange::new(self, Probe::Exchange { at: Endpoint::Port(port), send, expect: "+".into() })
    }

    /// Any probe.
    pub fn ask(&self, probe: Probe) -> Exchange<'_> {
        Exchange::new(self, probe)
    }

    /// Sends a signal to the run's main process and its group.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.hands.signal(self, signal).await
    }

    /// Writes a file below the unit's folders, atomically.
    pub async fn write(&self, path: &Path, text: &str, mode: u32) -> Result<()> {
        self.hands.write(self, path, text, mode).await
    }

    /// A random value, made once in an installation.
    pub async fn secret(&self, name: &str, bytes: usize) -> Result<Secret> {
        self.hands.secret(self, name, bytes).await
    }

    /// Compares what lies in the store with its receipt.
    pub async fn verify_placed(&self) -> Result<Vec<Check>> {
        self.hands.verify_placed(self).await
    }

    /// Where a program of the machine is, or a failure that says how to get it.
    pub fn need(&self, program: &str, hint: &str) -> Result<PathBuf> {
        self.hands.which(program).ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{program} was not found in PATH"))
                .hint(hint)
                .about(&self.unit)
        })
    }

    /// Says how far the operation is.
    pub fn progress(&self, stage: impl Into<String>) {
        self.hands.progress(self, Progress::stage(stage));
    }
}

/// A plan bound to the context that will carry it out.
#[must_use = "nothing is placed until place() is awaited"]
pub struct Placing<'a> {
    cx: &'a Context,
    plan: InstallPlan,
}

impl Placing<'_> {
    /// One more Debian package.
    pub fn package(mut self, name: &str) -> Self {
        if let Source::Debian { packages } = &mut self.plan.source {
            packages.push(name.into());
        }
        self
    }

    /// A program that must be there afterwards.
    pub fn binary(mut self, path: &str) -> Self {
        self.plan = self.plan.binary(path);
        self
    }

    /// A file that is written beside it.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.plan = self.plan.file(path, text);
        self
    }

    /// Does it.
    pub async fn place(self) -> Result<Installed> {
        self.cx.hands.place(self.cx, self.plan).await
    }
}
