//! POSIX timers on the CPU clock of the calling thread: the peer of CPU timers.

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::thread_cpu_ns;

/// How many expiries were delivered in this process so far, and the thread's CPU clock at the latest of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// How many.
    pub count: u64,
    /// CPU time of the thread that ran the handler, as the handler read it.
    pub latest_cpu_ns: u64,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static LATEST: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_expiry(_signal: libc::c_int) {
    LATEST.store(thread_cpu_ns(), Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Release);
}

/// What was delivered so far.
#[must_use]
pub fn delivered() -> Delivered {
    let count = COUNT.load(Ordering::Acquire);
    Delivered { count, latest_cpu_ns: LATEST.load(Ordering::Relaxed) }
}

/// A timer of `timer_create`, on the CPU clock of the thread that made it and with a signal to that thread, whose handler counts
/// and reads the clock.
#[derive(Debug)]
pub struct Timer(libc::timer_t);

impl Timer {
    /// A disarmed timer.
    ///
    /// # Errors
    /// If the system refuses it: each counts against `RLIMIT_SIGPENDING`.
    pub fn new() -> io::Result<Self> {
        // A real-time signal: of the others only one is ever pending, and expiries would be lost to the count.
        let signal = libc::SIGRTMIN();
        // SAFETY: zeroed structures are valid; the handler is async-signal-safe, as it stores to atomics and reads a clock; all
        // pointers are valid for the calls.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int) = on_expiry;
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            if libc::sigaction(signal, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_notify_thread_id = libc::gettid();
            event.sigev_signo = signal;
            let mut timer: libc::timer_t = std::ptr::null_mut();
            if libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(timer))
        }
    }

    /// Arms it for the moment at which the thread's CPU clock reads `at_ns`; zero disarms it.
    pub fn set(&self, at_ns: u64) {
        let it_value = libc::timespec { tv_sec: (at_ns / 1_000_000_000) as _, tv_nsec: (at_ns % 1_000_000_000) as _ };
        let it_interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval, it_value };
        // SAFETY: the timer lives as long as `self`, the setting is valid for the call, and the old one is not asked for.
        let failed =
            unsafe { libc::timer_settime(self.0, libc::TIMER_ABSTIME, &raw const setting, std::ptr::null_mut()) };
        debug_assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `new` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}
