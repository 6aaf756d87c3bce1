//! What a holder is worth: what its going would cost, as far as it has been seen.
//!
//! ```text
//!   value = milliseconds to load it again × uses an hour, of late × how much it matters
//! ```
//!
//! What is learned of a holder is kept by its name and outlives its leases: how long its loading took, how often it
//! was used, what it was seen to take at most. A use counts half after 45 minutes, a quarter after 90. Of a holder
//! that has no uses yet there is only what loading it has cost: its credit, from which everybody who stays pays when
//! somebody is sent away (Young's Landlord, which contains least-recently-used and GreedyDual-Size).
//!
//! Whole numbers throughout: the same journal gives the same values on every machine. It refuses to know who may be
//! sent away.

use serde::{Deserialize, Serialize};

/// After so long a use counts half, in milliseconds.
pub const HALF_LIFE_MS: u64 = 45 * 60 * 1000;
/// Uses within this are one: a burst of requests is answered by one load.
const EPISODE_MS: u64 = 10_000;
/// One use, in the parts that uses are counted in.
const ONE: u64 = 1 << 16;
/// Uses an hour at which the decayed count stays at one: ln 2 × 60 / 45, in 65536ths.
const HOURLY: u64 = 60_571;
/// 2^-(1/2), 2^-(1/4), 2^-(1/8) and so on, in parts of 2^32: a power of two is put together from its bits.
const ROOTS: [u64; 20] = [
    3_037_000_500,
    3_611_622_603,
    3_938_502_376,
    4_112_874_773,
    4_202_935_003,
    4_248_701_965,
    4_271_771_996,
    4_283_353_945,
    4_289_156_690,
    4_292_061_010,
    4_293_513_907,
    4_294_240_540,
    4_294_603_903,
    4_294_785_595,
    4_294_876_445,
    4_294_921_870,
    4_294_944_583,
    4_294_955_939,
    4_294_961_618,
    4_294_964_457,
];
/// A load that nobody has timed: so many milliseconds, and so many for each GiB.
const START_MS: u64 = 3_000;
const GIB_MS: u64 = 1_000;
/// Longer than this nothing loads.
const MOST_RELOAD_MS: u64 = 3_600_000;

/// What was seen of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// How long loading takes, in milliseconds: half the last time, half what it was before. 0: never timed.
    pub load_ms: u64,
    /// How often it was loaded.
    pub loads: u64,
    /// Uses, in 65536ths, as they counted at `last_used_ms`.
    pub uses: u64,
    /// When it was last used, by the boot clock.
    pub last_used_ms: u64,
    /// What is left of what loading it has cost, in milliseconds.
    pub credit_ms: u64,
    /// The most that it was seen to take on one device, in bytes.
    pub high_water_bytes: u64,
}

/// What everybody who stays pays for each GiB when somebody is sent away, in milliseconds of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rent(u64);

impl Learned {
    /// How long loading takes, in milliseconds; none: never timed.
    pub fn reload_ms(&self) -> Option<u64> {
        Some(self.load_ms).filter(|ms| *ms > 0)
    }

    /// It has been loaded, in so many milliseconds.
    pub fn loaded(&mut self, took_ms: u64) {
        let took_ms = took_ms.clamp(1, MOST_RELOAD_MS);
        self.load_ms = self.reload_ms().map_or(took_ms, |before| before.midpoint(took_ms).max(1));
        self.loads += 1;
        self.credit_ms = self.load_ms;
    }

    /// It is used.
    pub fn used(&mut self, now_ms: u64) {
        let since_ms = self.since_ms(now_ms);
        let new = if self.uses == 0 { ONE } else { ONE * since_ms.min(EPISODE_MS) / EPISODE_MS };
        self.uses = decayed(self.uses, since_ms) + new;
        self.last_used_ms = now_ms;
        self.credit_ms = self.load_ms;
    }

    /// It was seen to take so much on one device. True: more than ever.
    pub fn seen_bytes(&mut self, bytes: u64) -> bool {
        let is_more = bytes > self.high_water_bytes;
        self.high_water_bytes = self.high_water_bytes.max(bytes);
        is_more
    }

