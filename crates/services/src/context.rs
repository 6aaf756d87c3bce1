//! What a service is given: its unit's facts, and hands to act with.
//!
//! The context is a capability. The real hands act; recording hands give `--dry-run` and
//! snapshot tests; simulated ones run in `sim`. A service that keeps to its context can be
//! tried in all three.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wharf_model::{
    DeviceId, ErrorKind, Failure, Health, Installed, Policy, Progress, RunId, Signal, UnitName, Vendor, VramCap,
};

use crate::{
    Beside, Check, Command, Container, Exchange, HttpProbe, InstallPlan, Probe, Result, command::Bound, probe::Endpoint,
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
    /// The address of a container engine of this machine: the named one, else the one that the daemon's DOCKER_HOST
    /// names, else the first that there is.
    fn engine(&self, named: Option<&str>, podman: bool) -> Result<String>;
    /// The containers of a compose project, those that have ended among them.
    async fn containers(&self, engine: &str, project: &str) -> Result<Vec<Container>>;
    /// The addresses of this machine's network interfaces that are up, each with the interface's name.
    fn addresses(&self) -> Vec<(String, IpAddr)>;
    /// What a small text file of this machine says; none where it cannot be read.
    fn text(&self, path: &Path) -> Option<String>;
    /// Where a program of the machine is, by the daemon's PATH.
    fn which(&self, program: &str) -> Option<PathBuf>;
    /// Wharf's own binary.
    fn own_binary(&self) -> PathBuf;
    /// Says how far the operation is.
    fn progress(&self, cx: &Context, progress: Progress);
    /// Whether a file may be run as code of a service: nobody else could have written it.
    async fn check_code(&self, file: &Path) -> Result<()>;
    /// What a service's own code wrote to stderr while it was asked, for the daemon's log.
    fn said(&self, cx: &Context, verb: &str, text: &str);
    /// An empty folder of the store that nobody sees yet. Dropped, it goes with all that is in it.
    async fn stage(&self, cx: &Context) -> Result<Box<dyn Staged>>;
}

/// A folder that an install fills by itself, and that is placed as a whole.
#[async_trait]
pub trait Staged: Send + Sync {
    /// Where it lies.
    fn path(&self) -> &Path;
    /// Checks and places what is in it, atomically. `paths` are its programs, below the folder.
    async fn place(self: Box<Self>, cx: &Context, version: &str, paths: &[String]) -> Result<Installed>;
}

/// CONNECT of MQTT 3.1.1: a clean session without a client's name, kept alive for 10 s. Then DISCONNECT.
const MQTT_VISIT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00\xe0\x00";
/// CONNACK: no session was kept, and the connection is accepted.
const MQTT_WELCOME: &str = "\x20\x02\x00\x00";

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
    /// The units that it needs and those whose files it uses.
    pub beside: BTreeMap<UnitName, Beside>,
    /// How it is supervised.
    pub policy: Arc<Policy>,
    /// One probe may take this long, in milliseconds.
    pub probe_timeout_ms: u64,
    /// The run is not ready yet: what is asked now is whether it is.
    pub starting: bool,
    /// The devices that it was granted: none, where this machine hands GPUs out and it asked for none. `None`: there
    /// are none to hand out.
    pub gpus: Option<Vec<(Vendor, DeviceId)>>,
    /// What it may have of their memory, where that is to be enforced.
    pub vram: Vec<VramCap>,
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
        Self {
            unit,
            run,
            with,
            ports,
            installed,
            dirs,
            beside: BTreeMap::new(),
            policy,
            probe_timeout_ms,
            starting: false,
            gpus: None,
            vram: vec![],
            hands,
        }
    }

    /// The same with other hands.
    #[must_use]
    pub fn with_hands(self, hands: Arc<dyn Hands>) -> Self {
        Self { hands, ..self }
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

    /// What a new client says to an MQTT broker, with its goodbye; the answer names no trouble.
    pub fn mqtt(&self, port: u16) -> Exchange<'_> {
        let at = Endpoint::Port(port);
        Exchange::new(self, Probe::Exchange { at, send: MQTT_VISIT.to_vec(), expect: MQTT_WELCOME.into() })
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

    /// What an install answers where nothing has to be placed.
    pub fn nothing_to_place(&self) -> Installed {
        Installed {
            version: env!("CARGO_PKG_VERSION").into(),
            digest: String::new(),
            path: self.dirs.store.clone(),
            binaries: BTreeMap::new(),
            source: "built-in".into(),
        }
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
