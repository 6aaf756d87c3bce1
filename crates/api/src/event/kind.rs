//! The kinds of events: one table, from which come the enum, its words on the wire, and the kind of what happened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Happened;

/// From a table: a kind a variant of [`Happened`], with its word on the wire.
macro_rules! kinds {
    ($($(#[$doc:meta])* $Kind:ident = $word:literal,)*) => {
        /// The kinds of events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $word)] $Kind,)*
        }

        impl EventKind {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$Kind),*];

            /// As it is on the wire.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$Kind => $word),* }
            }
        }

        impl Happened {
            /// Its kind.
            pub const fn kind(&self) -> EventKind {
                match self { $(Self::$Kind { .. } => EventKind::$Kind),* }
            }
        }
    };
}

kinds! {
    /// A daemon has begun.
    DaemonStarted = "daemon.started",
    /// The daemon ends.
    DaemonStopping = "daemon.stopping",
    /// A unit's phase changed.
    UnitPhase = "unit.phase",
    /// A run is over.
    UnitEnded = "unit.ended",
    /// A unit will be started again.
    UnitRetry = "unit.retry",
    /// A schedule was passed over.
    UnitSkipped = "unit.skipped",
    /// A unit is forgotten.
    UnitGone = "unit.gone",
    /// An operation was begun.
    OpBegan = "op.began",
    /// How far an operation is.
    OpProgress = "op.progress",
    /// An operation has ended.
    OpEnded = "op.ended",
    /// A run truncated its own log.
    LogTruncated = "log.truncated",
    /// A part of a log is lost.
    LogLost = "log.lost",
    /// A disk is full, or nearly.
    DiskLow = "disk.low",
    /// There is room on the disk again.
    DiskFreed = "disk.freed",
    /// A lease of GPUs has gone from one state to the next.
    GpuLease = "gpu.lease",
    /// The holder of a lease was asked to make room and stay, or to wake up.
    GpuAsked = "gpu.asked",
    /// The holder of a lease takes more than it declared.
    GpuOverDeclared = "gpu.over_declared",
    /// Somebody without a lease has taken memory of a GPU.
    GpuForeign = "gpu.foreign",
    /// A GPU came, went, or is not to be used any more.
    GpuDevice = "gpu.device",
    /// The holder of a lease is gone, and its memory did not come back.
    GpuLeak = "gpu.leak",
    /// A GPU is nearly full.
    GpuHeadroomLow = "gpu.headroom_low",
    /// Two listen on one port.
    PortDuplicate = "port.duplicate",
    /// Somebody else listens on a port.
    PortIntruder = "port.intruder",
    /// A port can be reached from outside.
    PortOpen = "port.open",
    /// Somebody listens on a port.
    PortAppeared = "port.appeared",
    /// Nobody listens there any more.
    PortVanished = "port.vanished",
    /// What listens differs from what was declared in another way.
    PortDrift = "port.drift",
    /// A lease of ports is over.
    PortFreed = "port.freed",
    /// Events are not kept any more.
    Gap = "gap",
    /// `since` is of another life of the daemon.
    GapBoot = "gap.boot",
}

impl EventKind {
    /// The kinds that a person means: `unit.phase` is itself, `unit` is every kind of a unit.
    /// Empty where it means none.
    pub fn meant(text: &str) -> Vec<Self> {
        let group = |word: &str| word.split('.').next() == Some(text);
        Self::ALL.into_iter().filter(|kind| kind.word() == text || group(kind.word())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_wire() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        let gap = serde_json::to_value(Happened::Gap { from: 1, to: 2 }).unwrap();
        assert_eq!(gap, serde_json::json!({ "kind": EventKind::Gap.word(), "from": 1, "to": 2 }));
        let stopping = serde_json::to_value(Happened::DaemonStopping).unwrap();
        assert_eq!(stopping["kind"], Happened::DaemonStopping.kind().word());
    }

    #[test]
    fn a_group_means_all_of_its_kinds() {
        assert_eq!(EventKind::meant("unit.phase"), [EventKind::UnitPhase]);
        assert_eq!(EventKind::meant("op"), [EventKind::OpBegan, EventKind::OpProgress, EventKind::OpEnded]);
        assert_eq!(EventKind::meant("uni"), []);
    }
}
