//! The handle to a CPU timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::TimerError;
use crate::host::Host;
use crate::stream::{CpuTimerStream, Inbox};
use crate::timer_set::{Action, Closed, Delivery, Expiry, Handler, MAX_TIMERS, Now, Setting, TimerSet};
use crate::units::nanos;

/// The longest interval.
const MAX_INTERVAL: Duration = Duration::from_nanos(1 << 63);

/// Makes a [`CpuTimer`]; from [`CpuClock::timer`](crate::CpuClock::timer) and its like.
#[must_use = "a builder makes nothing until it is built or armed"]
pub struct TimerBuilder {
    host: Host,
    interval: Option<Duration>,
    handler: Option<Handler>,
}

impl std::fmt::Debug for TimerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerBuilder").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl TimerBuilder {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, interval: None, handler: None }
    }

    /// Makes the timer periodic: after the first expiry it fires every `interval`, on the grid of the first. An interval that
    /// cannot be kept is refused when the timer is armed.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// What runs at an expiry: at a poll boundary, on a worker thread, on the time of the task whose boundary it is. Which task that
    /// is depends on the [clock](CpuTimer#on-which-clock). Without a handler the timer is silent: it can only be read.
    ///
    /// A handler that panics ends that task, like a panic in its poll.
    pub fn on_expiry<F, A>(mut self, mut handler: F) -> Self
    where
        F: FnMut(Expiry) -> A + Send + 'static,
        A: Into<Action>,
    {
        self.handler = Some(Box::new(move |expiry| handler(expiry).into()));
        self
    }

    /// A disarmed timer.
    ///
    /// # Errors
    /// [`TimerError::Exited`] if the clock's task has ended, [`TimerError::TooMany`] if there are as many timers on the clock as there
    /// may be.
    pub fn build(self) -> Result<CpuTimer, TimerError> {
        let delivery = match self.handler {
            Some(handler) => Delivery::Handler(Some(handler)),
            None => Delivery::Silent,
        };
        make(self.host, delivery)
    }

    /// Makes the timer and arms it to fire when the clock has gone on by `after`. See [`CpuTimer::arm_after`].
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn arm_after(self, after: Duration) -> Result<CpuTimer, TimerError> {
        let interval = self.checked_interval()?;
        let timer = self.build()?;
        timer.arm(Start::After(after), interval)?;
        Ok(timer)
    }

    /// Makes the timer and arms it to fire when the clock reads `at`. See [`CpuTimer::arm_at`].
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn arm_at(self, at: Duration) -> Result<CpuTimer, TimerError> {
        let interval = self.checked_interval()?;
        let timer = self.build()?;
        timer.arm(Start::At(at), interval)?;
        Ok(timer)
    }

    /// A stream of the expiries of a timer that is disarmed yet, for a supervisor: see [`CpuTimerStream`]. It takes the place of a
    /// handler, which is not run.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn stream(self) -> Result<CpuTimerStream, TimerError> {
        let inbox = Arc::new(Inbox::default());
        let timer = make(self.host, Delivery::stream(inbox.clone()))?;
        Ok(CpuTimerStream::new(timer, inbox))
    }

    /// The same, armed to fire when the clock has gone on by `after`. See [`CpuTimer::arm_after`].
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn stream_after(self, after: Duration) -> Result<CpuTimerStream, TimerError> {
        let interval = self.checked_interval()?;
        let stream = self.stream()?;
        stream.timer().arm(Start::After(after), interval)?;
        Ok(stream)
    }

    /// The same, armed to fire when the clock reads `at`. See [`CpuTimer::arm_at`].
    ///
    /// # Errors
    /// See [`TimerError`].
    pub fn stream_at(self, at: Duration) -> Result<CpuTimerStream, TimerError> {
        let interval = self.checked_interval()?;
        let stream = self.stream()?;
        stream.timer().arm(Start::At(at), interval)?;
        Ok(stream)
    }

    fn checked_interval(&self) -> Result<u64, TimerError> {
        self.interval.map_or(Ok(0), check_interval)
    }
}

