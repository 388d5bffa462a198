//! Does a detector work here? It is tried before it is used: the kernel's contract may have changed, a sandbox may emulate it,
//! another library may own it.
//!
//! A thread of its own provokes switches that it can prove: it sleeps (a blocking switch), and it spins beside a competitor on
//! the same processor that keeps waking up, until the kernel's own count of involuntary switches has moved. After each it looks
//! whether the sentinel broke. It takes about a millisecond, once in a process, and 30 ms at most.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::detector::{Keep, Sentinel};

/// What the self-test saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Observed {
    /// It broke when the thread slept.
    pub(crate) blocking: bool,
    /// Preemptions that were provoked, and those at which it broke.
    pub(crate) preemptions: u32,
    pub(crate) preemptions_seen: u32,
    /// It broke although nothing had happened.
    pub(crate) spurious: bool,
}

impl Observed {
    /// Whether the detector may be trusted with preemption. A switch while a system call returns may be missed by some (see
    /// `rseq`), hence half.
    pub(crate) fn is_usable(&self) -> bool {
        if self.spurious {
            return false;
        }
        let saw_preemption = self.preemptions_seen * 2 >= self.preemptions;
        // Where no preemption could be provoked in time, the sleep has to do.
        saw_preemption && (self.preemptions > 0 || self.blocking)
    }
}

/// How many preemptions are provoked, and for how long it is tried.
const PREEMPTIONS: u32 = 4;
const AT_MOST: Duration = Duration::from_millis(30);

/// Observes the sentinel that `make` gives a thread. `None`: there is none to be had.
pub(crate) fn observe(make: impl FnOnce() -> Option<(Sentinel, Keep)> + Send) -> Option<Observed> {
    std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let (sentinel, _keep) = make()?;
            // SAFETY: this thread's sentinel, kept until the end of this closure.
            let observed = unsafe { observe_here(sentinel) };
            // SAFETY: as above.
            unsafe { sentinel.disarm() };
            Some(observed)
        });
        observer.join().ok().flatten()
    })
}

/// # Safety
/// The sentinel is the calling thread's, and valid.
unsafe fn observe_here(sentinel: Sentinel) -> Observed {
    let mut observed = Observed::default();
    // SAFETY: the caller's word, for this closure and the next.
    let arm = || unsafe { sentinel.arm() };
    // SAFETY: as above.
    let broke = |expected| unsafe { !sentinel.is_whole(expected) };

    let expected = arm();
    std::thread::sleep(Duration::from_micros(50));
    observed.blocking = broke(expected);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A thread begins with its parent's affinity: both share one processor from here on.
        pin_to_this_cpu();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(20));
                // Long enough to be a competitor.
                spin(Duration::from_micros(20));
            }
        });
        let deadline = Instant::now() + AT_MOST;
        while observed.preemptions < PREEMPTIONS && Instant::now() < deadline {
            let before = involuntary_switches();
            let expected = arm();
            while involuntary_switches() == before && Instant::now() < deadline {
                spin(Duration::from_micros(20));
            }
            if involuntary_switches() != before {
                observed.preemptions += 1;
                observed.preemptions_seen += u32::from(broke(expected));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    observed.spurious = (0..16).all(|_| broke(arm()));
    observed
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[cfg(target_os = "linux")]
fn pin_to_this_cpu() {
    // SAFETY: a zeroed set is an empty one; the processor's number lies within it, or the set is left empty and the call fails,
    // which leaves the thread unpinned; the set is valid for the call.
    unsafe {
        let cpu = libc::sched_getcpu();
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if let Ok(cpu) = usize::try_from(cpu)
            && cpu < libc::CPU_SETSIZE as usize
        {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }
}

#[cfg(target_os = "linux")]
fn involuntary_switches() -> i64 {
    // SAFETY: all-zero is a valid rusage, and it is valid for the call.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw
    }
}

#[cfg(not(target_os = "linux"))]
fn pin_to_this_cpu() {}

#[cfg(not(target_os = "linux"))]
fn involuntary_switches() -> i64 {
    0
}

#[cfg(all(test, target_os = "linux", not(loom)))]
mod tests {
    use super::*;
    use std::ptr::NonNull;
    use std::sync::atomic::AtomicU64;

    /// Fault injection: a detector that never notices anything.
    #[test]
    fn c06_a_detector_that_lies_is_not_usable() {
        let observed = observe(|| {
            let word: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
            Some((Sentinel::Pointer(NonNull::from(word)), Keep::default()))
        })
        .unwrap();
        assert!(!observed.blocking);
        assert_eq!(observed.preemptions_seen, 0);
        assert!(!observed.is_usable(), "{observed:?}");
        let observed = observe(|| Some((Sentinel::None, Keep::default()))).unwrap();
        assert!(!observed.is_usable(), "{observed:?}");
    }

    #[test]
    fn c06_verdicts() {
        let observed = |blocking, preemptions, preemptions_seen| Observed {
            blocking,
            preemptions,
            preemptions_seen,
            spurious: false,
        };
        assert!(observed(true, 4, 4).is_usable());
        assert!(observed(false, 4, 3).is_usable(), "blind to blocking, and helped by the 40 us rule");
        assert!(!observed(true, 4, 1).is_usable(), "it misses preemptions");
        assert!(observed(true, 0, 0).is_usable(), "no preemption to be had: the sleep has to do");
        assert!(!observed(false, 0, 0).is_usable());
    }
}
