//! A point in wall time to wait for.
//!
//! Invariant: a `Sleep` that holds a timer owns that timer's place in the reactor, and gives it back on drop. One
//! that was never polled, or whose deadline had passed when it was, holds none; an unhurried one does in the second case, too, until
//! the reactor has fired it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::instant_after;
use crate::coop::Courtesy;
use crate::reactor::{Reactor, TimerKey};
use crate::runtime::{Handle, context};

/// Waits until `duration` has passed. A duration too long to represent means 30 years.
///
/// # Panics
///
/// When the future is polled for the first time outside of a runtime.
///
/// # Cancel safety
///
/// Dropping the future releases its timer.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// stipend::time::sleep(Duration::from_millis(5)).await;
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// # });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(instant_after(Instant::now(), duration))
}

/// Waits until `deadline`. If it has passed, the first poll is ready.
///
/// # Panics
///
/// As [`sleep`].
///
/// # Cancel safety
///
/// Dropping the future releases its timer.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None, courtesy: Courtesy::default(), unhurried: false }
}

/// As [`sleep_until`], but reads no clock when it is polled: if the deadline has passed by then, it is ready a turn of the reactor later.
/// For timeouts, which have not passed when they are begun.
#[cfg(feature = "hyper")]
pub(crate) fn sleep_unhurried(deadline: Instant) -> Sleep {
    Sleep { unhurried: true, ..sleep_until(deadline) }
}

/// The future of [`sleep`] and [`sleep_until`].
///
/// It does not need to be pinned, and can be polled again when it was ready: it stays so until it is
/// [`reset`](Self::reset). After the shutdown of its runtime it is ready at once.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<Timer>,
    courtesy: Courtesy,
    /// Leaves it to the reactor to look at the clock.
    unhurried: bool,
}

#[derive(Debug)]
struct Timer {
    reactor: Arc<Reactor>,
    /// `None` only while it is dropped.
    key: Option<TimerKey>,
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.reactor.remove_timer(key);
        }
    }
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has passed.
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Moves the deadline, to an earlier or a later time, also when it has passed. A task that waits for the
    /// sleep is woken at the new deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// # stipend::Runtime::new().unwrap().block_on(async {
    /// use std::time::{Duration, Instant};
    ///
    /// let mut idle = stipend::time::sleep(Duration::from_secs(3600));
    /// idle.reset(Instant::now() + Duration::from_millis(1));
    /// idle.await;
    /// # });
    /// ```
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Some(Timer { reactor, key: Some(key) }) = &self.timer {
            reactor.reset_timer(key, deadline);
        }
    }

    /// Polls without regard to the task's budget: for a deadline over something that uses it up each time.
    pub(super) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.unhurried && self.is_elapsed() {
            return Poll::Ready(());
        }
        if let Some(Timer { reactor, key: Some(key) }) = &self.timer {
            return if reactor.poll_timer(key, cx.waker()) { Poll::Ready(()) } else { Poll::Pending };
        }
        let reactor = context::with_current(|shared| Arc::clone(shared.reactor())).unwrap_or_else(|| Handle::missing());
        match reactor.insert_timer(self.deadline, cx.waker()) {
            Some(key) => {
                self.timer = Some(Timer { reactor, key: Some(key) });
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.courtesy.poll(cx));
        self.get_mut().poll_elapsed(cx)
    }
}
