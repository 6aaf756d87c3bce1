//! The calendar: tells the loop when a unit's schedule comes due.
//!
//! It is read off the published state, so that a new daemon has nothing to restore: a schedule that
//! came due while no daemon lived is not made up for. It follows the wall clock, which may jump:
//! forward, each job runs once; back, its next time is found anew.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use wharf_core::{Fact, Unit};
use wharf_model::{UnitName, Want};
use wharf_runtime::calendar::Schedule;

use crate::{
    engine::{Shared, World},
    turn,
};

/// A wall clock that was set is noticed within this time, where something is scheduled.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Changes of the state are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);

struct Entry {
    text: String,
    schedule: Schedule,
    due_ms: i64,
}

#[derive(Default)]
struct Calendar {
    entries: BTreeMap<UnitName, Entry>,
}

/// Keeps the calendar for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let mut published = shared.published.subscribe();
        let mut calendar = Calendar::default();
        loop {
            for fact in calendar.turn(&shared.world.load(), turn::wall_ms()) {
                shared.tell(fact);
            }
            let wait = calendar.wait(turn::wall_ms());
            tokio::select! {
                changed = published.changed() => match changed {
                    Ok(()) => tokio::time::sleep(TOGETHER).await,
                    Err(_) => return,
                },
                // Without entries nothing wakes it but a change.
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    });
}

fn schedule_of(unit: &Unit) -> Option<&str> {
    unit.policy.schedule.as_deref().filter(|_| unit.want == Want::Up && !unit.held)
}

impl Calendar {
    /// What is to be told, given the units and the time.
    fn turn(&mut self, world: &World, now_ms: i64) -> Vec<Fact> {
        let mut facts = vec![];
        self.entries.retain(|name, entry| {
            let stays = world.get(name).and_then(|unit| schedule_of(unit)) == Some(entry.text.as_str());
            if !stays {
                facts.push(Fact::Scheduled { unit: name.clone(), next_due_ms: None });
            }
            stays
        });
        for (name, unit) in world {
            let Some(text) = schedule_of(unit) else { continue };
            if self.entries.contains_key(name) {
                continue;
            }
            // It was checked when it was given; a time zone that vanished since is the only way to fail.
            let Ok(schedule) = Schedule::parse(text) else { continue };
            let Some(due_ms) = schedule.next_after(now_ms) else { continue };
            facts.push(Fact::Scheduled { unit: name.clone(), next_due_ms: Some(due_ms) });
            self.entries.insert(name.clone(), Entry { text: text.to_owned(), schedule, due_ms });
        }
        for (name, entry) in &mut self.entries {
            let Some(next_ms) = entry.schedule.next_after(now_ms) else { continue };
            let due = entry.due_ms <= now_ms;
            // An earlier next time than the one awaited: the clock was set back.
            if due || next_ms < entry.due_ms {
                entry.due_ms = next_ms;
                facts.push(Fact::Scheduled { unit: name.clone(), next_due_ms: Some(next_ms) });
            }
            if due {
                facts.push(Fact::Due { unit: name.clone() });
            }
        }
        facts
    }

    fn wait(&self, now_ms: i64) -> Option<Duration> {
        let next_ms = self.entries.values().map(|entry| entry.due_ms).min()?;
        Some(Duration::from_millis((next_ms - now_ms).max(0).unsigned_abs()).min(LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_model::Policy;

    const HOUR: i64 = 3_600_000;
    /// A full hour: what is due each hour is due an hour later.
    const NOW: i64 = 500_000 * HOUR;

    fn world(schedule: Option<&str>) -> World {
        let name: UnitName = "command@job".parse().unwrap();
        let mut unit = Unit::blank(name.clone(), None);
        unit.want = Want::Up;
        unit.policy = Arc::new(Policy { schedule: schedule.map(str::to_owned), ..Policy::default() });
        [(name, Arc::new(unit))].into()
    }

    fn dues(facts: &[Fact]) -> usize {
        facts.iter().filter(|fact| matches!(fact, Fact::Due { .. })).count()
    }

    #[test]
    fn an_hour_passes_and_it_is_due_once() {
        let (mut calendar, world) = (Calendar::default(), world(Some("0 * * * *")));
        assert_eq!(dues(&calendar.turn(&world, NOW + 1)), 0);
        assert_eq!(dues(&calendar.turn(&world, NOW + HOUR)), 1);
        assert_eq!(dues(&calendar.turn(&world, NOW + HOUR + 5)), 0);
        assert_eq!(dues(&calendar.turn(&world, NOW + 2 * HOUR)), 1);
    }

    #[test]
    fn a_clock_that_jumps_ten_years_makes_one_run_and_no_storm() {
        let (mut calendar, world) = (Calendar::default(), world(Some("0 * * * *")));
        calendar.turn(&world, NOW + 1);
        let ten_years = 87_600 * HOUR;
        assert_eq!(dues(&calendar.turn(&world, NOW + ten_years + 1)), 1);
        assert_eq!(dues(&calendar.turn(&world, NOW + ten_years + 2)), 0);
        // And back: nothing runs, and the next hour counts again.
        assert_eq!(dues(&calendar.turn(&world, NOW + 2)), 0);
        assert_eq!(dues(&calendar.turn(&world, NOW + HOUR)), 1);
    }

    #[test]
    fn a_schedule_that_is_taken_back_is_forgotten() {
        let mut calendar = Calendar::default();
        calendar.turn(&world(Some("0 * * * *")), NOW + 1);
        let facts = calendar.turn(&world(None), NOW + 2);
        assert_eq!(facts.len(), 1);
        assert_eq!(calendar.wait(NOW), None);
    }
}
