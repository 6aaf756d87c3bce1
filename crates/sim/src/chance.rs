//! Chance from one number: the same seed gives the same world, on every machine and for ever.
//!
//! SplitMix64 (Steele, Lea, Flood 2014). It refuses to know any other source of chance.

/// Numbers that look like chance and are not.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    /// From 0 up to and without `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(end)) >> 64) as u64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    /// One of a list that is not empty.
    pub fn one_of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }

    /// The index of a weight, each as likely as it is heavy; nothing where all are 0.
    pub fn weighted(&mut self, weights: &[u32]) -> Option<usize> {
        let mut at = self.below(weights.iter().map(|w| u64::from(*w)).sum());
        weights.iter().position(|w| {
            let here = at < u64::from(*w);
            at = at.saturating_sub(u64::from(*w));
            here
        })
    }
}

/// A number with its bits mixed.
pub fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
