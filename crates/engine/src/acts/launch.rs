//! A run is made: ports that are free, folders, the service's own start; and it is known beside its journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use wharf_core::{Fact, Saved, Unit};
use wharf_model::{ErrorKind, Failure, Phase, RunId, UnitName};
use wharf_runtime::{launch::LiveRun, ports};
use wharf_services::Context;

use super::{UNIT_FILE, not_known, unbroken, watch};
use crate::{clear, defer, engine::Shared, fit, gpus, hearing};

/// Port preflight, the unit's folders, then the service's own start.
pub(super) async fn launch(shared: &Arc<Shared>, unit: Unit, mut cx: Context, run: RunId) {
    let name = unit.name.clone();
    let limit = Duration::from_millis(unit.policy.start_timeout_ms);
    let cancelled = shared.launching(run);
    let made = tokio::select! {
        made = unbroken(&name, make_run(shared, &unit, &mut cx)) => made,
        _ = cancelled => Err(Failure::new(ErrorKind::Conflict, format!("{name} was stopped before it was made"))),
        () = tokio::time::sleep(limit) => Err(Failure::new(
            ErrorKind::Timeout,
            format!("{name} was not made within {} s", limit.as_secs()),
        )),
    };
    shared.not_launching(run);
    match made {
        Ok((pid, live)) => {
            tracing::info!("Started {name} with PID {pid}{}", ports_text(&cx.ports));
            remember_beside(shared, &unit, run, &cx.ports);
            gpus::limit(shared, &name, cx.vram, &live);
            shared.tell(Fact::Launched { unit: name.clone(), run, pid, ports: cx.ports });
            hearing::begin(shared, &name, run, &live);
            watch(shared, name, run, live).await;
        }
        Err(failure) => {
            // What was given up may be on its way: it is told as not launched when nothing of it can begin.
            shared.launcher.settled(run).await;
            // A start that failed after its spawn leaves nothing behind.
            if let Some(live) = shared.hands.live(run) {
                live.kill_all();
                live.emptied().await;
                clear::up(shared.clone(), name.clone(), run).await;
            }
            tracing::warn!("{name} was not started: {failure}");
            shared.tell(Fact::NotLaunched { unit: name.clone(), run, failure: failure.about(&name) });
        }
    }
}

fn ports_text(ports: &BTreeMap<String, u16>) -> String {
    let list: Vec<String> = ports.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if list.is_empty() { String::new() } else { format!(" on port {}", list.join(", ")) }
}

/// The unit's ports are free for its program, or are given to it as sockets.
async fn open_ports(
    shared: &Shared,
    unit: &Unit,
    ports: &BTreeMap<String, u16>,
    knocked: Vec<(String, OwnedFd)>,
) -> Result<Vec<(String, OwnedFd)>, Failure> {
    let passes = unit.policy.on_demand.as_ref().is_some_and(|o| o.pass_sockets);
    if !passes || !knocked.is_empty() {
        return Ok(knocked);
    }
    shared.doorman.open_to_pass(&unit.name, ports).map_err(Failure::from)
}

async fn make_run(shared: &Arc<Shared>, unit: &Unit, cx: &mut Context) -> Result<(i32, LiveRun), Failure> {
    let service = shared.service(&unit.name).map_err(|_| not_known(&unit.name))?.clone();
    shared.layout.create_unit(&unit.name)?;
    shared.strangers.gone(&unit.name).await?;
    shared.layout.clear_sockets(&unit.name);
    fit::gpus(shared, cx).await?;
    defer::to_others(cx).await?;
    let knocked = shared.doorman.make_way(&unit.name).await;
    // Before its ports are tried: the public ones are ours.
    shared.doorman.fronts.open_for(unit);
    // A unit without ports is not sent to another thread to find that out.
    cx.ports = BTreeMap::new();
    if !unit.wishes.is_empty() {
        let (ports_for, chooser) = (unit.clone(), shared.clone());
        let are_its_own = service.runs_already(cx).await?;
        let chosen = tokio::task::spawn_blocking(move || choose_ports(&chooser, &ports_for, are_its_own));
        cx.ports = chosen.await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))??;
    }
    let sockets = open_ports(shared, unit, &cx.ports, knocked).await?;
    shared.hands.give_sockets(cx.run.unwrap_or(RunId(0)), sockets);
    let made = service.start(cx).await?;
    let run = cx.run.unwrap_or(RunId(0));
    let live = shared.hands.live(run).ok_or_else(|| {
        Failure::new(ErrorKind::Internal, format!("the service's start made no run of {}", unit.name))
            .hint("a service's start must end in cx.run(…).spawn()")
    })?;
    Ok((made.pid, live))
}

/// Every port is tried by a real bind before anything is started, unless what listens there is its own, and is nobody
/// else's by the ledger.
fn choose_ports(shared: &Shared, unit: &Unit, are_its_own: bool) -> Result<BTreeMap<String, u16>, Failure> {
    let mut desk = shared.ports.choosing();
    let world = shared.world.load();
    let mut promised: BTreeSet<u16> = world
        .values()
        .filter(|other| other.name != unit.name)
        .flat_map(|other| other.fixed_ports().map(|(_, n)| n).collect::<Vec<_>>())
        .collect();
    promised.extend(desk.of_others(&unit.name));
    let mut chosen = BTreeMap::new();
    for (port, wish) in &unit.wishes {
        let sticky = || {
            let kept = unit.ports.get(port).copied().filter(|n| desk.promised(&unit.name, *n).is_none());
            kept.filter(|n| shared.doorman.holds(&unit.name, *n) || ports::check(*n).is_ok())
        };
        let number = match wish {
            Some(number) if shared.doorman.holds(&unit.name, *number) => *number,
            Some(number) => {
                desk.promised(&unit.name, *number).map_or(Ok(()), Err)?;
                let tried = if are_its_own { Ok(()) } else { ports::check(*number) };
                tried.map_err(|holder| desk.known(shared, &holder, holder.failure(&unit.name, port)))?;
                *number
            }
            None => match sticky() {
                Some(number) => number,
                None => ports::free_but(&promised)?,
            },
        };
        tracing::debug!("✓ Port {number} available for {} service", unit.name);
        promised.insert(number);
        chosen.insert(port.clone(), number);
    }
    desk.claim(&unit.name, chosen.values().copied());
    drop(desk);
    crate::port::advise(shared, unit, &chosen);
    Ok(chosen)
}

/// The unit as it is, beside its run: should the journal be lost, the run is still known for what it is.
fn remember_beside(shared: &Shared, unit: &Unit, run: RunId, ports: &BTreeMap<String, u16>) {
    let saved = Saved { phase: Phase::Running, ports: ports.clone(), ..unit.saved() };
    let path = unit_file(shared, &unit.name, run);
    let written = serde_json::to_vec(&saved).map_err(io::Error::from).and_then(|bytes| fs::write(&path, bytes));
    if let Err(e) = written {
        tracing::warn!("{}: {e}", path.display());
    }
}

fn unit_file(shared: &Shared, unit: &UnitName, run: RunId) -> PathBuf {
    shared.layout.runs().join(unit.as_str()).join(run.to_string()).join(UNIT_FILE)
}
