//! Ending who holds a port, where that is a left-over of ours, and refusing everybody else by name.
//!
//! Ours is what was written down: a process of a run that is not its unit's present one, or one that was seen to
//! listen for a lease that is over (C12). Only listeners are looked at: a client of the port is never touched (T8).

use std::{fs, path::Path, time::Duration};

use wharf_api::rpc::port::{EvictedRow, PortEvictParams, PortEvicted};
use wharf_core::ports::{Ledger, Outside, Owner};
use wharf_model::{ErrorKind, Failure, RunId, UnitName};
use wharf_runtime::ports::{self, Ended, Socket, Use};

use super::look::{Seen, View};
use crate::engine::Shared;

const GRACE_MS: u64 = 5_000;
const MOST_GRACE_MS: u64 = 60_000;

/// Somebody who may be ended, and by which record.
struct LeftOver {
    process: Outside,
    command: Option<String>,
    why: String,
}

/// Blocks until the port's left-overs have ended.
pub fn evict(shared: &Shared, caller_uid: u32, p: &PortEvictParams) -> Result<PortEvicted, Failure> {
    let listens = |s: &Socket| s.protocol == p.protocol && s.local.port() == p.port;
    let view = View::of(shared, listens)?;
    if view.seen.is_empty() {
        return refused(p.port, "nobody listens there", format!("wharf ports who {}", p.port));
    }
    let mut doomed: Vec<LeftOver> = vec![];
    for seen in &view.seen {
        doomed.extend(left_overs(shared, caller_uid, p, seen)?);
    }
    doomed.sort_by_key(|left| left.process);
    doomed.dedup_by_key(|left| left.process);
    let mut evicted = vec![];
    let grace = Duration::from_millis(p.grace_ms.unwrap_or(GRACE_MS).min(MOST_GRACE_MS));
    for LeftOver { process, command, why } in doomed {
        let how = if p.dry_run { None } else { Some(end(shared, process, grace)?) };
        evicted.push(EvictedRow { pid: process.pid, command, why, how });
    }
    let left = ports::at(p.protocol, p.port);
    Ok(PortEvicted { free: !left.iter().any(|s| s.used == Use::Listens), evicted })
}

fn end(shared: &Shared, process: Outside, grace: Duration) -> Result<String, Failure> {
    let Outside { pid, identity } = process;
    let ended = ports::end(pid, identity, grace)
        .map_err(|e| Failure::from(e).while_doing(format_args!("end process {pid}")))?;
    let word = match ended {
        Ended::Gone => "gone",
        Ended::Asked => "asked",
        Ended::Killed => "killed",
        Ended::Lives => {
            let text = format!("process {pid} does not end, not even by SIGKILL: it waits for a disk or a driver");
            return Err(
                Failure::new(ErrorKind::Timeout, text).hint(format!("cat /proc/{pid}/stack as root says where"))
            );
        }
    };
    tracing::info!("process {pid} was a left-over on a port: {word}");
    // Nobody waits for it: a daemon that dies now finds that the process is gone.
    let forgotten = shared.ports.change(shared, |ledger| {
        ledger.forget_stale(process);
        Ok(())
    });
    drop(forgotten);
    Ok(word.into())
}

fn refused<T>(port: u16, why: impl Into<String>, hint: impl Into<String>) -> Result<T, Failure> {
    let why = why.into();
    Err(Failure::new(ErrorKind::NotEvictable, format!("nobody is ended for port {port}: {why}"))
        .hint(hint)
        .detail(serde_json::json!({ "why": why })))
}

/// Those who hold this socket: all of them may be ended, or none is.
fn left_overs(shared: &Shared, caller_uid: u32, p: &PortEvictParams, seen: &Seen) -> Result<Vec<LeftOver>, Failure> {
    let (port, text) = (p.port, seen.text());
    match &seen.owner {
        Owner::Unit(unit) => {
            return refused(port, format!("{text} listens as it should"), format!("wharf stop {unit}"));
        }
        Owner::Lease(id) => {
            return refused(port, format!("{text} has it by {id}"), format!("wharf ports release {}", id.0));
        }
        Owner::Daemon => return refused(port, "this daemon waits there for a unit's first use", "wharf list"),
        Owner::Other(_) => {}
    }
    if seen.who.pids.is_empty() {
        return refused(port, format!("{text} holds it, and may not be looked at"), "ask as its user, or as root");
    }
    if let Some(id) = &seen.who.container {
        let hint = format!("stop the container instead: docker stop {}", id.get(..12).unwrap_or(id));
        return refused(port, format!("{text} holds it"), hint);
    }
    let mut found = vec![];
    for &pid in &seen.who.pids {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned());
        let name = command.as_deref().unwrap_or_default();
        if pid == 1 {
            return refused(port, "pid 1 holds it: a socket of systemd's", "systemctl list-sockets names it");
        }
        if ports::is_engine(name) {
            let hint = format!("stop the container instead: wharf ports who {port} names it");
            return refused(port, format!("{name} holds it for a container"), hint);
        }
        let Ok(process) = super::desk::outside(pid) else { continue };
        if p.pid.is_some_and(|wanted| wanted != pid)
            || p.identity.as_ref().is_some_and(|wanted| *wanted != process.identity.to_string())
        {
            return refused(port, format!("{text} holds it, another process than was named"), "look again: port.whois");
        }
        let recorded = shared.ports.see(|ledger| record(shared, ledger, caller_uid, process, port));
        let Some(why) = recorded else {
            let hint = format!("stop it yourself (kill {pid}), or choose another port");
            return refused(port, format!("{text} is none that Wharf has started or leased to"), hint);
        };
        found.push(LeftOver { process, command, why });
    }
    Ok(found)
}

/// By which record a process is a left-over of ours.
pub fn record(shared: &Shared, ledger: &Ledger, caller_uid: u32, process: Outside, port: u16) -> Option<String> {
    if ledger.stale(process, port).is_some_and(|uid| caller_uid == 0 || caller_uid == uid) {
        return Some("it listened for a lease that is over".into());
    }
    let (unit, run) = stale_run(shared, process.pid)?;
    Some(format!("it is of run {run} of {unit}, which is over"))
}

/// The run that a process is of, where that is not its unit's present one.
fn stale_run(shared: &Shared, pid: i32) -> Option<(UnitName, RunId)> {
    let world = shared.world.load();
    let is_present = |unit: &UnitName, run| world.get(unit).is_some_and(|unit| unit.life.run() == Some(run));
    let runs = shared.launcher.runs().ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    runs.into_iter().filter(|(unit, run)| !is_present(unit, *run)).find(|(unit, run)| {
        let Some(seen) = shared.launcher.see(unit, *run) else { return false };
        let in_group =
            seen.cgroup.as_deref().is_some_and(|own| group != "/" && own.ends_with(group.trim_start_matches('/')));
        in_group || seen.main == Some(pid) || has_open(pid, &seen.folder)
    })
}

/// A process of a run has its lock open.
fn has_open(pid: i32, folder: &Path) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target.starts_with(folder))
}
