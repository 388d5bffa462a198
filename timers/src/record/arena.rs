//! Where records come from: chunks that are never freed, and those without an owner, a few at hand on each thread, the rest in one set
//! under a lock, so that threads which make and end accounts rarely meet. Whoever takes many has them in the order of their addresses.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::free_set::{FreeSet, WORD, places};
use super::{LIMIT, Record};

/// Records come in chunks of so many, so many chunks at most.
const CHUNK: usize = 1024;
const CHUNKS: usize = LIMIT / CHUNK;

/// At least so many come from the set at a time, if it has them and the next word of it not more than the hand has room for, and so
/// many go back.
const BATCH: usize = 32;
/// A thread holds so many at most.
const AT_HAND: usize = 2 * BATCH;
const _: () = assert!(AT_HAND >= WORD && CHUNK.is_multiple_of(WORD), "a word is of one chunk, and a hand takes it");

static TABLE: [OnceLock<&'static [Record]>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static FREE: Mutex<Free> = Mutex::new(Free { set: FreeSet::new(), chunks: 0 });

/// The records without an owner that no thread has at hand.
struct Free {
    set: FreeSet,
    chunks: usize,
}

fn free() -> MutexGuard<'static, Free> {
    crate::sync::lock(&FREE)
}

impl Free {
    /// Moves a batch into `hand`, which is empty, making new records if there are none.
    fn deal(&mut self, hand: &mut Vec<&'static Record>) {
        while hand.len() < BATCH {
            let Some((first, bits)) = self.set.take_lowest(AT_HAND - hand.len()) else {
                if hand.is_empty() {
                    self.grow();
                    continue;
                }
                // There are no more, or the next word has too many.
                break;
            };
            let chunk = TABLE[first / CHUNK].get().expect("what is free was made");
            hand.extend(places(bits).map(|place| &chunk[first % CHUNK + place]));
        }
        // The last is taken first.
        hand.reverse();
    }

    /// Makes a chunk.
    #[cold]
    fn grow(&mut self) {
        let chunk = self.chunks;
        assert!(chunk < CHUNKS, "more than {LIMIT} accounts at once");
        self.chunks += 1;
        let records: &'static [Record] =
            Box::leak((0..CHUNK).map(|i| Record::new((chunk * CHUNK + i) as u32)).collect());
        let filled = TABLE[chunk].set(records);
        debug_assert!(filled.is_ok(), "chunks are made under the lock, each once");
        self.put(records.iter());
    }

    fn put(&mut self, records: impl Iterator<Item = &'static Record>) {
        self.set.extend(records.map(|record| record.index as usize));
    }
}

/// What a thread has at hand; given back when it ends.
struct Hand(Vec<&'static Record>);

impl Drop for Hand {
    fn drop(&mut self) {
        free().put(self.0.drain(..));
    }
}

thread_local! {
    static HAND: RefCell<Hand> = const { RefCell::new(Hand(Vec::new())) };
}

/// A record for a new owner, with one reference.
pub(crate) fn take() -> &'static Record {
    let at_hand = HAND.try_with(|hand| {
        let hand = &mut hand.borrow_mut().0;
        if hand.is_empty() {
            free().deal(hand);
        }
        hand.pop()
    });
    at_hand.ok().flatten().unwrap_or_else(|| {
        // A thread that is ending has no hand any more.
        let mut batch = Vec::new();
        let mut free = free();
        free.deal(&mut batch);
        let record = batch.pop().expect("a batch is never empty");
        free.put(batch.drain(..));
        record
    })
}

/// A record that is ready for its next owner.
pub(super) fn give_back(record: &'static Record) {
    let kept = HAND.try_with(|hand| {
        let hand = &mut hand.borrow_mut().0;
        if hand.len() == AT_HAND {
            free().put(hand.drain(BATCH..));
        }
        hand.push(record);
    });
    if kept.is_err() {
        free().put(std::iter::once(record));
    }
}

/// The record at an index that was read from a slot.
pub(crate) fn at(index: u32) -> Option<&'static Record> {
    TABLE.get(index as usize / CHUNK)?.get()?.get(index as usize % CHUNK)
}

/// Every record, in use or waiting for reuse. Takes no lock.
pub(crate) fn all() -> impl Iterator<Item = &'static Record> {
    TABLE.iter().map_while(|chunk| chunk.get()).flat_map(|records| records.iter())
}

/// How many records exist, in use or waiting for reuse.
pub(crate) fn allocated() -> usize {
    free().chunks * CHUNK
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_hand_is_dealt_the_lowest_in_order_and_is_never_empty() {
        // From among records that nobody else has meanwhile.
        let mut mine: Vec<_> = (0..3_000).map(|_| take()).collect();
        mine.sort_by_key(|record| record.index);
        let mut free = Free { set: FreeSet::new(), chunks: 0 };
        let thinned = mine.iter().enumerate().filter(|(place, _)| *place < 1_000 || place % 7 == 0 || *place > 2_000);
        let (mut wanted, mut mixed): (Vec<_>, Vec<_>) = thinned.map(|(_, record)| (record.index, *record)).unzip();
        wanted.sort_unstable();
        mixed.sort_by_key(|record| record.index.wrapping_mul(0x9E37_79B9));
        free.put(mixed.into_iter());
        let mut dealt = Vec::new();
        while dealt.len() < wanted.len() {
            let mut hand = Vec::new();
            free.deal(&mut hand);
            assert!((1..=AT_HAND).contains(&hand.len()));
            dealt.extend(hand.iter().rev().map(|record| record.index));
        }
        assert_eq!(dealt, wanted);
        mine.into_iter().for_each(give_back);
    }

    #[test]
    fn a_record_has_one_owner_however_many_change_threads() {
        let (to_other, at_other) = channel::<Vec<&'static Record>>();
        let other = std::thread::spawn(move || {
            for records in at_other {
                // Every other one first, so that they come back mixed.
                let (even, odd): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.index % 2 == 0);
                odd.into_iter().chain(even).for_each(give_back);
                // What is at its hand is given back by its end as well.
                give_back(take());
            }
        });
        let mut kept = Vec::new();
        for round in 0..50 {
            let taken: Vec<_> = (0..50 + round * 37).map(|_| take()).collect();
            kept.push(take());
            let all: HashSet<_> = taken.iter().chain(&kept).map(|record| record.index).collect();
            assert_eq!(all.len(), taken.len() + kept.len(), "had twice");
            assert!(all.iter().all(|&index| at(index).is_some_and(|record| record.index == index)));
            to_other.send(taken).unwrap();
        }
        drop(to_other);
        other.join().unwrap();
        kept.into_iter().for_each(give_back);
    }
}
