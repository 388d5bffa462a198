//! Ends the driver's sleep when the earliest timer falls due.
//!
//! The wait for events has a timeout of its own, for which the kernel sets a timer up at each sleep and takes it down at each wake, mostly
//! in vain: timers are mostly timeouts, far away and cancelled in time. It was 0.6 us of a request. So on Linux the alarm is a timer that
//! stays in the kernel (a timerfd among the sources). It is set when a deadline appears that is earlier than what it is set
//! for, and left alone when that is cancelled: the price is one sleep that ends for nothing. It also counts nanoseconds where the
//! wait's timeout counts milliseconds.
//!
//! Elsewhere, and where the kernel does not give such a timer, the wait's timeout serves.

use std::time::Duration;

use mio::Registry;

use super::timers::Nanos;

/// When it rings while it is not set.
const NEVER: Nanos = Nanos::MAX;

#[derive(Debug)]
pub(super) struct Alarm {
    timer: Option<os::Timer>,
    rings_at: Nanos,
}

impl Alarm {
    /// An alarm that reports to the selector behind `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        Self { timer: os::Timer::new(registry).ok(), rings_at: NEVER }
    }

    /// One that cannot be set.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { timer: None, rings_at: NEVER }
    }

    /// When it ends a sleep, by what it was set to.
    pub(super) fn rings_at(&self) -> Nanos {
        self.rings_at
    }

    /// Makes it ring at `at`, which is `after` from now, and not zero, and no more at what it was set to before. False if it cannot, and then
    /// it rings as before.
    pub(super) fn set(&mut self, at: Nanos, after: Duration) -> bool {
        let is_set = self.timer.as_ref().is_some_and(|timer| timer.set(after).is_ok());
        if is_set {
            self.rings_at = at;
        }
        is_set
    }

    /// It has rung if it was set to a time before this one, and is not relied on any more. Should it ring only now, a sleep ends for nothing.
    pub(super) fn is_over_by(&mut self, now: Nanos) {
        if self.rings_at <= now {
            self.rings_at = NEVER;
        }
    }
}

#[cfg(all(target_os = "linux", not(stipend_portable)))]
mod os {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };

    use crate::reactor::sources;

    #[derive(Debug)]
    pub(super) struct Timer(OwnedFd);

    impl Timer {
        pub(super) fn new(registry: &Registry) -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            // Reported once each time it rings, so it need not be read.
            registry.register(&mut SourceFd(&timer.as_raw_fd()), sources::ALARM, Interest::READABLE)?;
            Ok(Self(timer))
        }

        pub(super) fn set(&self, after: Duration) -> io::Result<()> {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let after = Timespec::try_from(after).map_err(io::Error::other)?;
            let setting = Itimerspec { it_interval: once, it_value: after };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
            Ok(())
        }
    }
}

#[cfg(not(all(target_os = "linux", not(stipend_portable))))]
mod os {
    use std::io;
    use std::time::Duration;

    use mio::Registry;

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Timer {}

    impl Timer {
        pub(super) fn new(_registry: &Registry) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn set(&self, _after: Duration) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_whose_time_has_passed_is_not_relied_on() {
        let mut alarm = Alarm { rings_at: 5, ..Alarm::none() };
        alarm.is_over_by(4);
        assert_eq!(alarm.rings_at(), 5);
        alarm.is_over_by(5);
        assert_eq!(alarm.rings_at(), NEVER);
    }

    #[test]
    fn one_that_cannot_be_set_says_so() {
        let mut alarm = Alarm::none();
        assert!(!alarm.set(5, Duration::from_nanos(5)));
        assert_eq!(alarm.rings_at(), NEVER);
    }
}
