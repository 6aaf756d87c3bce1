//! How far operations are, as events: whoever did not begin one can watch it too.
//!
//! A stage is told when it begins, and how far it is once a second: a download says so hundreds of times, and the bus
//! keeps what others wait for. Whoever called hears all of it in the stream of the call (`service.progress`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::broadcast::error::RecvError;
use wharf_api::Happened;
use wharf_model::{Progress, UnitName};

use crate::{bus::News, engine::Shared};

/// Within one stage it is told no more often.
const APART: Duration = Duration::from_secs(1);

/// What was told last, by unit.
#[derive(Default)]
struct Told(BTreeMap<UnitName, (String, Instant)>);

impl Told {
    /// Whether this is to be told.
    fn is_news(&self, unit: &UnitName, progress: &Progress, now: Instant) -> bool {
        let last = self.0.get(unit);
        last.is_none_or(|(stage, at)| *stage != progress.stage || now.duration_since(*at) >= APART)
    }
}

/// Tells of progress for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) {
    let mut said = shared.progress.subscribe();
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let mut told = Told::default();
        loop {
            let (unit, progress) = match said.recv().await {
                Ok(said) => said,
                // A step is missed, and the next one seen.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let now = Instant::now();
            if !told.is_news(&unit, &progress, now) {
                continue;
            }
            let world = shared.world.load();
            // Of units that are at rest nothing has to be remembered.
            told.0.retain(|name, _| world.get(name).is_some_and(|unit| unit.busy_with().is_some()));
            let Some((op, _)) = world.get(&unit).and_then(|unit| unit.busy_with()) else { continue };
            told.0.insert(unit.clone(), (progress.stage.clone(), now));
            let Progress { stage, done, total } = progress;
            let happened = Happened::OpProgress { op, stage, done, total };
            shared.bus.publish([News { unit: Some(unit), run: None, happened }]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_told_when_it_begins_and_then_once_a_second() {
        let (unit, begin): (UnitName, _) = ("redis".parse().unwrap(), Instant::now());
        let mut told = Told::default();
        let of = |stage: &str, done| Progress { done: Some(done), ..Progress::stage(stage) };
        let mut tell = |progress: Progress, ms| {
            let now = begin + Duration::from_millis(ms);
            let news = told.is_news(&unit, &progress, now);
            if news {
                told.0.insert(unit.clone(), (progress.stage, now));
            }
            news
        };
        assert!(tell(of("fetching", 0), 0));
        assert!(!tell(of("fetching", 5), 10) && !tell(of("fetching", 50), 999));
        assert!(tell(of("fetching", 60), 1_000), "a second later");
        assert!(tell(of("unpacking", 0), 1_001), "another stage");
        assert!(!tell(of("unpacking", 1), 1_500));
    }
}
