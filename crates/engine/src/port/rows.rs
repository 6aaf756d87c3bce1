//! From a look at the ports to what a caller is shown.

use std::collections::BTreeSet;

use wharf_api::rpc::port::{DriftRow, FoundBy, PortHolder, PortLeaseRow, PortListParams, PortRow, PortUse, PortWhois};
use wharf_core::ports::{Drift, HOST, Owner, PortLease, Ranges};
use wharf_model::{PortKind, Protocol};
use wharf_runtime::ports::{self, By, Container, Use};

use super::look::{Seen, View};

/// Connections that are shown where nobody listens.
const MOST_CONNECTIONS: usize = 16;

/// A difference.
pub fn drift(drift: &Drift) -> DriftRow {
    let Drift { kind, protocol, port, unit, lease, text, fix } = drift.clone();
    DriftRow { kind, is_advice: kind.is_advice(), protocol, port, unit, lease, text, fix }
}

/// A lease.
pub fn lease(lease: &PortLease, parked: bool, boot_ms: u64) -> PortLeaseRow {
    PortLeaseRow {
        lease: lease.id,
        epoch: lease.epoch,
        ports: lease.ports.clone(),
        protocol: lease.protocol,
        network: lease.network.clone(),
        service: lease.service.clone(),
        port_name: lease.name.clone(),
        uid: lease.uid,
        bind: lease.reach,
        handoff: lease.handoff,
        parked,
        sticky: lease.sticky,
        holder_pid: lease.holder.map(|holder| holder.pid),
        expires_in_ms: lease.expires_ms.map(|at| at.saturating_sub(boot_ms)),
        taken_at_ms: lease.taken_at_ms,
    }
}

/// The list: declared, leased, reserved, and whoever else listens.
pub fn list(view: &View, p: &PortListParams) -> Vec<PortRow> {
    let drift = view.drift();
    let mut rows: Vec<PortRow> = vec![];
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    let mut listener = |protocol: Protocol, port: u16, owner: &Owner| {
        let at = |s: &Seen| (s.socket.protocol, s.socket.local.port()) == (protocol, port);
        let is_its = |s: &Seen| s.owner == *owner || s.owner == Owner::Daemon;
        let found: Vec<usize> = (0..view.seen.len()).filter(|n| at(&view.seen[*n]) && is_its(&view.seen[*n])).collect();
        shown.extend(&found);
        found.first().map(|n| &view.seen[*n])
    };
    for d in &view.declared {
        let seen = listener(d.protocol, d.port, &Owner::Unit(d.unit.clone()));
        let who = format!("unit {} ({})", d.unit, d.name);
        let row = row(&view.ranges, d.protocol, d.port, PortKind::Declared, who, seen);
        let is_about = |x: &&Drift| x.unit.as_ref() == Some(&d.unit) && (x.protocol, x.port) == (d.protocol, d.port);
        let marks = drift.iter().filter(is_about).map(|x| x.kind).collect();
        rows.push(PortRow { unit: Some(d.unit.clone()), port_name: Some(d.name.clone()), drift: marks, ..row });
    }
    for lease in &view.leases {
        for &port in &lease.ports {
            let seen = match lease.network == HOST {
                true => listener(lease.protocol, port, &Owner::Lease(lease.id)),
                false => None,
            };
            let who = format!("{} ({})", lease.label(), lease.id);
            let row = row(&view.ranges, lease.protocol, port, PortKind::Leased, who, seen);
            let is_about = |x: &&Drift| x.lease == Some(lease.id) && x.port == port;
            let marks = drift.iter().filter(is_about).map(|x| x.kind).collect();
            let (network, port_name) = (lease.network.clone(), Some(lease.name.clone()));
            rows.push(PortRow { network, lease: Some(lease.id), port_name, drift: marks, ..row });
        }
    }
    for range in view.ranges.rows() {
        if let Some(what) = &range.reserved_for {
            let who = match range.from == range.to {
                true => format!("reserved for {what}"),
                false => format!("reserved for {what}, to {}", range.to),
            };
            rows.push(row(&view.ranges, Protocol::Tcp, range.from, PortKind::Reserved, who, None));
        }
    }
    for (n, seen) in view.seen.iter().enumerate() {
        let (protocol, port) = (seen.socket.protocol, seen.socket.local.port());
        // Who asks a question by UDP listens for the answer: that is no service.
        let asks = protocol == Protocol::Udp && view.ranges.is_ephemeral(port);
        if shown.contains(&n) || asks {
            continue;
        }
        let row = row(&view.ranges, protocol, port, PortKind::Observed, seen.text(), Some(seen));
        let is_here = |x: &&Drift| (x.protocol, x.port) == (protocol, port) && !x.kind.is_advice();
        let is_about = |x: &&Drift| is_here(x) || x.unit.is_some() && x.unit == row.unit && x.port == port;
        let marks: BTreeSet<_> = drift.iter().filter(is_about).map(|x| x.kind).collect();
        rows.push(PortRow { drift: marks.into_iter().collect(), ..row });
    }
    rows.retain(|row| is_wanted(row, p, &view.ranges));
    rows.sort_by(|a, b| (a.port, a.protocol, a.kind, &a.address).cmp(&(b.port, b.protocol, b.kind, &b.address)));
    rows.dedup();
    rows
}

