//! What a holder is worth: what its going would cost, as far as it has been seen.
//!
//! ```text
//!   value  = (milliseconds to load it again × uses to be expected an hour + its credit) × how much it matters
//!   uses   = (4 + uses an hour of late) × 10 min / (10 min + time since the last one)
//!   credit = milliseconds to load it again, less the rent that was paid since its last use
//!   how much it matters = (importance + 10) / 60; 0 where nobody has renewed its lease
//! ```
//!
//! Uses of late count half after 45 minutes, and those within five minutes of each other count as parts of one: what
//! costs is the load that a session begins with, not its length. The longer ago the last use, the less is the next one
//! to be expected: people who have gone on to something else do so for a while. Uses alone are worse than least
//! recently used where people work in sessions, the last use alone where a few programs are wanted all day; this holds
//! its own in both (`cargo xtask bench arbiter`). The credit is Young's Landlord, which contains GreedyDual-Size: who
//! stays pays rent by size whenever somebody is sent away, so that what is big and cheap to load goes in the end. Of a
//! holder that nobody has used yet it is all that there is.
//!
//! What is learned of a holder is kept by its name and outlives its leases. Whole numbers throughout: the same journal
//! gives the same values on every machine. It refuses to know who may be sent away.

use serde::{Deserialize, Serialize};
use wharf_model::LeaseState;

use super::{Arbiter, Lease};

/// After so long a use counts half, in milliseconds.
pub const HALF_LIFE_MS: u64 = 45 * 60 * 1000;
/// Uses within this count as parts of one.
const EPISODE_MS: u64 = 5 * 60 * 1000;
/// Uses an hour that are expected of whoever was used at all, in 65536ths.
const BESIDE: u64 = 4 * ONE;
/// After so long without a use the next is expected half as soon.
const GAP_MS: u64 = 10 * 60 * 1000;
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

/// Of the weight of a value: what counts once.
pub const WEIGHT_OF: u64 = 60;
/// One use, where uses to be expected are told.
pub const MICRO: u64 = 1_000_000;

/// How well it is known what a load takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was timed.
    Measured,
    /// Its request says so.
    Said,
    /// By its size.
    Guessed,
}

/// A value and what it is made of: `(reload_ms * expected_micro / MICRO + credit_ms) * weight / WEIGHT_OF`, each
/// division cut off, in this order. There are no other figures in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// What loading it again takes, in milliseconds.
    pub reload_ms: u64,
    /// How that is known.
    pub known: Known,
    /// Uses to be expected an hour, in millionths.
    pub expected_micro: u64,
    /// What is left of what loading it has cost, in milliseconds.
    pub credit_ms: u64,
    /// How much it matters, in sixtieths.
    pub weight: u64,
    /// What its going costs: milliseconds of loading an hour, times how much it matters.
    pub value: u64,
}

