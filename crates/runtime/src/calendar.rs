//! When schedules come due: cron expressions in the machine's time zone.
//!
//! It owns the reading of an expression; it refuses to know what runs by it. The wall clock is used
//! here and nowhere else for a decision: a schedule is a promise about it.

use std::str::FromStr;

use croner::Cron;
use jiff::{Timestamp, tz::TimeZone};
use wharf_model::{ErrorKind, Failure};

/// A cron expression that was understood.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Five fields (minute, hour, day of the month, month, day of the week), or `@hourly` and its like.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        Self::in_zone(text, TimeZone::system())
    }

    fn in_zone(text: &str, zone: TimeZone) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::new(ErrorKind::InvalidParams, format!("policy.schedule: {text:?} is no schedule: {why}"))
                .hint("minute hour day month weekday, as in \"30 3 * * *\"; or @hourly, @daily, @weekly, @monthly")
        };
        let cron = Cron::from_str(text.trim()).map_err(|e| wrong(e.to_string()))?;
        let schedule = Self { cron, zone };
        // An expression that never comes due is a slip: the 30th of February.
        schedule.next_after(Timestamp::now().as_millisecond()).ok_or_else(|| wrong("it never comes due".into()))?;
        Ok(schedule)
    }

    /// When it next comes due after this, both in milliseconds since 1970.
    pub fn next_after(&self, wall_ms: i64) -> Option<i64> {
        let from = Timestamp::from_millisecond(wall_ms).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, from: &str) -> String {
        let from: Timestamp = from.parse().unwrap();
        let schedule = Schedule::in_zone(text, TimeZone::UTC).unwrap();
        let due = schedule.next_after(from.as_millisecond()).unwrap();
        Timestamp::from_millisecond(due).unwrap().to_string()
    }

    #[test]
    fn a_night_job_comes_due_at_night() {
        assert_eq!(next("30 3 * * *", "2026-11-21T07:40:00Z"), "2026-11-22T03:30:00Z");
        assert_eq!(next("*/5 * * * *", "2026-11-21T07:40:00Z"), "2026-11-21T07:45:00Z");
        assert_eq!(next("@monthly", "2026-11-21T07:40:00Z"), "2026-12-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_an_example() {
        for text in ["", "61 * * * *", "* * *", "often", "0 0 30 2 *"] {
            let failure = Schedule::parse(text).expect_err(text);
            assert!(failure.hint.unwrap().contains("30 3 * * *"), "{text}");
        }
    }
}