fn row(ranges: &Ranges, protocol: Protocol, port: u16, kind: PortKind, who: String, seen: Option<&Seen>) -> PortRow {
    let unit = seen.and_then(|seen| match &seen.owner {
        Owner::Unit(unit) => Some(unit.clone()),
        Owner::Lease(_) | Owner::Daemon | Owner::Other(_) => None,
    });
    PortRow {
        port,
        protocol,
        kind,
        network: HOST.into(),
        address: seen.map(|seen| seen.socket.local.ip().to_string()),
        range: ranges.at(port).map(|range| range.purpose.clone()),
        unit,
        port_name: None,
        lease: None,
        who,
        pid: seen.and_then(|seen| seen.who.pid),
        user: seen.and_then(|seen| seen.who.user.clone()),
        drift: vec![],
    }
}

fn is_wanted(row: &PortRow, p: &PortListParams, ranges: &Ranges) -> bool {
    let of_kind = p.kinds.is_empty() || p.kinds.contains(&row.kind);
    let in_range = p
        .range
        .as_ref()
        .is_none_or(|purpose| ranges.rows().iter().any(|range| range.purpose == *purpose && range.contains(row.port)));
    let of_service = p.service.as_ref().is_none_or(|service| {
        let is_unit = row.unit.as_ref().is_some_and(|unit| unit.as_str() == service);
        is_unit || row.lease.is_some() && row.who.split('/').next() == Some(service)
    });
    of_kind && in_range && of_service
}

/// Who has one port. `seen` is everything with this local port.
pub fn whois(view: &View, port: u16, leases: Vec<PortLeaseRow>) -> PortWhois {
    let of = |used: Use| view.seen.iter().filter(move |seen| seen.socket.used == used);
    let has_listener = of(Use::Listens).next().is_some();
    let mut shown: Vec<&Seen> = of(Use::Listens).chain(of(Use::Bound)).collect();
    if !has_listener {
        // Beside a listener they are the connections that it has taken.
        shown.extend(of(Use::Connected).take(MOST_CONNECTIONS));
    }
    let asks =
        shown.iter().any(|s| s.who.container.is_some() || s.who.command.as_deref().is_some_and(ports::is_engine));
    let containers = if asks { ports::running_containers() } else { vec![] };
    let holders: Vec<PortHolder> = shown.into_iter().map(|seen| holder(seen, &containers)).collect();
    let units: BTreeSet<_> = view.declared.iter().filter(|d| d.port == port).map(|d| d.unit.clone()).collect();
    let units: Vec<_> = units.into_iter().collect();
    let reserved_for = view.ranges.reserved(port).map(str::to_owned);
    let drift: Vec<DriftRow> = view.drift().iter().filter(|d| d.port == port).map(drift).collect();
    let (time_wait, connections) = (of(Use::TimeWait).count() as u32, of(Use::Connected).count() as u32);
    let mut whois = PortWhois {
        port,
        answer: String::new(),
        holders,
        units,
        leases,
        reserved_for,
        range: view.ranges.at(port).map(ToString::to_string),
        time_wait,
        connections,
        drift,
    };
    whois.answer = answer(&whois);
    whois
}