/// A timer, disarmed. What is refused is dropped outside the lock.
fn make(host: Host, delivery: Delivery) -> Result<CpuTimer, TimerError> {
    let mut delivery = Some(delivery);
    let id = host.change(|timers, _| {
        if timers.is_full() {
            return Err(TimerError::TooMany { max: MAX_TIMERS });
        }
        Ok(delivery.take().map(|delivery| timers.insert(delivery)))
    });
    let id = id.ok_or(TimerError::Exited)??;
    Ok(CpuTimer { host, id })
}

fn check_interval(interval: Duration) -> Result<u64, TimerError> {
    if interval.is_zero() {
        Err(TimerError::ZeroInterval)
    } else if interval > MAX_INTERVAL {
        Err(TimerError::IntervalTooLong { interval, max: MAX_INTERVAL })
    } else {
        Ok(nanos(interval))
    }
}

#[derive(Clone, Copy)]
enum Start {
    After(Duration),
    At(Duration),
}

/// A timer on a CPU clock, with the semantics of POSIX `timer_create` and `timer_settime`.
///
/// It fires when the clock has reached its time, never before: its handler runs at a poll boundary, and for a time that is reached in
/// the middle of a poll at that poll's end. Dropping it closes it without waiting; [`close`](Self::close) waits.
///
/// # On which clock
/// * On a task's, [`CpuClock`](crate::CpuClock): at that task's boundaries. If it waits, it is woken for a time that is past.
/// * On a group's, [`GroupClock`](crate::GroupClock#timers): at the boundary of the member that finds the expiry, on that member's
///   time. The member is whom a panic ends and what the handler answers is for.
/// * On a meter's, [`MeterClock`](crate::MeterClock#timers): the same, with any task on the meter's threads for a member. The tick finds
///   the expiry, up to a period later.
/// * On that of a task's poll in progress, [`PollClock`](crate::PollClock#what-arming-means-across-polls): at the end of each poll that
///   comes to the time, and the timer stays armed. A time that this poll has passed waits for its end too, and while the task waits no
///   time is past.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::{Account, Action};
///
/// let account = Account::new();
/// let timer = account
///     .clock()
///     .timer()
///     .every(Duration::from_millis(10))
///     .on_expiry(|expiry| println!("{} intervals late", expiry.overrun))
///     .arm_after(Duration::from_millis(10))?;
/// assert_eq!(timer.interval(), Duration::from_millis(10));
/// # Ok::<(), stipend_timers::TimerError>(())
/// ```
#[derive(Debug)]
pub struct CpuTimer {
    host: Host,
    /// `None` once closed.
    id: Option<u32>,
}

impl CpuTimer {
    /// Arms for `after` more CPU time than the clock reads now, with the polls in progress; once, or on a
    /// [poll's clock](Self#on-which-clock) once in each poll. Zero disarms (`timer_settime` with `it_value` 0). Returns the
    /// setting before; an expiry not delivered yet is forgotten.
    ///
    /// # Errors
    /// [`TimerError::Exited`]. The timer then stays as it was.
    pub fn arm_after(&self, after: Duration) -> Result<Setting, TimerError> {
        self.arm(Start::After(after), 0)
    }

    /// Arms for the moment at which the clock reads `at`, once (`TIMER_ABSTIME`). A time in the past fires at the next boundary, which is
    /// brought about if the task waits; not so on a [poll's clock](Self#on-which-clock). Zero disarms.
    ///
    /// # Errors
    /// [`TimerError::Exited`]. The timer then stays as it was.
    pub fn arm_at(&self, at: Duration) -> Result<Setting, TimerError> {
        self.arm(Start::At(at), 0)
    }

    /// Arms for `after` more CPU time and every `interval` from there on. `after` of zero disarms.
    ///
    /// # Errors
    /// [`TimerError::ZeroInterval`], [`TimerError::IntervalTooLong`], [`TimerError::Exited`]. The timer then stays as it was.
    pub fn arm_every(&self, after: Duration, interval: Duration) -> Result<Setting, TimerError> {
        self.arm(Start::After(after), check_interval(interval)?)
    }

