//! One thread's clock: the anchor, and the stamp that extrapolates from it.
//!
//! Every detector comes down to the same question, so the fast path does not branch on which it is: *does the word at
//! `sentinel` still hold `expected`?* For rseq it is the pointer that the kernel clears, for perf the counter that the kernel
//! moves; without a detector it is a word that nobody changes, and for the thread clock one that never matches.
//!
//! # Invariants
//! * Only the thread that holds the lease writes the fields (atomics, since the slot is shared; all `Relaxed`), and calls
//!   `attach`, `stamp` and `detach`. The one exception is the child of a fork, which has one thread: see [`ThreadClock::stop`].
//! * A stamp reads the counter *before* it looks at the sentinel. If the sentinel is whole, no switch lay between the anchor and that reading. An
//!   interrupt is taken between two instructions of the thread, so program order is enough.
//! * Stamps of one lease never go back, in either field.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering, compiler_fence};

use super::detector::{NO_MATCH, Sentinel};
use super::fast::FastCounter;
use super::{Stamp, os};

/// How old an anchor may be.
pub(crate) const GUARD_NS: u64 = 250_000;
/// Where blocking switches are not seen: how long a poll may be that is not checked against the CPU clock.
pub(crate) const BLIND_NS: u64 = 40_000;
/// Half of a slow read of the CPU clock. More than that, and the thread was interrupted or switched out in it.
const MOST_HALF_NS: u64 = 500;

/// The clock of the thread that holds the slot.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct ThreadClock {
    /// Never null. Points to a word that is mapped for as long as the lease lives, or for ever.
    sentinel: AtomicPtr<AtomicU64>,
    expected: AtomicU64,
    anchor_fast: AtomicU64,
    anchor_cpu_ns: AtomicU64,
    /// The stamp given out before.
    last_fast: AtomicU64,
    last_cpu_ns: AtomicU64,
    /// How far the counter may go on from the anchor, and from the last stamp.
    guard: AtomicU64,
    blind: AtomicU64,
    /// Nanoseconds of a counter step, times 2^32.
    ns_per_step: AtomicU64,
    /// The most that is taken for half of a call that reads the CPU clock.
    most_half: AtomicU64,
    /// Whether the counter is the time stamp counter.
    is_tsc: AtomicBool,
    /// Which [`Sentinel`] the word is.
    kind: AtomicU8,
    reads: AtomicU64,
    debt_ns: AtomicU64,
}

/// What belongs together in an anchor: the CPU clock, the armed sentinel, the counter behind them, and how long that took by it.
struct BothRead {
    cpu_ns: u64,
    expected: u64,
    after: u64,
    took: u64,
}

const KIND_NONE: u8 = 0;
const KIND_EVERY_STAMP: u8 = 1;
const KIND_POINTER: u8 = 2;
const KIND_COUNTER: u8 = 3;
/// Nobody's, or a forked child's: the clock stands still.
const KIND_STOPPED: u8 = 4;

