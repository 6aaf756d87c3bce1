//! Why a request cannot be met here, in words: said before anybody is asked to leave.

use super::{
    super::board::{Asker, Bar, Board, Place, Verdict},
    place,
};

/// It fits into this machine under no circumstances that waiting or sending away can bring.
pub(super) fn never(board: &Board, asker: &Asker) -> Option<Verdict> {
    let (need, wanted) = (asker.need, place::bytes_wanted(asker.need));
    let count = need.devices as usize;
    if count == 0 {
        return None;
    }
    let says = |largest, short_by, why: String| Some(Verdict::Never { largest, short_by, why });
    let allowed: Vec<&Place> = board.places.iter().filter(|place| place::is_allowed(place, need)).collect();
    let is_out = |place: &&Place| place.bar.as_ref().is_some_and(|bar| !bar.passes());
    let out: Vec<&Place> = allowed.iter().copied().filter(is_out).collect();
    let mut usable: Vec<&Place> = allowed.iter().copied().filter(|place| !is_out(place)).collect();
    usable.sort_by_key(|place| std::cmp::Reverse(place.capacity));
    let largest = usable.first().map_or(0, |place| place.capacity);
    if usable.len() < count {
        let there = match (board.places.len(), allowed.len(), usable.len()) {
            (0, _, _) => "this machine has none".to_owned(),
            (all, 0, _) => format!("of {} none is allowed", devices(all)),
            (_, _, 0) => "none can be used".to_owned(),
            (all, _, some) if some < all => format!("{some} of {all} can be used"),
            (_, _, some) => format!("there {} {some}", if some == 1 { "is" } else { "are" }),
        };
        return says(largest, 0, format!("wants {}, {there}{}", devices(count), reasons(&out)));
    }
    let lacks = wanted.saturating_sub(usable[count - 1].capacity);
    if lacks > 0 {
        let (each, most) = if count == 1 { ("", "largest") } else { (" on each of ", "next") };
        let of = if count == 1 { String::new() } else { devices(count) };
        let (wants, has) = told_apart(wanted, usable[count - 1].capacity);
        let why = format!("wants {wants}{each}{of}, the {most} device that can be used has {has}");
        return says(largest, lacks, format!("{why}{}", reasons(&out)));
    }
    usable.retain(|place| place.capacity >= wanted);
    if need.same_island && count > 1 {
        let of = |island: u32| usable.iter().filter(|place| place.island == Some(island)).count();
        let most = usable.iter().filter_map(|place| place.island).map(of).max().unwrap_or(0);
        if most < count {
            let why = format!("wants {} that reach each other directly, at most {most} do", devices(count));
            return says(largest, 0, format!("{why}{}", reasons(&out)));
        }
    }
    None
}

fn devices(count: usize) -> String {
    if count == 1 { "1 device".into() } else { format!("{count} devices") }
}

fn reasons(out: &[&Place]) -> String {
    let of = |place: &&Place| match &place.bar {
        Some(Bar::Tainted(reason)) => format!("; {} is not to be used: {reason}", place.id),
        Some(Bar::CutUp) => format!("; {} is cut up", place.id),
        Some(Bar::Stale | Bar::Foreign | Bar::WarmingUp(_) | Bar::Kept(_)) | None => String::new(),
    };
    out.iter().map(of).collect()
}

/// Two sizes in words, in GiB with one decimal, or finer where that would make them the same.
fn told_apart(one: u64, other: u64) -> (String, String) {
    let tenths = |bytes: u64| (u128::from(bytes) * 10 + (1 << 29)) >> 30;
    if tenths(one) != tenths(other) {
        let gib = |bytes| format!("{}.{} GiB", tenths(bytes) / 10, tenths(bytes) % 10);
        (gib(one), gib(other))
    } else if one >> 20 != other >> 20 {
        (format!("{} MiB", one >> 20), format!("{} MiB", other >> 20))
    } else {
        (format!("{one} B"), format!("{other} B"))
    }
}