    /// What its going costs: milliseconds of loading an hour, times how much it matters (50 counts once). `bytes` is
    /// what it takes: from that a load is guessed that nobody has timed.
    pub fn value(&self, now_ms: u64, importance: u8, bytes: u64) -> u64 {
        let guess = START_MS + (bytes >> 20).saturating_mul(GIB_MS) / 1024;
        self.value_by(now_ms, importance, self.reload_ms().unwrap_or(guess))
    }

    /// As [`Learned::value`], where somebody knows what a load costs.
    pub fn value_by(&self, now_ms: u64, importance: u8, reload_ms: u64) -> u64 {
        let reload_ms = reload_ms.clamp(1, MOST_RELOAD_MS);
        let weight = u64::from(importance) + 10;
        let uses = decayed(self.uses, self.since_ms(now_ms));
        let cost = if self.uses == 0 {
            // Nobody has used it: it is worth what is left of its credit, as if it were used once an hour.
            if self.loads > 0 { self.credit_ms } else { reload_ms }
        } else {
            // 22 bits, 26 bits and 16 bits.
            ((reload_ms * uses) >> 16) * HOURLY >> 16
        };
        cost * weight / 60
    }

    /// What the others pay if this one is sent away and has so many bytes.
    pub fn rent(&self, bytes: u64) -> Rent {
        Rent(self.credit_ms.saturating_mul(1024) / (bytes >> 20).max(1))
    }

    /// Somebody else was sent away while this one stays with so many bytes.
    pub fn pay(&mut self, rent: Rent, bytes: u64) {
        let due = u128::from(rent.0) * u128::from(bytes >> 20) / 1024;
        self.credit_ms = self.credit_ms.saturating_sub(u64::try_from(due).unwrap_or(u64::MAX));
    }

    /// Time since the last use. A clock that is behind it was started anew since: while the machine was off, nothing
    /// was wanted of anybody.
    fn since_ms(&self, now_ms: u64) -> u64 {
        now_ms.checked_sub(self.last_used_ms).unwrap_or(now_ms)
    }
}

