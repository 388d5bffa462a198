//! Numbers that look random and are the same in every run.

/// Marsaglia's xorshift with 64 bits.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }
}

impl Random {
    /// Another row of numbers for each seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.bits();
        }
        random
    }

    /// Any 64 bits but zero.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Between 0 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts them into some order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (2..=all.len()).rev() {
            all.swap(end - 1, self.below(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_as_likely_as_another() {
        let mut random = Random::default();
        let mut seen = [0; 10];
        (0..100_000).for_each(|_| seen[random.below(10)] += 1);
        assert!(seen.iter().all(|count| (9_000..11_000).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_shuffle_keeps_all_and_moves_most() {
        let mut all: Vec<usize> = (0..1000).collect();
        Random::default().shuffle(&mut all);
        assert!(all.iter().enumerate().filter(|(at, value)| at == *value).count() < 20);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
    }
}
