//! From the params of `port.lease` to terms, and from a lease to its answer.

use std::path::PathBuf;

use wharf_api::{
    Caller,
    rpc::port::{PortLeaseParams, PortLeased},
};
use wharf_core::ports::{HOST, Outside, PortLease, Ranges, Span, Terms, Want};
use wharf_model::{ErrorKind, Failure, Handoff, Protocol};
use wharf_runtime::ports;

use super::desk;
use crate::turn;

/// What a caller asks for, as the ledger takes it.
pub fn terms(caller: &Caller, p: &PortLeaseParams) -> Result<Terms, Failure> {
    let bad = |text: &str| Failure::new(ErrorKind::InvalidParams, format!("port.lease: {text}"));
    let uid = caller.peer.uid;
    let want = match (p.port, p.from, p.to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => return Err(bad("port, or from and to")),
        (Some(_), None, None) if p.count != 1 => return Err(bad("one port has one number: leave out count")),
        (Some(number), None, None) => Some(Want::Number(number)),
        (None, Some(from), Some(to)) => {
            Some(Want::Within { span: Span { from, to }, count: p.count, contiguous: p.contiguous })
        }
        (None, None, None) => None,
        (None, Some(_), None) | (None, None, Some(_)) => return Err(bad("from goes with to")),
    };
    let network = p.network.clone().unwrap_or_else(|| HOST.to_owned());
    let handoff = match (p.protocol, p.handoff) {
        (Protocol::Udp, Handoff::Fd) => return Err(bad("only of TCP a listening socket is handed over")),
        (Protocol::Tcp, Handoff::Fd) if network != HOST => {
            return Err(bad("only of this machine's own network a listening socket is handed over"));
        }
        // A second UDP socket of a port would be given a part of the datagrams.
        (Protocol::Udp, Handoff::Park | Handoff::Plain) => Handoff::Plain,
        (Protocol::Tcp, asked) if network == HOST => asked,
        (Protocol::Tcp, Handoff::Park | Handoff::Plain | Handoff::Fd) => Handoff::Plain,
    };
    Ok(Terms {
        uid,
        key: p.client_key.clone(),
        service: p.service.clone().or_else(|| ports::user(uid)).unwrap_or_else(|| format!("uid-{uid}")),
        name: p.port_name.clone(),
        protocol: p.protocol,
        network,
        want,
        purpose: p.range.clone(),
        reach: p.bind,
        handoff,
        sticky: p.sticky,
        ttl_ms: p.ttl_ms,
        holder: holder(caller, p)?,
    })
}

/// With whom a lease ends.
fn holder(caller: &Caller, p: &PortLeaseParams) -> Result<Option<Outside>, Failure> {
    let gone = |pid| {
        Failure::new(ErrorKind::Precondition, format!("there is no process {pid} to hold the lease"))
            .hint("name one that lives (holder_pid), or a time (ttl_ms)")
    };
    match (p.holder_pid, p.ttl_ms) {
        (Some(pid), _) => {
            let outside = desk::outside(pid).map_err(|_| gone(pid))?;
            let uid = std::fs::metadata(format!("/proc/{pid}")).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
            let uid = uid.map_err(|_| gone(pid))?;
            if caller.peer.uid != 0 && uid != caller.peer.uid {
                let text = format!("process {pid} is of uid {uid}, and the caller is uid {}", caller.peer.uid);
                return Err(Failure::new(ErrorKind::LeaseDenied, text).hint("name a process of your own"));
            }
            Ok(Some(outside))
        }
        (None, Some(_)) => Ok(None),
        (None, None) => {
            let pid = caller.peer.pid;
            let identity = caller.peer.identity.ok_or_else(|| gone(pid))?;
            Ok(Some(Outside { pid, identity }))
        }
    }
}

/// Several ports of a purpose's ranges: the ledger takes one span.
pub fn within(terms: Terms, p: &PortLeaseParams, ranges: &Ranges) -> Result<Terms, Failure> {
    if terms.want.is_some() || p.count == 1 {
        return Ok(terms);
    }
    let purpose = terms.purpose.clone().unwrap_or_else(|| "any".into());
    let span = ranges.of(&purpose).max_by_key(|span| span.to - span.from);
    let span = span.ok_or_else(|| {
        Failure::new(ErrorKind::InvalidParams, format!("there is no range for {purpose:?}"))
            .hint("`wharf ports ranges` has the table")
    })?;
    Ok(Terms { want: Some(Want::Within { span, count: p.count, contiguous: p.contiguous }), ..terms })
}

/// What the caller is told.
pub fn leased(lease: &PortLease, socket: Option<PathBuf>, dry_run: bool, ranges: &Ranges) -> PortLeased {
    let env = lease.ports.iter().enumerate().map(|(n, port)| {
        let name = if n == 0 { "PORT".into() } else { format!("PORT_{}", n + 1) };
        (name, port.to_string())
    });
    let advice = |port: &u16| ranges.advise(lease.terms.purpose.as_deref(), *port);
    let mut warnings: Vec<String> =
        lease.ports.iter().flat_map(advice).map(|l| format!("{}: {}", l.kind, l.text)).collect();
    warnings.dedup();
    let scheme = lease.terms.protocol;
    PortLeased {
        lease: (!dry_run).then_some(lease.id),
        epoch: lease.epoch,
        ports: lease.ports.clone(),
        env: env.collect(),
        url: format!("{scheme}://127.0.0.1:{}", lease.ports.first().copied().unwrap_or_default()),
        handoff_used: lease.terms.handoff,
        socket: socket.map(|path| path.display().to_string()),
        expires_in_ms: lease.expires_ms.map(|at| at.saturating_sub(turn::now().boot_ms)),
        holder_pid: lease.terms.holder.map(|holder| holder.pid),
        warnings,
    }
}
