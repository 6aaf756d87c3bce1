//! Results of service.sock. Times are seconds since 1970 with milliseconds behind the point, where a
//! name does not end in its unit.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use wharf_model::{
    EndReason, Exit, Facts, GivenUp, Installed, LogLevel, OpId, Operation, Phase, Policy, RunId, UnitName, Verdict,
    Want,
};

pub use crate::errors::ErrorData;

/// A request that takes time: its result, or with `wait: false` the operation that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Outcome<T> {
    /// What was asked for is true.
    Done(T),
    /// It has begun.
    Begun(Begun),
}

/// An operation that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Begun {
    /// The operation. `service.inspect` shows what became of it.
    pub operation: Operation,
}

/// A row of `service.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListRow {
    /// The unit.
    pub name: UnitName,
    /// What it is.
    pub status: Phase,
    /// What is placed; null: nothing.
    pub version_installed: Option<String>,
    /// What the last probe found; null where it does not run or was not asked yet.
    pub healthy: Option<bool>,
}

/// Hearthlink's four words for a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusWord {
    /// On its way up.
    Starting,
    /// Ready.
    Running,
    /// Not running, and nothing is wrong.
    Stopped,
    /// Not as it should be.
    Error,
}

/// The result of `service.status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The unit.
    pub name: UnitName,
    /// What it is.
    pub state: Phase,
    /// The same in four words.
    pub status: StatusWord,
    /// What the operator wants.
    pub want: Want,
    /// How long the present run has lived, in milliseconds; 0 where there is none.
    pub uptime_ms: u64,
    /// Restarts in its whole life.
    pub restart_count: u32,
    /// Its first port.
    pub port: Option<u16>,
    /// All of its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its main process.
    pub pid: Option<i32>,
    /// The present run.
    pub run: Option<RunId>,
    /// What is placed.
    pub version: Option<String>,
    /// When the present run began, in seconds since 1970.
    pub started_at: Option<f64>,
    /// Where its health can be asked over HTTP.
    pub health_check_url: Option<String>,
    /// What the last probe found; null where it does not run or was not asked yet.
    pub healthy: Option<bool>,
    /// When the last probe was answered, in seconds since 1970.
    pub last_health_check: Option<f64>,
    /// When it was last found healthy, in seconds since 1970.
    pub last_healthy_at: Option<f64>,
    /// What last went wrong, while it matters.
    pub error_message: Option<String>,
    /// When it was last restarted, in seconds since 1970.
    pub last_restart: Option<f64>,
    /// Seconds until it is started again.
    pub restart_backoff: Option<f64>,
    /// How the last run ended.
    pub last_exit: Option<Exit>,
    /// Why the last run ended.
    pub last_end: Option<EndReason>,
    /// The rule by which it was given up, where it is `failed`.
    pub given_up: Option<GivenUp>,
    /// What the program last said of itself; while it starts and says nothing, what its last probe found.
    pub status_text: Option<String>,
    /// When its schedule says that it runs next, in seconds since 1970.
    pub next_due: Option<f64>,
    /// The operation that is under way.
    pub operation: Option<OpId>,
}

/// The result of `service.inspect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inspection {
    /// The unit.
    pub name: UnitName,
    /// What its service says of itself.
    pub definition: Facts,
    /// JSON Schema of the parameters that `with` takes.
    pub params_schema: Value,
    /// The parameters that it has.
    pub with: Value,
    /// How it is supervised.
    pub policy: Policy,
    /// What of that its operator changed.
    pub policy_changes: Value,
    /// How it is.
    pub status: Status,
    /// What is placed.
    pub installed: Option<Installed>,
    /// Where its data lies.
    pub data_dir: String,
    /// Where the log of its present or last run lies.
    pub log_file: Option<String>,
    /// Its last five operations, newest first.
    pub recent_ops: Vec<Operation>,
}

/// The result of `service.health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthReport {
    /// The unit.
    pub name: UnitName,
    /// It answers as it should.
    pub healthy: bool,
    /// What the answer means.
    pub verdict: Verdict,
    /// The evidence: `HTTP 200`, `connection refused`.
    pub detail: String,
    /// What it is.
    pub state: Phase,
    /// When it was asked, in seconds since 1970.
    pub checked_at: f64,
    /// How long the answer took, in milliseconds.
    pub duration_ms: f64,
}

/// The result of `service.build`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BuildReport {
    /// The unit.
    pub name: UnitName,
    /// The binaries, where they lie now. Empty: there was nothing to build.
    pub installed_paths: Vec<String>,
    /// What was built.
    pub version: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// For people.
    pub note: String,
}

/// The result of `service.install`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstallReport {
    /// The unit.
    pub name: UnitName,
    /// What is placed.
    pub version: Option<String>,
    /// sha256 over everything that was fetched, in hex.
    pub digest: Option<String>,
    /// Where it came from.
    pub source: String,
    /// The binaries.
    pub installed_paths: Vec<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What will be in the way: ports that two units declare, for example.
    pub warnings: Vec<String>,
}

/// The result of `service.start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartReport {
    /// The unit.
    pub name: UnitName,
    /// When the present run began, in seconds since 1970.
    pub started_at: f64,
    /// Its main process.
    pub pid: Option<i32>,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// How long this call took, in milliseconds.
    pub duration_ms: u64,
}

/// The result of `service.stop`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StopReport {
    /// The unit.
    pub name: UnitName,
    /// When that was true, in seconds since 1970.
    pub stopped_at: f64,
    /// How its last run ended.
    pub last_exit: Option<Exit>,
    /// How long this call took, in milliseconds.
    pub duration_ms: u64,
}