impl Worth {
    fn of(reload_ms: u64, known: Known, expected_micro: u64, credit_ms: u64, weight: u64) -> Self {
        // 22 bits, 25 bits and 9 bits.
        let value = (reload_ms * expected_micro / MICRO + credit_ms) * weight / WEIGHT_OF;
        Self { reload_ms, known, expected_micro, credit_ms, weight, value }
    }
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
        self.worth(now_ms, u64::from(importance) + 10, None, bytes).value
    }

    /// The same with what it is made of. `said_ms`: what a load takes, as somebody says who should know.
    fn worth(&self, now_ms: u64, weight: u64, said_ms: Option<u64>, bytes: u64) -> Worth {
        let guess = START_MS + (bytes >> 20).saturating_mul(GIB_MS) / 1024;
        let (reload_ms, known) = match (self.reload_ms(), said_ms) {
            (Some(ms), _) => (ms, Known::Measured),
            (None, Some(ms)) => (ms, Known::Said),
            (None, None) => (guess, Known::Guessed),
        };
        let reload_ms = reload_ms.clamp(1, MOST_RELOAD_MS);
        let credit_ms = if self.loads > 0 { self.credit_ms } else { reload_ms };
        Worth::of(reload_ms, known, self.expected_micro(now_ms), credit_ms, weight)
    }

    /// Uses to be expected an hour, in millionths. One that nobody has used is not known to be wanted.
    fn expected_micro(&self, now_ms: u64) -> u64 {
        if self.uses == 0 {
            return 0;
        }
        let gap_ms = GAP_MS.saturating_add(self.since_ms(now_ms));
        ((BESIDE + self.hourly(now_ms)) * GAP_MS / gap_ms * MICRO) >> 16
    }

    /// Uses an hour of late, in thousandths.
    pub fn uses_an_hour_milli(&self, now_ms: u64) -> u64 {
        (self.hourly(now_ms) * 1000) >> 16
    }

    /// Uses an hour of late, in 65536ths.
    fn hourly(&self, now_ms: u64) -> u64 {
        (decayed(self.uses, self.since_ms(now_ms)) * HOURLY) >> 16
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

impl Arbiter {
    /// What a holder is worth just now: by these figures it is weighed against others, and they are what people see.
    pub fn worth(&self, now_ms: u64, lease: &Lease) -> Worth {
        let learned = self.book.learned.get(&lease.label()).copied().unwrap_or_default();
        // Expired ones go first: nobody has said for a while that they matter.
        let expired = lease.state == LeaseState::Expired;
        let weight = if expired { 0 } else { u64::from(lease.request.importance) + 10 };
        learned.worth(now_ms, weight, lease.request.reload_ms, lease.charge())
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

    /// Without the credit.
    fn expected(learned: Learned, now_ms: u64) -> u64 {
        Learned { credit_ms: 0, ..learned }.value(now_ms, 50, GIB)
    }

    #[test]
    fn a_use_counts_half_after_45_minutes_and_nothing_after_days() {
        let learned = seen(10_000, &[MINUTE]);
        let at = |minutes: u64| learned.uses_an_hour_milli(MINUTE + minutes * MINUTE);
        assert_eq!(at(0), 924, "once in a mean life of 45 min / ln 2");
        assert_eq!((at(45), at(90)), (462, 231));
        assert_eq!(at(60 * 24 * 3), 0);
        for (minute, factor) in [(1, 0.984_71), (10, 0.857_24), (22, 0.712_57), (44, 0.507_76)] {
            let exact = 924.24 * factor;
            assert!((at(minute) as f64 - exact).abs() < 1.5, "{minute}: {} {exact}", at(minute));
        }
    }

    #[test]
    fn the_longer_ago_the_last_use_the_less_is_the_next_to_be_expected() {
        let learned = seen(10_000, &[MINUTE]);
        let at = |minutes: u64| expected(learned, MINUTE + minutes * MINUTE);
        assert_eq!(at(0), 49_242, "4.9242 times an hour, 10 s each");
        assert!(at(10) < at(0) / 2 && at(10) > at(0) * 4 / 10, "{}", at(10));
        assert!(at(60) < at(0) / 7 && at(24 * 60) > 0);
        let worth = learned.value(MINUTE, 50, GIB);
        assert_eq!(worth, 49_242 + 10_000, "and its credit");
    }

    #[test]
    fn more_use_a_dearer_load_and_more_importance_are_worth_more() {
        let now = 60 * MINUTE;
        let value = |load_ms, uses: &[u64], importance| seen(load_ms, uses).value(now, importance, GIB);
        let often: Vec<u64> = (0..10).map(|n| n * 6 * MINUTE).collect();
        let seldom: Vec<u64> = vec![14 * MINUTE, 54 * MINUTE];
        assert!(value(10_000, &often, 50) > value(10_000, &seldom, 50) * 3 / 2);
        assert!(value(30_000, &seldom, 50).abs_diff(3 * value(10_000, &seldom, 50)) < 4);
        assert!(value(10_000, &seldom, 80) > value(10_000, &seldom, 50));
        assert!(value(10_000, &seldom, 0) > 0);
    }

    #[test]
    fn a_session_is_few_uses_however_many_requests_it_has() {
        let burst: Vec<u64> = (0..1_000).map(|n| 1_000 + n).collect();
        let (one, many) = (seen(10_000, &[1_000]), seen(10_000, &burst));
        assert!(many.value(2_000, 50, GIB) < one.value(2_000, 50, GIB) * 101 / 100);
        let stream: Vec<u64> = (0..36_000).map(|n| n * 1_000).collect();
        let uses = seen(10_000, &stream).uses_an_hour_milli(36_000_000);
        assert!((11_900..12_100).contains(&uses), "one in five minutes at most: {uses}");
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
    fn who_stays_pays_by_size_and_a_use_restores_the_credit() {
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
        assert_eq!((big.value(0, 50, GIB), small.value(0, 50, GIB)), (10_000, 6_000), "unused: the credit alone");
        big.used(1);
        assert_eq!(big.credit_ms, 40_000);
        small.pay(rent, 200 * GIB);
        assert_eq!(small.credit_ms, 0);
        assert!(Learned::default().value(0, 50, 20 * GIB) > Learned::default().value(0, 50, GIB), "guessed by size");
    }

    #[test]
    fn extremes_do_not_overflow_and_a_machine_that_was_off_forgets_nothing() {
        let mut learned = seen(u64::MAX, &(0..5_000).map(|n| n * 300_000).collect::<Vec<_>>());
        let now = 5_000 * 300_000;
        assert!(learned.value(now, 255, u64::MAX) < 1 << 40);
        assert!(learned.value(u64::MAX, 255, u64::MAX) > 0, "its credit");
        let before = learned.value(now, 50, GIB);
        assert!(learned.value(1_000, 50, GIB) > before * 98 / 100, "the boot clock has begun anew");
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
