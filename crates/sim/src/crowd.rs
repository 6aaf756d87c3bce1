//! The units of a world: what their services say, what their operators change, what they need of each other.

use std::sync::Arc;

use serde_json::json;
use wharf_core::{Declared, Wishes};
use wharf_model::{GpuNeed, GpuRequest, Need, OnDemand, OnExit, Policy, Preempt, Preset, Restart, UnitName};

use crate::chance::Chance;

/// The name of a unit by its number.
pub fn name(number: u64) -> UnitName {
    let text = if number % 5 == 4 { format!("s{}@i{number}", number % 3) } else { format!("u{number}") };
    text.parse().unwrap_or_else(|_| unreachable!("{text} is a name"))
}

/// What is declared for a unit.
pub fn declared(chance: &mut Chance, number: u64, units: u64, needs: u64) -> Declared {
    let changes = if chance.percent(20) { json!({"early_ms": 1}) } else { json!({}) };
    Declared {
        with: Arc::new(json!({ "level": chance.below(3).saturating_sub(1) })),
        policy: Arc::new(policy(chance, number, units, needs)),
        changes: Arc::new(changes),
        wishes: wishes(chance, number),
        needs_install: number % 4 != 3,
    }
}

fn wishes(chance: &mut Chance, number: u64) -> Wishes {
    let fixed = 7_000 + (number % 8_000) as u16;
    match chance.below(10) {
        0..4 => [("main".to_owned(), Some(fixed))].into(),
        4 => [("main".to_owned(), Some(7_000 + (number % 2) as u16))].into(),
        5..7 => [("main".to_owned(), None)].into(),
        7 => [("main".to_owned(), Some(fixed)), ("admin".to_owned(), None)].into(),
        _ => Wishes::new(),
    }
}

/// Any policy that an operator could give.
fn policy(chance: &mut Chance, number: u64, units: u64, needs: u64) -> Policy {
    let mut policy = Policy::default();
    if chance.percent(25) {
        return Policy { needs: some_needs(chance, number, units, needs), ..policy };
    }
    policy = policy.preset(chance.one_of(&[Preset::Supervised, Preset::Supervised, Preset::Bounded, Preset::Observe]));
    if policy.preset != Preset::Observe {
        let slow = if policy.preset == Preset::Bounded { 0 } else { chance.one_of(&[0, 30]) };
        policy.restart = restart(chance, slow);
        policy.failure_threshold = chance.one_of(&[0, 1, 3]);
    }
    policy.needs = some_needs(chance, number, units, needs);
    for (key, means) in [("0", OnExit::Stop), ("1", OnExit::Restart), ("78", OnExit::Fail), ("SIGSEGV", OnExit::Fail)] {
        if chance.percent(20) {
            policy.exits.insert(key.into(), means);
        }
    }
    match chance.below(12) {
        0 => policy.job = true,
        1 => policy.schedule = Some("* * * * *".into()),
        2 | 3 => policy.on_demand = Some(OnDemand::default()),
        _ => {}
    }
    if number % 7 == 3 {
        policy.gpu = Some(gpu(chance));
    }
    policy.notify = chance.percent(20);
    policy.watchdog_ms = chance.percent(20).then(|| chance.one_of(&[1_000, 5_000]));
    policy.start_timeout_ms = chance.one_of(&[1_000, 1_000, 30_000, 240_000]);
    policy.ready_after_ms = chance.one_of(&[0, 0, 500]);
    policy.stop_timeout_ms = chance.one_of(&[0, 1_000, 10_000]);
    policy.probe_timeout_ms = chance.one_of(&[1_000, 5_000]);
    policy.probe_early_ms = chance.one_of(&[0, 0, 1_000, 5_000]);
    policy.probe_steady_ms = chance.one_of(&[5_000, 30_000]);
    policy.early_ms = chance.one_of(&[0, 1_000, 60_000]);
    if chance.percent(10) {
        policy.post_start = vec!["true".into()];
    }
    policy
}

/// What a unit may need of two small GPUs. Some need more than there is.
fn gpu(chance: &mut Chance) -> GpuRequest {
    let vram_bytes = chance.one_of(&[None, Some(4 << 30), Some(10 << 30), Some(10 << 30), Some(40 << 30)]);
    let devices = chance.one_of(&[1, 1, 1, 2]);
    GpuRequest {
        need: GpuNeed { devices, vram_bytes, ..GpuNeed::default() },
        importance: chance.one_of(&[10, 50]),
        preempt: chance.one_of(&[Preempt::Never, Preempt::Never, Preempt::Lower, Preempt::Force]),
        min_residency_ms: chance.one_of(&[0, 5_000]),
        parked_bytes: chance.one_of(&[None, None, Some(1 << 30)]),
        downsize_bytes: chance.one_of(&[None, None, None, Some(3 << 30)]),
        ..GpuRequest::default()
    }
}

fn restart(chance: &mut Chance, slow_retry_s: u64) -> Restart {
    Restart {
        budget: chance.one_of(&[0, 1, 2, 5]),
        window_s: chance.one_of(&[10, 60, 600]),
        stable_s: chance.one_of(&[0, 5, 60]),
        delay_ms: chance.one_of(&[0, 0, 10, 1_000]),
        max_delay_s: chance.one_of(&[0, 5, 30]),
        slow_retry_s,
        flap_budget: chance.one_of(&[0, 2, 4, 50]),
        flap_window_s: chance.one_of(&[60, 6 * 3600]),
    }
}

/// Mostly of units with lower numbers, so that most of them make no ring.
fn some_needs(chance: &mut Chance, number: u64, units: u64, percent: u64) -> Vec<Need> {
    let mut needs: Vec<Need> = vec![];
    if number == 0 || !chance.percent(percent) {
        return needs;
    }
    for _ in 0..=chance.below(3) {
        let near = number.saturating_sub(1 + chance.below(4));
        let other = match chance.below(20) {
            0 => chance.below(units),
            1..6 => chance.below(number),
            _ => near,
        };
        let known = needs.iter().any(|need| need.unit == name(other));
        if other != number && !known {
            needs.push(Need { unit: name(other), soft: chance.percent(30) });
        }
    }
    needs
}
