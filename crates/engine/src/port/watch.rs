//! Keeping watch: leases that end with their time or their holder. Who listens is watched by `listeners`.
//!
//! A process's end is told by its pidfd, and wakes nobody before.

mod listeners;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{io::Interest, task::JoinHandle};
use wharf_api::Happened;
use wharf_core::ports::{Outside, PortLease};
use wharf_model::{Failure, PortLeaseId};
use wharf_runtime::launch::async_fd;
use wharf_sys::pidfd;

use crate::{bus::News, engine::Shared, turn};

/// Keeps watch for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) -> Result<(), Failure> {
    // What a boot has ended is written down; nobody waits for it.
    drop(shared.ports.settle(shared));
    let tasks = &shared.tasks;
    tasks.spawn(end_in_time(shared.clone()));
    tasks.spawn(watch_holders(shared.clone()));
    let watcher = shared.clone();
    let watch = std::thread::Builder::new().name("ports".into()).spawn(move || listeners::watch(&watcher));
    watch.map(drop).map_err(|e| Failure::from(e).while_doing("watch the ports"))
}

async fn end_in_time(shared: Arc<Shared>) {
    let mut moves = shared.ports.moves();
    loop {
        let now = turn::now().boot_ms;
        let due = shared.ports.next_end_ms().map(|at| Duration::from_millis(at.saturating_sub(now)));
        match due {
            Some(wait) if wait.is_zero() => {
                if let Ok((ended, unsaved)) = shared.ports.change(&shared, |ledger| Ok(ledger.expire(now)))
                    && unsaved.durable().await.is_ok()
                {
                    ended.iter().for_each(|lease| tell_of_end(&shared, lease, "it was not renewed"));
                }
            }
            Some(wait) => {
                let _ = tokio::time::timeout(wait, moves.changed()).await;
            }
            None => {
                if moves.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn watch_holders(shared: Arc<Shared>) {
    let mut moves = shared.ports.moves();
    let mut watches: BTreeMap<(PortLeaseId, Outside), JoinHandle<()>> = BTreeMap::new();
    loop {
        let leases = shared.ports.leases();
        let wanted: BTreeSet<(PortLeaseId, Outside)> =
            leases.iter().filter_map(|(lease, _)| Some((lease.id, lease.terms.holder?))).collect();
        watches.retain(|of, watch| {
            if !wanted.contains(of) {
                watch.abort();
            }
            wanted.contains(of)
        });
        for of in wanted {
            watches.entry(of).or_insert_with(|| shared.tasks.spawn(watch_holder(shared.clone(), of.0, of.1)));
        }
        if moves.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_holder(shared: Arc<Shared>, id: PortLeaseId, holder: Outside) {
    if let Err(e) = ended(holder).await {
        tracing::debug!("{id}: its holder {} cannot be watched: {e}", holder.pid);
    }
    // A task of its own: this one is not wanted any more as soon as the lease is over.
    shared.tasks.spawn(end_of_holder(shared.clone(), id, holder));
}

async fn end_of_holder(shared: Arc<Shared>, id: PortLeaseId, holder: Outside) {
    let is_its = |lease: &PortLease| lease.terms.holder == Some(holder);
    let end = shared
        .ports
        .change(&shared, |ledger| Ok(if ledger.get(id).is_some_and(is_its) { ledger.end(id) } else { None }));
    if let Ok((Some(lease), unsaved)) = end
        && unsaved.durable().await.is_ok()
    {
        tell_of_end(&shared, &lease, "its holder has ended");
    }
}

/// Until the process has ended; at once where there is none.
async fn ended(process: Outside) -> io::Result<()> {
    let process = async_fd(pidfd::open_exact(process.pid, process.identity)?, Interest::READABLE)?;
    process.readable().await.map(drop)
}

/// A lease is over, and durably so.
pub fn tell_of_end(shared: &Shared, lease: &PortLease, why: &str) {
    tracing::info!("{} of {} is over: {why}", lease.id, lease.label());
    let happened =
        Happened::PortFreed { lease: lease.id, holder: lease.label(), ports: lease.ports.clone(), why: why.into() };
    shared.bus.publish([News { unit: None, run: None, happened }]);
}
