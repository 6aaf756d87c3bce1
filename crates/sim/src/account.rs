//! An account of deaths that is kept without the core's: how often a unit may be started again.

use std::collections::BTreeMap;

use wharf_core::Unit;
use wharf_model::{EndReason, Exit, OnExit, Phase, Policy, Restart, UnitName};

use crate::world::{Broken, broken};

#[derive(Debug, Default)]
struct Deaths {
    /// The last run died uninvited, under this policy, and no run followed yet.
    last: Option<(u64, Restart)>,
    /// Deaths that were followed by a start that nobody asked for.
    followed: Vec<u64>,
    /// The same, and health does not forgive them.
    flaps: Vec<u64>,
    healthy_since: Option<u64>,
    /// When it was given up, its policy was to try it again.
    tries_again: bool,
}

/// Deaths of all units.
#[derive(Debug, Default)]
pub struct Account(BTreeMap<UnitName, Deaths>);

impl Account {
    /// Somebody has looked at it.
    pub fn forgive(&mut self, name: &UnitName) {
        if let Some(deaths) = self.0.get_mut(name) {
            let healthy_since = deaths.healthy_since;
            *deaths = Deaths { healthy_since, ..Deaths::default() };
        }
    }

    /// Its phase has changed.
    pub fn phase(&mut self, name: &UnitName, to: Phase, now: u64, policy: &Policy) {
        let deaths = self.0.entry(name.clone()).or_default();
        deaths.tries_again = to == Phase::Failed && policy.restart.slow_retry_s > 0;
        let well = matches!(to, Phase::Running | Phase::Degraded);
        match (deaths.healthy_since, well) {
            (None, true) => deaths.healthy_since = Some(now),
            (Some(since), false) => {
                if now.saturating_sub(since) >= policy.restart.stable_s * 1000 {
                    deaths.followed.clear();
                }
                deaths.healthy_since = None;
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    /// It was given up for a while only.
    pub fn tries_again(&self, name: &UnitName) -> bool {
        self.0.get(name).is_some_and(|deaths| deaths.tries_again)
    }

    /// A run has ended.
    pub fn ended(&mut self, name: &UnitName, (reason, exit): (EndReason, &Exit), now: u64, policy: &Policy) {
        let deaths = self.0.entry(name.clone()).or_default();
        let done = policy.on_exit(exit) == Some(OnExit::Stop);
        deaths.last = match reason {
            EndReason::ByItself if done => None,
            EndReason::ByItself | EndReason::ReadyTimeout | EndReason::Unhealthy | EndReason::WatchdogTimeout => {
                Some((now, policy.restart.clone()))
            }
            EndReason::Stopped
            | EndReason::Killed
            | EndReason::Idle
            | EndReason::NeedStopped
            | EndReason::LeaseLost
            | EndReason::HostRebooted => None,
        };
        if policy.restart.stable_s == 0 {
            deaths.followed.clear();
        }
    }

    /// It is started because somebody asked.
    pub fn invited(&mut self, name: &UnitName) {
        if let Some(deaths) = self.0.get_mut(name) {
            deaths.last = None;
        }
    }

    /// A run's processes are made: were there too many before it?
    pub fn made(&mut self, name: &UnitName, unit: &Unit, now: u64) -> Result<(), Broken> {
        let deaths = self.0.entry(name.clone()).or_default();
        let asked = unit.busy_with().is_some();
        let Some((died, restart)) = deaths.last.take().filter(|_| !asked) else { return Ok(()) };
        deaths.followed.push(died);
        deaths.flaps.push(died);
        let within = |times: &mut Vec<u64>, window_s: u64| {
            times.retain(|t| died - *t < window_s * 1000);
            times.len() as u64
        };
        let slow = restart.window_s.checked_div(restart.slow_retry_s).map_or(0, |times| times + 1);
        let slow = if restart.budget == 0 { 0 } else { slow };
        let counted = within(&mut deaths.followed, restart.window_s);
        if counted > u64::from(restart.budget) + slow {
            let text =
                format!("{name} is started again {counted} times in {} s, at {now} ms: {restart:?}", restart.window_s);
            return broken("intensity", text);
        }
        let flaps = within(&mut deaths.flaps, restart.flap_window_s);
        if restart.flap_budget > 0 && flaps > u64::from(restart.flap_budget) {
            return broken(
                "intensity",
                format!("{name} flaps {flaps} times in {} s: {restart:?}", restart.flap_window_s),
            );
        }
        Ok(())
    }
}
