//! Ports as people read them.

use wharf_api::rpc::port::{
    PortChecked, PortDrift, PortEvicted, PortFree, PortHolder, PortLeases, PortList, PortRanges, PortRow, PortUse,
    PortVerdict, PortWhois,
};
use wharf_model::{PortEntry, PortKind};

use crate::{
    table::{Block, Cell, Table},
    words,
};

/// Every port.
pub(super) fn list(list: &PortList) -> String {
    if list.ports.is_empty() {
        return "no such port".into();
    }
    let heads = ["PORT", "SERVICE", "HOSTS", "PROTOCOL", "CONSUMERS", "KIND", "ADDRESS", "RANGE", "DRIFT"];
    let mut table = Table::new(&heads);
    for row in &list.ports {
        let marks: Vec<&str> = row.drift.iter().map(|kind| kind.word()).collect();
        let hurts = row.drift.iter().any(|kind| !kind.is_advice());
        let marks = marks.join(", ");
        let marks = if hurts { Cell::styled(marks, words::bad()) } else { marks.into() };
        let address = row.address.clone().unwrap_or_else(|| "-".into());
        let range = row.range.clone().unwrap_or_else(|| "-".into());
        table.row([
            port(row),
            who(row),
            listed(&row.hosts).into(),
            row.speaks.word().to_uppercase().into(),
            listed(&row.consumers).into(),
            kind(row.kind).into(),
            address.into(),
            range.into(),
            marks,
        ]);
    }
    table.text()
}

fn port(row: &PortRow) -> Cell {
    let numbers = numbers(row.port, row.to);
    if row.network == "host" { numbers.into() } else { format!("{numbers}@{}", row.network).into() }
}

fn numbers(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn who(row: &PortRow) -> Cell {
    match (row.kind, row.pid) {
        (PortKind::Declared | PortKind::Leased, Some(pid)) => format!("{}, pid {pid}", row.who).into(),
        (PortKind::Declared | PortKind::Leased | PortKind::Reserved | PortKind::Observed, _) => row.who.clone().into(),
    }
}

fn kind(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Declared => "declared",
        PortKind::Leased => "leased",
        PortKind::Reserved => "reserved",
        PortKind::Observed => "observed",
    }
}

/// Who has one.
pub(super) fn whois(whois: &PortWhois) -> String {
    let mut text = format!("{}\n", whois.answer);
    for holder in &whois.holders {
        text.push_str(&self::holder(holder));
    }
    let mut block = Block::default();
    block.maybe("range", whois.range.clone());
    block.maybe("reserved for", whois.reserved_for.clone());
    for unit in &whois.units {
        block.line("unit", unit.to_string());
    }
    for lease in &whois.leases {
        let kept = if lease.parked { ", kept by a socket of the daemon" } else { "" };
        block.line("lease", format!("{} {}/{} (uid {}){kept}", lease.lease, lease.service, lease.port_name, lease.uid));
    }
    for entry in &whois.entries {
        block.line("declared", told(entry));
    }
    if whois.connections > 0 {
        block.line("connections", whois.connections.to_string());
    }
    if whois.time_wait > 0 {
        block.line("over", format!("{} connections wait for late packets", whois.time_wait));
    }
    for drift in &whois.drift {
        let drift = &drift.drift;
        block.line("drift", format!("{}: {}; {}", drift.kind, drift.text, drift.fix));
    }
    let more = block.text(&format!("port {}", whois.port));
    // Its title alone says nothing.
    if more.lines().count() > 1 {
        text.push_str(&more);
    }
    text
}

fn holder(holder: &PortHolder) -> String {
    let (mut block, who) = (Block::default(), &holder.who);
    let both = if holder.dual { " (IPv4 too)" } else { "" };
    let does = match holder.does {
        PortUse::Listens => "listens",
        PortUse::Bound => "bound",
        PortUse::Connected => "connected",
    };
    block.line(does, format!("{} {}{both}", holder.protocol, holder.address));
    block.maybe("to", holder.remote.clone());
    block.maybe("unit", holder.unit.as_ref().map(ToString::to_string));
    block.maybe("lease", holder.lease.map(|id| id.to_string()));
    let container =
        holder.container_name.clone().or_else(|| who.container.as_ref().map(|id| id.chars().take(12).collect()));
    block.maybe("container", container);
    block.maybe("compose", holder.compose_project.clone());
    block.maybe("systemd", who.systemd_unit.clone());
    block.line("user", who.user.clone().unwrap_or_else(|| format!("uid {}", who.uid)));
    block.maybe("command", who.cmdline.clone());
    block.maybe("program", who.exe.clone());
    block.maybe("cgroup", who.cgroup.clone().filter(|group| group != "/"));
    block.maybe("since", who.started_at_ms.map(words::moment));
    if who.pids.len() > 1 {
        let list: Vec<String> = who.pids.iter().map(i32::to_string).collect();
        block.line("pids", list.join(" "));
    }
    let title = who.command.clone().unwrap_or_else(|| "a process that cannot be seen from here".into());
    block.text(&who.pid.map_or(title.clone(), |pid| format!("{title} (pid {pid})")))
}

