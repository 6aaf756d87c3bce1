//! Shrinking: the fewest deeds that still break the same rule (delta debugging, Zeller 1999).

use std::time::{Duration, Instant};

use crate::{deed::Deed, play};

/// The fewest of these deeds that still break the rule, as far as the time goes.
pub fn shrink(list: Vec<Deed>, rule: &'static str, limit: Duration) -> Vec<Deed> {
    let began = Instant::now();
    // When the time is up nothing more breaks, so nothing more is left out.
    let breaks =
        |list: &[Deed]| began.elapsed() < limit && play::deeds(list, false).1.is_err_and(|broken| broken.rule == rule);
    least(list, &breaks)
}

/// Leaves out what is not needed, in ever smaller pieces, until no single deed can go.
pub fn least(mut list: Vec<Deed>, breaks: &dyn Fn(&[Deed]) -> bool) -> Vec<Deed> {
    if !breaks(&list) {
        return list;
    }
    let mut chunk = list.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < list.len() {
            let end = (at + chunk).min(list.len());
            let without: Vec<Deed> = list[..at].iter().chain(&list[end..]).cloned().collect();
            if breaks(&without) {
                list = without;
                shorter = true;
            } else {
                at = end;
            }
        }
        match (chunk, shorter) {
            (1, false) => return list,
            (1, true) => {}
            (_, _) => chunk /= 2,
        }
    }
}
