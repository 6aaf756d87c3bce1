//! `op.*`: the log of operations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{Operation, UnitName};

use crate::{Caller, table::methods};

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

methods! {
    /// What the engine does for `op.*`.
    trait OpApi, client OpClient, dispatch dispatch, schemas schemas;

    /// The last operations of a unit, or of all.
    Read "op.list" op_list(OpListParams) -> OpList;
}
