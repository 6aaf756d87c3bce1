//! A run on its way from the launcher to whoever wanted it.
//!
//! Whoever wanted it may have left, before it is made or in the very moment in which it arrives. It
//! belongs to itself until it is taken: dropped before that, it is ended.

use std::sync::Arc;

use wharf_model::{Failure, RunId, UnitName};

use super::{Shared, live::LiveRun};

/// A run that was made and that nobody has taken yet.
pub struct Made {
    unit: UnitName,
    live: Option<LiveRun>,
    under_way: Option<UnderWay>,
}

impl Made {
    pub fn new(unit: UnitName, live: LiveRun, under_way: UnderWay) -> Self {
        Self { unit, live: Some(live), under_way: Some(under_way) }
    }

    /// It is the caller's from here on.
    pub fn take(mut self) -> Result<LiveRun, Failure> {
        self.live.take().ok_or_else(|| Failure::new(wharf_model::ErrorKind::Internal, "a run was taken twice"))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // A daemon that ends has no runtime any more, and leaves the run to the next one.
        let (Some(live), Some(under_way), Ok(runtime)) =
            (self.live.take(), self.under_way.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let unit = self.unit.clone();
        runtime.spawn(async move {
            live.kill_all();
            live.emptied().await;
            under_way.shared.forget(&unit, live.run()).await;
        });
    }
}

/// Says that a run is on its way, until it is dropped.
pub struct UnderWay {
    shared: Arc<Shared>,
    run: RunId,
}

impl UnderWay {
    pub fn begin(shared: &Arc<Shared>, run: RunId) -> Self {
        shared.under_way.send_modify(|runs| {
            runs.insert(run);
        });
        Self { shared: shared.clone(), run }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.under_way.send_modify(|runs| {
            runs.remove(&self.run);
        });
    }
}
