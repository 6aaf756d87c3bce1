//! Restart intensity: a pure function over times of death (after Erlang's supervisor).

use serde::{Deserialize, Serialize};
use wharf_model::{GivenUp, Restart};

/// The deaths of a unit that still count, in milliseconds since the machine was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    times: Vec<u64>,
    /// Those that the breaker counts: health forgives none of them.
    #[serde(default)]
    flaps: Vec<u64>,
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
        /// By which rule.
        rule: GivenUp,
    },
}

impl Deaths {
    /// Counts a death. `healthy_for_ms`: how long it had been healthy without a break.
    pub fn record(&mut self, now_ms: u64, healthy_for_ms: u64, policy: &Restart) -> Verdict {
        // What was never healthy is not forgiven, however short the time that health must last.
        if healthy_for_ms > 0 && healthy_for_ms >= policy.stable_s.saturating_mul(1000) {
            self.times.clear();
        }
        count(&mut self.times, now_ms, policy.window_s);
        count(&mut self.flaps, now_ms, policy.flap_window_s);
        let (deaths, flaps) = (self.times.len() as u32, self.flaps.len() as u32);
        if policy.budget == 0 {
            return Verdict::Enough { deaths, rule: GivenUp::NeverRestarted };
        }
        if policy.flap_budget > 0 && flaps > policy.flap_budget {
            return Verdict::Enough { deaths: flaps, rule: GivenUp::Flapping };
        }
        if deaths > policy.budget {
            return Verdict::Enough { deaths, rule: GivenUp::RestartIntensity };
        }
        let doubled = policy.delay_ms.saturating_mul(1 << (deaths - 1).min(20));
        Verdict::Again { after_ms: doubled.min(policy.max_delay_s.saturating_mul(1000)), attempt: deaths }
    }

    /// It has been healthy for long enough: what is not the breaker's is forgiven.
    pub fn heal(&mut self) {
        self.times.clear();
    }

    /// Somebody has looked at it: all are forgiven.
    pub fn forgive(&mut self) {
        self.times.clear();
        self.flaps.clear();
    }

    /// How many still count.
    pub fn count(&self) -> u32 {
        self.times.len() as u32
    }
}

/// Adds a death to a list that keeps those of its window.
fn count(times: &mut Vec<u64>, now_ms: u64, window_s: u64) {
    let window_ms = window_s.saturating_mul(1000);
    // A time that lies ahead is from before the machine was started anew.
    times.retain(|t| *t <= now_ms && now_ms - *t < window_ms);
    times.push(now_ms);
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
    fn a_unit_that_dies_and_heals_all_day_trips_the_breaker() {
        let (mut deaths, policy) = (Deaths::default(), Restart { flap_budget: 10, ..Restart::default() });
        for n in 0..10 {
            assert_eq!(after(deaths.record(n * 100_000, 70_000, &policy)), Some(1));
        }
        let verdict = deaths.record(1_000_000, 70_000, &policy);
        assert_eq!(verdict, Verdict::Enough { deaths: 11, rule: GivenUp::Flapping });
    }

    #[test]
    fn a_budget_of_none_restarts_nothing_and_says_so() {
        let policy = Restart { budget: 0, ..Restart::default() };
        let verdict = Deaths::default().record(0, 0, &policy);
        assert_eq!(verdict, Verdict::Enough { deaths: 1, rule: GivenUp::NeverRestarted });
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
