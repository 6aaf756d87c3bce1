//! Finds a run that an earlier daemon may have started.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use wharf_model::{Exit, RunId, UnitName};
use wharf_shim::StartRecord;

use super::{
    Found, Shared,
    folder::{RunFolder, Start},
    live::{LiveRun, Parts, outcome},
    watched::{Watched, seen},
};

/// From the start record to exec there is nothing that takes time, but the disk.
const EXEC_WAIT: Duration = Duration::from_secs(2);
/// A shim whose last process has gone ends within this, and is no process of the run that lives on.
const SHIM_END_WAIT: Duration = Duration::from_millis(100);

pub async fn find(shared: &Shared, unit: &UnitName, run: RunId) -> Found {
    let folder = shared.folder(unit, run);
    let start = match seen(|| folder.look_at_start()).await.unwrap_or(Start::Missing) {
        Start::Recorded(start) => start,
        Start::Void => return never_started(&folder),
        Start::Torn => return Found::Ended(ended_with_the_machine(&folder)),
        Start::Missing => match folder.make_void() {
            // The shim was first after all.
            Ok(false) => match seen(|| folder.look_at_start()).await {
                Ok(Start::Recorded(start)) => start,
                Ok(Start::Missing | Start::Void | Start::Torn) | Err(_) => return never_started(&folder),
            },
            Ok(true) => return never_started(&folder),
            // No folder: nothing can begin in it. A folder that cannot be written has no shim either.
            Err(_) => return Found::NeverStarted,
        },
    };
    if start.boot_id != shared.boot_id {
        return Found::Ended(ended_with_the_machine(&folder));
    }
    wait_for_exec(&folder, &start).await;
    let (unit, oom) = (unit.clone(), shared.oom.mark());
    let live = LiveRun::open(Parts { unit, run, folder, ending: None, notify: None, oom }, start).await;
    if live.main_lives() {
        return Found::Alive(live);
    }
    let exit = live.exit_known().await;
    let _ = tokio::time::timeout(SHIM_END_WAIT, live.emptied()).await;
    if live.is_empty() { Found::Ended(exit) } else { Found::Draining(live, exit) }
}

/// A run of another boot. Its last record may have reached the disk.
fn ended_with_the_machine(folder: &RunFolder) -> Exit {
    folder.exit().map_or(Exit::HostRebooted, |exit| outcome(exit.outcome))
}

/// Without a start record no program began; the shim may still have left the reason.
fn never_started(folder: &RunFolder) -> Found {
    folder.exit().map_or(Found::NeverStarted, |exit| Found::Ended(outcome(exit.outcome)))
}

/// A daemon that died in the middle of a launch: the shim goes on, and knows in a moment.
async fn wait_for_exec(folder: &RunFolder, start: &StartRecord) {
    let began = Instant::now();
    let Some(shim) = Watched::open(start.shim_pid, start.shim_id).await else { return };
    while !folder.is_running_marked() && folder.exit().is_none() && !shim.has_exited() {
        if began.elapsed() > EXEC_WAIT {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}
