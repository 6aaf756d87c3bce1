//! How the price of a holder of several devices is divided among them, so that the bound is as high as it can be.
//!
//! Fictitious play: the picks answer the parts, the parts go over to where holders are picked, ever less of them. Any
//! mixture of divisions that are never too much is never too much either, so every round's bound holds.

use super::{super::place::Spot, NODE, Part, Search};

/// Rounds, at most.
const ROUNDS: u128 = 24;

impl Search<'_> {
    /// Shifts the parts of prices to where holders are picked, until the bound gets no better: fictitious play, the
    /// picks on one side, the parts on the other. Each round also shows a real way in.
    pub(super) fn share_out(&mut self) {
        let mut best: Option<(u128, Vec<Vec<u128>>)> = None;
        let mut tried: Vec<Vec<usize>> = vec![];
        let round = 2 * NODE + self.field.spots.iter().map(Spot::work).sum::<u32>();
        for slowness in 3..3 + ROUNDS {
            let Some(bound) = self.field.choose(&self.costs) else { return };
            let done = self.keep(&bound);
            if !done && !tried.contains(&bound.spots) {
                self.keep_out(&bound.spots, self.greedily(&bound.spots));
                tried.push(bound.spots.clone());
            }
            if best.as_ref().is_none_or(|(price, _)| *price < bound.price) {
                best = Some((bound.price, self.shares.clone()));
            }
            if done || !self.shift(&bound.spots, slowness) || !self.nodes.spend(round) {
                break;
            }
            self.pick_all();
        }
        if let Some((_, shares)) = best {
            self.shares = shares;
            self.pick_all();
        }
    }

    /// A part of each price goes over to the spots where its holder is picked. False: all of it is there already.
    fn shift(&mut self, spots: &[usize], slowness: u128) -> bool {
        let mut moved = false;
        for (who, parts) in self.parts.iter().enumerate().filter(|(_, parts)| parts.len() > 1) {
            let is_picked = |part: &&Part| spots.contains(&part.spot) && self.picked[part.spot].contains(&who);
            let on: Vec<Part> = parts.iter().filter(is_picked).copied().collect();
            if on.is_empty() || self.gap(who, on.iter()) == 0 {
                continue;
            }
            moved = true;
            for part in parts {
                let share = &mut self.shares[part.spot][part.nth];
                *share -= share.div_ceil(slowness);
            }
            let more = self.field.prices[who].unwrap_or(0) / slowness / on.len() as u128;
            for part in on {
                self.shares[part.spot][part.nth] += more;
            }
        }
        moved
    }

    /// What is not paid of a price on these spots.
    pub(super) fn gap<'p>(&self, who: usize, on: impl Iterator<Item = &'p Part>) -> u128 {
        let paid = on.map(|part| self.shares[part.spot][part.nth]).sum();
        self.field.prices[who].unwrap_or(0).saturating_sub(paid)
    }
}
