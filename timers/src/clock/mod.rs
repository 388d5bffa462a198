//! The clock: exact CPU time of a thread for the price of one TSC read.
//!
//! `CLOCK_THREAD_CPUTIME_ID` is the truth and costs a system call; the time stamp counter costs 10 ns and goes on while others
//! run. So CPU time is *extrapolated* from an anchor, and the anchor renewed whenever the extrapolation may have become wrong:
//!
//! ```text
//!   anchor  =  (counter, CPU clock), read together
//!   now     =  anchor.cpu + (counter - anchor.counter)     as long as
//!                1. a switch detector says that the thread was not switched out since, and
//!                2. the anchor is younger than the guard, 250 us
//! ```
//!
//! # For the reviewer: what is exact, what is bounded, what is invisible
//! * **Exact**: a switch that the detector sees. The next stamp reads the CPU clock, so a poll that was preempted, or that
//!   blocked, is charged what the kernel charged the thread, to within a part of that call (0.4 us in all: the anchor takes
//!   the kernel's reading to lie in its middle). A poll longer than the guard is exact by that alone.
//! * **Bounded by the guard**: what no detector sees, interrupts and time that a hypervisor stole, is billed for at most the rest
//!   of a guard interval and then corrected: see *debt*. So is, without a detector, a switch shorter than the guard; a longer
//!   one makes the anchor old. Keeping the guard costs 0.4 us each 250 us of run time: 0.17 %.
//! * **Invisible**: how the kernel itself divides time: an interrupt on the thread's time is the thread's to the kernel too,
//!   unless it is built with `CONFIG_IRQ_TIME_ACCOUNTING`; and frequency changes, as CPU time is time and not cycles.
//!
//! # Debt
//! Stamps of one thread never go back. If an anchor shows that more was given out than the kernel counted, stamps stand still
//! until the CPU clock has caught up: the surplus is taken from the polls that follow at once, at most the guard's worth.
//! [`MeterMetrics::clock_debt`](crate::MeterMetrics) counts it.
//!
//! An account may so have been billed for what comes later. None of its timers and limits expires by that: before a boundary delivers
//! anything it reads the CPU clock, takes the surplus of the poll that has just ended back, and what is left of the debt from what it
//! compares with the expiries. A clock that adds up many accounts, a group's say, is ahead by the debts of its threads.
//!
//! # The accuracy classes
//! | class | detector | beyond the guard's bound it misses |
//! | --- | --- | --- |
//! | `rseq` | [`rseq`]: the kernel clears a pointer as it switches the thread out | nothing |
//! | `perf` | [`perf`]: a counter in a mapped page moves as the thread is switched in | nothing |
//! | `guard` | none | switches shorter than 250 us in polls shorter than 40 us |
//! | `thread-clock` | the CPU clock is read at every boundary | nothing, at 0.4 us a boundary |
//! | `wall-clock` | the system has no CPU clock of threads | everything: wall time is billed |
//!
//! # Figures
//! On a virtual machine with two cores of an AMD EPYC, Linux 6.18. Error: the worst task's of each of 24 cases (polls of 0.1 us to
//! 1 ms, and polls that sleep 20 us to 1 ms; beside 0, 2 and 4 busy processes), by `cargo bench -p stipend-benches --bench accounting
//! -- --only truth=boundary`, where `thread-clock` is the control and shows the bench's own floor. Cost: what an empty poll takes
//! more, by `--bench hot_path`, where the bare counter takes 9.4 ns.
//!
//! | class | error, median | error, worst | cost |
//! | --- | --- | --- | --- |
//! | `rseq` | 0.08 % | 0.30 % | 8.5 ns |
//! | `perf` | 0.06 % | 0.26 % | 8.4 ns |
//! | `guard` | 0.07 % | 0.46 % | 8.4 ns |
//! | `thread-clock` | 0.02 % | 0.26 % | 437 ns |
//!
//! The worst are polls that sleep: some 70 ns a sleep go to the neighbour.
//!
//! A detector is used only if the [self-test](selftest) of this process saw it work; one that does not see a *blocking* switch
//! (rseq from Linux 6.19 on, see there) is helped by reading the CPU clock after every poll above 40 us, as `guard` does.

pub(crate) mod detector;
pub(crate) mod fast;
pub(crate) mod fork;
pub(crate) mod manual;
pub(crate) mod os;
#[cfg(all(target_os = "linux", not(stipend_portable)))]
mod perf;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
mod rseq;
mod selftest;
pub(crate) mod thread_clock;
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
mod tsc;

use std::fmt;
use std::sync::OnceLock;

use self::detector::{Detector, Keep, Sentinel};
use self::fast::FastCounter;
use self::manual::ManualState;
use self::selftest::Observed;
use crate::thread::ThreadSlot;

/// What was read at one moment: opaque to users; a boundary's end is the next one's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// CPU time of the thread, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// The fast counter, in its own steps.
    pub(crate) fast: u64,
}

impl Stamp {
    /// The CPU time of the thread between an earlier stamp and this one, in nanoseconds.
    #[inline]
    pub fn nanos_since(self, earlier: Stamp) -> u64 {
        self.cpu_ns.saturating_sub(earlier.cpu_ns)
    }
}

