//! Where records come from: chunks that are never freed, and those without an owner, a few at hand on each thread, the rest in one list
//! under a lock, so that threads which make and end accounts rarely meet.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::{LIMIT, Record};

/// Records come in chunks of so many, so many chunks at most.
const CHUNK: usize = 1024;
const CHUNKS: usize = LIMIT / CHUNK;

/// How many go between a thread and the list at a time; a thread holds twice as many at most.
const BATCH: usize = 32;

static TABLE: [OnceLock<&'static [Record]>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static FREE: Mutex<Free> = Mutex::new(Free { list: Vec::new(), chunks: 0 });

struct Free {
    list: Vec<&'static Record>,
    chunks: usize,
}

fn free() -> MutexGuard<'static, Free> {
    crate::sync::lock(&FREE)
}

impl Free {
    /// Moves a batch into `hand`, which is empty, making new records if there are none.
    fn deal(&mut self, hand: &mut Vec<&'static Record>) {
        if self.list.is_empty() {
            let chunk = self.chunks;
            assert!(chunk < CHUNKS, "more than {LIMIT} accounts at once");
            self.chunks += 1;
            let records: &'static [Record] =
                Box::leak((0..CHUNK).map(|i| Record::new((chunk * CHUNK + i) as u32)).collect());
            let filled = TABLE[chunk].set(records);
            debug_assert!(filled.is_ok(), "chunks are made under the lock, each once");
            self.list.extend(records.iter().rev());
        }
        let keep = self.list.len().saturating_sub(BATCH);
        hand.extend(self.list.drain(keep..));
    }
}

/// What a thread has at hand; given back when it ends.
struct Hand(Vec<&'static Record>);

impl Drop for Hand {
    fn drop(&mut self) {
        free().list.append(&mut self.0);
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
        free.list.append(&mut batch);
        record
    })
}

/// A record that is ready for its next owner.
pub(super) fn give_back(record: &'static Record) {
    let kept = HAND.try_with(|hand| {
        let hand = &mut hand.borrow_mut().0;
        if hand.len() == 2 * BATCH {
            free().list.extend(hand.drain(BATCH..));
        }
        hand.push(record);
    });
    if kept.is_err() {
        free().list.push(record);
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
