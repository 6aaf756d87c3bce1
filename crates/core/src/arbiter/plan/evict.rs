//! The cheapest set of holders whose leaving lets a request in, and the devices that it then goes to.
//!
//! ```text
//!   holders of one device each  a knapsack for each spot, then the best spots: done
//!   holders of several devices  one leaving helps on all of its devices, and is paid for once
//! ```
//!
//! For the second the price of each is divided among its devices. Then every device stands for itself again, and the
//! sum of the cheapest is a bound that is never too high. The parts are shifted to where they count until the bound
//! gets no better (`shares.rs`); every round shows a real way in too (`ways.rs`). What gap is left is closed by a branch
//! and bound over these holders: the one with the widest gap is decided, out first and then in.
//!
//! A bound is compared as a whole [`Choice`], so that ties of price are decided by placement too.

mod shares;
mod ways;

use super::{
    cover::{Desk, Item, Nodes},
    place::{Choice, Field, Here, Spot},
};

/// What a search has come to.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The spots, and what they cost.
    pub choice: Choice,
    /// Who leaves, by number of the board, ascending.
    pub out: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Out,
    In,
}

/// What a holder has on a spot.
#[derive(Debug, Clone, Copy)]
struct Part {
    spot: usize,
    /// Which of those there.
    nth: usize,
    bytes: u64,
    must: bool,
}

struct Search<'a> {
    field: &'a Field,
    /// Of each resident: what it has where.
    parts: Vec<Vec<Part>>,
    /// Of each spot and each one there: which part of its price is paid there. However the spots are chosen, the parts
    /// on them are never more than the price.
    shares: Vec<Vec<u128>>,
    /// Of each spot: those there for their parts, as the desk wants them.
    items: Vec<Vec<Item>>,
    fate: Vec<Fate>,
    /// Of each spot, as if every device stood for itself: what it costs, and who is picked.
    costs: Vec<Option<u128>>,
    picked: Vec<Vec<usize>>,
    desk: Desk,
    nodes: &'a mut Nodes,
    best: Option<(Choice, Vec<usize>)>,
}

/// The cheapest way in; none: there are too few spots.
pub(super) fn cheapest(field: &Field, nodes: &mut Nodes) -> Option<Found> {
    if !field.is_enough() {
        return None;
    }
    let mut search = Search::new(field, nodes);
    search.pick_all();
    search.share_out();
    search.descend(0);
    let (choice, out) = search.best?;
    Some(Found { choice, out })
}

impl<'a> Search<'a> {
    fn new(field: &'a Field, nodes: &'a mut Nodes) -> Self {
        let mut parts: Vec<Vec<Part>> = vec![vec![]; field.prices.len()];
        for (at, spot) in field.spots.iter().enumerate().filter(|(_, spot)| spot.short > 0 || spot.has_musts()) {
            for (nth, here) in spot.here.iter().enumerate() {
                parts[here.who].push(Part { spot: at, nth, bytes: here.bytes, must: here.must });
            }
        }
        // Evenly among as many spots as its leaving can help on at once.
        let share = |here: &Here| {
            let helps = parts[here.who].len().clamp(1, field.wanted.max(1));
            field.prices[here.who].unwrap_or(0) / helps as u128
        };
        let shares = field.spots.iter().map(|spot| spot.here.iter().map(share).collect()).collect();
        Self {
            field,
            fate: vec![Fate::Open; parts.len()],
            costs: vec![None; field.spots.len()],
            picked: vec![vec![]; field.spots.len()],
            items: vec![vec![]; field.spots.len()],
            parts,
            shares,
            desk: Desk::default(),
            nodes,
            best: None,
        }
    }

    fn pick_all(&mut self) {
        for (at, spot) in self.field.spots.iter().enumerate() {
            let items = spot.here.iter().zip(&self.shares[at]).filter(|(here, _)| !here.must);
            self.items[at] = items.map(|(here, share)| Item::new(here.who, here.bytes, *share)).collect();
            self.items[at].sort_unstable_by_key(Item::order);
            (self.costs[at], self.picked[at]) = self.pick(at);
        }
    }