/// How exact the accounts are, and what that rests on. [The table](crate::MeterBuilder::clock) says what each class misses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AccuracyClass {
    /// Extrapolated from the thread's CPU clock by the fast counter, and read anew whenever the kernel's rseq area shows that
    /// the thread was switched out.
    Rseq,
    /// The same, with a page of a perf event as the witness: a file descriptor a thread, and 1 us more at each switch.
    Perf,
    /// The same without a witness: read anew every 250 us of run time, and after polls above 40 us.
    Guard,
    /// The thread's CPU clock is read at every boundary: exact, and a system call each.
    ThreadClock,
    /// The system has no CPU clock for threads: wall time is billed.
    WallClock,
    /// A manual clock, for tests.
    Manual,
    /// A forked child of the process that metered: nothing is billed any more.
    Disabled,
}

impl AccuracyClass {
    /// The name used in reports: `rseq`, `perf`, `guard`, `thread-clock`, `wall-clock`, `manual`, `disabled`.
    pub fn as_str(self) -> &'static str {
        match self {
            AccuracyClass::Rseq => "rseq",
            AccuracyClass::Perf => "perf",
            AccuracyClass::Guard => "guard",
            AccuracyClass::ThreadClock => "thread-clock",
            AccuracyClass::WallClock => "wall-clock",
            AccuracyClass::Manual => "manual",
            AccuracyClass::Disabled => "disabled",
        }
    }
}

impl fmt::Display for AccuracyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which clock a meter is to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ClockSource {
    /// The best that passes the self-test: rseq; if that is blind to blocking switches, perf; then the guard alone.
    #[default]
    Auto,
    /// [`AccuracyClass::Rseq`], or nothing.
    Rseq,
    /// [`AccuracyClass::Perf`], or nothing.
    Perf,
    /// [`AccuracyClass::Guard`].
    Guard,
    /// [`AccuracyClass::ThreadClock`].
    ThreadClock,
}

/// A clock that was asked for and cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClockError {
    /// What was asked for.
    pub asked: ClockSource,
    /// What stands against it.
    pub why: &'static str,
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the clock {:?} cannot be used: {}; ask for Auto to take the best that can", self.asked, self.why)
    }
}

impl std::error::Error for ClockError {}

/// The clock of one meter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    System(Detector),
    Manual(&'static ManualState),
}

/// What the self-test saw of a detector in this process: tried once. `None`: it is not to be had here.
fn observed(cell: &'static OnceLock<Option<Observed>>, detector: Detector) -> Option<Observed> {
    *cell.get_or_init(|| {
        selftest::observe(|| match detector::sentinel(detector) {
            (_, Sentinel::None, _) => None,
            (_, sentinel, keep) => Some((sentinel, keep)),
        })
    })
}

fn rseq_observed() -> Option<Observed> {
    static RSEQ: OnceLock<Option<Observed>> = OnceLock::new();
    observed(&RSEQ, Detector::Rseq { sees_blocking: true })
}

fn perf_observed() -> Option<Observed> {
    static PERF: OnceLock<Option<Observed>> = OnceLock::new();
    observed(&PERF, Detector::Perf)
}

/// The detector for what was asked, given what the self-test sees of each (asked only when it matters). `None`: what was asked
/// for is not to be had, or lies.
fn choose(
    source: ClockSource,
    rseq: impl Fn() -> Option<Observed>,
    perf: impl Fn() -> Option<Observed>,
) -> Option<Detector> {
    let rseq = || rseq().filter(Observed::is_usable).map(|seen| Detector::Rseq { sees_blocking: seen.blocking });
    // Its whole point is to see the thread block.
    let perf = || perf().filter(|seen| seen.is_usable() && seen.blocking).map(|_| Detector::Perf);
    match source {
        ClockSource::ThreadClock => Some(Detector::EveryStamp),
        ClockSource::Guard => Some(Detector::None),
        ClockSource::Rseq => rseq(),
        ClockSource::Perf => perf(),
        ClockSource::Auto => Some(match rseq() {
            Some(rseq) if rseq.sees_blocking() => rseq,
            Some(blind) => perf().unwrap_or(blind),
            None => Detector::None,
        }),
    }
}

impl Clock {
    /// Chooses by self-test, or as asked.
    pub(crate) fn system(source: ClockSource) -> Result<Clock, ClockError> {
        let refused = |why| Err(ClockError { asked: source, why });
        if !os::HAS_THREAD_CLOCK {
            return match source {
                ClockSource::Auto => Ok(Clock::System(Detector::EveryStamp)),
                _ => refused("this system has no CPU clock of threads to extrapolate from"),
            };
        }
        match choose(source, rseq_observed, perf_observed) {
            Some(detector) => Ok(Clock::System(detector)),
            None => refused("no such witness is to be had here, or it did not pass the self-test"),
        }
    }

