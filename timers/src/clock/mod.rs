//! Where CPU time comes from: one small interface, with the system's clock and the manual one behind it.
//!
//! A [`Stamp`] is what is read at a boundary: the thread's CPU time and a *fast counter* (monotonic, cheap, the same on every
//! thread). The tick cannot read another thread's CPU time cheaply, but it can read the fast counter, and wall time never runs
//! behind CPU time: "wall time since the stamp reaches the limit" is a safe suspicion, which [`Clock::remote_cpu_ns`] then
//! confirms.

pub(crate) mod manual;
pub(crate) mod os;

use crate::thread::ThreadSlot;
use manual::ManualState;

/// What was read at one moment: opaque to users; a boundary's end is the next one's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// CPU time of the thread, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// The fast counter, in its own units.
    pub(crate) fast: u64,
}

/// How exact the accounts are, and what that rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AccuracyClass {
    /// The thread's CPU clock is read at every boundary: exact, and a system call each.
    ThreadClock,
    /// The system has no CPU clock for threads: wall time is billed.
    WallClock,
    /// A manual clock, for tests.
    Manual,
}

impl AccuracyClass {
    /// The name used in reports: `thread-clock`, `wall-clock`, `manual`.
    pub fn as_str(self) -> &'static str {
        match self {
            AccuracyClass::ThreadClock => "thread-clock",
            AccuracyClass::WallClock => "wall-clock",
            AccuracyClass::Manual => "manual",
        }
    }
}

impl std::fmt::Display for AccuracyClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The clock of one meter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    System,
    Manual(&'static ManualState),
}

impl Clock {
    /// Reads both clocks of the calling thread, which holds `slot`.
    #[inline]
    pub(crate) fn stamp(self, slot: &ThreadSlot) -> Stamp {
        match self {
            Clock::System => Stamp { cpu_ns: os::thread_cpu_ns(), fast: os::fast() },
            Clock::Manual(state) => state.stamp(slot),
        }
    }

    /// The fast counter alone.
    pub(crate) fn fast(self) -> u64 {
        match self {
            Clock::System => os::fast(),
            Clock::Manual(state) => state.fast(),
        }
    }

    /// The nanoseconds between two readings of the fast counter; zero if it went back.
    pub(crate) fn fast_ns_between(self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from)
    }

    /// The CPU time of the thread that holds `slot`, read from another thread. `None`: the system cannot, or the thread is gone.
    pub(crate) fn remote_cpu_ns(self, slot: &ThreadSlot) -> Option<u64> {
        match self {
            Clock::System => os::remote_cpu_ns(slot.clock_id()),
            Clock::Manual(_) => Some(slot.manual_cpu_ns()),
        }
    }

    /// Whether this is the manual clock with that state.
    pub(crate) fn is_manual(self, state: &ManualState) -> bool {
        matches!(self, Clock::Manual(own) if std::ptr::eq(own, state))
    }

    pub(crate) fn accuracy(self) -> AccuracyClass {
        match self {
            Clock::System => os::ACCURACY,
            Clock::Manual(_) => AccuracyClass::Manual,
        }
    }
}