impl ThreadClock {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            sentinel: AtomicPtr::new(Sentinel::None.word().as_ptr()),
            expected: AtomicU64::new(NO_MATCH),
            anchor_fast: zero(),
            anchor_cpu_ns: zero(),
            last_fast: zero(),
            last_cpu_ns: zero(),
            guard: zero(),
            blind: zero(),
            ns_per_step: zero(),
            most_half: zero(),
            is_tsc: AtomicBool::new(false),
            kind: AtomicU8::new(KIND_STOPPED),
            reads: zero(),
            debt_ns: zero(),
        }
    }

    /// Makes the clock that of the calling thread, which has just leased the slot. What the sentinel points to stays valid until
    /// [`detach`](Self::detach), on the same thread: `Lease` sees to that, which keeps it and is not `Send`.
    pub(crate) fn attach(&self, fast: &FastCounter, sees_blocking: bool, sentinel: Sentinel) {
        let kind = match sentinel {
            Sentinel::None => KIND_NONE,
            Sentinel::EveryStamp => KIND_EVERY_STAMP,
            Sentinel::Pointer(_) => KIND_POINTER,
            Sentinel::Counter(_) => KIND_COUNTER,
        };
        self.sentinel.store(sentinel.word().as_ptr(), Ordering::Relaxed);
        self.kind.store(kind, Ordering::Relaxed);
        self.is_tsc.store(fast.is_tsc, Ordering::Relaxed);
        self.ns_per_step.store(fast.ns_per_step_q32(), Ordering::Relaxed);
        self.most_half.store(fast.steps(MOST_HALF_NS), Ordering::Relaxed);
        self.guard.store(fast.steps(GUARD_NS), Ordering::Relaxed);
        self.blind.store(if sees_blocking { u64::MAX } else { fast.steps(BLIND_NS) }, Ordering::Relaxed);
        self.last_fast.store(0, Ordering::Relaxed);
        self.last_cpu_ns.store(0, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
        self.debt_ns.store(0, Ordering::Relaxed);
        self.anchor();
    }

    /// The thread gives the slot back; the word may go.
    pub(crate) fn detach(&self) {
        // SAFETY: the calling thread is the one of `attach`, whose promise holds until here.
        unsafe { self.sentinel().disarm() };
        self.stop();
    }

    /// From now on the clock stands still, and touches nothing: for the child of a fork, where the tick does not exist and a
    /// perf page is not mapped.
    pub(crate) fn stop(&self) {
        self.kind.store(KIND_STOPPED, Ordering::Relaxed);
        self.expected.store(NO_MATCH, Ordering::Relaxed);
        self.sentinel.store(Sentinel::None.word().as_ptr(), Ordering::Relaxed);
    }

    fn sentinel(&self) -> Sentinel {
        let Some(word) = NonNull::new(self.sentinel.load(Ordering::Relaxed)) else { return Sentinel::None };
        match self.kind.load(Ordering::Relaxed) {
            KIND_POINTER => Sentinel::Pointer(word),
            KIND_COUNTER => Sentinel::Counter(word),
            KIND_EVERY_STAMP => Sentinel::EveryStamp,
            _ => Sentinel::None,
        }
    }

    #[inline]
    fn read_counter(&self) -> u64 {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
        if self.is_tsc.load(Ordering::Relaxed) {
            return super::tsc::read();
        }
        super::fast::monotonic_ns()
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: never null, and aligned. Mapped: the caller of `attach` promised that until `detach`, and both of them, and
        // everything that calls this, run on the one thread that holds the lease; before and after it is a static. All
        // access to the word by this process is atomic; the kernel writes it while this thread does not run.
        unsafe { &*self.sentinel.load(Ordering::Relaxed) }
    }

    /// The CPU time of the latest stamp.
    #[inline]
    pub(crate) fn last_cpu_ns(&self) -> u64 {
        self.last_cpu_ns.load(Ordering::Relaxed)
    }

    /// A stamp by the CPU clock itself in the place of the latest one, which nobody has used yet. `before_cpu_ns`: of the one before.
    #[cold]
    pub(crate) fn restamp(&self, before_cpu_ns: u64) -> Stamp {
        self.last_cpu_ns.store(before_cpu_ns, Ordering::Relaxed);
        self.anchor()
    }

    /// How much more was given out than the CPU clock has counted by now: the debt. Reads it, and gives nothing out.
    #[cold]
    pub(crate) fn owed_ns(&self) -> u64 {
        if self.is_stopped() {
            return 0;
        }
        let (_, cpu_ns) = self.renew_anchor();
        self.last_cpu_ns().saturating_sub(cpu_ns)
    }

    fn is_stopped(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == KIND_STOPPED
    }

    /// Reads both clocks. Only for the thread that holds the lease.
    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        let fast_now = self.read_counter();
        // The word is looked at behind the counter: see the invariants.
        compiler_fence(Ordering::SeqCst);
        let whole = self.word().load(Ordering::Relaxed) == self.expected.load(Ordering::Relaxed);
        let since_anchor = fast_now.wrapping_sub(self.anchor_fast.load(Ordering::Relaxed));
        let since_last = fast_now.wrapping_sub(self.last_fast.load(Ordering::Relaxed));
        // A counter that went back shows as a huge step, and huge steps read the clock.
        if whole && since_anchor < self.guard.load(Ordering::Relaxed) && since_last < self.blind.load(Ordering::Relaxed)
        {
            let ns = (since_anchor * self.ns_per_step.load(Ordering::Relaxed)) >> 32;
            let cpu_ns = self.anchor_cpu_ns.load(Ordering::Relaxed) + ns;
            return self.give_out(fast_now, cpu_ns);
        }
        self.anchor()
    }

    #[inline]
    fn give_out(&self, fast: u64, cpu_ns: u64) -> Stamp {
        let cpu_ns = cpu_ns.max(self.last_cpu_ns.load(Ordering::Relaxed));
        self.last_fast.store(fast, Ordering::Relaxed);
        self.last_cpu_ns.store(cpu_ns, Ordering::Relaxed);
        Stamp { cpu_ns, fast }
    }

    /// Reads the CPU clock, makes it the anchor, and gives that out.
    #[cold]
    fn anchor(&self) -> Stamp {
        if self.is_stopped() {
            let last = |field: &AtomicU64| field.load(Ordering::Relaxed);
            return Stamp { cpu_ns: last(&self.last_cpu_ns), fast: last(&self.last_fast) };
        }
        let (fast, cpu_ns) = self.renew_anchor();
        self.give_out(fast, cpu_ns)
    }

    /// Reads the CPU clock and makes it the anchor: the counter and the CPU time that belong together.
    ///
    /// In this order: counter, CPU clock, sentinel, counter. The two readings of the counter are there to find the middle of the
    /// call: paired with its end, extrapolated stamps were 0.2 us late against those that were read, which the shorter polls
    /// between a reading and a switch had to pay (0.5 % of 100 us instead of 0.2 %, the control's own). A switch behind the sentinel is seen by the next stamp. One before it does no
    /// harm: the CPU clock stood still meanwhile, so that it still belongs to the counter's reading, which comes after.
    fn renew_anchor(&self) -> (u64, u64) {
        let mut read = self.read_both();
        if read.took > 2 * self.most_half.load(Ordering::Relaxed) {
            // Something came in between. If it was an interrupt, it may be in the one reading and not in the other, though it is the
            // thread's time: 27 us were seen to be billed late by that, to whoever armed a timer in between.
            read = self.read_both();
        }
        let BothRead { cpu_ns, expected, after, took } = read;
        // The kernel took its reading about in the middle.
        let fast = after.wrapping_sub((took / 2).min(self.most_half.load(Ordering::Relaxed)));
        self.expected.store(expected, Ordering::Relaxed);
        self.anchor_fast.store(fast, Ordering::Relaxed);
        self.anchor_cpu_ns.store(cpu_ns, Ordering::Relaxed);
        self.count(&self.reads, 1);
        self.count(&self.debt_ns, self.last_cpu_ns.load(Ordering::Relaxed).saturating_sub(cpu_ns));
        (fast, cpu_ns)
    }

    /// As if the hypervisor had taken so much from the thread's processor since the anchor.
    #[cfg(all(test, not(loom), target_os = "linux", not(stipend_portable)))]
    pub(crate) fn lose(&self, ns: u64) {
        self.anchor_cpu_ns.store(self.anchor_cpu_ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
    }

    fn read_both(&self) -> BothRead {
        let before = self.read_counter();
        compiler_fence(Ordering::SeqCst);
        let cpu_ns = os::thread_cpu_ns();
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as for `word`.
        let expected = unsafe { self.sentinel().arm() };
        compiler_fence(Ordering::SeqCst);
        let after = self.read_counter();
        BothRead { cpu_ns, expected, after, took: after.wrapping_sub(before) }
    }

    fn count(&self, counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// How often the CPU clock was read.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// What was given out too early, in all; see [the module](super).
    pub(crate) fn debt_ns(&self) -> u64 {
        self.debt_ns.load(Ordering::Relaxed)
    }
}
