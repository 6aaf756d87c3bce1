//! How a unit is supervised: the service's code says it, an operator lays changes over it.
//!
//! Unknown fields are not refused here: an older Wharf must be able to read what a newer one recorded.
//! Where an operator gives changes, they are.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Exit, GpuRequest, Signal, UnitName, Vendor};

/// A set of habits to begin from; each field of the policy can differ from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Restarted when it dies or is sick, within a budget; given up, it is tried again slowly.
    #[default]
    Supervised,
    /// One failed probe restarts it; after five restarts it stays down until somebody looks.
    Bounded,
    /// Never restarted: what happens to it is told, and that is all.
    Observe,
}

/// When a dead unit is started again, and when that ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Restart {
    /// Restarts allowed within the window; one death more is `failed`. 0: never restarted.
    pub budget: u32,
    /// The window, in seconds.
    pub window_s: u64,
    /// Health for this long forgives all earlier deaths, in seconds.
    pub stable_s: u64,
    /// The wait before the first restart, in milliseconds; it doubles with each further one.
    pub delay_ms: u64,
    /// The longest wait between two tries, in seconds.
    pub max_delay_s: u64,
    /// A unit that was given up is tried once more after this long, in seconds. 0: never.
    pub slow_retry_s: u64,
    /// The breaker: so many deaths within `flap_window_s` are `failed` for good, however healthy it was between them.
    /// 0: no breaker.
    pub flap_budget: u32,
    /// The breaker's window, in seconds.
    pub flap_window_s: u64,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            budget: 5,
            window_s: 600,
            stable_s: 60,
            delay_ms: 1_000,
            max_delay_s: 30,
            slow_retry_s: 300,
            flap_budget: 50,
            flap_window_s: 6 * 3600,
        }
    }
}

/// What an exit code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// A death: it is started again within the budget.
    Restart,
    /// Its work is done: it stays stopped.
    Stop,
    /// Starting it again would not help: it is `failed` at once.
    Fail,
}

/// A unit that this one needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Need {
    /// Which.
    pub unit: UnitName,
    /// It can do without: it only starts after it, where that one is wanted too.
    #[serde(default)]
    pub soft: bool,
}

impl Need {
    /// It cannot do without; `None`: that is no unit's name.
    pub fn hard(unit: &str) -> Option<Self> {
        unit.parse().ok().map(|unit| Self { unit, soft: false })
    }

    /// It only starts after it.
    pub fn soft(unit: &str) -> Option<Self> {
        unit.parse().ok().map(|unit| Self { unit, soft: true })
    }
}

/// Something of this machine that must be there before a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// A device that can be opened for reading and writing: `{"device": "/dev/kvm"}`.
    Device(PathBuf),
    /// A file or folder: `{"file": "/models/llama.gguf"}`.
    File(PathBuf),
    /// A variable in the unit's own environment that is not empty: `{"env": "API_KEY"}`.
    Env(String),
    /// A program in PATH: `{"program": "ffmpeg"}`.
    Program(String),
    /// A program and the least version that it must say of itself: `{"version": {"program": "node", "at_least": "22"}}`.
    Version {
        /// The program, asked with `--version`.
        program: String,
        /// The least version: numbers and dots.
        at_least: String,
    },
    /// A display that can be reached: DISPLAY's or WAYLAND_DISPLAY's socket.
    Display,
    /// A GPU of this vendor: `{"gpu": "nvidia"}`.
    Gpu(Vendor),
    /// This kind of machine: `{"system": "linux-x86_64"}`.
    System(String),
}

impl Requirement {
    /// The machine has it or has it not, whatever is installed: without it not even an install makes sense.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Device(_) | Self::Display | Self::Gpu(_) | Self::System(_) => true,
            Self::File(_) | Self::Env(_) | Self::Program(_) | Self::Version { .. } => false,
        }
    }
}

/// Starts at its first use, stops when nobody uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnDemand {
    /// Stopped after this long without a connection to one of its ports (at a front: without a request), in seconds.
    /// 0: never.
    pub idle_stop_s: u64,
    /// The program takes listening sockets by LISTEN_FDS: it is given its ports open, and no connection is ever refused.
    pub pass_sockets: bool,
    /// HTTP ports that Wharf listens on for good, each with the port that the program listens on behind it:
    /// `{"http": "inner"}`. Requests are held while the program does not run; none is refused for that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub front: BTreeMap<String, String>,
    /// How long a request is held at a front before it is answered with 503, in seconds.
    pub hold_s: u64,
}

impl Default for OnDemand {
    fn default() -> Self {
        Self { idle_stop_s: 300, pass_sockets: false, front: BTreeMap::new(), hold_s: 300 }
    }
}

/// What a run may use. What the machine cannot limit is named by `wharf doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Memory, in bytes; beyond it the kernel ends the run (`oom_killed`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time, in percent of one core: 250 is two and a half cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Open files of each process (the soft limit). Usually 1,024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// The bits that new files do not get, in octal: `"027"`. Usually `"022"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// Niceness, -20 to 19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i8>,
    /// Whom the out-of-memory killer takes first, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i16>,
    /// Core dumps, in bytes. Usually 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
}

