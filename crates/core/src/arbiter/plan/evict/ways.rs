//! Real ways in: who leaves, whatever a bound has reckoned with, and nobody who is not needed.

use super::{super::place::Choice, Fate, Part, Search};

impl Search<'_> {
    /// Keeps the real way in that a bound points to. True: it costs no more than the bound.
    pub(super) fn keep(&mut self, bound: &Choice) -> bool {
        let mut out: Vec<usize> = bound.spots.iter().flat_map(|at| self.picked[*at].iter().copied()).collect();
        out.extend((0..self.fate.len()).filter(|who| self.fate[*who] == Fate::Out));
        out.sort_unstable();
        out.dedup();
        self.keep_out(&bound.spots, out) <= *bound
    }

    pub(super) fn keep_out(&mut self, spots: &[usize], out: Vec<usize>) -> Choice {
        let out = self.needed(spots, out);
        let holders: u128 = out.iter().filter_map(|who| self.field.prices[*who]).sum();
        let tolls: u128 = spots.iter().map(|at| self.field.spots[*at].toll).sum();
        let real = self.field.choice(holders + tolls, spots.to_vec());
        if self.best.as_ref().is_none_or(|(best, _)| real < *best) {
            self.best = Some((real.clone(), out));
        }
        real
    }

    /// Of each spot that is asked for: what it has beyond its need once these have left. `None` for the others.
    fn spare(&self, spots: &[usize], out: &[usize]) -> Vec<Option<i128>> {
        let mut spare: Vec<Option<i128>> = vec![None; self.field.spots.len()];
        for at in spots {
            spare[*at] = Some(-i128::from(self.field.spots[*at].short));
        }
        for part in out.iter().flat_map(|who| &self.parts[*who]) {
            if let Some(spare) = &mut spare[part.spot] {
                *spare += i128::from(part.bytes);
            }
        }
        spare
    }

    /// These without whoever is not needed on these spots, the dearest first.
    fn needed(&self, spots: &[usize], mut out: Vec<usize>) -> Vec<usize> {
        let mut spare = self.spare(spots, &out);
        let mut dearest_first = out.clone();
        dearest_first.sort_unstable_by_key(|who| std::cmp::Reverse((self.field.prices[*who], *who)));
        for who in dearest_first {
            let parts = &self.parts[who];
            let is_needed = |part: &Part| spare[part.spot].is_some_and(|spare| part.must || spare < part.bytes.into());
            if !parts.iter().any(is_needed) {
                out.retain(|other| *other != who);
                for part in parts {
                    if let Some(spare) = &mut spare[part.spot] {
                        *spare -= i128::from(part.bytes);
                    }
                }
            }
        }
        out
    }

    /// Whoever brings the most of what is still short for its price leaves, one after another, until nothing is.
    pub(super) fn greedily(&self, spots: &[usize]) -> Vec<usize> {
        let musts = spots.iter().flat_map(|at| &self.field.spots[*at].here).filter(|here| here.must);
        let mut out: Vec<usize> = musts.map(|here| here.who).collect();
        out.sort_unstable();
        out.dedup();
        let mut spare = self.spare(spots, &out);
        let mut rest: Vec<usize> = (0..self.parts.len()).filter(|who| out.binary_search(who).is_err()).collect();
        loop {
            let mut best: Option<(u128, usize)> = None;
            rest.retain(|who| {
                let short =
                    |part: &Part| spare[part.spot].map_or(0, |spare| (-spare).clamp(0, part.bytes.into()) as u64);
                let brings: u64 = self.parts[*who].iter().map(short).sum();
                let rate = self.field.prices[*who].unwrap_or(0) / u128::from(brings.div_ceil(1 << 20).max(1));
                if brings > 0 && best.is_none_or(|best| (rate, *who) < best) {
                    best = Some((rate, *who));
                }
                brings > 0
            });
            let Some((_, best)) = best else { break };
            rest.retain(|who| *who != best);
            for part in &self.parts[best] {
                if let Some(spare) = &mut spare[part.spot] {
                    *spare += i128::from(part.bytes);
                }
            }
            out.push(best);
        }
        out.sort_unstable();
        out
    }
}
