//! The system's clocks, and how the tick is scheduled: what every meter asks of the operating system.
//!
//! What else is asked of it is where it is used, each in a place of its own: the tick's timer in [`crate::sleeper`], what tells of
//! switches in `perf` and `rseq`, beside this, with what is tried at the start in [`super::selftest`], forks in [`super::fork`], and the
//! fence for all threads in [`crate::membarrier`].

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

    /// `struct sched_attr` as of its first version (`include/uapi/linux/sched/types.h`).
    #[derive(Default)]
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }

    const SIZE: u32 = size_of::<SchedAttr>() as u32;
    /// The least that the kernel grants.
    const SHORT_SLICE_NS: u64 = 100_000;

    /// Asks for short slices for the calling thread, which computes for microseconds and should get to it soon: among threads
    /// that want to run, the kernel (from 6.12 on) prefers the one whose slice ends first. It needs no privilege and takes no
    /// time from anybody. Older kernels ignore it; where it is refused, nothing changes.
    ///
    /// What it brings depends on the machine and on what runs beside: tried on two busy processors it took something off the mean
    /// lateness, and nothing that could be told from noise off the latest of a hundred ticks, nor anything on idle ones. The bench
    /// `tick` shows the lateness. Timer slack (`PR_SET_TIMERSLACK`) is no such lever: a timerfd has none.
    pub(crate) fn ask_for_short_slices() {
        let mut attr = SchedAttr { size: SIZE, ..SchedAttr::default() };
        // SAFETY: the kernel writes at most `SIZE` bytes to `attr`, which has as many.
        let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) } != 0;
        // Somebody has given this thread a policy of another kind (a realtime one, or idle): it is theirs to tune.
        if failed || attr.policy != libc::SCHED_OTHER as u32 {
            return;
        }
        attr.size = SIZE;
        attr.runtime_ns = SHORT_SLICE_NS;
        // SAFETY: the kernel reads `attr.size` bytes of `attr`, which has as many, and retains nothing. All that it does is to set
        // how the calling thread is scheduled, everything but the slice as it was.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
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
    pub(crate) fn ask_for_short_slices() {}
    /// Wall time is the same on every thread, so the class confirms by what it bills.
    pub(crate) fn remote_cpu_ns(_clock: ClockId) -> Option<u64> {
        Some(crate::clock::fast::monotonic_ns())
    }
}

pub(crate) use imp::{HAS_THREAD_CLOCK, ask_for_short_slices, own_clock_id, remote_cpu_ns, thread_cpu_ns};
