//! The kill loop, in short: a real daemon, twenty units that check their own world, `kill -9` at random moments.
//! `cargo xtask chaos` is the long one.

use std::time::{SystemTime, UNIX_EPOCH};

use wharf_tests::chaos::{Plan, run};

#[test]
fn p1_p2_forty_kills_under_churn_lose_and_double_nothing() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos().into());
    let seed = std::env::var("WHARF_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(clock);
    println!("seed {seed}: WHARF_SEED={seed} cargo xtask test p1_p2");
    let report = run(Plan { rounds: 40, seed });
    println!("{}", report.text());
    assert!(report.is_clean(), "{}", report.text());
}