/// What is left of it after so long.
fn decayed(uses: u64, elapsed_ms: u64) -> u64 {
    let halvings = elapsed_ms / HALF_LIFE_MS;
    if halvings >= 40 {
        return 0;
    }
    // The part of a half-life beyond whole ones, in parts of 2^20, its highest bit first.
    let part = ((elapsed_ms % HALF_LIFE_MS) << ROOTS.len()) / HALF_LIFE_MS;
    let bits = ROOTS.iter().enumerate().filter(|(n, _)| part & (1 << (ROOTS.len() - 1 - n)) != 0);
    let factor = bits.fold(1u64 << 32, |factor, (_, root)| ((u128::from(factor) * u128::from(*root)) >> 32) as u64);
    // Rounded, not cut off: a use every second is not to count for less than it is.
    ((uses * factor + (1 << 31)) >> 32) >> halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const GIB: u64 = 1 << 30;

    fn seen(load_ms: u64, uses_at: &[u64]) -> Learned {
        let mut learned = Learned::default();
        learned.loaded(load_ms);
        for at in uses_at {
            learned.used(*at);
        }
        learned
    }

    #[test]
    fn a_use_counts_half_after_45_minutes_and_nothing_after_days() {
        let learned = seen(10_000, &[MINUTE]);
        let at = |minutes: u64| learned.value(MINUTE + minutes * MINUTE, 50, GIB);
        assert_eq!(at(0), 9_242, "once in a mean life of 45 min / ln 2 is 0.9242 an hour, of 10 s each");
        assert_eq!(at(45), 4_621);
        assert_eq!(at(90), 2_310);
        assert!(at(22) > at(23) && at(23) > at(44));
        assert_eq!(at(60 * 24 * 3), 0);
        for (minute, factor) in [(1, 0.984_71), (10, 0.857_24), (22, 0.712_57), (44, 0.507_76)] {
            let exact = 9_242.0 * factor;
            assert!((at(minute) as f64 - exact).abs() < exact / 1_000.0 + 1.0, "{minute}: {} {exact}", at(minute));
        }
    }

    #[test]
    fn more_use_a_dearer_load_and_more_importance_are_worth_more() {
        let now = 60 * MINUTE;
        let value = |load_ms, uses: &[u64], importance| seen(load_ms, uses).value(now, importance, GIB);
        let often: Vec<u64> = (0..12).map(|n| n * 5 * MINUTE).collect();
        let seldom: Vec<u64> = (0..3).map(|n| n * 20 * MINUTE).collect();
        assert!(value(10_000, &often, 50) > 3 * value(10_000, &seldom, 50));
        assert!(value(30_000, &seldom, 50).abs_diff(3 * value(10_000, &seldom, 50)) < 4);
        assert!(value(10_000, &seldom, 80) > value(10_000, &seldom, 50));
        assert!(value(10_000, &seldom, 0) > 0);
    }

    #[test]
    fn a_burst_is_one_use_and_a_steady_stream_is_worth_at_most_one_use_in_ten_seconds() {
        let burst: Vec<u64> = (0..1_000).map(|n| 1_000 + n).collect();
        let (one, many) = (seen(10_000, &[1_000]), seen(10_000, &burst));
        assert!(many.value(2_000, 50, GIB) < 2 * one.value(2_000, 50, GIB));
        let stream: Vec<u64> = (0..36_000).map(|n| n * 1_000).collect();
        let value = seen(10_000, &stream).value(36_000_000, 50, GIB);
        let most = 360 * 10_000;
        assert!(value > most * 95 / 100 && value < most * 105 / 100, "{value}");
    }

    #[test]
    fn a_load_is_half_the_last_time_and_half_what_it_was() {
        let mut learned = Learned::default();
        assert_eq!(learned.reload_ms(), None);
        learned.loaded(8_000);
        assert_eq!(learned.reload_ms(), Some(8_000));
        learned.loaded(16_000);
        assert_eq!((learned.reload_ms(), learned.loads), (Some(12_000), 2));
        learned.loaded(0);
        learned.loaded(u64::MAX);
        assert!(learned.reload_ms().is_some_and(|ms| ms < 3_600_000));
    }

    #[test]
    fn without_history_a_holder_is_worth_what_is_left_of_its_credit() {
        let (mut big, mut small) = (Learned::default(), Learned::default());
        big.loaded(40_000);
        small.loaded(10_000);
        assert!(big.value(0, 50, 40 * GIB) > small.value(0, 50, 2 * GIB));
        // One with 20 s for 10 GiB is sent away: who stays pays 2 s a GiB.
        let mut gone = Learned::default();
        gone.loaded(20_000);
        let rent = gone.rent(10 * GIB);
        big.pay(rent, 15 * GIB);
        small.pay(rent, 2 * GIB);
        assert_eq!((big.credit_ms, small.credit_ms), (10_000, 6_000));
        big.used(1);
        assert_eq!(big.credit_ms, 40_000, "a use restores it");
        small.pay(rent, 200 * GIB);
        assert_eq!(small.credit_ms, 0);
        assert!(Learned::default().value(0, 50, 20 * GIB) > Learned::default().value(0, 50, GIB), "guessed by size");
    }

    #[test]
    fn extremes_do_not_overflow_and_a_machine_that_was_off_forgets_nothing() {
        let learned = seen(u64::MAX, &(0..5_000).map(|n| n * 10_000).collect::<Vec<_>>());
        assert!(learned.value(50_000_000, 100, u64::MAX) < 1 << 40);
        assert_eq!(learned.value(u64::MAX, 255, u64::MAX), 0);
        let before = learned.value(50_000_000, 50, GIB);
        assert!(learned.value(1_000, 50, GIB) > before * 98 / 100, "the boot clock has begun anew");
        let mut learned = learned;
        learned.used(2_000);
        assert_eq!(learned.last_used_ms, 2_000);
    }

    #[test]
    fn what_was_learned_survives_being_written_down() {
        let mut learned = seen(12_345, &[10, 1_000_000]);
        assert!(learned.seen_bytes(GIB) && !learned.seen_bytes(GIB) && learned.seen_bytes(GIB + 1));
        let text = serde_json::to_string(&learned).unwrap();
        assert_eq!(serde_json::from_str::<Learned>(&text).unwrap(), learned);
        assert_eq!(serde_json::from_str::<Learned>("{}").unwrap(), Learned::default(), "an older record is read");
    }
}