    /// Makes `slot`'s clock that of the calling thread. The clock uses what is returned until it is detached.
    pub(crate) fn attach(self, slot: &ThreadSlot) -> Keep {
        let Clock::System(detector) = self else { return Keep::default() };
        fork::watch();
        let (detector, sentinel, keep) = detector::sentinel(detector);
        slot.clock.attach(FastCounter::get(), detector.sees_blocking(), sentinel);
        keep
    }

    /// Reads both clocks of the calling thread, which holds `slot`.
    #[inline]
    pub(crate) fn stamp(self, slot: &ThreadSlot) -> Stamp {
        match self {
            Clock::System(_) => slot.clock.stamp(),
            Clock::Manual(state) => state.stamp(slot),
        }
    }

    /// The CPU time of the latest stamp.
    #[inline]
    pub(crate) fn last_cpu_ns(self, slot: &ThreadSlot) -> u64 {
        match self {
            Clock::System(_) => slot.clock.last_cpu_ns(),
            Clock::Manual(_) => 0,
        }
    }

    /// A stamp by the CPU clock itself in the place of the latest one, which nobody has used yet. `before_cpu_ns`: of the one before.
    pub(crate) fn restamp(self, slot: &ThreadSlot, before_cpu_ns: u64) -> Stamp {
        match self {
            Clock::System(_) => slot.clock.restamp(before_cpu_ns),
            Clock::Manual(state) => state.stamp(slot),
        }
    }

    /// How much more was given out on the calling thread than its CPU clock has counted by now: the debt. Reads it.
    pub(crate) fn owed_ns(self, slot: &ThreadSlot) -> u64 {
        match self {
            Clock::System(_) => slot.clock.owed_ns(),
            Clock::Manual(_) => 0,
        }
    }

    /// The fast counter alone.
    pub(crate) fn fast(self) -> u64 {
        match self {
            Clock::System(_) => FastCounter::get().read(),
            Clock::Manual(state) => state.fast(),
        }
    }

    /// The nanoseconds between two readings of the fast counter; zero if it went back.
    pub(crate) fn fast_ns_between(self, from: u64, to: u64) -> u64 {
        let steps = to.saturating_sub(from);
        match self {
            Clock::System(_) => FastCounter::get().ns(steps),
            Clock::Manual(_) => steps,
        }
    }

    /// The CPU time of the thread that holds `slot`, read from another thread. `None`: the system cannot, or the thread is gone.
    pub(crate) fn remote_cpu_ns(self, slot: &ThreadSlot) -> Option<u64> {
        match self {
            Clock::System(_) => os::remote_cpu_ns(slot.clock_id()),
            Clock::Manual(_) => Some(slot.manual_cpu_ns()),
        }
    }

    /// Whether this is the manual clock with that state.
    pub(crate) fn is_manual(self, state: &ManualState) -> bool {
        matches!(self, Clock::Manual(own) if std::ptr::eq(own, state))
    }

    pub(crate) fn accuracy(self) -> AccuracyClass {
        match self {
            Clock::Manual(_) => AccuracyClass::Manual,
            Clock::System(_) if fork::is_child() => AccuracyClass::Disabled,
            Clock::System(Detector::Rseq { .. }) => AccuracyClass::Rseq,
            Clock::System(Detector::Perf) => AccuracyClass::Perf,
            Clock::System(Detector::None) => AccuracyClass::Guard,
            Clock::System(Detector::EveryStamp) if os::HAS_THREAD_CLOCK => AccuracyClass::ThreadClock,
            Clock::System(Detector::EveryStamp) => AccuracyClass::WallClock,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HONEST: Observed = Observed { blocking: true, preemptions: 4, preemptions_seen: 4, spurious: false };
    const BLIND: Observed = Observed { blocking: false, ..HONEST };
    const LIAR: Observed = Observed { blocking: false, preemptions_seen: 0, ..HONEST };

    fn chosen(source: ClockSource, rseq: Option<Observed>, perf: Option<Observed>) -> Option<Detector> {
        choose(source, || rseq, || perf)
    }

    #[test]
    fn c06_a_detector_that_was_seen_to_lie_is_demoted() {
        let rseq = Detector::Rseq { sees_blocking: true };
        let blind = Detector::Rseq { sees_blocking: false };
        assert_eq!(chosen(ClockSource::Auto, Some(HONEST), Some(HONEST)), Some(rseq));
        assert_eq!(chosen(ClockSource::Auto, Some(BLIND), Some(HONEST)), Some(Detector::Perf));
        assert_eq!(chosen(ClockSource::Auto, Some(BLIND), Some(LIAR)), Some(blind));
        assert_eq!(chosen(ClockSource::Auto, Some(BLIND), None), Some(blind));
        assert_eq!(chosen(ClockSource::Auto, Some(LIAR), Some(HONEST)), Some(Detector::None));
        assert_eq!(chosen(ClockSource::Auto, None, Some(HONEST)), Some(Detector::None), "perf is opt-in");
        assert_eq!(chosen(ClockSource::Rseq, Some(LIAR), None), None);
        assert_eq!(chosen(ClockSource::Perf, None, Some(BLIND)), None);
        assert_eq!(chosen(ClockSource::Perf, None, None), None);
    }
}
