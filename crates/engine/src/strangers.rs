//! Runs that have a folder and that no unit knows by now: of a deleted unit, or newer than a journal that was
//! restored from a copy. They are ended, and nothing of their unit is started before that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use wharf_model::{ErrorKind, Failure, RunId, UnitName};
use wharf_runtime::launch::Found;

use crate::engine::Shared;

/// After SIGKILL. Whoever waits for longer is told why.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Those that are left.
#[derive(Default)]
pub struct Strangers(watch::Sender<BTreeSet<(UnitName, RunId)>>);

impl Strangers {
    /// Waits until none of the unit's is left.
    ///
    /// # Errors
    /// `precondition` where one does not end.
    pub async fn gone(&self, unit: &UnitName) -> Result<(), Failure> {
        let mut left = self.0.subscribe();
        // The sender is this value's own: it cannot be gone.
        let gone = left.wait_for(|left| !left.iter().any(|(of, _)| of == unit));
        tokio::time::timeout(ENDS_WITHIN, gone).await.map(drop).map_err(|_| {
            let text = format!("a run of {unit} that stands in no journal does not end, not even by SIGKILL");
            Failure::new(ErrorKind::Precondition, text).hint("`wharf doctor` names it; the kernel may hold it: `dmesg`")
        })
    }
}

/// Ends these, each by itself. From now on their units wait for it; what comes back waits for all, and
/// not for ever.
pub fn end(shared: &Arc<Shared>, strangers: Vec<(UnitName, RunId)>) -> impl Future<Output = ()> + use<> {
    shared.strangers.0.send_replace(strangers.iter().cloned().collect());
    let mut left = shared.strangers.0.subscribe();
    for (unit, run) in strangers {
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            if let Found::Alive(live) | Found::Draining(live, _) = shared.launcher.find(&unit, run).await {
                tracing::warn!("{unit}: run {run} stands in no journal: it is ended");
                live.kill_all();
                live.emptied().await;
            }
            shared.launcher.forget(&unit, run).await;
            shared.strangers.0.send_modify(|left| {
                left.remove(&(unit, run));
            });
        });
    }
    async move {
        let _ = tokio::time::timeout(ENDS_WITHIN, left.wait_for(BTreeSet::is_empty)).await;
    }
}
