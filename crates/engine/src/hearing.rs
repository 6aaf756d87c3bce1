//! What programs say of themselves, as facts. One task for each run that is listened to; it sleeps
//! until something is said and ends with the run.

use std::sync::Arc;

use wharf_core::{Fact, Life, News};
use wharf_model::{Phase, RunId, UnitName};
use wharf_runtime::{
    launch::LiveRun,
    notify::{Ear, Said},
};

use crate::engine::Shared;

/// Listens to a run that was just made, if its policy wants that.
pub fn begin(shared: &Arc<Shared>, unit: &UnitName, run: RunId, live: &LiveRun) {
    if let Some(ear) = shared.hands.ear(run) {
        listen(shared.clone(), unit.clone(), run, live.clone(), ear);
    }
}

/// Listens again to a run that an earlier daemon made.
pub fn again(shared: &Arc<Shared>, unit: &UnitName, run: RunId, live: &LiveRun) {
    let world = shared.world.load();
    let Some(known) = world.get(unit) else { return };
    let is_starting = matches!(known.life, Life::Unknown { was: Phase::Starting, .. });
    match shared.hands.ear_again(run, live, &known.policy, is_starting) {
        Ok(Some(ear)) => listen(shared.clone(), unit.clone(), run, live.clone(), ear),
        Ok(None) => {}
        Err(failure) => tracing::warn!("{unit}: it is not heard any more: {failure}"),
    }
}

fn listen(shared: Arc<Shared>, unit: UnitName, run: RunId, live: LiveRun, mut ear: Ear) {
    shared.tasks.clone().spawn(async move {
        let mut over = std::pin::pin!(live.emptied());
        loop {
            let heard = tokio::select! {
                heard = ear.hear() => heard,
                () = &mut over => break,
            };
            for said in heard.said {
                if let Some(news) = news(said, &unit, &live) {
                    shared.tell(Fact::Notified { unit: unit.clone(), run, news });
                }
            }
            // Whoever waits for it goes on from here: all that it said is on its way.
            drop(heard.barriers);
        }
        let unheard = ear.unheard();
        if unheard != Default::default() {
            tracing::info!(
                "{unit}: run {run}: not heard: {} of strangers, {} too many, {} cut, {} with descriptors",
                unheard.strangers,
                unheard.dropped,
                unheard.cut,
                unheard.not_stored
            );
        }
    });
}

/// In the core's words. A main process that cannot be watched is none.
fn news(said: Said, unit: &UnitName, live: &LiveRun) -> Option<News> {
    Some(match said {
        Said::Ready => News::Ready,
        Said::Stopping => News::Stopping,
        Said::Status(text) => News::Status(text),
        Said::Alive => News::Alive,
        Said::Trigger => News::Trigger,
        Said::WatchdogPeriod(ms) => News::WatchdogPeriod(ms),
        Said::Extend(ms) => News::Extend(ms),
        Said::MainPid(pid) => match live.set_main(pid) {
            Ok(()) => News::MainPid(pid),
            Err(e) => {
                tracing::warn!("{unit}: its main process is not {pid}: {e}");
                return None;
            }
        },
    })
}
