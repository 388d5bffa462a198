//! Something to do again and again.
//!
//! Invariant: every tick lies on the grid that the first one began. A tick that comes late moves none of the later
//! ones, and ticks that were missed altogether are left out, as for a periodic CPU timer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::Stream;

use super::{Sleep, instant_after, sleep_until};
use crate::coop::Courtesy;

/// Ticks every `period`, at once for the first time.
///
/// # Panics
///
/// If `period` is zero.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
///
/// let mut interval = stipend::time::interval(Duration::from_millis(2));
/// let first = interval.tick().await;
/// let second = interval.tick().await;
/// assert!(second - first >= Duration::from_millis(2));
/// # });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "the period of an interval must be longer than zero");
    Interval { sleep: sleep_until(Instant::now()), period, courtesy: Courtesy::default() }
}

/// See [`interval`]. Also an endless [`Stream`] of its ticks.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
    courtesy: Courtesy,
}

impl Interval {
    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Waits for the next tick and returns when it was due. Ticks that were missed in between are left out.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a runtime.
    ///
    /// # Cancel safety
    ///
    /// A tick is taken only by the poll that returns it.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// The next tick begins a new grid, one period from now.
    pub fn reset(&mut self) {
        self.sleep.reset(instant_after(Instant::now(), self.period));
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(self.courtesy.poll(cx));
        ready!(self.sleep.poll_elapsed(cx));
        let due = self.sleep.deadline();
        self.sleep.reset(next_on_grid(due, self.period, Instant::now()));
        Poll::Ready(due)
    }
}

impl Stream for Interval {
    type Item = Instant;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.get_mut().poll_tick(cx).map(Some)
    }
}

/// The first instant after `now` that is a whole number of periods, one at least, after `due`.
fn next_on_grid(due: Instant, period: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due).as_nanos();
    let into_period = late % period.as_nanos();
    let nanos = u64::try_from(late - into_period).unwrap_or(u64::MAX);
    let last = instant_after(due, Duration::from_nanos(nanos));
    instant_after(last, period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_left_out_and_the_grid_is_kept() {
        let ms = Duration::from_millis;
        let due = Instant::now();
        for (late, next) in [(0, 10), (1, 10), (9, 10), (10, 20), (11, 20), (105, 110), (12_345, 12_350)] {
            assert_eq!(next_on_grid(due, ms(10), due + ms(late)), due + ms(next), "{late} ms late");
        }
        assert_eq!(next_on_grid(due, ms(10), due - ms(5)), due + ms(10), "early is not late");
    }

    #[test]
    fn an_endless_period_does_not_overflow() {
        let due = Instant::now();
        assert!(next_on_grid(due, Duration::MAX, due + Duration::from_secs(1)) > due);
    }
}
