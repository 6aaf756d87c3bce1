//! Whether a port could be listened on now: the kernel is asked by doing it, the ledger by looking.

use std::collections::BTreeSet;

use wharf_api::rpc::port::{PortCheckRow, PortVerdict};
use wharf_core::ports::Ranges;
use wharf_model::{DriftKind, ErrorKind, Protocol};
use wharf_runtime::ports::{self, Settings, Socket, Use};

use super::{desk, look};
use crate::engine::Shared;

/// One port.
pub fn one(shared: &Shared, port: u16, protocol: Protocol, settings: &Settings, ranges: &Ranges) -> PortCheckRow {
    let mut row =
        PortCheckRow { port, verdict: PortVerdict::Free, free: true, holder: None, warnings: vec![], remedies: vec![] };
    let sockets = ports::at(protocol, port);
    let of = |used| sockets.iter().filter(move |s: &&Socket| s.used == used).count();
    if of(Use::TimeWait) > 0 {
        row.verdict = PortVerdict::TimeWait;
        row.warnings.push("connections that are over wait there: a program without SO_REUSEADDR cannot listen".into());
    }
    let lease = shared.ports.see(|ledger| ledger.at(protocol, port).cloned());
    let entry = shared.ports.see(|ledger| ledger.entry_at(protocol, port).cloned());
    let unit = look::declared(shared, settings).into_iter().find(|d| d.place() == (protocol, port));
    if let Err(e) = ports::attempt(protocol, port) {
        let failure = desk::taken(port, protocol, &e, true);
        let is_forbidden = failure.kind == ErrorKind::Permission;
        row.verdict = if is_forbidden { PortVerdict::Forbidden } else { PortVerdict::Taken };
        row.holder = Some(failure.message);
        row.remedies.extend(failure.hint);
    } else if let Some(lease) = &lease {
        row.verdict = PortVerdict::Leased;
        row.holder = Some(format!("{} ({})", lease.label(), lease.id));
        row.remedies.push(format!("wharf ports release {}", lease.id.0));
    } else if let Some(unit) = &unit {
        row.verdict = PortVerdict::Declared;
        row.holder = Some(format!("unit {} ({})", unit.unit, unit.name));
        row.remedies.push(format!("wharf start {} --port {}=auto", unit.unit, unit.name));
    } else if let Some(entry) = &entry {
        row.verdict = PortVerdict::Declared;
        row.holder = Some(format!("declared for {}", entry.label()));
        row.remedies.push(format!("wharf ports undeclare {}", entry.service));
    }
    row.free = matches!(row.verdict, PortVerdict::Free | PortVerdict::TimeWait);
    let listening: BTreeSet<String> =
        sockets.iter().filter(|s| s.used == Use::Listens).map(|s| s.local.to_string()).collect();
    if listening.len() > 1 {
        let list = listening.into_iter().collect::<Vec<_>>().join(" and ");
        row.warnings.push(format!("several listen there: {list}: localhost can mean either"));
    }
    let purpose = unit.as_ref().and_then(|d| d.purpose.clone());
    // Who asks for a port has said nothing of GPUs.
    let advice = ranges.advise(purpose.as_deref(), port).into_iter();
    row.warnings.extend(advice.filter(|l| purpose.is_some() || l.kind != DriftKind::PortOutsideRange).map(|l| l.text));
    if !row.free && row.verdict != PortVerdict::Forbidden {
        row.remedies.push("wharf ports free finds others".into());
    }
    row
}
