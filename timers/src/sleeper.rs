//! What the tick thread sleeps in: a periodic timer that another thread can start, and that costs nothing while it is stopped.
//!
//! Linux: a timerfd. Starting it is one system call for the worker that leaves idleness, and wakes nobody: the tick thread
//! comes round a period later. Elsewhere: parking with a timeout, and starting it unparks the thread.

use std::io;
use std::time::Duration;

#[cfg(all(target_os = "linux", not(stipend_portable)))]
pub(crate) use timerfd::Sleeper;

#[cfg(not(all(target_os = "linux", not(stipend_portable))))]
pub(crate) use portable::Sleeper;

#[cfg(all(target_os = "linux", not(stipend_portable)))]
mod timerfd {
    #![allow(unsafe_code)]

    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[derive(Debug)]
    pub(crate) struct Sleeper(OwnedFd);

    impl Sleeper {
        pub(crate) fn new() -> io::Result<Self> {
            // SAFETY: no pointers; the result is checked before it is used as a descriptor.
            let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was just opened by this call and belongs to nobody else.
            Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
        }

        fn set(&self, first: Duration, period: Duration) {
            let timespec = |time: Duration| libc::timespec {
                tv_sec: time.as_secs() as libc::time_t,
                tv_nsec: time.subsec_nanos() as libc::c_long,
            };
            let setting = libc::itimerspec { it_value: timespec(first), it_interval: timespec(period) };
            // SAFETY: the descriptor is open for as long as `self` lives, `setting` is valid for the call, and the old
            // setting is not asked for.
            let failed = unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &setting, std::ptr::null_mut()) };
            debug_assert_eq!(failed, 0, "{}", io::Error::last_os_error());
        }

        /// Starts the timer; the first period ends a period from now.
        pub(crate) fn start(&self, period: Duration) {
            self.set(period, period);
        }

        /// Stops it: `wait` then sleeps until it is started.
        pub(crate) fn stop(&self) {
            self.set(Duration::ZERO, Duration::ZERO);
        }

        /// Ends the current `wait`, or the next one, at once.
        pub(crate) fn interrupt(&self) {
            self.set(Duration::from_nanos(1), Duration::ZERO);
        }

        /// Sleeps until the next period ends. May return early.
        pub(crate) fn wait(&self) {
            let mut expirations = 0u64;
            // SAFETY: the buffer is the eight bytes that a timerfd read needs. An interrupted or failed read leaves it
            // alone, and returning early is allowed.
            unsafe { libc::read(self.0.as_raw_fd(), (&raw mut expirations).cast(), size_of::<u64>()) };
        }
    }
}

#[cfg(any(test, not(all(target_os = "linux", not(stipend_portable)))))]
#[cfg_attr(all(target_os = "linux", not(stipend_portable)), allow(dead_code))]
mod portable {
    use super::*;
    use crate::clock::fast::monotonic_ns;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::Thread;

    #[derive(Debug, Default)]
    pub(crate) struct Sleeper {
        /// In nanoseconds; zero while stopped.
        period_ns: AtomicU64,
        /// When the current period ends, by the monotonic clock: periods join, however late the thread comes round.
        end_ns: AtomicU64,
        sleeper: OnceLock<Thread>,
    }

    impl Sleeper {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self::default())
        }

        pub(crate) fn start(&self, period: Duration) {
            let period_ns = crate::units::nanos(period);
            self.end_ns.store(monotonic_ns() + period_ns, Ordering::SeqCst);
            self.period_ns.store(period_ns, Ordering::SeqCst);
            self.unpark();
        }

        pub(crate) fn stop(&self) {
            self.period_ns.store(0, Ordering::SeqCst);
        }

        pub(crate) fn interrupt(&self) {
            self.end_ns.store(0, Ordering::SeqCst);
            self.period_ns.store(1, Ordering::SeqCst);
            self.unpark();
        }

        fn unpark(&self) {
            if let Some(thread) = self.sleeper.get() {
                thread.unpark();
            }
        }

        pub(crate) fn wait(&self) {
            self.sleeper.get_or_init(std::thread::current);
            loop {
                match self.period_ns.load(Ordering::SeqCst) {
                    0 => std::thread::park(),
                    period_ns => {
                        let (now_ns, end_ns) = (monotonic_ns(), self.end_ns.load(Ordering::SeqCst));
                        if now_ns >= end_ns {
                            let over = (now_ns - end_ns) / period_ns + 1;
                            self.end_ns.store(end_ns + over * period_ns, Ordering::SeqCst);
                            return;
                        }
                        std::thread::park_timeout(Duration::from_nanos(end_ns - now_ns));
                    }
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::sync::Arc;
        use std::time::Instant;

        #[test]
        fn a_stopped_sleeper_waits_until_it_is_started() {
            let sleeper = Arc::new(Sleeper::new().unwrap());
            let waiting = std::thread::spawn({
                let sleeper = sleeper.clone();
                move || {
                    for _ in 0..3 {
                        sleeper.wait();
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waiting.is_finished());
            let started = Instant::now();
            sleeper.start(Duration::from_millis(1));
            waiting.join().unwrap();
            assert!(started.elapsed() >= Duration::from_millis(3), "three periods");
        }
    }
}
