//! What systemd lets a unit use.

use super::unit::Unit;
use crate::{Program, value::bytes};

pub(super) const READ: [&str; 21] = [
    "MemoryMax",
    "MemoryLimit",
    "MemoryHigh",
    "MemorySwapMax",
    "TasksMax",
    "CPUQuota",
    "CPUWeight",
    "CPUShares",
    "IOWeight",
    "LimitNOFILE",
    "LimitCORE",
    "LimitNPROC",
    "LimitMEMLOCK",
    "LimitSTACK",
    "Nice",
    "UMask",
    "OOMScoreAdjust",
    "OOMPolicy",
    "CPUSchedulingPolicy",
    "IOSchedulingClass",
    "CPUAffinity",
];

pub(super) fn read(program: &mut Program, unit: &Unit) {
    let get = |key: &str| unit.last("Service", key);
    let has = |key: &str| get(key).filter(|value| *value != "infinity");
    let mut left = vec![];
    let limits = &mut program.policy.limits;
    for key in ["MemoryMax", "MemoryLimit"] {
        match has(key).map(|text| (text, bytes(text))) {
            Some((_, Some(most))) => limits.memory_bytes = Some(most),
            Some((text, None)) => left.push(format!("{key}={text}")),
            None => {}
        }
    }
    if let Some(most) = has("TasksMax") {
        match most.parse() {
            Ok(most) => limits.pids = Some(most),
            Err(_) => left.push(format!("TasksMax={most}")),
        }
    }
    if let Some(quota) = has("CPUQuota") {
        match quota.trim_end_matches('%').parse() {
            Ok(percent) => limits.cpu_percent = Some(percent),
            Err(_) => left.push(format!("CPUQuota={quota}")),
        }
    }
    // Before a colon stands the soft limit, which is the one that Wharf sets.
    let soft = |key: &str| has(key).map(|text| text.split(':').next().unwrap_or(text));
    limits.open_files = soft("LimitNOFILE").and_then(bytes);
    limits.core_bytes = soft("LimitCORE").and_then(bytes);
    limits.nice = get("Nice").and_then(|text| text.parse().ok());
    limits.umask = get("UMask").map(str::to_owned);
    limits.oom_score_adj = get("OOMScoreAdjust").and_then(|text| text.parse().ok());
    for key in [
        "MemoryHigh",
        "MemorySwapMax",
        "CPUWeight",
        "CPUShares",
        "IOWeight",
        "LimitNPROC",
        "LimitMEMLOCK",
        "LimitSTACK",
        "OOMPolicy",
        "CPUSchedulingPolicy",
        "IOSchedulingClass",
        "CPUAffinity",
    ] {
        left.extend(get(key).map(|value| format!("{key}={value}")));
    }
    left.extend(get("LimitCORE").filter(|v| *v == "infinity").map(|_| "LimitCORE=infinity".to_owned()));
    left.extend(get("LimitNOFILE").filter(|v| *v == "infinity").map(|_| "LimitNOFILE=infinity".to_owned()));
    if !left.is_empty() {
        program.note(format!("limits without a counterpart: {}", left.join(", ")));
    }
}