/// What is written down of a port, in a line.
pub(super) fn told(entry: &PortEntry) -> String {
    let mut text = format!(
        "{}/{}, {} {} on {}",
        entry.service,
        entry.port_name,
        entry.speaks.word().to_uppercase(),
        numbers(entry.port, entry.to),
        listed(&entry.hosts)
    );
    if entry.network != "host" {
        text.push_str(&format!(" ({})", entry.network));
    }
    if !entry.consumers.is_empty() {
        text.push_str(&format!(", used by {}", listed(&entry.consumers)));
    }
    text
}

/// Numbers alone, for scripts.
pub(super) fn free(free: &PortFree) -> String {
    free.ports.iter().map(u16::to_string).collect::<Vec<_>>().join("\n")
}

/// Verdicts.
pub(super) fn checked(checked: &PortChecked) -> String {
    let mut table = Table::bare();
    for row in &checked.ports {
        let word = match row.verdict {
            PortVerdict::Free => "free",
            PortVerdict::TimeWait => "free for a server",
            PortVerdict::Declared => "declared",
            PortVerdict::Leased => "leased",
            PortVerdict::Taken => "taken",
            PortVerdict::Forbidden => "not allowed",
        };
        let style = if row.free { words::good() } else { words::bad() };
        let why: Vec<&str> = row.holder.iter().chain(&row.warnings).map(String::as_str).collect();
        table.row([row.port.to_string().into(), Cell::styled(word, style), why.join("; ").into()]);
        for remedy in &row.remedies {
            table.row(["".into(), "".into(), format!("-> {remedy}").into()]);
        }
    }
    table.text()
}

/// Leases.
pub(super) fn leases(leases: &PortLeases) -> String {
    if leases.leases.is_empty() {
        return "nothing is leased".into();
    }
    let mut table = Table::new(&["LEASE", "PORTS", "PROTO", "WHO", "EPOCH", "KEPT", "SINCE", "UNTIL"]);
    for lease in &leases.leases {
        let ports: Vec<String> = lease.ports.iter().map(u16::to_string).collect();
        let until = match (lease.expires_in_ms, lease.holder_pid) {
            (Some(ms), _) => format!("in {}", words::duration(ms)),
            (None, Some(pid)) => format!("pid {pid} ends"),
            (None, None) => "released".into(),
        };
        table.row([
            lease.lease.0.to_string().into(),
            ports.join(" ").into(),
            lease.protocol.word().into(),
            format!("{}/{} (uid {})", lease.service, lease.port_name, lease.uid).into(),
            lease.epoch.to_string().into(),
            if lease.parked { "by a socket" } else { "by name" }.into(),
            words::moment(lease.taken_at_ms).into(),
            until.into(),
        ]);
    }
    table.text()
}

/// The table of ranges.
pub(super) fn ranges(ranges: &PortRanges) -> String {
    let mut table = Table::new(&["FROM", "TO", "FOR"]);
    for range in &ranges.ranges {
        let what = match &range.reserved_for {
            Some(what) => format!("{}, reserved for {what}", range.purpose),
            None => range.purpose.clone(),
        };
        table.row([range.from.to_string().into(), range.to.to_string().into(), what.into()]);
    }
    for span in &ranges.ephemeral {
        table.row([
            span.from.to_string().into(),
            span.to.to_string().into(),
            "outgoing connections (the kernel)".into(),
        ]);
    }
    let mut text = table.text();
    for warning in &ranges.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("changed by {}\n", ranges.file));
    text
}

/// Differences, and what to do.
pub(super) fn drift(drift: &PortDrift) -> String {
    if drift.drift.is_empty() {
        return "every port is as declared".into();
    }
    let mut lines = vec![];
    for row in &drift.drift {
        let (drift, is_advice) = (&row.drift, row.is_advice);
        let style = if is_advice { anstyle::Style::new().dimmed() } else { words::bad() };
        lines.push(format!("{} {}", Cell::styled(drift.kind.word(), style).shown(), drift.text));
        lines.push(format!("  -> {}", drift.fix));
    }
    lines.join("\n")
}