/// The result of `service.restart`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestartReport {
    /// The unit.
    pub name: UnitName,
    /// When the new run began, in seconds since 1970.
    pub restarted_at: f64,
    /// Its main process.
    pub pid: Option<i32>,
    /// Restarts in its whole life.
    pub restart_count: u32,
    /// How long this call took, in milliseconds.
    pub duration_ms: u64,
}

/// The result of `service.delete`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteReport {
    /// The unit.
    pub name: UnitName,
    /// When that was true, in seconds since 1970.
    pub deleted_at: f64,
    /// What was placed is gone too.
    pub purged_binaries: bool,
    /// Its data is gone too.
    pub purged_data: bool,
    /// Where its data still lies; null where there is none.
    pub data_kept_in: Option<String>,
}

/// The result of `service.upgrade`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeReport {
    /// The unit.
    pub name: UnitName,
    /// What was placed before.
    pub from: Option<String>,
    /// What is placed now.
    pub to: Option<String>,
    /// They differ.
    pub changed: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckRow {
    /// What was looked at.
    pub check: String,
    /// As it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// The result of `service.verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyReport {
    /// The unit.
    pub name: UnitName,
    /// All checks are as they should be.
    pub ok: bool,
    /// Each check.
    pub checks: Vec<CheckRow>,
}

/// The result of `service.logs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogsReport {
    /// The unit.
    pub name: UnitName,
    /// The run that the last line is from; null where it never ran.
    pub run: Option<RunId>,
    /// The lines, oldest first, as they were written; bytes that are no UTF-8 are replaced.
    pub lines: Vec<String>,
    /// The same lines, each with where and when it was written and what it says.
    pub entries: Vec<LogEntry>,
    /// From here `service.logs` reads on: UNIT/RUN/OFFSET. Null where it never ran.
    pub cursor: Option<String>,
    /// There are more lines: earlier ones, or with `cursor` later ones.
    pub more: bool,
    /// So many bytes behind the given cursor are no longer there, in all.
    pub gap_bytes: u64,
}

/// A line of a log. All of it is text that a service wrote: it is shown, never obeyed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    /// The run that wrote it.
    pub run: RunId,
    /// Its first byte, counted from the run's first one.
    pub offset: u64,
    /// When it was there at the latest, in seconds since 1970; null where nobody looked.
    pub at: Option<f64>,
    /// The line, without its end: its first 64 KiB.
    pub text: String,
    /// It is longer than that.
    pub cut: bool,
    /// Its end was written. Where it was not, a later answer gives the line again, whole.
    pub ended: bool,
    /// How serious it says that it is.
    pub level: Option<LogLevel>,
    /// Its message, where it is JSON or logfmt.
    pub msg: Option<String>,
    /// Its other fields, where it is JSON or logfmt.
    pub fields: Option<Map<String, Value>>,
}

/// The params of a `service.log` notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// The unit.
    pub name: UnitName,
    /// The run.
    pub run: RunId,
    /// The line, without its end: its first 64 KiB.
    pub line: String,
    /// Behind the line: from here `service.logs` reads on.
    pub cursor: String,
    /// When it was there at the latest, in seconds since 1970; null where nobody looked.
    pub at: Option<f64>,
    /// How serious it says that it is.
    pub level: Option<LogLevel>,
    /// Its message, where it is JSON or logfmt.
    pub msg: Option<String>,
    /// Its other fields, where it is JSON or logfmt.
    pub fields: Option<Map<String, Value>>,
    /// So many bytes directly before it are no longer there.
    pub gap_bytes: u64,
}

/// The params of a `service.progress` notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressRow {
    /// The unit.
    pub name: UnitName,
    /// What is being done.
    pub stage: String,
    /// Done so far, in bytes or steps.
    pub done: Option<u64>,
    /// All there is to do, where it is known.
    pub total: Option<u64>,
}

/// Something that was noticed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What was noticed.
    pub finding: String,
    /// The next thing to do.
    pub hint: Option<String>,
}

/// The result of `service.troubleshoot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Troubleshooting {
    /// The unit.
    pub name: UnitName,
    /// How it is.
    pub status: Status,
    /// Its last five operations, newest first.
    pub recent_ops: Vec<Operation>,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
    /// What Wharf makes of them.
    pub findings: Vec<Finding>,
    /// Its processes that live now.
    pub processes: Vec<i32>,
}

/// The OpenRPC document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document(pub Box<RawValue>);

impl JsonSchema for Document {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Document".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

/// The machine, as a person sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Its name.
    pub hostname: Option<String>,
    /// Its kernel.
    pub kernel: Option<String>,
    /// Processors that can be used.
    pub cpus: u32,
    /// Memory in all, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that can be had, in bytes.
    pub memory_available_bytes: u64,
    /// The load of the last minute.
    pub load_1: f64,
}

/// The result of `rpc.health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonHealth {
    /// `healthy`, or `degraded` where something of the daemon's own is wrong.
    pub status: String,
    /// Always `wharf`.
    pub service: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// How long the daemon has lived, in milliseconds.
    pub uptime_ms: u64,
    /// Units that were made.
    pub units: u32,
    /// Units that run.
    pub units_running: u32,
    /// How the processes of a unit are held together: `cgroup`, or `session` where no cgroup can be made.
    pub containment: String,
    /// What is wrong with the daemon itself: a full disk, for example.
    pub problems: Vec<String>,
    /// The machine.
    pub machine: Machine,
}
