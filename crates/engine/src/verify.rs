//! Looking at a unit: what is placed, what listens, what stands in its way.

use std::net::SocketAddr;

use wharf_api::{CheckRow, Finding, Status};
use wharf_core::Unit;
use wharf_model::{Failure, Phase};
use wharf_runtime::ports;

use crate::engine::Shared;

fn row(check: impl Into<String>, ok: bool, detail: impl Into<String>) -> CheckRow {
    CheckRow { check: check.into(), ok, detail: detail.into() }
}

/// Ports that this unit and another one declare.
pub fn clashes(shared: &Shared, unit: &Unit) -> Vec<String> {
    let world = shared.world.load();
    let mut found = vec![];
    for (port, number) in unit.fixed_ports() {
        for other in world.values().filter(|o| o.name != unit.name) {
            if let Some((their_port, _)) = other.fixed_ports().find(|(_, n)| *n == number) {
                found.push(format!(
                    "port {number} is declared twice: {} ({port}) and {} ({their_port}); only one of them can run",
                    unit.name, other.name
                ));
            }
        }
    }
    found
}

/// Every check of a unit.
pub async fn checks(shared: &Shared, unit: &Unit) -> Result<Vec<CheckRow>, Failure> {
    let service = shared.service(&unit.name)?.clone();
    let cx = shared.context(unit);
    let mut rows: Vec<CheckRow> = vec![];
    if service.needs_install() {
        rows.push(match &unit.installed {
            Some(i) => row("installed", true, format!("version {} from {}", i.version, i.source)),
            None => row("installed", false, "nothing is placed"),
        });
    }
    if unit.installed.is_some() || !service.needs_install() {
        let looked = service.verify(&cx).await?;
        rows.extend(looked.into_iter().map(|c| row(c.check, c.ok, c.detail)));
    }
    let clashes = clashes(shared, unit);
    rows.push(match clashes.is_empty() {
        true => row("ports", true, "no other unit declares one of its ports"),
        false => row("ports", false, clashes.join("; ")),
    });
    if let Some(live) = unit.life.run().and_then(|run| shared.hands.live(run)) {
        let found = ports::listeners(live.pids());
        rows.push(loopback_only(&found));
    }
    Ok(rows)
}

/// All services bind to 127.0.0.1 only, unless they cannot.
fn loopback_only(found: &[SocketAddr]) -> CheckRow {
    let open: Vec<String> = found.iter().filter(|a| !a.ip().is_loopback()).map(ToString::to_string).collect();
    if open.is_empty() {
        let list: Vec<String> = found.iter().map(ToString::to_string).collect();
        row("listens on loopback only", true, if list.is_empty() { "nothing listens".into() } else { list.join(", ") })
    } else {
        row("listens on loopback only", false, format!("reachable from outside: {}", open.join(", ")))
    }
}

/// What Wharf makes of a unit's state.
pub fn findings(shared: &Shared, unit: &Unit, status: &Status, log_tail: &[String]) -> Vec<Finding> {
    let name = &unit.name;
    let mut found = vec![];
    let mut say = |finding: String, hint: Option<String>| found.push(Finding { finding, hint });
    match status.state {
        Phase::NotInstalled => say(format!("{name} is not installed"), Some(format!("wharf install {name}"))),
        Phase::Stopped => say(format!("{name} is stopped"), Some(format!("wharf start {name}"))),
        Phase::Failed => say(
            status.error_message.clone().unwrap_or_else(|| format!("{name} was given up")),
            Some(format!("mend the reason, then: wharf start {name}")),
        ),
        Phase::Backoff | Phase::Blocked => say(
            format!(
                "{}; next try in {:.0} s",
                status.error_message.clone().unwrap_or_else(|| format!("{name} waits")),
                status.restart_backoff.unwrap_or_default()
            ),
            Some(format!("wharf stop {name} ends the tries")),
        ),
        Phase::Unhealthy | Phase::Degraded => {
            say(status.error_message.clone().unwrap_or_else(|| format!("{name} does not answer as it should")), None);
        }
        Phase::Starting => say(format!("{name} is starting and not ready yet"), None),
        Phase::Running | Phase::Stopping | Phase::Unknown => {}
    }
    if unit.life.run().is_none() {
        for (port, number) in unit.fixed_ports() {
            if let Err(holder) = ports::check(number) {
                let failure = holder.failure(name, port);
                say(failure.message, failure.hint);
            }
        }
    }
    for clash in clashes(shared, unit) {
        say(clash, Some(format!("wharf start {name} --port NAME=auto")));
    }
    if let Some(exit) = unit.last_exit.as_ref().filter(|e| !e.is_clean_stop()) {
        say(format!("its last run {exit}"), None);
    }
    let loud = |l: &&String| {
        let l = l.to_ascii_lowercase();
        l.contains("error") || l.contains("panic") || l.contains("fatal") || l.contains("traceback")
    };
    if let Some(line) = log_tail.iter().rev().find(loud) {
        say(format!("its log says: {line}"), Some(format!("wharf logs {name}")));
    }
    found
}