    fn arm(&self, start: Start, interval_ns: u64) -> Result<Setting, TimerError> {
        let (before, kick) = match start {
            Start::After(Duration::ZERO) | Start::At(Duration::ZERO) => {
                (self.with(|timers, id, now| timers.disarm(id, now)), false)
            }
            Start::After(after) => {
                let arm = |timers: &mut TimerSet, id, now_ns: u64| {
                    timers.arm(id, now_ns.saturating_add(nanos(after)), interval_ns, now_ns)
                };
                (self.with_now(arm), true)
            }
            Start::At(at) => (self.with(|timers, id, now| timers.arm(id, nanos(at), interval_ns, now)), true),
        };
        let before = before.ok_or(TimerError::Exited)?;
        if kick {
            self.host.kick_if_due();
        }
        Ok(before)
    }

    /// Disarms; the interval then reads zero. Returns the setting before. Does nothing when the clock's task has ended.
    pub fn disarm(&self) -> Setting {
        self.with(|timers, id, now| timers.disarm(id, now)).unwrap_or_default()
    }

    /// The CPU time left: at least 1 ns while armed, zero only when disarmed or fired. Relative also for an absolute timer.
    pub fn remaining(&self) -> Duration {
        self.setting().remaining
    }

    /// The interval; zero if the timer is not periodic or disarmed.
    pub fn interval(&self) -> Duration {
        self.setting().interval
    }

    /// Both at one moment (`timer_gettime`).
    pub fn setting(&self) -> Setting {
        self.with(|timers, id, now| timers.setting(id, now)).unwrap_or_default()
    }

    /// How many further intervals the last delivery stood for (`timer_getoverrun`); zero before the first and after arming.
    pub fn overrun(&self) -> u32 {
        self.with(|timers, id, _| timers.overrun(id)).unwrap_or(0)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Closes the timer. Once the future is ready its handler does not run and will not run any more. The closing itself
    /// happens in this call, and not at the first poll.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the timer closed; only the wait is given up.
    pub fn close(mut self) -> CloseTimer {
        let firing = self.close_now();
        self.id = None;
        CloseTimer { host: self.host.clone(), firing }
    }

    /// `Some`: its handler is out.
    fn close_now(&mut self) -> Option<(u32, u64)> {
        let id = self.id?;
        match self.with(|timers, id, _| timers.close(id)) {
            Some(Closed::Firing { stamp }) => Some((id, stamp)),
            Some(Closed::Done(delivery)) => {
                crate::panics::contain(|| drop(delivery));
                None
            }
            None => None,
        }
    }

    /// Changes the timer under the lock, at what the clock reads. `None`: the clock has ended, or the timer is closed.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut TimerSet, u32, Now<'_>) -> R) -> Option<R> {
        let id = self.id?;
        self.host.change(|timers, now| change(timers, id, now))
    }

    pub(crate) fn with_now<R>(&self, change: impl FnOnce(&mut TimerSet, u32, u64) -> R) -> Option<R> {
        let id = self.id?;
        self.host.change_now(|timers, now_ns| change(timers, id, now_ns))
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Future of [`CpuTimer::close`].
#[derive(Debug)]
#[must_use = "the timer is closed already, but its handler may still run until this is ready"]
pub struct CloseTimer {
    host: Host,
    /// Id and stamp of a timer whose handler was out.
    firing: Option<(u32, u64)>,
}

impl Future for CloseTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((id, stamp)) = self.firing else {
            return Poll::Ready(());
        };
        // Cloned, and dropped if it is not used, outside the lock.
        let mut waker = Some(cx.waker().clone());
        let still = self.host.change(|timers, _| timers.wait_closed(id, stamp, &mut waker)).unwrap_or(false);
        if still {
            return Poll::Pending;
        }
        self.firing = None;
        Poll::Ready(())
    }
}
