//! Programs that never asked, and news: `gpu.adopt`, `gpu.ignore`, `gpu.watch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::UnitName;

use super::LeaseRow;
use crate::{EventKind, WatchParams};

/// Params of `gpu.adopt`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptParams {
    /// The process: one of the caller's user, and any for root. What it started is adopted with it.
    pub pid: i32,
    /// What people and the ledger call it; its program's name unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it is promised on each of its devices; what it was seen to have unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vram_bytes: Option<u64>,
    /// It may be asked to leave for others, as who asked for its memory may. Else only `force` and a hand end it.
    #[serde(default)]
    pub evictable: bool,
}

/// The result of `gpu.adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adopted {
    /// Its lease.
    pub lease: LeaseRow,
    /// Moves with every change.
    pub state_version: u64,
}

/// Params of `gpu.ignore`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgnoreParams {
    /// The process.
    pub pid: i32,
    /// False: it is news again.
    #[serde(default = "yes")]
    pub ignored: bool,
}

/// The result of `gpu.ignore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IgnoreAck {
    /// The process.
    pub pid: i32,
    /// It is baseline, and no news.
    pub ignored: bool,
    /// What it has on all devices, as far as the driver says: that counts as taken all the same.
    pub used_bytes: u64,
    /// Moves with every change.
    pub state_version: u64,
}

/// Params of `gpu.watch`: those of `event.watch` without kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuWatchParams {
    /// The number after which to go on. Without it a stream begins now, and an answer has the newest events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The life of the daemon that `since` is a number of; the present one unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Only what is about these units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitName>,
    /// How many events an answer has at most: 100 unless it is named, 1,000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where nothing is there yet: wait so long for it, 60,000 at most.
    #[serde(default)]
    pub wait_ms: u64,
}

impl From<GpuWatchParams> for WatchParams {
    fn from(p: GpuWatchParams) -> Self {
        let kinds = EventKind::meant("gpu");
        Self { since: p.since, boot: p.boot, units: p.units, kinds, ports: vec![], limit: p.limit, wait_ms: p.wait_ms }
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_of_gpus_is_a_watch_of_their_events_and_of_no_others() {
        let p = GpuWatchParams { since: Some(7), wait_ms: 5, ..GpuWatchParams::default() };
        let whole = WatchParams::from(p);
        assert_eq!((whole.since, whole.wait_ms), (Some(7), 5));
        assert!(whole.kinds.iter().all(|kind| kind.word().starts_with("gpu.")));
        for kind in EventKind::ALL.into_iter().filter(|kind| kind.word().starts_with("gpu.")) {
            assert!(whole.kinds.contains(&kind), "{}", kind.word());
        }
    }
}
