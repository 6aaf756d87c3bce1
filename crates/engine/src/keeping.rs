//! Between the engine and the keeper of the logs: which runs are alive goes there, what was found
//! comes back as facts and as words for who watches the daemon.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use wharf_api::{Disk, Happened};
use wharf_core::Fact;
use wharf_model::{Failure, RunId, UnitName};
use wharf_runtime::{
    Layout,
    logs::{LogKeeper, News, Target},
};

use crate::{
    bus::{self, Bus},
    engine::Shared,
    turn::Mail,
};

/// Units change in bursts: the keeper is told once for each.
const BURST: Duration = Duration::from_millis(20);

/// Starts the keeper. Call it inside a tokio runtime.
pub fn start(layout: &Layout, mail: mpsc::Sender<Mail>, bus: Arc<Bus>) -> Result<LogKeeper, Failure> {
    let keeper = LogKeeper::start(layout.all_logs().to_owned(), move |news| match told(&bus, news) {
        News::Fault { unit, run, line } => {
            // An engine that has ended is told in vain.
            let _ = mail.send(Mail::Fact(Fact::LogFault { unit, run, line }));
        }
        News::Truncated { unit, run, bytes } => tracing::warn!(
            "{unit}: run {run} truncated its own log: {bytes} bytes are lost; with logs.pipe in its policy it cannot"
        ),
        News::Lost { unit, run, bytes } => {
            tracing::error!("{unit}: no room to keep {bytes} bytes of run {run}'s log: they are lost");
        }
        News::Space { free_percent, is_scarce: true, dropped } => tracing::warn!(
            "the disk of the logs has {free_percent:.1} % left; {dropped} archives were removed: free some space"
        ),
        News::Space { free_percent, is_scarce: false, .. } => {
            tracing::info!("the disk of the logs has room again: {free_percent:.1} %");
        }
    });
    keeper.map_err(|e| Failure::from(e).while_doing("look after the logs"))
}

/// Puts what was found on the bus.
fn told(bus: &Bus, news: News) -> News {
    let about =
        |unit: &UnitName, run: RunId, happened| bus::News { unit: Some(unit.clone()), run: Some(run), happened };
    let alone = |happened| bus::News { unit: None, run: None, happened };
    match &news {
        // It becomes a phase, and is told as one.
        News::Fault { .. } => {}
        News::Truncated { unit, run, bytes } => {
            bus.publish([about(unit, *run, Happened::LogTruncated { bytes: *bytes })]);
        }
        News::Lost { unit, run, bytes } => bus.publish([about(unit, *run, Happened::LogLost { bytes: *bytes })]),
        News::Space { is_scarce: true, .. } => bus.publish([alone(Happened::DiskLow { disk: Disk::Logs })]),
        News::Space { is_scarce: false, .. } => bus.publish([alone(Happened::DiskFreed { disk: Disk::Logs })]),
    }
    news
}

/// Tells the keeper of each change, for as long as the engine lives.
pub fn tell_of_units(shared: &Arc<Shared>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let mut published = shared.published.subscribe();
        let mut told: Option<Vec<Target>> = None;
        loop {
            let targets: Vec<Target> = shared
                .world
                .load()
                .values()
                .map(|u| Target {
                    unit: u.name.clone(),
                    run: u.life.run(),
                    ended: u.last_run,
                    policy: u.policy.clone(),
                })
                .collect();
            if told.as_ref() != Some(&targets) {
                shared.logs.aim(targets.clone());
                told = Some(targets);
            }
            if published.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(BURST).await;
        }
    });
}
