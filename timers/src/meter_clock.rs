//! The CPU clock of all that a meter looks after.

use std::sync::Arc;
use std::time::Duration;

use crate::host::Host;
use crate::meter::Inner;
use crate::sleep::CpuSleep;
use crate::timer::TimerBuilder;

/// All CPU time of a [`Meter`](crate::Meter)'s threads, a runtime's say: what was charged to accounts, and what the runtime used itself
/// (searching, polling the reactor, parking). From [`Meter::cpu_clock`](crate::Meter::cpu_clock).
///
/// # Timers
/// They are the same as on a task's clock. A *handler* runs at a poll boundary on one of the meter's threads, on the account of whatever
/// was polled there; if nothing is being polled, what ran last is woken for it, and if all that has ended, it waits for what runs
/// next. *Streams and sleeps* are told by the service thread, also while no poll ends.
///
/// A timer is never early. It is found by the tick, so it is late by at most a tick's period and the polls in progress, and costs no poll
/// anything.
///
/// The clock can be read after the meter has stopped, as it does when its last handle is dropped. Nothing fires then: streams end, and
/// sleeps and whoever wants to arm a timer are told [`Exited`](crate::SleepError::Exited).
/// Handlers are dropped then, but for one that runs at that moment, which ends first; `close` does not wait for that one.
///
/// ```
/// use std::time::Duration;
/// use futures::executor::block_on;
/// use stipend_timers::Metered;
/// use stipend_timers::test::Manual;
///
/// let ms = Duration::from_millis;
/// let manual = Manual::new();
/// let _lease = manual.meter().attach();
/// let clock = manual.meter().cpu_clock();
///
/// for used in [20, 30] {
///     block_on(Metered::new(async { manual.advance(ms(used)) })).unwrap();
/// }
/// assert_eq!(clock.now(), ms(50));
/// ```
#[derive(Clone, Debug)]
pub struct MeterClock {
    meter: Arc<Inner>,
}

impl MeterClock {
    pub(crate) fn of(meter: Arc<Inner>) -> Self {
        Self { meter }
    }

    fn host(&self) -> Host {
        Host::Meter(self.meter.clone())
    }

    /// The CPU time used so far, the polls in progress included. Never goes back.
    ///
    /// Costs a few loads for each thread, and a system call for each that is in a poll.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.host().now_ns())
    }

    /// The smallest step of the clock.
    pub fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    /// A new timer on this clock.
    pub fn timer(&self) -> TimerBuilder {
        TimerBuilder::new(self.host())
    }

    /// Waits until the threads have used this much more CPU time, even if no poll returns.
    ///
    /// # Errors
    /// The future's output is [`SleepError::Exited`](crate::SleepError::Exited) if the meter is stopped first.
    ///
    /// # Cancel safety
    /// Dropping the future releases it; nothing is lost.
    pub fn sleep(&self, duration: Duration) -> CpuSleep {
        CpuSleep::for_the_next(self.host(), duration)
    }

    /// Waits until the clock reads `at`. A time in the past is over at once. See [`sleep`](Self::sleep).
    ///
    /// # Errors
    /// As for [`sleep`](Self::sleep).
    ///
    /// # Cancel safety
    /// As for [`sleep`](Self::sleep).
    pub fn sleep_until(&self, at: Duration) -> CpuSleep {
        CpuSleep::until(self.host(), at)
    }
}
