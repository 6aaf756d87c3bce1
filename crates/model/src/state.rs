//! What is wanted and what is: two fields, never one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator wants of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// It should run, also after a restart of the machine.
    Up,
    /// It should not run.
    #[default]
    Down,
    /// It starts at its first use.
    OnDemand,
    /// It is kept for the record only and refuses to start.
    Retired,
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing of it is placed on this machine.
    NotInstalled,
    /// Placed, and no process of it lives.
    Stopped,
    /// Wanted, and something outside it stands in the way (a port, a device, a variable).
    Blocked,
    /// Its processes are being made, or live and are not ready yet.
    Starting,
    /// Ready: the last health probe succeeded.
    Running,
    /// Ready, with a known fault.
    Degraded,
    /// Was ready; its last probes failed.
    Unhealthy,
    /// Died or never got ready; it is started again at a known time.
    Backoff,
    /// Given up; the reason is kept. A start tries again.
    Failed,
    /// Being stopped.
    Stopping,
    /// A run is recorded and has not been looked at yet.
    Unknown,
}

impl Phase {
    /// All of them, in the order of this page.
    pub const ALL: [Self; 11] = [
        Self::NotInstalled,
        Self::Stopped,
        Self::Blocked,
        Self::Starting,
        Self::Running,
        Self::Degraded,
        Self::Unhealthy,
        Self::Backoff,
        Self::Failed,
        Self::Stopping,
        Self::Unknown,
    ];

    /// The word used everywhere.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotInstalled => "not_installed",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
        }
    }

    /// Processes of the unit live, or may live.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Degraded | Self::Unhealthy | Self::Stopping | Self::Unknown => true,
            Self::NotInstalled | Self::Stopped | Self::Blocked | Self::Backoff | Self::Failed => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_phase_is_its_word_on_the_wire() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.word());
        }
    }
}
