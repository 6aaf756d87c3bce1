//! Why a unit is as it is, and what would change it: read off the published state, never stored.

use wharf_api::rpc::deps::{NeedRow, Remedy, Why};
use wharf_core::{Cause, Life, Unit};
use wharf_model::{GivenUp, Phase, UnitName, Want};

use crate::{engine::World, turn};

/// Explains a unit.
pub fn explain(world: &World, unit: &Unit) -> Why {
    let mut why = Why {
        name: unit.name.clone(),
        state: unit.phase(),
        want: unit.want,
        answer: String::new(),
        because: vec![],
        remedies: vec![],
        needs: needs(world, unit),
        needed_by: needed_by(world, &unit.name),
    };
    answer(world, unit, &mut why);
    if let Some((id, kind)) = unit.busy_with() {
        why.because.push(format!("operation {id} is under way: {kind}"));
    }
    last_run(unit, &mut why);
    why
}

fn remedy(why: &mut Why, effect: impl Into<String>, command: impl Into<Option<String>>) {
    why.remedies.push(Remedy { effect: effect.into(), command: command.into() });
}

fn answer(world: &World, unit: &Unit, why: &mut Why) {
    let name = &unit.name;
    match &unit.life {
        Life::Idle => idle(unit, why),
        Life::Starting { pid, since_ms, until_ms, .. } => {
            let now = turn::now().boot_ms;
            let (past, left) = (span(now.saturating_sub(*since_ms)), span(until_ms.saturating_sub(now)));
            why.answer = format!("{name} is starting: it was begun {past} ago and is not ready yet");
            match (pid, &unit.last_health, &unit.status_text) {
                (None, _, _) => why.because.push("its process is being made".into()),
                (Some(_), _, Some(said)) => why.because.push(format!("it says: {said}")),
                (Some(_), Some((_, health)), None) => why.because.push(format!("its last probe: {}", health.detail)),
                (Some(_), None, None) => why.because.push("nothing of it has answered yet".into()),
            }
            remedy(why, format!("without an answer it is started again in {left}"), None);
            remedy(why, "it gets more time", format!("wharf start {name} --policy start_timeout_ms=600000"));
            remedy(why, "see what it does", format!("wharf logs -f {name}"));
        }
        Life::Up { fails, degraded, .. } => up(unit, *fails, *degraded, why),
        Life::Backoff { until_ms, reason } => {
            let left = span(until_ms.saturating_sub(turn::now().boot_ms));
            why.answer = format!("{name} waits to be started again: {}", reason.message);
            why.because.extend(reason.causes.iter().cloned());
            let (deaths, budget) = (unit.deaths.count(), unit.policy.restart.budget);
            why.because.push(format!("{deaths} of {budget} restarts in its window are used"));
            remedy(why, format!("it is started again in {left}"), None);
            remedy(why, "it is started now", format!("wharf start {name}"));
            remedy(why, "it stays down", format!("wharf stop {name}"));
        }
        Life::Blocked { reason, until_ms } => {
            let left = span(until_ms.saturating_sub(turn::now().boot_ms));
            why.answer = format!("{name} is wanted, and something stands in the way: {}", reason.message);
            why.because.extend(reason.causes.iter().cloned());
            if let Some(hint) = &reason.hint {
                remedy(why, "it can start", hint.clone());
            }
            remedy(why, format!("it is tried again in {left}"), None);
        }
        Life::Waiting { reason } => {
            why.answer = format!("{name} is wanted, and waits: {}", reason.message);
            chain(world, unit, why);
        }
        Life::Failed { reason, rule, retry_at_ms } => {
            why.answer = format!("{name} was given up ({}): {}", rule_words(*rule), reason.message);
            why.because.extend(reason.causes.iter().cloned());
            if let Some(at) = retry_at_ms {
                let left = span(at.saturating_sub(turn::now().boot_ms));
                remedy(why, format!("it is tried once more in {left}"), None);
            }
            remedy(why, "see what it wrote", format!("wharf logs {name}"));
            remedy(why, "it is tried again, and earlier deaths are forgiven", format!("wharf start {name}"));
        }
        Life::Stopping { cause, killed, until_ms, .. } => {
            let left = span(until_ms.saturating_sub(turn::now().boot_ms));
            why.answer = format!("{name} is being ended: {}", cause_words(cause));
            if *killed {
                why.because.push("SIGKILL was sent, and some of it still lives".into());
            } else {
                remedy(why, format!("what is left of it gets SIGKILL in {left}"), None);
            }
        }
        Life::Unknown { run, .. } => {
            why.answer = format!("{name}: run {run} is recorded, and was not looked at yet");
        }
    }
}

