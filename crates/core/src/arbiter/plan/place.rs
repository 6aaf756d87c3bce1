//! The devices as one request sees them, and the best ones for it once it is known what each would cost.
//!
//! ```text
//!   board, request ──> Field { spots: what is short on each device, and who is there }
//!   a price for each spot ──> the k spots with the least (price, foreign, link, left-over, ids)
//! ```
//!
//! The order of that key is the rule of placement: cheapest first, then devices that nobody foreign is on, then
//! devices that are close to each other, then those where least is left over, so that one big hole stays for the big
//! model, then the first by id. It refuses to know how a price is found.

use std::collections::BTreeMap;

use wharf_model::GpuNeed;

use super::super::board::{Asker, Bar, Board, Leave, Place, Resident};

/// Who goes within this is waited for, rather than that another is sent away in its stead.
pub(super) const PATIENCE_MS: u64 = 15_000;

/// Prices count in this, so that a holder's price can be divided among as many devices as a machine has.
const UNIT: u128 = 720_720;
/// Somebody who goes already: next to nothing, yet not chosen without need.
const GOING: u128 = UNIT;
/// Each victim beside its value: fewer are better where the values are the same.
const VICTIM: u128 = UNIT << 8;
/// One of value.
const VALUE: u128 = UNIT << 24;
/// Values beyond this are all the same.
const MOST_VALUE: u64 = 1 << 48;
/// Somebody who must not be sent away: more than all of value on a machine.
const STAYS: u128 = UNIT << 84;
/// Memory that nobody with a lease has: no leaving brings it.
const FOREIGN: u128 = STAYS << 6;

/// By which eyes a board is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// What can be had by what may be done now.
    Now,
    /// What could be had if everybody left: where it is best to wait.
    InTime,
}

/// Somebody on a device who could leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Here {
    /// Which of the board's residents.
    pub who: usize,
    /// What its leaving brings, in bytes.
    pub bytes: u64,
    /// It must leave, however much is free: the two do not share a device.
    pub must: bool,
}

/// A device that this request could go to.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// Which of the board's places.
    pub place: usize,
    /// What must come back before the request fits, in bytes.
    pub short: u64,
    /// Those who could leave, and together bring what is short.
    pub here: Vec<Here>,
    /// What it costs beside who leaves: what stands in the way there is no holder.
    pub toll: u128,
    foreign: bool,
    island: Option<u32>,
    numa: Option<u32>,
    left_over: u64,
}

/// The spots of a request.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// By place.
    pub spots: Vec<Spot>,
    /// What each of the board's residents costs if it leaves; none: it does not.
    pub prices: Vec<Option<u128>>,
    /// How many spots are wanted.
    pub wanted: usize,
    groups: Vec<Vec<usize>>,
}

/// Spots, best first when compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Choice {
    pub price: u128,
    foreign: usize,
    link: u8,
    left_over: u128,
    /// Which spots, ascending.
    pub spots: Vec<usize>,
}

/// What is needed on each device, in bytes. Of a size that nobody knows there must be something.
pub(super) fn bytes_wanted(need: &GpuNeed) -> u64 {
    need.vram_bytes.unwrap_or(1)
}

/// It is among those that are asked for.
pub(super) fn is_allowed(place: &Place, need: &GpuNeed) -> bool {
    (need.only.is_empty() || need.only.contains(&place.id)) && !need.avoid.contains(&place.id)
}

/// What speaks against a place for this request. What is kept for it, or is its own doing, does not.
pub(super) fn bar_of<'a>(place: &'a Place, asker: &Asker) -> Option<&'a Bar> {
    place.bar.as_ref().filter(|bar| match bar {
        Bar::Kept(by) | Bar::WarmingUp(by) => Some(*by) != asker.lease,
        Bar::Tainted(_) | Bar::CutUp | Bar::Stale | Bar::Foreign => true,
    })
}

