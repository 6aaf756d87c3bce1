//! What of a unit survives the daemon, and the unit that comes of it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{EndReason, Exit, Failure, GivenUp, Installed, Phase, Policy, RunId, UnitName, Want};

use super::Unit;
use crate::{Cause, Deaths, Life, Wishes};

/// The part of a unit that survives the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Saved {
    pub name: UnitName,
    pub want: Want,
    pub phase: Phase,
    pub run: Option<RunId>,
    pub reason: Option<Failure>,
    pub installed: Option<Installed>,
    #[serde(default)]
    pub previous: Option<Installed>,
    #[serde(default)]
    pub on_trial: bool,
    pub needs_install: bool,
    pub with: Arc<Value>,
    pub policy: Arc<Policy>,
    #[serde(default)]
    pub changes: Arc<Value>,
    pub wishes: Wishes,
    pub ports: BTreeMap<String, u16>,
    #[serde(default)]
    pub done: bool,
    pub started_at_ms: Option<i64>,
    #[serde(default)]
    pub started_boot_ms: Option<u64>,
    pub restart_count: u32,
    pub last_restart_ms: Option<i64>,
    pub last_exit: Option<Exit>,
    #[serde(default)]
    pub last_run: Option<RunId>,
    #[serde(default)]
    pub last_end: Option<EndReason>,
    #[serde(default)]
    pub rule: Option<GivenUp>,
    pub deaths: Deaths,
}

impl Unit {
    pub(crate) fn restored(saved: Saved) -> Self {
        let life = match (saved.run, saved.phase, saved.reason.clone()) {
            (Some(run), was, _) => Life::Unknown { run, was },
            // The slow retry is counted anew: a machine that was off for a day has waited long enough.
            (None, Phase::Failed, Some(reason)) => {
                let rule = saved.rule.unwrap_or(GivenUp::RestartIntensity);
                Life::Failed { reason, rule, retry_at_ms: None }
            }
            // A wait for a retry does not outlive the daemon: what is wanted is started at once.
            (None, _, _) => Life::Idle,
        };
        let mut unit = Self::new(saved.name.clone());
        unit.last_error = saved.reason.as_ref().map(|r| r.message.clone());
        unit.want = saved.want;
        unit.life = life;
        unit.installed = saved.installed.clone();
        unit.previous = saved.previous.clone();
        unit.needs_install = saved.needs_install;
        unit.with = saved.with.clone();
        unit.policy = saved.policy.clone();
        unit.changes = saved.changes.clone();
        unit.done = saved.done;
        unit.last_run = saved.last_run;
        unit.last_end = saved.last_end;
        unit.wishes = saved.wishes.clone();
        unit.ports = saved.ports.clone();
        unit.started_at_ms = saved.started_at_ms;
        unit.started_boot_ms = saved.started_boot_ms;
        unit.restart_count = saved.restart_count;
        unit.last_restart_ms = saved.last_restart_ms;
        unit.last_exit = saved.last_exit.clone();
        unit.deaths = saved.deaths.clone();
        unit.last_saved = Some(Arc::new(saved));
        unit.told = unit.phase();
        unit
    }

    /// The part of it that survives the daemon.
    pub fn saved(&self) -> Saved {
        let reason = match &self.life {
            Life::Backoff { reason, .. } | Life::Blocked { reason, .. } | Life::Failed { reason, .. } => {
                Some(reason.clone())
            }
            // What it waits for is found again by looking.
            Life::Waiting { .. } => None,
            Life::Idle | Life::Starting { .. } | Life::Up { .. } | Life::Stopping { .. } | Life::Unknown { .. } => None,
        };
        // Degraded and unhealthy are found again by the next probe: not worth a commit.
        let phase = match (&self.life, self.phase()) {
            (Life::Up { .. }, _) => Phase::Running,
            (Life::Unknown { was, .. }, _) => *was,
            // Its main process is dead: the kernel says so to the next daemon, too. One commit less
            // between a death and the next run.
            (
                Life::Stopping {
                    cause: Cause::Death { .. } | Cause::Final { .. } | Cause::Done, exit: Some(_), ..
                },
                _,
            ) => Phase::Running,
            (Life::Waiting { .. }, _) => Phase::Stopped,
            (_, phase) => phase,
        };
        Saved {
            name: self.name.clone(),
            want: self.want,
            phase,
            run: self.life.run(),
            reason,
            installed: self.installed.clone(),
            previous: self.previous.clone(),
            on_trial: self.on_trial,
            needs_install: self.needs_install,
            with: self.with.clone(),
            policy: self.policy.clone(),
            changes: self.changes.clone(),
            wishes: self.wishes.clone(),
            ports: self.ports.clone(),
            done: self.done,
            last_run: self.last_run,
            last_end: self.last_end,
            rule: self.life.given_up(),
            started_at_ms: self.started_at_ms,
            started_boot_ms: self.started_boot_ms,
            restart_count: self.restart_count,
            last_restart_ms: self.last_restart_ms,
            last_exit: self.last_exit.clone(),
            deaths: self.deaths.clone(),
        }
    }
}