    /// The cheapest on one spot, at parts of prices, after what has been decided.
    fn pick(&mut self, at: usize) -> (Option<u128>, Vec<usize>) {
        let spot = &self.field.spots[at];
        let (mut short, mut cost, mut out) = (spot.short, spot.toll, vec![]);
        for (nth, here) in spot.here.iter().enumerate() {
            let fate = self.fate[here.who];
            match fate {
                Fate::In if here.must => return (None, vec![]),
                Fate::Open if here.must => {
                    cost += self.shares[at][nth];
                    out.push(here.who);
                }
                Fate::In | Fate::Open | Fate::Out => {}
            }
            if here.must || fate == Fate::Out {
                short = short.saturating_sub(here.bytes);
            }
        }
        if short > 0 {
            self.desk.items.clear();
            let open = self.items[at].iter().filter(|item| self.fate[item.who] == Fate::Open);
            self.desk.items.extend(open);
            let Some((price, picked)) = self.desk.cheapest(short, self.nodes) else { return (None, vec![]) };
            cost += price;
            out.extend_from_slice(picked);
        }
        (Some(cost), out)
    }

    /// One node: bounds it, keeps what it shows, decides one more.
    fn descend(&mut self, paid: u128) {
        let Some(mut bound) = self.field.choose(&self.costs) else { return };
        bound.price += paid;
        if self.best.as_ref().is_some_and(|(best, _)| *best <= bound) {
            return;
        }
        if self.keep(&bound) {
            return;
        }
        let Some(who) = self.widest_gap(&bound.spots) else { return };
        let price = self.field.prices[who].unwrap_or(0);
        let on: Vec<usize> = self.parts[who].iter().map(|part| part.spot).collect();
        for (fate, more) in [(Fate::Out, price), (Fate::In, 0)] {
            let work = NODE + on.iter().map(|at| self.field.spots[*at].work()).sum::<u32>();
            if !self.nodes.spend(work) {
                break;
            }
            self.fate[who] = fate;
            let before: Vec<_> = on.iter().map(|at| self.repick(*at)).collect();
            self.descend(paid + more);
            for (at, (cost, picked)) in on.iter().zip(before) {
                (self.costs[*at], self.picked[*at]) = (cost, picked);
            }
        }
        self.fate[who] = Fate::Open;
    }

    fn repick(&mut self, at: usize) -> (Option<u128>, Vec<usize>) {
        let (cost, picked) = self.pick(at);
        (std::mem::replace(&mut self.costs[at], cost), std::mem::replace(&mut self.picked[at], picked))
    }

    /// Whoever is picked and not paid in full: by how much the bound may be too low.
    fn widest_gap(&self, spots: &[usize]) -> Option<usize> {
        let mut picked: Vec<usize> = spots.iter().flat_map(|at| self.picked[*at].iter().copied()).collect();
        picked.sort_unstable();
        picked.dedup();
        let gaps = picked.into_iter().map(|who| {
            let is_picked = |part: &&Part| spots.contains(&part.spot) && self.picked[part.spot].contains(&who);
            (self.gap(who, self.parts[who].iter().filter(is_picked)), std::cmp::Reverse(who))
        });
        gaps.filter(|(gap, _)| *gap > 0).max().map(|(_, who)| who.0)
    }
}

/// What a node of holders of several devices costs, in nodes of one device's knapsack: about as long as that takes.
const NODE: u32 = 200;

impl Spot {
    fn has_musts(&self) -> bool {
        self.here.iter().any(|here| here.must)
    }

    /// What picking here anew costs, in nodes.
    fn work(&self) -> u32 {
        16 + self.here.len() as u32
    }

    /// What those that leave bring here, in bytes. `out` ascends.
    pub fn brought(&self, out: &[usize]) -> u64 {
        let out = self.here.iter().filter(|here| out.binary_search(&here.who).is_ok());
        out.fold(0u64, |sum, here| sum.saturating_add(here.bytes))
    }
}
