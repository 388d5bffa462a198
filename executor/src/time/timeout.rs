//! A future that is given up after a while.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::{Sleep, sleep};

/// Gives `future` up when `duration` of wall time has passed. The time runs from this call.
///
/// The future is polled first, so one that is ready in its first poll costs no timer, and one that becomes ready
/// as its time ends wins. It is dropped with the returned future, not before.
///
/// # Errors
///
/// [`Elapsed`] if the time passed first.
///
/// # Panics
///
/// If it has to wait outside of a runtime.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use stipend::time::timeout;
///
/// let never = std::future::pending::<()>();
/// assert!(timeout(Duration::from_millis(1), never).await.is_err());
/// assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
/// # });
/// ```
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future, duration, sleep: sleep(duration) }
}

/// The future of [`timeout`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Timeout<F> {
    #[pin]
    future: F,
    duration: Duration,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // Not subject to the budget: a future that uses it up in every poll could never be given up.
        this.sleep.poll_elapsed(cx).map(|()| Err(Elapsed { after: *this.duration }))
    }
}

/// The time given to a future has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    after: Duration,
}

impl Elapsed {
    /// The time that was given.
    pub fn after(&self) -> Duration {
        self.after
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not finished after {:?} of wall time", self.after)
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}
