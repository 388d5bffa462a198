//! How late the tick is, and whether it still comes.
//!
//! What is noticed in the middle of a poll is noticed as late as the tick is, and the tick thread has to get a processor like
//! any other. So it notes when each tick was due and when it came; and when the next one is due, so that a tick that does not
//! come at all is seen too, by whoever asks.
//!
//! # Invariants
//! * What is counted is counted by the tick thread alone. So there are loads and stores, and no read-modify-write.
//! * Only a timer that runs can be late: `due_ns` is [`STOPPED`] from before the [gate](crate::gate) closes until after it opened. It is
//!   written where the timer is stopped and started, so the argument there holds for it too: in the end it is as the timer is.

use std::time::Duration;

use crate::histogram::{Distribution, Histogram};
use crate::sync::{AtomicU64, Ordering};

/// No tick is due.
const STOPPED: u64 = 0;

/// When ticks were due and came. Times are nanoseconds of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Lateness {
    /// When the next tick is due.
    due_ns: AtomicU64,
    /// When the latest one came; zero if there was none.
    last_ns: AtomicU64,
    /// Periods that ended while an earlier tick had not come yet.
    missed: AtomicU64,
    late: Histogram,
}

impl Lateness {
    pub(crate) fn new() -> Self {
        Self {
            due_ns: AtomicU64::new(STOPPED),
            last_ns: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            late: Histogram::new(),
        }
    }

    /// The timer is about to be started: the first tick is due a period from now.
    pub(crate) fn starting(&self, now_ns: u64, period_ns: u64) {
        // Release: goes with the acquire in `came`, which sees the start that its timer was started by.
        self.due_ns.store(now_ns.saturating_add(period_ns).max(1), Ordering::Release);
    }

    /// The timer was stopped.
    pub(crate) fn stopped(&self) {
        self.due_ns.store(STOPPED, Ordering::Release);
    }

    /// A tick begins now.
    pub(crate) fn came(&self, now_ns: u64, period_ns: u64) {
        self.last_ns.store(now_ns.max(1), Ordering::Relaxed);
        let due_ns = self.due_ns.load(Ordering::Acquire);
        // One that comes early is none of the timer's.
        if due_ns == STOPPED || now_ns < due_ns {
            return;
        }
        let late_ns = now_ns - due_ns;
        self.late.add(late_ns);
        let missed = late_ns / period_ns.max(1);
        if missed > 0 {
            self.missed.store(self.missed.load(Ordering::Relaxed) + missed, Ordering::Relaxed);
        }
        self.due_ns.store(due_ns.saturating_add((missed + 1).saturating_mul(period_ns)), Ordering::Release);
    }

    /// How late ticks came.
    pub(crate) fn late(&self) -> Distribution {
        self.late.distribution()
    }

    /// Counts from now on.
    pub(crate) fn clear(&self) {
        self.late.clear();
        self.missed.store(0, Ordering::Relaxed);
    }

    /// Periods without a tick of their own.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// How long ago the latest tick came.
    pub(crate) fn since_last(&self, now_ns: u64) -> Option<Duration> {
        match self.last_ns.load(Ordering::Relaxed) {
            0 => None,
            last_ns => Some(Duration::from_nanos(now_ns.saturating_sub(last_ns))),
        }
    }

    /// How long the next tick has been due for.
    pub(crate) fn overdue(&self, now_ns: u64) -> Duration {
        match self.due_ns.load(Ordering::Acquire) {
            STOPPED => Duration::ZERO,
            due_ns => Duration::from_nanos(now_ns.saturating_sub(due_ns)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PERIOD: u64 = 1_000;

    fn ns(duration: Duration) -> u64 {
        duration.as_nanos() as u64
    }

    #[test]
    fn a_tick_is_late_by_what_passed_since_it_was_due() {
        let ticks = Lateness::new();
        ticks.starting(10_000, PERIOD);
        ticks.came(11_000, PERIOD);
        assert_eq!((ticks.late().count, ticks.late().max), (1, Duration::ZERO));
        ticks.came(12_300, PERIOD);
        // The grid stays: the delay before is not carried over.
        ticks.came(13_100, PERIOD);
        assert_eq!((ticks.late().count, ns(ticks.late().max), ticks.missed()), (3, 300, 0));
    }

    #[test]
    fn periods_without_a_tick_of_their_own_are_counted() {
        let ticks = Lateness::new();
        ticks.starting(0, PERIOD);
        ticks.came(3_500, PERIOD);
        assert_eq!((ns(ticks.late().max), ticks.missed()), (2_500, 2));
        ticks.came(4_000, PERIOD);
        assert_eq!((ns(ticks.late().max), ticks.missed()), (2_500, 2));
    }

    #[test]
    fn nothing_is_late_while_the_timer_is_stopped() {
        let ticks = Lateness::new();
        assert_eq!((ticks.overdue(1_000_000), ticks.since_last(1_000_000)), (Duration::ZERO, None));
        ticks.starting(0, PERIOD);
        ticks.came(1_000, PERIOD);
        ticks.stopped();
        assert_eq!(ticks.overdue(50_000), Duration::ZERO);
        assert_eq!(ticks.since_last(50_000), Some(Duration::from_nanos(49_000)));
        // What comes after all is none of the timer's; a new start begins a new grid.
        ticks.came(50_000, PERIOD);
        ticks.starting(60_500, PERIOD);
        ticks.came(61_500, PERIOD);
        assert_eq!((ticks.late().count, ticks.late().max), (2, Duration::ZERO));
    }

    #[test]
    fn a_tick_that_does_not_come_is_overdue_without_end() {
        let ticks = Lateness::new();
        ticks.starting(0, PERIOD);
        ticks.came(1_000, PERIOD);
        for now_ns in [2_000, 5_000, 1_000_000] {
            assert_eq!(ns(ticks.overdue(now_ns)), now_ns - 2_000);
        }
        assert_eq!(ticks.late().count, 1, "nobody counts it but the tick itself");
    }
}