/// Who was ended.
pub(super) fn evicted(evicted: &PortEvicted, port: u16, dry_run: bool) -> String {
    let mut lines: Vec<String> = vec![];
    for row in &evicted.evicted {
        let name = row.command.as_deref().unwrap_or("a process");
        lines.push(match row.how.as_deref() {
            None => format!("{name} (pid {}) would be ended: {}", row.pid, row.why),
            Some("killed") => {
                format!("{name} (pid {}) was killed, since it did not end when asked: {}", row.pid, row.why)
            }
            Some(_) => format!("{name} (pid {}) has ended: {}", row.pid, row.why),
        });
    }
    if !dry_run {
        lines.push(if evicted.free { format!("port {port} is free") } else { format!("port {port} is still taken") });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn row(port: u16, kind: &str, who: &str, more: serde_json::Value) -> serde_json::Value {
        let mut row = json!({
            "port": port, "to": port, "protocol": "tcp", "speaks": "tcp", "service": null, "hosts": ["mars"],
            "consumers": [], "kind": kind, "network": "host", "address": null, "range": null, "unit": null, "port_name": null, "lease": null, "who": who, "pid": null, "user": null, "drift": []
        });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    }

    #[test]
    fn every_port_has_a_row_with_its_marks() {
        let list_: PortList = serde_json::from_value(json!({ "ports": [
            row(3000, "declared", "grafana (main)",
                json!({"speaks": "http+ws", "hosts": ["mars", "venus"], "consumers": ["the wall display", "ops"]})),
            row(6379, "declared", "unit redis (main)",
                json!({"address": "127.0.0.1", "pid": 412, "consumers": ["command@shop"]})),
            row(7000, "declared", "game (main)", json!({"to": 7009, "protocol": "udp", "speaks": "udp"})),
            row(8002, "declared", "unit command@tts (http)", json!({"range": "gpu", "drift": ["port_outside_range"]})),
            row(8080, "reserved", "reserved for the manager", json!({"range": "manager"})),
            row(8210, "observed", "python3 (pid 4121, user alice)", json!({"address": "0.0.0.0", "pid": 4121})),
            row(9080, "leased", "ci/api (port-lease-3)", json!({"network": "cluster", "range": "mcp", "hosts": []})),
        ]}))
        .unwrap();
        insta::assert_snapshot!(plain(&list(&list_)), @r"
        PORT          SERVICE                         HOSTS        PROTOCOL  CONSUMERS              KIND      ADDRESS    RANGE    DRIFT
        3000          grafana (main)                  mars, venus  HTTP+WS   the wall display, ops  declared  -          -
        6379          unit redis (main), pid 412      mars         TCP       command@shop           declared  127.0.0.1  -
        7000-7009     game (main)                     mars         UDP       -                      declared  -          -
        8002          unit command@tts (http)         mars         TCP       -                      declared  -          gpu      port_outside_range
        8080          reserved for the manager        mars         TCP       -                      reserved  -          manager
        8210          python3 (pid 4121, user alice)  mars         TCP       -                      observed  0.0.0.0    -
        9080@cluster  ci/api (port-lease-3)           -            TCP       -                      leased    -          mcp
        ");
    }

    #[test]
    fn verdicts_name_the_holder_and_a_way_out() {
        let checked_: PortChecked = serde_json::from_value(json!({ "ok": false, "ports": [
            {"port": 8081, "verdict": "free", "free": true, "holder": null, "warnings": [], "remedies": []},
            {"port": 8080, "verdict": "taken", "free": false, "holder": "port 8080 is taken by nginx (pid 7)",
             "warnings": ["8080 is reserved for the manager"], "remedies": ["wharf ports who 8080"]}
        ]}))
        .unwrap();
        insta::assert_snapshot!(plain(&checked(&checked_)), @r"
        8081  free
        8080  taken  port 8080 is taken by nginx (pid 7); 8080 is reserved for the manager
                     -> wharf ports who 8080
        ");
    }

    #[test]
    fn an_eviction_says_what_became_of_whom() {
        let evicted_: PortEvicted = serde_json::from_value(json!({ "free": true, "evicted": [
            {"pid": 9, "command": "python3", "why": "it listened for a lease that is over", "how": "asked"}
        ]}))
        .unwrap();
        insta::assert_snapshot!(plain(&evicted(&evicted_, 8100, false)), @r"
        python3 (pid 9) has ended: it listened for a lease that is over
        port 8100 is free
        ");
    }
}
