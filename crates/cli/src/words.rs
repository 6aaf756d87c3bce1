//! Numbers and states as people say them.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use wharf_api::Status;
use wharf_model::{LeaseState, OpOutcome, Operation, Phase, Want};

use crate::table::{Block, Cell, Table};

/// `850 ms`, `4.2 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    let two = |a: u64, unit: &str, b: u64, small: &str| match b {
        0 => format!("{a} {unit}"),
        b => format!("{a} {unit} {b} {small}"),
    };
    match s {
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", s, ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

/// A moment by the clock of this machine.
pub(crate) fn moment(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => ms.to_string(),
    }
}

/// How long ago a moment in seconds since 1970 is.
pub(crate) fn ago(at: f64) -> String {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let ms = now_ms.saturating_sub((at * 1000.0) as i64);
    format!("{} ago", duration(ms.max(0).unsigned_abs()))
}

/// `main 6379, admin 8080`; with one port its number alone.
pub(crate) fn ports(ports: &BTreeMap<String, u16>) -> Option<String> {
    match ports.len() {
        0 => None,
        1 => ports.values().next().map(u16::to_string),
        _ => Some(ports.iter().map(|(name, port)| format!("{name} {port}")).collect::<Vec<_>>().join(", ")),
    }
}

/// The word of a state, the same as everywhere else, in its colour.
pub(crate) fn phase(phase: Phase) -> Cell {
    let style = match phase {
        Phase::Running => colour(AnsiColor::Green),
        Phase::Starting | Phase::Stopping | Phase::Degraded | Phase::Backoff | Phase::Unknown => {
            colour(AnsiColor::Yellow)
        }
        Phase::Unhealthy | Phase::Failed | Phase::Blocked => colour(AnsiColor::Red),
        Phase::Stopped | Phase::NotInstalled => Style::new().dimmed(),
    };
    Cell::styled(phase.word(), style)
}

/// The word of a lease's state, as it is on the wire, in its colour.
pub(crate) fn lease_state(state: LeaseState) -> Cell {
    let (word, style) = match state {
        LeaseState::Queued => ("queued", colour(AnsiColor::Yellow)),
        LeaseState::Reserved => ("reserved", colour(AnsiColor::Yellow)),
        LeaseState::Starting => ("starting", colour(AnsiColor::Yellow)),
        LeaseState::Active => ("active", colour(AnsiColor::Green)),
        LeaseState::Parked => ("parked", Style::new().dimmed()),
        LeaseState::Draining => ("draining", colour(AnsiColor::Yellow)),
        LeaseState::Reclaiming => ("reclaiming", colour(AnsiColor::Yellow)),
        LeaseState::Expired => ("expired", colour(AnsiColor::Red)),
        LeaseState::Quarantined => ("quarantined", colour(AnsiColor::Red)),
        LeaseState::Gone => ("gone", Style::new().dimmed()),
    };
    Cell::styled(word, style)
}

/// What the last probe found.
pub(crate) fn healthy(healthy: Option<bool>) -> Cell {
    match healthy {
        Some(true) => Cell::styled("healthy", colour(AnsiColor::Green)),
        Some(false) => Cell::styled("unhealthy", colour(AnsiColor::Red)),
        None => Cell::styled("-", Style::new().dimmed()),
    }
}

pub(crate) fn good() -> Style {
    colour(AnsiColor::Green)
}

pub(crate) fn bad() -> Style {
    colour(AnsiColor::Red)
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into()))
}

/// How a unit is, as a block.
pub(crate) fn status(status: &Status) -> String {
    let mut block = Block::default();
    block.line("state", phase(status.state));
    let want = match status.want {
        Want::Up => "up: it runs, also after a restart of the machine",
        Want::Down => "down",
        Want::OnDemand => "on demand: it starts at its first use",
        Want::Retired => "retired: it refuses to start",
    };
    block.line("wanted", want);
    if status.state.is_live() {
        let asked = status.last_health_check.map_or_else(String::new, |at| format!(", asked {}", ago(at)));
        match status.healthy {
            Some(true) => block.line("health", Cell::styled(format!("healthy{asked}"), good())),
            Some(false) => block.line("health", Cell::styled(format!("unhealthy{asked}"), bad())),
            None => &mut block,
        };
        if status.uptime_ms > 0 {
            block.line("uptime", duration(status.uptime_ms));
        }
    }
    block.maybe("says", status.status_text.clone());
    block.maybe("pid", status.pid.map(|pid| pid.to_string()));
    block.maybe("ports", ports(&status.ports));
    block.maybe("url", status.health_check_url.clone());
    block.maybe("version", status.version.clone());
    if status.restart_count > 0 {
        let last = status.last_restart.map_or_else(String::new, |at| format!(", the last {}", ago(at)));
        block.line("restarts", format!("{}{last}", status.restart_count));
    }
    block.maybe("error", status.error_message.as_deref().map(|text| Cell::styled(text, bad())));
    if !status.state.is_live() {
        block.maybe("last run", status.last_exit.as_ref().map(ToString::to_string));
    }
    block.maybe("next try", status.restart_backoff.map(|s| format!("in {}", duration((s.max(0.0) * 1000.0) as u64))));
    block.maybe("operation", status.operation.map(|id| format!("{id} is under way")));
    block.text(status.name.as_str())
}

/// Operations, one a row.
pub(crate) fn operations(operations: &[Operation]) -> String {
    let mut table = Table::bare();
    for op in operations {
        let took =
            op.ended_at_ms.map_or_else(String::new, |end| duration((end - op.began_at_ms).max(0).unsigned_abs()));
        let (outcome, why) = match &op.outcome {
            OpOutcome::Running => (Cell::from("running"), String::new()),
            OpOutcome::Done => (Cell::styled("done", good()), String::new()),
            OpOutcome::Failed { failure } => (Cell::styled("failed", bad()), failure.message.clone()),
            OpOutcome::Interrupted => (Cell::from("interrupted"), String::new()),
        };
        let id = format!("  {}", op.id);
        table.row([id.into(), moment(op.began_at_ms).into(), op.kind.verb().into(), outcome, took.into(), why.into()]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_two_units_at_most() {
        let said: Vec<String> =
            [0, 850, 4_230, 59_000, 60_000, 125_000, 12_000_000, 187_200_000].into_iter().map(duration).collect();
        assert_eq!(said, ["0 ms", "850 ms", "4.2 s", "59 s", "1 min", "2 min 5 s", "3 h 20 min", "2 d 4 h"]);
    }
}
