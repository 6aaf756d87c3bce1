//! Shrinking: the fewest deeds that still break the same rule (delta debugging, Zeller 1999).

use std::time::{Duration, Instant};

use crate::{deed::Deed, play};

/// Leaves out what is not needed, until nothing more can go or the time is up.
pub fn shrink(mut list: Vec<Deed>, rule: &'static str, limit: Duration) -> Vec<Deed> {
    let began = Instant::now();
    let breaks = |list: &[Deed]| play::deeds(list, false).1.is_err_and(|broken| broken.rule == rule);
    if !breaks(&list) {
        return list;
    }
    let mut chunk = list.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < list.len() {
            if began.elapsed() > limit {
                return list;
            }
            let end = (at + chunk).min(list.len());
            let without: Vec<Deed> = list[..at].iter().chain(&list[end..]).cloned().collect();
            if breaks(&without) {
                list = without;
                shorter = true;
            } else {
                at = end;
            }
        }
        if chunk == 1 && !shorter {
            break;
        }
        if !shorter || chunk > 1 {
            chunk = (chunk / 2).max(1);
        }
    }
    list
}
