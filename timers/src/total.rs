//! All CPU time of a meter's threads, charged to accounts or to the runtime: what the meter's own clock reads.
//!
//! It is kept by slot already, for the metrics, and by no poll anew. Nor does a poll look whether the clock has come to an expiry, which
//! would be a comparison more for each of them, of any task: the tick does, which looks at all of the meter's threads anyway. So a timer on
//! this clock is late by at most a tick's period and the polls in progress.
//!
//! What belongs to the clock lies in a place that is never freed and is used again, like the records of accounts, so that a boundary
//! finds it by the number that the slot has.
//!
//! # Invariants
//! * The clock never counts anything twice: a thread that gives its slot back first takes it out of the meter, and then adds what it
//!   used to `retired_ns`; a reader reads the latter first.
//! * When all threads are idle the tick has looked once behind their last charge, before it goes off.

use std::sync::{Mutex, OnceLock};

use crate::sum::Sum;
use crate::sync::{AtomicU32, AtomicU64, Ordering, lock};
use crate::thread::{self, ThreadSlot};

/// What belongs to one meter's clock.
#[derive(Debug)]
struct Total {
    sum: Sum,
    /// The meter; zero is none.
    meter_id: AtomicU64,
    /// What threads used that have given their slots back.
    retired_ns: AtomicU64,
    /// The tick has found something due, for the service thread.
    asked: AtomicU32,
}

/// The number of a meter's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TotalId(u32);

const CHUNK: usize = 64;
const CHUNKS: usize = 1024;
/// So many meters do not fit into any system: each has two threads.
const MAX: usize = CHUNK * CHUNKS;
static TABLE: [OnceLock<Box<[Total; CHUNK]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];

impl Total {
    fn new() -> Self {
        Self { sum: Sum::new(), meter_id: AtomicU64::new(0), retired_ns: AtomicU64::new(0), asked: AtomicU32::new(0) }
    }
}

struct Numbers {
    next: u32,
    free: Vec<u32>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 1, free: Vec::new() });

/// A meter's clock, given back with it.
#[derive(Debug)]
pub(crate) struct OwnTotal(TotalId);

impl OwnTotal {
    pub(crate) fn new(meter_id: u64) -> Self {
        let mut numbers = lock(&NUMBERS);
        let number = numbers.free.pop().unwrap_or_else(|| {
            assert!((numbers.next as usize) < MAX, "more than {MAX} meters at once");
            numbers.next += 1;
            numbers.next - 1
        });
        let chunk = TABLE[number as usize / CHUNK].get_or_init(|| Box::new(std::array::from_fn(|_| Total::new())));
        let total = &chunk[number as usize % CHUNK];
        total.sum.reset();
        // Its threads are gone, those that looked at it too.
        total.sum.begin_at_zero();
        total.retired_ns.store(0, Ordering::Relaxed);
        total.asked.store(0, Ordering::Relaxed);
        total.meter_id.store(meter_id, Ordering::Release);
        Self(TotalId(number))
    }

    pub(crate) fn id(&self) -> TotalId {
        self.0
    }
}

impl Drop for OwnTotal {
    fn drop(&mut self) {
        // Its threads are gone: they held the meter.
        self.0.total().meter_id.store(0, Ordering::Release);
        lock(&NUMBERS).free.push(self.0.0);
    }
}

impl TotalId {
    /// The number that stands in a slot.
    pub(crate) fn of(slot: &ThreadSlot) -> Option<Self> {
        match slot.inbox.total.load(Ordering::Relaxed) {
            0 => None,
            number => Some(Self(number)),
        }
    }

    /// Puts the number into a slot.
    pub(crate) fn join(self, slot: &ThreadSlot) {
        slot.inbox.total.store(self.0, Ordering::Relaxed);
    }

    fn total(self) -> &'static Total {
        let chunk = TABLE[self.0 as usize / CHUNK].get();
        &chunk.expect("only the number of a meter is asked, and what it had stays")[self.0 as usize % CHUNK]
    }

    pub(crate) fn sum(self) -> &'static Sum {
        &self.total().sum
    }

    /// A thread that is no more in the meter has used so much.
    pub(crate) fn retire(self, ns: u64) {
        self.total().retired_ns.fetch_add(ns, Ordering::Release);
    }

    /// What threads used that have left. To be read before the slots are.
    pub(crate) fn retired_ns(self) -> u64 {
        self.total().retired_ns.load(Ordering::Acquire)
    }

    /// The slots of the meter's threads.
    pub(crate) fn slots(self) -> impl Iterator<Item = &'static ThreadSlot> {
        thread::all_slots().filter(move |slot| self.has(slot))
    }

    /// Whether a slot is one of the meter's.
    pub(crate) fn has(self, slot: &ThreadSlot) -> bool {
        let meter_id = self.total().meter_id.load(Ordering::Relaxed);
        meter_id != 0 && slot.inbox.meter_id.load(Ordering::Acquire) == meter_id
    }

    /// The tick hands over to the service thread. Returns whether it had not yet.
    pub(crate) fn ask(self) -> bool {
        self.total().asked.swap(1, Ordering::Release) == 0
    }

    pub(crate) fn take_asked(self) -> bool {
        self.total().asked.swap(0, Ordering::Acquire) != 0
    }
}