fn idle(unit: &Unit, why: &mut Why) {
    let name = &unit.name;
    let next = unit.next_due_ms.map(|at| span((at - turn::wall_ms()).max(0).unsigned_abs()));
    match unit.want {
        _ if !unit.is_placed() => {
            why.answer = format!("{name} is not installed");
            remedy(why, "it is placed", format!("wharf install {name}"));
        }
        Want::Retired => {
            why.answer = format!("{name} is retired: it is kept for the record only");
            remedy(why, "it is taken back into use", format!("wharf install {name}"));
        }
        Want::Down => {
            why.answer = format!("{name} is stopped because nobody wants it to run");
            remedy(why, "it runs", format!("wharf start {name}"));
        }
        _ if unit.held => {
            why.answer = format!("{name} was stopped for now, and is still wanted");
            remedy(why, "it runs", format!("wharf start {name}"));
            remedy(why, "it starts with the next daemon", None);
        }
        Want::OnDemand => {
            why.answer = format!("{name} runs on demand, and nobody uses it");
            remedy(why, "a connection to one of its ports starts it", None);
            remedy(why, "it runs now", format!("wharf start {name}"));
        }
        Want::Up if unit.policy.schedule.is_some() => {
            let schedule = unit.policy.schedule.as_deref().unwrap_or_default();
            why.answer = format!("{name} is a job that is not running, as it should be: its schedule is {schedule}");
            remedy(why, format!("it runs in {}", next.unwrap_or_else(|| "a while".into())), None);
            remedy(why, "it runs now", format!("wharf restart {name}"));
        }
        Want::Up if unit.done => {
            why.answer = format!("{name} has done its work");
            remedy(why, "it runs once more", format!("wharf start {name}"));
        }
        Want::Up => why.answer = format!("{name} is about to be started"),
    }
}

fn up(unit: &Unit, fails: u32, degraded: bool, why: &mut Why) {
    let name = &unit.name;
    let detail = unit.last_health.as_ref().map(|(_, health)| health.detail.clone()).unwrap_or_default();
    let threshold = unit.policy.failure_threshold;
    match (fails, degraded, &unit.log_fault) {
        (0, false, None) => {
            why.answer = format!("{name} runs and is well");
            why.because.push(format!("its last probe: {detail}"));
        }
        (0, false, Some(line)) => {
            why.answer = format!("{name} runs and answers, but logs the same error again and again");
            why.because.push(line.clone());
            remedy(why, "see all of them", format!("wharf logs {name} --level error"));
        }
        (0, true, _) => {
            why.answer = format!("{name} runs, and says that something is wrong: {detail}");
            remedy(why, "see what it wrote", format!("wharf logs {name}"));
        }
        (fails, _, _) => {
            why.answer = format!("{name} is unhealthy: {detail}");
            match threshold {
                0 => why.because.push("its policy only watches it: sickness never restarts it".into()),
                _ => {
                    why.because.push(format!("{fails} probes in a row failed"));
                    remedy(why, format!("after {threshold} failures in a row it is started again"), None);
                }
            }
            remedy(why, "it is started again now", format!("wharf restart {name}"));
        }
    }
    if unit.want == Want::OnDemand
        && let Some(on_demand) = unit.policy.on_demand.as_ref().filter(|o| o.idle_stop_s > 0)
    {
        remedy(why, format!("it stops after {} without a connection", span(on_demand.idle_stop_s * 1000)), None);
    }
}

