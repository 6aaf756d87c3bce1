//! What runs leave outside of their processes: their services end it before anybody is told that the run is over.
//!
//! As a rule there is nothing, and it is done at once. It refuses to know what that could be.

use std::{sync::Arc, time::Duration};

use wharf_core::{Fact, News};
use wharf_model::{RunId, UnitName};

use crate::{acts, engine::Shared};

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(2);

/// Until nothing of the run is left. What cannot be ended now is tried again, and the unit says so: a stop that leaves
/// something has not stopped it.
pub async fn up(shared: Arc<Shared>, unit: UnitName, run: RunId) {
    let Ok(service) = shared.service(&unit) else { return };
    let mut told = String::new();
    loop {
        let Some(known) = shared.world.load().get(&unit).cloned() else { return };
        let mut cx = shared.context(&known);
        cx.run = Some(run);
        let Err(failure) = acts::unbroken(&unit, service.clear(&cx)).await else { return };
        if told != failure.message {
            told.clone_from(&failure.message);
            tracing::warn!("{unit}: what its run {run} has left could not be ended: {failure}");
            let news = News::Status(format!("what it has left could not be ended: {}; tried again", failure.message));
            shared.tell(Fact::Notified { unit: unit.clone(), run, news });
        }
        tokio::time::sleep(AGAIN).await;
    }
}
