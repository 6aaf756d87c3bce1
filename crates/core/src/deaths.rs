//! Restart intensity: a pure function over times of death (after Erlang's supervisor).

use serde::{Deserialize, Serialize};
use wharf_model::Restart;

/// The deaths of a unit that still count, in milliseconds since the machine was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    times: Vec<u64>,
}

/// What a death means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again.
    Again {
        /// After this long.
        after_ms: u64,
        /// The how-manieth restart in the window this will be.
        attempt: u32,
    },
    /// More deaths than the budget allows.
    Enough {
        /// How many.
        deaths: u32,
    },
}

impl Deaths {
    /// Counts a death. `healthy_for_ms`: how long it had been healthy without a break.
    pub fn record(&mut self, now_ms: u64, healthy_for_ms: u64, policy: &Restart) -> Verdict {
        if healthy_for_ms >= policy.stable_s.saturating_mul(1000) {
            self.times.clear();
        }
        let window_ms = policy.window_s.saturating_mul(1000);
        // A time that lies ahead is from before the machine was started anew.
        self.times.retain(|t| *t <= now_ms && now_ms - *t < window_ms);
        self.times.push(now_ms);
        let deaths = self.times.len() as u32;
        if deaths > policy.budget {
            return Verdict::Enough { deaths };
        }
        let doubled = 1000u64 << (deaths - 1).min(20);
        Verdict::Again { after_ms: doubled.min(policy.max_delay_s.saturating_mul(1000)), attempt: deaths }
    }

    /// All are forgiven.
    pub fn forgive(&mut self) {
        self.times.clear();
    }

    /// How many still count.
    pub fn count(&self) -> u32 {
        self.times.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(v: Verdict) -> Option<u64> {
        match v {
            Verdict::Again { after_ms, .. } => Some(after_ms / 1000),
            Verdict::Enough { .. } => None,
        }
    }

    #[test]
    fn it_waits_1_2_4_8_16_and_then_gives_up() {
        let (mut deaths, policy) = (Deaths::default(), Restart::default());
        let waits: Vec<_> = (0..6).map(|n| after(deaths.record(n * 1000, 0, &policy))).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), Some(16), None]);
    }

    #[test]
    fn with_a_larger_budget_it_waits_30_s_at_most() {
        let (mut deaths, policy) = (Deaths::default(), Restart { budget: 8, ..Restart::default() });
        let waits: Vec<_> = (0..8).map(|n| after(deaths.record(n, 0, &policy)).unwrap()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn t3_one_healthy_probe_forgives_nothing_a_minute_of_health_forgives_all() {
        let (mut deaths, policy) = (Deaths::default(), Restart::default());
        for n in 0..5 {
            assert!(after(deaths.record(n * 3000, 2_000, &policy)).is_some());
        }
        assert_eq!(after(deaths.clone().record(20_000, 2_000, &policy)), None);
        assert_eq!(after(deaths.record(90_000, 60_000, &policy)), Some(1));
    }

    #[test]
    fn deaths_from_before_a_reboot_do_not_count() {
        let (mut deaths, policy) = (Deaths::default(), Restart::default());
        for n in 0..5 {
            deaths.record(1_728_000_000 + n, 0, &policy);
        }
        assert_eq!(after(deaths.record(20_000, 0, &policy)), Some(1));
    }

    #[test]
    fn deaths_leave_the_window() {
        let (mut deaths, policy) = (Deaths::default(), Restart::default());
        for n in 0..5 {
            deaths.record(n, 0, &policy);
        }
        assert_eq!(after(deaths.record(600_010, 0, &policy)), Some(1));
    }
}