/// What becomes of what a unit writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogPolicy {
    /// Written through a pipe, for programs that open /dev/stdout again. Else straight into the file.
    pub pipe: bool,
    /// The part of a run's log that is older than the last so many bytes is put away into archives.
    pub rotate_bytes: u64,
    /// Archives of a unit beyond so many bytes (as stored) go, oldest first.
    pub keep_bytes: u64,
    /// Archives and logs of ended runs go after so many seconds.
    pub keep_s: u64,
    /// Logs of so many ended runs are kept.
    pub keep_runs: u32,
    /// The same error so often within `error_window_s` makes the unit `degraded`. 0: never.
    pub error_repeats: u32,
    /// The window, in seconds.
    pub error_window_s: u64,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            pipe: false,
            rotate_bytes: 16 << 20,
            keep_bytes: 256 << 20,
            keep_s: 14 * 24 * 3600,
            keep_runs: 5,
            error_repeats: 3,
            error_window_s: 600,
        }
    }
}

/// Where a secret's value comes from, and how the run gets it. The value itself is never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// `file:/path`, `env:NAME` (of the daemon), `command:PROGRAM ARGUMENTS`, or `generate:BYTES` (made once, kept in a 0600 file).
    pub from: String,
    /// Also as an environment variable of the secret's name, for programs that cannot read a file.
    #[serde(default)]
    pub env: bool,
}

/// How a unit is supervised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Policy {
    /// The habits that it began from.
    pub preset: Preset,
    /// When it is started again.
    pub restart: Restart,
    /// What exit codes mean, where they mean something else than a death: `{"0": "stop", "78": "fail"}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exits: BTreeMap<String, OnExit>,
    /// What it needs: these are started first and stopped last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// What must be there before a start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// A program that must end with code 0 before each start: its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<String>,
    /// A program that is run each time the unit has got ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<String>,
    /// It belongs to another supervisor and is only watched while that one runs it: `systemd:redis-server.service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defer: Option<String>,
    /// It says itself when it is ready, by sd_notify.
    pub notify: bool,
    /// It is a job: that it ends is not a death.
    pub job: bool,
    /// When the job runs: five fields of cron, in the machine's time zone, or `@hourly`, `@daily`, `@weekly`, `@monthly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// It starts at its first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<OnDemand>,
    /// From the start to ready, in milliseconds.
    pub start_timeout_ms: u64,
    /// It counts as ready no earlier than this after its start, in milliseconds: for what cannot be asked.
    pub ready_after_ms: u64,
    /// The signal that asks it to end; none: as its service's code does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// From the polite signal to SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
    /// One probe may take this long, in milliseconds.
    pub probe_timeout_ms: u64,
    /// Between probes in the first minute after it got ready, in milliseconds. 0: it is never asked, and healthy while it lives.
    pub probe_early_ms: u64,
    /// Between probes later, in milliseconds.
    pub probe_steady_ms: u64,
    /// How long the first phase lasts, in milliseconds.
    pub early_ms: u64,
    /// Failed probes in a row until it is restarted. 0: sickness alone never restarts it.
    pub failure_threshold: u32,
    /// It must say that it is alive this often, by sd_notify, in milliseconds; else it is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_ms: Option<u64>,
    /// What a run may use.
    pub limits: Limits,
    /// What becomes of its output.
    pub logs: LogPolicy,
    /// Its secrets, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretRef>,
    /// What it needs of GPUs: no run begins without a lease of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRequest>,
    /// The user that it runs as, where Wharf is root; none: as its service's code says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            preset: Preset::Supervised,
            restart: Restart::default(),
            exits: BTreeMap::new(),
            needs: vec![],
            requires: vec![],
            preflight: vec![],
            post_start: vec![],
            defer: None,
            notify: false,
            job: false,
            schedule: None,
            on_demand: None,
            start_timeout_ms: 30_000,
            ready_after_ms: 0,
            stop_signal: None,
            stop_timeout_ms: 10_000,
            probe_timeout_ms: 5_000,
            probe_early_ms: 5_000,
            probe_steady_ms: 30_000,
            early_ms: 60_000,
            failure_threshold: 3,
            watchdog_ms: None,
            limits: Limits::default(),
            logs: LogPolicy::default(),
            secrets: BTreeMap::new(),
            gpu: None,
            run_as: None,
        }
    }
}

impl Policy {
    /// Takes over what a preset says of restarts and sickness (decisions C5, C6).
    #[must_use]
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = preset;
        match preset {
            Preset::Supervised => {}
            Preset::Bounded => {
                self.restart.slow_retry_s = 0;
                self.failure_threshold = 1;
            }
            Preset::Observe => {
                self.restart.budget = 0;
                self.restart.slow_retry_s = 0;
                self.failure_threshold = 0;
            }
        }
        self
    }

    /// It cannot do without this unit, which is started first. A text that is no name of a unit is left out.
    #[must_use]
    pub fn needing(mut self, unit: &str) -> Self {
        self.needs.extend(unit.parse().ok().map(|unit| Need { unit, soft: false }));
        self
    }

    /// The units that must be ready before it starts.
    pub fn required(&self) -> impl Iterator<Item = &UnitName> {
        self.needs.iter().filter(|need| !need.soft).map(|need| &need.unit)
    }

    /// It ends by itself, and that is as it should be.
    pub fn is_job(&self) -> bool {
        self.job || self.schedule.is_some()
    }

    /// Its health can be asked for.
    pub fn is_probed(&self) -> bool {
        self.probe_early_ms > 0
    }

    /// What this exit means, where something was said about it. Keys are codes (`"78"`) and signals (`"SIGSEGV"`).
    pub fn on_exit(&self, exit: &Exit) -> Option<OnExit> {
        let key = match exit {
            Exit::Exited { code } => code.to_string(),
            Exit::Signaled { signal } => Signal::name(*signal)?.to_owned(),
            Exit::OomKilled | Exit::OomSuspected => "oom".to_owned(),
            Exit::StartFailed { .. } | Exit::HostRebooted | Exit::Unknown => return None,
        };
        self.exits.get(&key).copied()
    }
}
