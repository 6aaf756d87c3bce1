//! Where a request goes, and who leaves for it: geometry on a [`Board`], nothing else.
//!
//! ```text
//!   Never   not even with everybody gone ........ said first: nobody leaves for what cannot be
//!   Fits    k devices, and the cheapest holders that may be sent away from them (plan/evict.rs)
//!   Waits   neither: where the fewest and cheapest stand in the way
//! ```
//!
//! Whether it fits is always exact: each device tells for itself whether it would do with all who may leave gone. What
//! takes a search is who leaves at the least cost, since a holder may be on several devices. The search has a budget
//! of nodes, not of time: the same board gives the same plan on a slow machine, in a dry run and in a replay. Up to 16
//! devices with up to 12 holders each it is exact unless the budget runs out; then the best that was found counts,
//! which is never worse than the greedy answer, and never has a victim too many.
//!
//! Somebody who goes already counts as room to come at no cost. Where the cheapest way needs that room the verdict is
//! to wait: sending away another in its stead would be for nothing. Who takes longer than 15 s to go is not
//! waited for if there is another way.

mod cover;
mod evict;
mod never;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use wharf_model::{LeaseId, MakeRoom};

use super::board::{Asker, Bar, Board, Leave, Placement, Verdict, Victim};
use cover::Nodes;
use evict::Found;
use place::{Field, Spot, View};

/// Nodes of one decision: the worst boards of `cargo xtask bench arbiter` take less than 4 ms with it.
pub const BUDGET: u32 = 80_000;

/// A verdict, and how it was come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// What came out.
    pub verdict: Verdict,
    /// There is nothing cheaper: the budget did not run out.
    pub exact: bool,
    /// How many nodes were looked at.
    pub nodes: u32,
}

/// Where the request goes, who leaves for it, or why it does not go at all.
pub fn plan(board: &Board, asker: &Asker, budget: u32) -> Verdict {
    search(board, asker, budget).verdict
}

/// As [`plan`], and says what the search was like.
pub fn search(board: &Board, asker: &Asker, budget: u32) -> Searched {
    let mut nodes = Nodes { left: budget, ran_out: false };
    let verdict = match never::never(board, asker) {
        Some(never) => never,
        None => decide(board, asker, &mut nodes),
    };
    Searched { verdict, exact: !nodes.ran_out, nodes: budget - nodes.left }
}

fn decide(board: &Board, asker: &Asker, nodes: &mut Nodes) -> Verdict {
    if asker.need.devices == 0 {
        return Verdict::Fits(Placement { on: vec![], victims: vec![], cost: 0 });
    }
    let now = Field::new(board, asker, View::Now);
    if let Some(found) = evict::cheapest(&now, nodes) {
        let goes_by_itself = |who: &usize| matches!(board.residents[*who].leave, Leave::Going { .. });
        if !found.out.iter().any(goes_by_itself) {
            return Verdict::Fits(placement(board, asker, &now, &found));
        }
        return waits(board, asker, &now, &found);
    }
    // Where it is best to wait is advice: a quarter of what is left will do.
    let quarter = nodes.left / 4;
    let mut few = Nodes { left: quarter, ran_out: false };
    let later = Field::new(board, asker, View::InTime);
    let found = evict::cheapest(&later, &mut few);
    nodes.left -= quarter - few.left;
    match found {
        Some(found) => waits(board, asker, &later, &found),
        None => Verdict::Never { largest: 0, short_by: 0, why: "no set of devices is allowed for it".into() },
    }
}

fn placement(board: &Board, asker: &Asker, field: &Field, found: &Found) -> Placement {
    let spots: Vec<&Spot> = found.choice.spots.iter().map(|at| &field.spots[*at]).collect();
    let on = spots.iter().map(|spot| {
        let bytes = match asker.need.vram_bytes {
            Some(bytes) if !asker.need.is_alone() => bytes,
            Some(_) | None => space(board, spot.place),
        };
        (spot.place, bytes)
    });
    let mild = milder(board, &spots, &found.out);
    let victims = found.out.iter().map(|who| {
        let (how, keeps) = mild.get(who).copied().unwrap_or((MakeRoom::Stop, 0));
        Victim { lease: board.residents[*who].lease, how, keeps }
    });
    let values = found.out.iter().map(|who| match board.residents[*who].leave {
        Leave::May { value, .. } => value,
        Leave::Going { .. } | Leave::No(_) => 0,
    });
    Placement { on: on.collect(), victims: victims.collect(), cost: values.fold(0, u64::saturating_add) }
}

