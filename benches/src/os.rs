//! What the benches need of the operating system and the processor. The only file with `unsafe`, with [`posix`](crate::posix).

#![allow(unsafe_code)]

use std::io;

/// CPU time of the calling thread, in nanoseconds, by the kernel.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).expect("the system has CPU clocks of threads")
}

/// CPU time of a process, user and system, in nanoseconds.
///
/// # Errors
/// If there is no such process.
pub fn process_cpu_ns(id: u32) -> io::Result<u64> {
    let mut clock = 0;
    let id = libc::pid_t::try_from(id).map_err(io::Error::other)?;
    // SAFETY: the clock's number is written to a valid place.
    match unsafe { libc::clock_getcpuclockid(id, &raw mut clock) } {
        0 => clock_ns(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a valid place.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CPU time of a thread of this process, in nanoseconds, by the kernel; `None` if there is no such thread.
#[must_use]
pub fn thread_cpu_ns_of(thread: u32) -> Option<u64> {
    // CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED beneath the complement of the id, as pthread_getcpuclockid makes it.
    let clock = (!libc::clockid_t::try_from(thread).ok()? << 3) | 6;
    clock_ns(clock).ok()
}

/// The calling thread's number.
#[must_use]
pub fn thread_id() -> u32 {
    // SAFETY: takes nothing and returns a number above zero.
    unsafe { libc::gettid() as u32 }
}

/// Bytes that the C library's allocator has handed out, with its own overhead; `None` where it does not say.
#[must_use]
pub fn allocated_bytes() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes nothing and returns plain numbers.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks + info.hblkhd)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Bytes of the process that are in memory.
///
/// # Errors
/// If the system does not say.
pub fn resident_bytes() -> io::Result<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    // SAFETY: takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(resident.ok_or(io::ErrorKind::InvalidData)? * page as usize)
}

/// Reads the time stamp counter; the monotonic clock on processors without one.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    #[cfg(target_arch = "x86_64")]
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    return clock_ns(libc::CLOCK_MONOTONIC).unwrap_or(0);
}

/// Keeps the calling thread, and those that it starts, to some processors.
///
/// # Errors
/// If the process may use none of them.
pub fn pin(cpus: impl IntoIterator<Item = usize>) -> io::Result<()> {
    // SAFETY: a zeroed set is an empty one; the numbers lie within it; the set is valid for the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus.into_iter().filter(|cpu| *cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the process open as many files as it may: a thousand connections are two thousand of them.
pub fn raise_file_limit() {
    // SAFETY: both calls get a valid place. If they fail, the limit stays.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
