//! Which records have no owner.

/// Numbers from zero on, of which the lowest are had first: so whoever takes many has neighbours, however mixed they came back, and
/// as few pages and cache lines as there can be are in use.
pub(super) struct FreeSet {
    /// A bit a number.
    words: Vec<u64>,
    /// A bit a word that is not empty.
    summary: Vec<u64>,
    /// All words of `summary` before this one are empty.
    first: usize,
}

/// Numbers that are had together: those that differ in no bit but the lowest six.
pub(super) const WORD: usize = u64::BITS as usize;

impl FreeSet {
    pub(super) const fn new() -> Self {
        Self { words: Vec::new(), summary: Vec::new(), first: 0 }
    }

    /// Puts in numbers that are not there. Neighbours that come one after the other are put in together.
    pub(super) fn extend(&mut self, numbers: impl Iterator<Item = usize>) {
        let (mut word, mut bits) = (0, 0);
        for number in numbers {
            if number / WORD != word {
                self.insert(word, bits);
                (word, bits) = (number / WORD, 0);
            }
            bits |= 1 << (number % WORD);
        }
        self.insert(word, bits);
    }

    fn insert(&mut self, word: usize, bits: u64) {
        if bits == 0 {
            return;
        }
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / WORD + 1, 0);
        }
        debug_assert!(self.words[word] & bits == 0, "free already");
        self.words[word] |= bits;
        self.summary[word / WORD] |= 1 << (word % WORD);
        self.first = self.first.min(word / WORD);
    }

    /// Takes out the lowest number and all that are in one word with it, if they are at most so many and at least one. As their word's
    /// first number, and a bit for each.
    pub(super) fn take_lowest(&mut self, at_most: usize) -> Option<(usize, u64)> {
        while *self.summary.get(self.first)? == 0 {
            self.first += 1;
        }
        let word = self.first * WORD + self.summary[self.first].trailing_zeros() as usize;
        let bits = &mut self.words[word];
        if bits.count_ones() as usize > at_most {
            return None;
        }
        self.summary[self.first] &= self.summary[self.first] - 1;
        Some((word * WORD, std::mem::take(bits)))
    }
}

/// The places of the bits of a word, the highest first.
pub(super) fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.checked_ilog2()?;
        bits ^= 1 << place;
        Some(place as usize)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{FreeSet, WORD, places};

    /// What should be had together: the lowest and those of its word, the highest first.
    fn lowest(model: &BTreeSet<usize>) -> Vec<usize> {
        let Some(first) = model.first().map(|first| first / WORD * WORD) else { return Vec::new() };
        model.range(first..first + WORD).rev().copied().collect()
    }

    fn take(set: &mut FreeSet, at_most: usize) -> Vec<usize> {
        let taken = set.take_lowest(at_most);
        taken.map_or_else(Vec::new, |(first, bits)| places(bits).map(|place| first + place).collect())
    }

    proptest! {
        #[test]
        fn the_lowest_are_had_first_and_none_is_lost(
            steps in prop::collection::vec(prop_oneof![
                1 => prop::collection::vec(0_usize..20_000, 0..9).prop_map(Ok),
                1 => prop::collection::vec(0_usize..200, 0..9).prop_map(Ok),
                1 => (0_usize..200, 0_usize..9).prop_map(|(first, count)| Ok((first..first + count).collect())),
                1 => (1_usize..80).prop_map(Err),
            ], 0..100),
        ) {
            let (mut set, mut model) = (FreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Ok(mut numbers) => {
                        numbers.retain(|&number| model.insert(number));
                        set.extend(numbers.into_iter());
                    }
                    Err(at_most) => {
                        let mut wanted = lowest(&model);
                        if wanted.len() > at_most { wanted.clear() }
                        model.retain(|number| !wanted.contains(number));
                        prop_assert_eq!(take(&mut set, at_most), wanted);
                    }
                }
            }
            while !model.is_empty() {
                let wanted = lowest(&model);
                model.retain(|number| !wanted.contains(number));
                prop_assert_eq!(take(&mut set, WORD), wanted);
            }
            prop_assert_eq!(set.take_lowest(WORD), None);
        }
    }
}
