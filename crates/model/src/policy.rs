//! The numbers by which a unit is supervised.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The longest wait between two tries, in seconds. The waits are 1, 2, 4, 8, 16, … up to it.
    pub max_delay_s: u64,
}

impl Default for Restart {
    fn default() -> Self {
        Self { budget: 5, window_s: 600, stable_s: 60, max_delay_s: 30 }
    }
}

/// How a unit is supervised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// From the start to ready, in milliseconds.
    pub start_timeout_ms: u64,
    /// It counts as ready no earlier than this after its start, in milliseconds: for what cannot be asked.
    pub ready_after_ms: u64,
    /// From the polite signal to SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
    /// One probe may take this long, in milliseconds.
    pub probe_timeout_ms: u64,
    /// Between probes in the first minute after it got ready, in milliseconds.
    pub probe_early_ms: u64,
    /// Between probes later, in milliseconds.
    pub probe_steady_ms: u64,
    /// How long the first phase lasts, in milliseconds.
    pub early_ms: u64,
    /// Failed probes in a row until it is restarted.
    pub failure_threshold: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::default(),
            start_timeout_ms: 30_000,
            ready_after_ms: 0,
            stop_timeout_ms: 10_000,
            probe_timeout_ms: 5_000,
            probe_early_ms: 5_000,
            probe_steady_ms: 30_000,
            early_ms: 60_000,
            failure_threshold: 3,
        }
    }
}