/// The request and the resident must not be on one device.
pub(super) fn are_apart(asker: &Asker, resident: &Resident) -> bool {
    let strangers = |only: &[wharf_model::UnitName], unit: Option<&wharf_model::UnitName>| {
        !only.is_empty() && !unit.is_some_and(|unit| only.contains(unit))
    };
    let never = |list: &[wharf_model::UnitName], unit: Option<&wharf_model::UnitName>| {
        unit.is_some_and(|unit| list.contains(unit))
    };
    asker.need.is_alone()
        || resident.alone
        || never(&asker.need.never_with, resident.unit.as_ref())
        || never(&resident.never_with, asker.unit)
        || strangers(&asker.need.only_with, resident.unit.as_ref())
        || strangers(&resident.only_with, asker.unit)
}

/// `apart`: the two must not be on one device, so that it is not enough when the holder makes room.
fn price(leave: &Leave, apart: bool, view: View) -> Option<u128> {
    match (leave, view) {
        (Leave::Going { keeps: 1.., .. }, View::Now) if apart => None,
        (Leave::Going { keeps: 1.., .. }, View::InTime) if apart => Some(STAYS),
        (Leave::May { value, .. }, View::Now | View::InTime) => {
            Some(u128::from(*value.min(&MOST_VALUE)) * VALUE + VICTIM)
        }
        (Leave::Going { est_ms, .. }, View::Now) => Some(GOING).filter(|_| *est_ms <= PATIENCE_MS),
        (Leave::Going { .. }, View::InTime) => Some(GOING),
        (Leave::No(_), View::Now) => None,
        (Leave::No(_), View::InTime) => Some(STAYS),
    }
}

/// What a bar costs those who wait; none: waiting does not help.
fn toll(bar: Option<&Bar>) -> Option<u128> {
    match bar {
        None => Some(0),
        Some(Bar::WarmingUp(_)) => Some(STAYS / 4),
        Some(Bar::Stale) => Some(STAYS / 2),
        Some(Bar::Kept(_)) => Some(STAYS),
        Some(Bar::Foreign) => Some(FOREIGN),
        Some(Bar::Tainted(_) | Bar::CutUp) => None,
    }
}

impl Field {
    /// What a request can make of a board.
    pub fn new(board: &Board, asker: &Asker, view: View) -> Self {
        let others = |r: &&Resident| Some(r.lease) != asker.lease;
        let prices: Vec<_> = board.residents.iter().map(|r| price(&r.leave, are_apart(asker, r), view)).collect();
        let mut there = vec![vec![]; board.places.len()];
        for (who, resident) in board.residents.iter().enumerate().filter(|(_, r)| others(r)) {
            let must = are_apart(asker, resident);
            let keeps = match resident.leave {
                Leave::Going { keeps, .. } => keeps,
                Leave::May { .. } | Leave::No(_) => 0,
            };
            for &(place, bytes) in &resident.shares {
                if let Some(there) = there.get_mut(place) {
                    there.push(Here { who, bytes: bytes.saturating_sub(keeps), must });
                }
            }
        }
        let spots = there
            .into_iter()
            .enumerate()
            .filter_map(|(place, there)| Spot::new(board, place, there, asker, view, &prices))
            .collect();
        let mut field = Self { spots, prices, wanted: asker.need.devices as usize, groups: vec![] };
        field.groups = field.close_to_each_other(asker.need.same_island);
        field
    }

