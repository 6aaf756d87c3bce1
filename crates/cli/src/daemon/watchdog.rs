//! What the service manager is told while the daemon works: that it is ready, and that its loop lives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use wharf_api::{Caller, ListParams, Peer, ServiceApi};
use wharf_engine::Engine;
use wharf_model::Phase;

use super::{
    LOOK_AGAIN,
    notify::{self, Notify},
};

/// How long a first look at all recorded runs is waited for, before the service manager is told.
const LOOKED_WITHIN: Duration = Duration::from_secs(30);

/// Tells the service manager when all is served and looked at, and from then on that the loop lives.
pub(super) async fn attend(engine: Engine, notify: Notify, is_supervised: Arc<AtomicBool>) {
    if !is_supervised.load(Ordering::SeqCst) {
        return;
    }
    // A run that hangs in a look is no reason to call the daemon not ready.
    let _ = tokio::time::timeout(LOOKED_WITHIN, looked_at(&engine)).await;
    notify.ready(&status(&engine));
    let Some(every) = notify::watchdog() else { return };
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        // Through the loop and back: a loop that hangs is not spoken for.
        if engine.answers().await {
            notify.alive(&status(&engine));
        }
    }
}

/// Returns when every recorded run was looked at.
pub(super) async fn looked_at(engine: &Engine) {
    let caller = Caller { peer: Peer { uid: 0, gid: 0, pid: 0, identity: None }, stream: None, client: None };
    while engine
        .list(&caller, ListParams::default())
        .await
        .is_ok_and(|rows| rows.iter().any(|r| r.status == Phase::Unknown))
    {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn status(engine: &Engine) -> String {
    let daemon = engine.daemon();
    format!("{} of {} units run", daemon.units_running, daemon.units)
}
