//! The random number generator, splitmix64, and its distributions.
//!
//! Gives the same numbers as `models/train/prng.py`, in the same order.

/// A random stream with a seed. Each draw takes one number of the stream.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: i16, high: i16) -> i16 {
        low + self.below((high - low) as usize + 1) as i16
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// An index of `weights`, with probability proportional to its weight.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("the number drawn is less than the sum of the weights")
    }

    /// `count` different items in drawn order: the start of a Fisher-Yates shuffle. Takes `count` numbers.
    pub fn sample<T>(&mut self, items: impl IntoIterator<Item = T>, count: usize) -> Vec<T> {
        let mut pool: Vec<T> = items.into_iter().collect();
        for i in 0..count {
            let j = i + self.below(pool.len() - i);
            pool.swap(i, j);
        }
        pool.truncate(count);
        pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs of splitmix64 for seed 1234567.
    #[test]
    fn the_stream_is_splitmix64() {
        let mut draw = Draw::new(1_234_567);
        assert_eq!(draw.bits(), 6_457_827_717_110_365_317);
        assert_eq!(draw.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_item_can_be_drawn() {
        let mut draw = Draw::new(1);
        let mut seen = [false; 5];
        (0..100).for_each(|_| seen[draw.below(5)] = true);
        assert_eq!(seen, [true; 5]);
        let mut seen = [false; 3];
        (0..100).for_each(|_| seen[draw.weighted(&[1, 0, 3])] = true);
        assert_eq!(seen, [true, false, true]);
        let mut all = draw.sample(0..9, 9);
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..9));
    }
}