/// What all leases together can have on a place, in bytes.
fn space(board: &Board, at: usize) -> u64 {
    let place = &board.places[at];
    let shares = board.residents.iter().flat_map(|r| &r.shares).filter(|(place, _)| *place == at);
    shares.fold(place.free, |sum, (_, bytes)| sum.saturating_add(*bytes)).saturating_sub(place.over)
}

/// What is milder than to end, and how many bytes are kept on each device then.
type Mild = (MakeRoom, u64);

/// Of the victims: those who need not end, what is enough instead, and what they keep. The most valuable choose first,
/// each the mildest that is enough.
fn milder(board: &Board, spots: &[&Spot], out: &[usize]) -> BTreeMap<usize, Mild> {
    let mut able: Vec<(u64, usize, [Option<Mild>; 2])> = out
        .iter()
        .filter_map(|who| match board.residents[*who].leave {
            Leave::May { downsize: None, park: None, .. } | Leave::Going { .. } | Leave::No(_) => None,
            Leave::May { value, downsize, park, .. } => {
                let ways =
                    [downsize.map(|keeps| (MakeRoom::Downsize, keeps)), park.map(|keeps| (MakeRoom::Park, keeps))];
                Some((value, *who, ways))
            }
        })
        .collect();
    able.sort_unstable_by_key(|(value, who, _)| (std::cmp::Reverse(*value), *who));
    let mut spare: Vec<u64> = spots.iter().map(|spot| spot.brought(out).saturating_sub(spot.short)).collect();
    let mut mild = BTreeMap::new();
    for (_, who, ways) in able {
        let here = |spot: &Spot| spot.here.iter().find(|here| here.who == who).copied();
        let is_enough = |keeps: u64| {
            spots.iter().zip(&spare).all(|(spot, spare)| match here(spot) {
                Some(here) => !here.must && here.bytes.min(keeps) <= *spare,
                None => true,
            })
        };
        let Some((how, keeps)) = ways.into_iter().flatten().find(|(_, keeps)| is_enough(*keeps)) else { continue };
        for (spot, spare) in spots.iter().zip(&mut spare) {
            *spare -= here(spot).map_or(0, |here| here.bytes.min(keeps));
        }
        mild.insert(who, (how, keeps));
    }
    mild
}

fn waits(board: &Board, asker: &Asker, field: &Field, found: &Found) -> Verdict {
    let spots = || found.choice.spots.iter().map(|at| &field.spots[*at]);
    let wanted = place::bytes_wanted(asker.need);
    let own = |at: usize| -> u64 {
        let own = board.residents.iter().filter(|r| Some(r.lease) == asker.lease).flat_map(|r| &r.shares);
        own.filter(|(place, _)| *place == at).map(|(_, bytes)| *bytes).sum()
    };
    let lacks = |spot: &Spot| {
        let place = &board.places[spot.place];
        wanted.saturating_add(place.over).saturating_sub(place.free.saturating_add(own(spot.place)))
    };
    let bars = spots().filter_map(|spot| match place::bar_of(&board.places[spot.place], asker) {
        Some(Bar::WarmingUp(by) | Bar::Kept(by)) => Some(*by),
        Some(Bar::Tainted(_) | Bar::CutUp | Bar::Stale | Bar::Foreign) | None => None,
    });
    let mut behind: Vec<LeaseId> = found.out.iter().map(|who| board.residents[*who].lease).chain(bars).collect();
    behind.sort_unstable();
    behind.dedup();
    Verdict::Waits {
        on: spots().map(|spot| spot.place).collect(),
        short_by: spots().map(lacks).max().unwrap_or(0),
        behind,
    }
}