    /// The sets of spots within which the best are looked for: each island, each memory node, all.
    fn close_to_each_other(&self, same_island: bool) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = vec![];
        let all: Vec<usize> = (0..self.spots.len()).collect();
        if self.wanted > 1 {
            let mut by: BTreeMap<(bool, u32), Vec<usize>> = BTreeMap::new();
            for (at, spot) in self.spots.iter().enumerate() {
                let island = spot.island.map(|n| (false, n));
                let numa = spot.numa.map(|n| (true, n)).filter(|_| !same_island);
                for group in island.into_iter().chain(numa) {
                    by.entry(group).or_default().push(at);
                }
            }
            groups.extend(by.into_values());
        }
        if self.wanted == 1 || !same_island {
            groups.push(all);
        }
        groups.retain(|group| group.len() >= self.wanted);
        groups.dedup();
        groups
    }

    /// There are enough spots, and close enough to each other.
    pub fn is_enough(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The best spots, if each of them costs so much; none: it cannot be had.
    ///
    /// Exact: within a group all of the key but the link is a sum over the spots, so the spots with the least parts
    /// have the least sum; and a set with a closer link than the best of all lies within one of the closer groups.
    pub fn choose(&self, costs: &[Option<u128>]) -> Option<Choice> {
        let mut best: Option<Choice> = None;
        let mut order: Vec<(u128, bool, u64, usize)> = Vec::with_capacity(self.spots.len());
        for group in &self.groups {
            order.clear();
            order.extend(group.iter().filter_map(|&at| {
                let spot = &self.spots[at];
                costs[at].map(|cost| (cost, spot.foreign, spot.left_over, at))
            }));
            if order.len() < self.wanted {
                continue;
            }
            order.sort_unstable();
            let price = order[..self.wanted].iter().map(|one| one.0).sum();
            if best.as_ref().is_some_and(|best| best.price < price) {
                continue;
            }
            let choice = self.choice(price, order[..self.wanted].iter().map(|one| one.3).collect());
            if best.as_ref().is_none_or(|best| choice < *best) {
                best = Some(choice);
            }
        }
        best
    }

    /// These spots, for so much.
    pub fn choice(&self, price: u128, mut spots: Vec<usize>) -> Choice {
        spots.sort_unstable();
        let chosen = || spots.iter().map(|at| &self.spots[*at]);
        let same = |of: fn(&Spot) -> Option<u32>| {
            let first = chosen().next().and_then(of);
            first.is_some() && chosen().all(|spot| of(spot) == first)
        };
        let link = match () {
            () if spots.len() < 2 || same(|spot| spot.island) => 0,
            () if same(|spot| spot.numa) => 1,
            () => 2,
        };
        let foreign = chosen().filter(|spot| spot.foreign).count();
        let left_over = chosen().map(|spot| u128::from(spot.left_over)).sum();
        Choice { price, foreign, link, left_over, spots }
    }
}

impl Spot {
    fn new(
        board: &Board,
        at: usize,
        mut here: Vec<Here>,
        asker: &Asker,
        view: View,
        prices: &[Option<u128>],
    ) -> Option<Self> {
        let place = board.places.get(at)?;
        let need = asker.need;
        let wanted = bytes_wanted(need);
        let bar = bar_of(place, asker);
        let mut toll = toll(bar)?;
        if !is_allowed(place, need) || wanted > place.capacity || (view == View::Now && bar.is_some()) {
            return None;
        }
        let own = board.residents.iter().filter(|r| Some(r.lease) == asker.lease).flat_map(|r| &r.shares);
        let own: u64 = own.filter(|(place, _)| *place == at).map(|(_, bytes)| *bytes).sum();
        let (free, taken) = (place.free.saturating_add(own), wanted.saturating_add(place.over));
        let mut short = taken.saturating_sub(free);
        if here.iter().any(|one| one.must && prices[one.who].is_none()) {
            return None;
        }
        here.retain(|one| prices[one.who].is_some() && (one.must || one.bytes > 0));
        let brings = here.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes));
        if brings < short {
            if view == View::Now {
                return None;
            }
            toll += FOREIGN;
            short = brings;
        }
        let left_over = match need.vram_bytes {
            // Nobody knows how much it will take: the most likely to do is the one with the most.
            None => u64::MAX - place.capacity,
            Some(_) if need.is_alone() => place.capacity - wanted,
            Some(_) => free.saturating_sub(taken),
        };
        let foreign = place.foreign > 0;
        Some(Self { place: at, short, here, toll, foreign, island: place.island, numa: place.numa, left_over })
    }
}
