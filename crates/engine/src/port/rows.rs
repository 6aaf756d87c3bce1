//! From a look at the ports to what a caller is shown.

mod list;

use std::collections::BTreeSet;

use wharf_api::rpc::port::{DriftRow, PortHolder, PortLeaseRow, PortUse, PortWhois};
use wharf_core::ports::{Owner, PortLease};
use wharf_model::{Drift, FoundBy};
use wharf_runtime::ports::{self, Container, Use};

use super::{
    desk::Keeping,
    look::{Seen, View},
};

pub use list::{Uses, list};

/// Connections that are shown where nobody listens.
const MOST_CONNECTIONS: usize = 16;

/// A difference.
pub fn drift(drift: &Drift) -> DriftRow {
    DriftRow { is_advice: drift.kind.is_advice(), drift: drift.clone() }
}

/// A lease.
pub fn lease(lease: &PortLease, kept: &Keeping, boot_ms: u64) -> PortLeaseRow {
    let terms = &lease.terms;
    PortLeaseRow {
        lease: lease.id,
        epoch: lease.epoch,
        ports: lease.ports.clone(),
        protocol: terms.protocol,
        network: terms.network.clone(),
        service: terms.service.clone(),
        port_name: terms.name.clone(),
        uid: terms.uid,
        bind: terms.reach,
        handoff: terms.handoff,
        parked: kept.is_kept,
        socket: kept.socket.as_ref().map(|path| path.display().to_string()),
        sticky: terms.sticky,
        holder_pid: terms.holder.map(|holder| holder.pid),
        expires_in_ms: lease.expires_ms.map(|at| at.saturating_sub(boot_ms)),
        taken_at_ms: lease.taken_at_ms,
    }
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
    let entries = view.entries.iter().filter(|entry| (entry.port..=entry.to).contains(&port)).cloned().collect();
    let reserved_for = view.ranges.reserved(port).map(str::to_owned);
    let drift: Vec<DriftRow> = view.drift().iter().filter(|d| d.port == port).map(drift).collect();
    let (time_wait, connections) = (of(Use::TimeWait).count() as u32, of(Use::Connected).count() as u32);
    let mut whois = PortWhois {
        port,
        answer: String::new(),
        holders,
        units,
        leases,
        entries,
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
    let is_kept = move |h: &PortHolder| h.does == PortUse::Bound && h.who.pid == own;
    let by = |does: PortUse| whois.holders.iter().filter(move |h| h.does == does && !is_kept(h));
    let names = |does: PortUse| {
        let names: BTreeSet<&str> = by(does).map(|h| h.text.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let claim = || {
        let units = whois.units.iter().map(|unit| format!("the unit {unit}"));
        let leases = whois.leases.iter().map(|lease| format!("the lease {}/{}", lease.service, lease.port_name));
        let here = whois.entries.iter().filter(|entry| entry.is_here);
        let entries = here.map(|entry| format!("{} by what is declared", entry.label()));
        units.chain(leases).chain(entries).collect::<Vec<_>>().join(" and ")
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
    let (socket, mut who) = (&seen.socket, seen.who.clone());
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
    who.container = container.map(|c| c.id.clone()).or(who.container);
    if unit.is_some() || lease.is_some() {
        who.found_by = FoundBy::Lease;
    }
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
        who,
        container_name: container.map(|c| c.name().to_owned()),
        compose_project: container.and_then(|c| c.project().map(str::to_owned)),
        unit,
        run: seen.run,
        lease,
        text,
    }
}
