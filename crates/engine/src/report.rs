//! From a unit of the core to what a caller is shown.

use wharf_api::{ListRow, Status, StatusWord};
use wharf_core::{Life, Unit};
use wharf_model::{Phase, UnitName, Want};
use wharf_services::Service;

use crate::turn;

/// Milliseconds as the contract's seconds.
pub fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Now, as the contract's seconds.
pub fn now_seconds() -> f64 {
    seconds(turn::wall_ms())
}

fn word(phase: Phase) -> StatusWord {
    match phase {
        Phase::Starting => StatusWord::Starting,
        Phase::Running | Phase::Degraded => StatusWord::Running,
        Phase::Stopped | Phase::NotInstalled | Phase::Stopping => StatusWord::Stopped,
        Phase::Blocked | Phase::Unhealthy | Phase::Backoff | Phase::Failed | Phase::Unknown => StatusWord::Error,
    }
}

/// A row of the list.
pub fn row(unit: &Unit) -> ListRow {
    ListRow {
        name: unit.name.clone(),
        status: unit.phase(),
        version_installed: unit.installed.as_ref().map(|i| i.version.clone()),
        healthy: unit.is_healthy(),
    }
}

/// How a unit is.
pub fn status(unit: &Unit, service: Option<&dyn Service>) -> Status {
    let now = turn::now();
    let live = unit.life.run().is_some();
    let phase = unit.phase();
    let ports: std::collections::BTreeMap<String, u16> =
        if live { unit.ports.clone() } else { unit.fixed_ports().map(|(name, n)| (name.to_owned(), n)).collect() };
    let first_port = service
        .map(|s| s.facts().ports)
        .and_then(|facts| facts.first().and_then(|p| ports.get(&p.name).copied()))
        .or_else(|| ports.values().next().copied());
    let started_at_ms = unit.started_at_ms.filter(|_| live);
    Status {
        name: unit.name.clone(),
        state: phase,
        status: word(phase),
        want: unit.want,
        uptime_ms: started_at_ms.and(unit.started_boot_ms).map_or(0, |at| now.boot_ms.saturating_sub(at)),
        restart_count: unit.restart_count,
        port: first_port,
        health_check_url: service.and_then(|s| s.health_url(&ports, &unit.with)),
        ports,
        pid: unit.life.pid(),
        run: unit.life.run(),
        version: unit.installed.as_ref().map(|i| i.version.clone()),
        started_at: started_at_ms.map(seconds),
        healthy: unit.is_healthy(),
        last_health_check: unit.last_health.as_ref().map(|(at, _)| seconds(*at)),
        last_healthy_at: unit.last_healthy_at_ms.map(seconds),
        error_message: unit
            .last_error
            .clone()
            .or_else(|| unit.log_fault.as_ref().map(|line| format!("it logs again and again: {line}"))),
        last_restart: unit.last_restart_ms.map(seconds),
        restart_backoff: unit.retry_at_ms().map(|at| at.saturating_sub(now.boot_ms) as f64 / 1000.0),
        last_exit: unit.last_exit.clone(),
        last_end: unit.last_end,
        given_up: unit.life.given_up(),
        status_text: unit.status_text.clone().or_else(|| not_ready_yet(unit)),
        next_due: unit.next_due_ms.filter(|_| unit.want == Want::Up && !unit.held).map(seconds),
        operation: unit.busy_with().map(|(id, _)| id),
    }
}

/// What a program that is starting and says nothing of itself answered last.
fn not_ready_yet(unit: &Unit) -> Option<String> {
    let (_, health) = unit.last_health.as_ref().filter(|_| matches!(unit.life, Life::Starting { .. }))?;
    Some(format!("its last probe: {}", health.detail))
}

/// How a unit is that nobody has made.
pub fn status_unmade(name: &UnitName, service: &dyn Service, with: &serde_json::Value) -> Status {
    let state = if service.needs_install() { Phase::NotInstalled } else { Phase::Stopped };
    let wishes = service.ports(name, with).unwrap_or_default();
    let ports: std::collections::BTreeMap<String, u16> = wishes
        .into_iter()
        .filter_map(|w| match w.choice {
            wharf_services::PortChoice::Number(n) => Some((w.name, n)),
            wharf_services::PortChoice::Auto(_) => None,
        })
        .collect();
    Status {
        name: name.clone(),
        state,
        status: word(state),
        want: Want::Down,
        uptime_ms: 0,
        restart_count: 0,
        port: ports.values().next().copied(),
        health_check_url: service.health_url(&ports, with),
        ports,
        pid: None,
        run: None,
        version: None,
        started_at: None,
        healthy: None,
        last_health_check: None,
        last_healthy_at: None,
        error_message: None,
        last_restart: None,
        restart_backoff: None,
        last_exit: None,
        last_end: None,
        given_up: None,
        status_text: None,
        next_due: None,
        operation: None,
    }
}
