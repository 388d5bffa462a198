//! Which records have no owner.

/// Numbers from zero on, of which the lowest are had first: so whoever takes many has neighbours, however mixed they came back.
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
            let bit = 1 << (number % WORD);
            debug_assert!(bits & bit == 0, "{number} is put in twice");
            bits |= bit;
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

/// The places of the bits of a word, the lowest first.
pub(super) fn places(bits: u64) -> impl Iterator<Item = usize> {
    let left = std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)));
    left.take_while(|bits| *bits != 0).map(|bits| bits.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{FreeSet, WORD, places};

    /// What should be had together: the lowest and those of its word, if they are few enough.
    fn take_from_model(model: &mut BTreeSet<usize>, at_most: usize) -> Option<Vec<usize>> {
        let first = model.first()? / WORD * WORD;
        let numbers: Vec<_> = model.range(first..first + WORD).copied().collect();
        (numbers.len() <= at_most).then(|| {
            model.retain(|number| !numbers.contains(number));
            numbers
        })
    }

    fn take(set: &mut FreeSet, at_most: usize) -> Option<Vec<usize>> {
        let (first, bits) = set.take_lowest(at_most)?;
        Some(places(bits).map(|place| first + place).collect())
    }

    #[test]
    fn places_go_from_the_lowest_to_the_highest() {
        assert_eq!(places(0).count(), 0);
        assert_eq!(places(1 << 63 | 0b1010).collect::<Vec<_>>(), [1, 3, 63]);
        assert!(places(u64::MAX).eq(0..WORD));
    }

    proptest! {
        #[test]
        fn the_lowest_are_had_first_and_none_is_lost(
            steps in prop::collection::vec(prop_oneof![
                1 => prop::collection::vec(0_usize..20_000, 0..9).prop_map(Ok),
                1 => prop::collection::vec(0_usize..200, 0..9).prop_map(Ok),
                1 => (0_usize..500, 0_usize..200).prop_map(|(first, count)| Ok((first..first + count).collect())),
                1 => (1_usize..=WORD).prop_map(Err),
            ], 0..100),
        ) {
            let (mut set, mut model) = (FreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Ok(mut numbers) => {
                        numbers.retain(|&number| model.insert(number));
                        set.extend(numbers.into_iter());
                    }
                    Err(at_most) => prop_assert_eq!(take(&mut set, at_most), take_from_model(&mut model, at_most)),
                }
            }
            while let Some(numbers) = take_from_model(&mut model, WORD) {
                prop_assert_eq!(take(&mut set, WORD), Some(numbers));
            }
            prop_assert_eq!(set.take_lowest(WORD), None);
        }
    }
}
