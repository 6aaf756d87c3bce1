//! `gpu.park` and `gpu.unpark`: params.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{LeaseId, UnitName};

/// Params of `gpu.park`: one of `unit` and `lease`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkParams {
    /// The unit whose lease is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// The lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// Of the holder itself, which says that it sleeps now: the number of the grant. Without it the holder is asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What it keeps on each device, in bytes. Usually what its request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_bytes: Option<u64>,
    /// How long to wait until it sleeps, in milliseconds.
    #[serde(default = "patience_ms")]
    pub wait_ms: u64,
}

/// Params of `gpu.unpark`: one of `unit` and `lease`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnparkParams {
    /// The unit whose lease is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// The lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// The number of the grant, where its holder asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How long it waits for its turn, in milliseconds; 0: not at all.
    #[serde(default = "patience_ms")]
    pub wait_ms: u64,
}

fn patience_ms() -> u64 {
    60_000
}