/// From need to need, down to the one that stands in the way.
fn chain(world: &World, unit: &Unit, why: &mut Why) {
    let mut at = unit;
    for _ in 0..world.len() {
        let unmet = at.policy.needs.iter().filter(|need| !need.soft).find_map(|need| match world.get(&need.unit) {
            Some(other) if other.serves() => None,
            other => Some((&need.unit, other)),
        });
        match unmet {
            None => return,
            Some((name, None)) => {
                why.because.push(format!("there is no unit {name}"));
                remedy(why, format!("{name} is placed"), format!("wharf install {name}"));
                return;
            }
            Some((name, Some(other))) => {
                let said = match &other.life {
                    Life::Backoff { reason, .. } | Life::Blocked { reason, .. } | Life::Failed { reason, .. } => {
                        format!("{name} is {}: {}", other.phase(), reason.message)
                    }
                    Life::Waiting { reason } => format!("{name} waits too: {}", reason.message),
                    Life::Idle
                    | Life::Starting { .. }
                    | Life::Up { .. }
                    | Life::Stopping { .. }
                    | Life::Unknown { .. } => format!("{name} is {}", other.phase()),
                };
                why.because.push(said);
                match &other.life {
                    Life::Waiting { .. } => at = other,
                    Life::Idle | Life::Failed { .. } | Life::Stopping { .. } => {
                        let command = match other.phase() {
                            Phase::NotInstalled => format!("wharf install {name}"),
                            _ => format!("wharf start {name}"),
                        };
                        return remedy(why, format!("{} follows when {name} is ready", unit.name), command);
                    }
                    Life::Starting { .. }
                    | Life::Up { .. }
                    | Life::Backoff { .. }
                    | Life::Blocked { .. }
                    | Life::Unknown { .. } => {
                        return remedy(
                            why,
                            format!("{} follows by itself when {name} is ready", unit.name),
                            format!("wharf why {name}"),
                        );
                    }
                }
            }
        }
    }
}

fn last_run(unit: &Unit, why: &mut Why) {
    if let (Some(exit), Some(end), None) = (&unit.last_exit, unit.last_end, unit.life.run()) {
        let run = unit.last_run.map(|run| format!("run {run}")).unwrap_or_else(|| "the last run".into());
        let end =
            serde_json::to_value(end).ok().and_then(|v| v.as_str().map(|s| s.replace('_', " "))).unwrap_or_default();
        why.because.push(format!("{run} {exit} ({end})"));
    }
    if unit.restart_count > 0 {
        why.because.push(format!("it was restarted {} times in its life", unit.restart_count));
    }
}

fn needs(world: &World, unit: &Unit) -> Vec<NeedRow> {
    let row = |need: &wharf_model::Need| {
        let other = world.get(&need.unit);
        NeedRow {
            unit: need.unit.clone(),
            soft: need.soft,
            state: other.map(|u| u.phase()),
            met: other.is_some_and(|u| u.serves()),
        }
    };
    unit.policy.needs.iter().map(row).collect()
}

fn needed_by(world: &World, name: &UnitName) -> Vec<NeedRow> {
    let row = |other: &std::sync::Arc<Unit>| {
        let need = other.policy.needs.iter().find(|need| need.unit == *name)?;
        let (unit, soft, state) = (other.name.clone(), need.soft, Some(other.phase()));
        Some(NeedRow { unit, soft, state, met: other.life.is_ready() })
    };
    world.values().filter_map(row).collect()
}

fn rule_words(rule: GivenUp) -> &'static str {
    match rule {
        GivenUp::RestartIntensity => "it died too often in a short time",
        GivenUp::Flapping => "it kept dying all day",
        GivenUp::ExitRule => "its exit is final by its policy",
        GivenUp::NeverRestarted => "its policy restarts nothing",
        GivenUp::StartRefused => "its start was refused",
    }
}

fn cause_words(cause: &Cause) -> String {
    match cause {
        Cause::Asked => "somebody asked for it".into(),
        Cause::Need { unit } => format!("{unit}, which it needs, is being stopped"),
        Cause::Idle => "nobody used it".into(),
        Cause::Evicted { by } => format!("{by} needs its GPU"),
        Cause::Done => "its work is done".into(),
        Cause::Death { reason, .. } | Cause::Final { reason } => reason.message.clone(),
    }
}

/// Milliseconds for people.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}
