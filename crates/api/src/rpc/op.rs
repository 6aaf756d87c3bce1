//! `op.*`: operations: those that were asked for, those of several steps, and what one would come to.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{OpId, OpKind, Operation, UnitName};

use crate::{Caller, CheckRow, Mode, Outcome, UpgradeReport, table::methods};

/// Params of `op.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpListParams {
    /// Only those of this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// How many at most: 100 unless it is named, 10,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Also those before the last 32 of each unit and those of forgotten units, from the file.
    #[serde(default)]
    pub all: bool,
}

/// The result of `op.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpList {
    /// The operations, the newest first.
    pub operations: Vec<Operation>,
    /// There are more than these.
    pub more: bool,
}

/// Params of `op.cancel`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The operation, by its number.
    pub op: OpId,
}

fn yes() -> bool {
    true
}

/// Params of `op.deploy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployParams {
    /// The unit.
    pub name: UnitName,
    /// Where its program comes from.
    #[serde(default)]
    pub mode: Mode,
    /// The version; the known good one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Parameters of the service, laid over those that the unit has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// The result of `op.deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployReport {
    /// The unit.
    pub name: UnitName,
    /// What was placed before.
    pub from: Option<String>,
    /// What is placed now.
    pub to: Option<String>,
    /// Its main process.
    pub pid: Option<i32>,
    /// Everything that was looked at is as it was promised.
    pub ok: bool,
    /// What was looked at when it ran.
    pub checks: Vec<CheckRow>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Params of `op.rollback`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackParams {
    /// The unit.
    pub name: UnitName,
    /// Answer when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Params of `op.plan`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpPlanParams {
    /// The unit.
    pub name: UnitName,
    /// `install`, `build`, `upgrade`, `deploy` or `rollback`.
    pub kind: OpKind,
    /// The version; the known good one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Parameters of the service, laid over those that the unit has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Of a deploy: from source.
    #[serde(default)]
    pub mode: Mode,
    /// Of an install: a program or an archive on the daemon's machine, by its whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

impl OpPlanParams {
    /// The operation with nothing else said.
    pub fn new(name: UnitName, kind: OpKind) -> Self {
        Self { name, kind, version: None, with: None, mode: Mode::Download, from: None }
    }
}

/// Something that would be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedRow {
    /// Its name in the store.
    pub service: String,
    /// From where, for people.
    pub source: String,
    /// The version; null: it could not be looked up.
    pub version: Option<String>,
    /// The folder that the version would get one in.
    pub folder: String,
    /// It lies there already: nothing is fetched.
    pub is_there: bool,
    /// The programs that would be in it.
    pub programs: Vec<String>,
    /// Why the version could not be looked up.
    pub note: Option<String>,
}

/// What an operation would come to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpPlan {
    /// The unit.
    pub name: UnitName,
    /// The operation.
    pub kind: OpKind,
    /// The version that is placed now.
    pub from: Option<String>,
    /// The version that would be.
    pub to: Option<String>,
    /// What would be placed, in order.
    pub places: Vec<PlacedRow>,
    /// Other units that would be placed first.
    pub first: Vec<UnitName>,
    /// It would be stopped and started, or started.
    pub restarts: bool,
    /// The version that would come back if the new one does not get ready.
    pub falls_back_to: Option<String>,
    /// The same in sentences.
    pub explain: Vec<String>,
}

methods! {
    /// What the engine does for `op.*`.
    trait OpApi, client OpClient, dispatch dispatch, schemas schemas;

    /// The last operations of a unit, or of all.
    Read "op.list" op_list(OpListParams) -> OpList;
    /// Gives an operation up, where that can still be done.
    Control "op.cancel" op_cancel(CancelParams) -> Operation;
    /// What an operation would come to: what is fetched from where, written where, restarted. Nothing is done.
    Read "op.plan" op_plan(OpPlanParams) -> OpPlan;
    /// Places a version, runs it and checks it; or goes back to the version before.
    Install "op.deploy" op_deploy(DeployParams) -> Outcome<DeployReport>;
    /// Runs the version before; once more, and the later one is back.
    Install "op.rollback" op_rollback(RollbackParams) -> Outcome<UpgradeReport>;
}