fn answer(whois: &PortWhois) -> String {
    let port = whois.port;
    // The socket that keeps a leased port is nobody in the way.
    let own = Some(std::process::id().cast_signed());
    let is_kept = move |h: &PortHolder| h.does == PortUse::Bound && h.pid == own;
    let by = |does: PortUse| whois.holders.iter().filter(move |h| h.does == does && !is_kept(h));
    let names = |does: PortUse| {
        let names: BTreeSet<&str> = by(does).map(|h| h.text.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let claim = || {
        let units = whois.units.iter().map(|unit| format!("the unit {unit}"));
        let leases = whois.leases.iter().map(|lease| format!("the lease {}/{}", lease.service, lease.port_name));
        units.chain(leases).collect::<Vec<_>>().join(" and ")
    };
    if by(PortUse::Listens).next().is_some() {
        let waits = match whois.connections {
            0 => String::new(),
            1 => ", with 1 connection".into(),
            n => format!(", with {n} connections"),
        };
        return format!("port {port}: {} listens{waits}", names(PortUse::Listens));
    }
    if by(PortUse::Bound).next().is_some() {
        return format!(
            "port {port}: nobody listens, and {} has bound it: no program can listen there",
            names(PortUse::Bound)
        );
    }
    if by(PortUse::Connected).next().is_some() {
        let text = names(PortUse::Connected);
        return format!(
            "port {port}: nobody listens, and a connection of {text} begins there: no program can listen there"
        );
    }
    let belongs = claim();
    match (belongs.is_empty(), &whois.reserved_for) {
        (false, _) => format!("port {port}: nobody listens; it belongs to {belongs}"),
        (true, Some(what)) => format!("port {port}: nobody listens; it is reserved for {what}"),
        (true, None) => format!("port {port}: nobody has it"),
    }
}

/// Somebody who has a port, with their container's name where one is known.
pub fn holder(seen: &Seen, containers: &[Container]) -> PortHolder {
    let (socket, who) = (&seen.socket, seen.who.clone());
    let (protocol, port) = (socket.protocol, socket.local.port());
    let is_engine = who.command.as_deref().is_some_and(ports::is_engine);
    let its = |c: &&Container| match &who.container {
        Some(id) => c.id == *id,
        None => is_engine && c.publishes(protocol, port),
    };
    let container = containers.iter().find(its);
    let (unit, lease) = match &seen.owner {
        Owner::Unit(unit) => (Some(unit.clone()), None),
        Owner::Lease(id) => (None, Some(*id)),
        Owner::Daemon | Owner::Other(_) => (None, None),
    };
    let text = match container {
        // In it, its name says more than its number; a proxy is outside.
        Some(container) if who.container.is_some() => {
            let number = format!("container {}", container.id.get(..12).unwrap_or(&container.id));
            seen.text().replace(&number, &format!("container {}", container.name()))
        }
        Some(container) => format!("{}, for the container {}", seen.text(), container.name()),
        None => seen.text(),
    };
    let text = match socket.remote {
        Some(remote) => format!("{text} to {remote}"),
        None => text,
    };
    PortHolder {
        protocol,
        does: match socket.used {
            Use::Listens => PortUse::Listens,
            Use::Bound => PortUse::Bound,
            Use::Connected | Use::TimeWait => PortUse::Connected,
        },
        address: socket.local.ip().to_string(),
        remote: socket.remote.map(|remote| remote.to_string()),
        dual: socket.dual,
        pid: who.pid,
        identity: who.identity.map(|identity| identity.to_string()),
        pids: who.pids,
        started_at_ms: who.started_at_ms,
        command: who.command,
        exe: who.exe,
        cmdline: who.cmdline,
        uid: who.uid,
        user: who.user,
        cgroup: who.cgroup,
        systemd_unit: who.systemd_unit,
        container: container.map(|c| c.id.clone()).or(who.container),
        container_name: container.map(|c| c.name().to_owned()),
        compose_project: container.and_then(|c| c.project().map(str::to_owned)),
        found_by: match (unit.is_some() || lease.is_some(), who.by) {
            (true, _) => FoundBy::Lease,
            (false, By::Process) => FoundBy::Process,
            (false, By::Cgroup) => FoundBy::Cgroup,
            (false, By::User) => FoundBy::User,
        },
        unit,
        run: seen.run,
        lease,
        text,
    }
}
