//! Params of service.sock, one struct a shape. Unknown fields are refused.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{LogLevel, RunId, UnitName};

/// No params.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListParams {}

/// The name of a unit.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameParams {
    /// The unit: `redis`, `python-api@vault`.
    pub name: UnitName,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A published package.
    #[default]
    Download,
    /// Compiled from source.
    Source,
}

fn yes() -> bool {
    true
}

/// Params of `service.build`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildParams {
    /// The unit.
    pub name: UnitName,
    /// Accepted for symmetry with install: a build is always from source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The version to build; the source tree's own unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Parameters of the service, laid over those that the unit has: a field that is not named
    /// stays, null takes one back to its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `service.install`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallParams {
    /// The unit.
    pub name: UnitName,
    /// Where it comes from.
    #[serde(default)]
    pub mode: Mode,
    /// The version; the known good one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Fetch and place again, even where the same version lies there.
    #[serde(default)]
    pub reset: bool,
    /// A program or an archive on the daemon's machine, by its whole path, instead of what the service would fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Parameters of the service (`service.inspect` shows their schema), laid over those that the
    /// unit has: a field that is not named stays, null takes one back to its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Changes to how it is supervised (`service.inspect` shows the policy), laid over those made before:
    /// a field that is not named stays, null takes one back to what its service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `service.start`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartParams {
    /// The unit.
    pub name: UnitName,
    /// Stop it first, where it runs.
    #[serde(default)]
    pub reset: bool,
    /// Refuse unless this version is the installed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Parameters of the service (`service.inspect` shows their schema), laid over those that the
    /// unit has: a field that is not named stays, null takes one back to its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Changes to how it is supervised (`service.inspect` shows the policy), laid over those made before:
    /// a field that is not named stays, null takes one back to what its service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
    /// Answer when it is ready.
    #[serde(default = "yes")]
    pub wait: bool,
    /// Where another holder has the GPU that it needs: stop that one first. Without it the start is refused.
    #[serde(default)]
    pub force: bool,
}

/// Params of `service.stop`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopParams {
    /// The unit.
    pub name: UnitName,
    /// It stays wanted: the next start of the daemon starts it again.
    #[serde(default)]
    pub keep_want: bool,
    /// It is kept for the record only, and refuses to start until it is installed again.
    #[serde(default)]
    pub retire: bool,
    /// Answer when none of its processes lives.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `service.restart`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartParams {
    /// The unit.
    pub name: UnitName,
    /// Answer when it is ready.
    #[serde(default = "yes")]
    pub wait: bool,
    /// Where another holder has the GPU that it needs: stop that one first. Without it the start is refused.
    #[serde(default)]
    pub force: bool,
}

/// Params of `service.delete`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteParams {
    /// The unit.
    pub name: UnitName,
    /// Remove what was placed in the store, unless another unit uses it.
    #[serde(default)]
    pub purge_binaries: bool,
    /// Remove its data and its logs. Cannot be undone.
    #[serde(default)]
    pub purge_data: bool,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `service.upgrade`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeParams {
    /// The unit.
    pub name: UnitName,
    /// The version; the known good one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `service.logs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsParams {
    /// The unit.
    pub name: UnitName,
    /// How many lines: the last ones, or with `cursor` the next ones; 100 unless it is named, 10,000 at most.
    /// The last lines are those of the newest run that wrote any, unless something is searched for
    /// (`since`, `until`, `grep`, `level`): then those of all runs whose logs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Go on with what is written later, as `service.log` notifications. Needs a streaming
    /// `Accept` (`text/event-stream` or `application/x-ndjson`); ends when the caller leaves, or
    /// with `run` when that run is over.
    #[serde(default)]
    pub follow: bool,
    /// Only what was written after this: in seconds since 1970, or, where it is negative, so many
    /// seconds before now. Known to a tenth of a second while a daemon lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
    /// Only what was written before this: as `since`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
    /// Only lines that match this regular expression (of the Rust crate regex: no look-around).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// Only lines that say that they are so serious, or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Read on from here: UNIT/RUN/OFFSET, as an answer or a notification gave it. Goes on over the
    /// runs that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only what this run wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Params of `service.troubleshoot`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TroubleshootParams {
    /// The unit.
    pub name: UnitName,
    /// How many lines of its log, 50 unless it is named, 1,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
}
