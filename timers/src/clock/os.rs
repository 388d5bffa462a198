//! The system's clocks. The only place, with [`crate::sleeper`], that knows the operating system.

#![allow(unsafe_code)]

/// Names the CPU clock of one thread, for reading it from another; [`NO_CLOCK`] where that is impossible.
pub(crate) type ClockId = i32;
/// No clock: never a valid id of a thread's CPU clock.
pub(crate) const NO_CLOCK: ClockId = 0;

#[cfg(all(target_os = "linux", not(stipend_portable)))]
mod imp {
    use super::*;

    pub(crate) const HAS_THREAD_CLOCK: bool = true;

    fn read(clock: ClockId) -> Option<u64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec for the whole call; the call writes nothing else and retains nothing. An id that
        // names no live thread of this process makes it fail, not misbehave.
        let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
        (!failed).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    pub(crate) fn thread_cpu_ns() -> u64 {
        read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
    }

    /// The id of the calling thread's CPU clock, as `pthread_getcpuclockid` makes it: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED
    /// beneath the complement of the thread id (`include/linux/posix-timers_types.h`).
    pub(crate) fn own_clock_id() -> ClockId {
        // SAFETY: takes nothing and returns the caller's thread id.
        let tid = unsafe { libc::gettid() };
        (!tid << 3) | 6
    }

    pub(crate) fn remote_cpu_ns(clock: ClockId) -> Option<u64> {
        if clock == NO_CLOCK { None } else { read(clock) }
    }
}

#[cfg(not(all(target_os = "linux", not(stipend_portable))))]
mod imp {
    use super::*;

    pub(crate) const HAS_THREAD_CLOCK: bool = false;

    pub(crate) fn thread_cpu_ns() -> u64 {
        crate::clock::fast::monotonic_ns()
    }
    pub(crate) fn own_clock_id() -> ClockId {
        NO_CLOCK
    }
    /// Wall time is the same on every thread, so the class confirms by what it bills.
    pub(crate) fn remote_cpu_ns(_clock: ClockId) -> Option<u64> {
        Some(crate::clock::fast::monotonic_ns())
    }
}

pub(crate) use imp::{HAS_THREAD_CLOCK, own_clock_id, remote_cpu_ns, thread_cpu_ns};
