//! The cheapest holders of one device that together free so many bytes: a covering knapsack.
//!
//! Depth first, the cheapest a byte first, so that the first leaf is the greedy answer; a branch is left when what it
//! has cost and the least that the rest can cost are no better than the best leaf. Exact as long as there are nodes
//! left to spend. It refuses to know who the holders are and what else they hold.

/// How many nodes a search may still look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nodes {
    pub left: u32,
    /// Something was left out because they were spent.
    pub ran_out: bool,
}

impl Nodes {
    /// Takes some; false: there are none left.
    pub fn spend(&mut self, count: u32) -> bool {
        if self.left < count {
            self.left = 0;
            self.ran_out = true;
            return false;
        }
        self.left -= count;
        true
    }
}

/// One who could leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub who: usize,
    pub bytes: u64,
    pub price: u128,
    /// The price of a mebibyte, rounded down: a bound that is never too high.
    pub rate: u128,
}

const MIB: u64 = 1 << 20;

impl Item {
    pub fn new(who: usize, bytes: u64, price: u128) -> Self {
        Self { who, bytes, price, rate: price / u128::from(bytes.div_ceil(MIB).max(1)) }
    }

    /// The order in which [`cheapest`] wants them.
    pub fn order(&self) -> (u128, u128, usize) {
        (self.rate, self.price, self.who)
    }
}

/// What is searched in: kept by the caller, so that nothing is allocated for each device of each node.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The items, by [`Item::order`].
    pub items: Vec<Item>,
    /// What each item and all after it bring.
    rest: Vec<u64>,
    /// What all before each item weigh, in mebibytes rounded up, and cost at their rates.
    before: Vec<(u64, u128)>,
    taken: Vec<usize>,
    best: Vec<usize>,
    best_price: u128,
    found: bool,
}

impl Desk {
    /// The cheapest items that bring `short` bytes, and their price; none: all together do not.
    pub fn cheapest(&mut self, short: u64, nodes: &mut Nodes) -> Option<(u128, &[usize])> {
        self.rest.clear();
        self.rest.resize(self.items.len() + 1, 0);
        for at in (0..self.items.len()).rev() {
            self.rest[at] = self.rest[at + 1].saturating_add(self.items[at].bytes);
        }
        self.before.clear();
        self.before.push((0, 0));
        for item in &self.items {
            let (mib, price) = self.before[self.before.len() - 1];
            let more = item.bytes.div_ceil(MIB);
            self.before.push((mib.saturating_add(more), price + item.rate * u128::from(more)));
        }
        self.taken.clear();
        self.best.clear();
        self.best_price = u128::MAX;
        self.found = false;
        if self.rest[0] < short {
            return None;
        }
        self.descend(0, short, 0, nodes);
        self.found.then_some((self.best_price, &self.best[..]))
    }

    fn descend(&mut self, at: usize, short: u64, price: u128, nodes: &mut Nodes) {
        if short == 0 {
            if price < self.best_price {
                (self.best_price, self.found) = (price, true);
                self.best.clone_from(&self.taken);
            }
            return;
        }
        if self.rest[at] < short {
            return;
        }
        // The first leaf is always reached, with or without nodes.
        if self.found && (price + self.least(at, short) >= self.best_price || !nodes.spend(1)) {
            return;
        }
        let item = self.items[at];
        self.taken.push(item.who);
        self.descend(at + 1, short.saturating_sub(item.bytes), price + item.price, nodes);
        self.taken.pop();
        self.descend(at + 1, short, price, nodes);
    }

    /// The least that the items from `at` on can bring `short` bytes for, if they could be taken in parts.
    fn least(&self, at: usize, short: u64) -> u128 {
        let (mib, price) = self.before[at];
        let wanted = mib.saturating_add(short / MIB);
        // The first that brings it to as much: taken in part.
        let last = at + self.before[at + 1..].partition_point(|(mib, _)| *mib < wanted);
        match self.items.get(last) {
            Some(item) => self.before[last].1 - price + item.rate * u128::from(wanted - self.before[last].0),
            None => self.before[last].1 - price,
        }
    }
}
