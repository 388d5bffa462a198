//! The expiries of one timer as a stream, for a supervisor on another task.
//!
//! A handler runs at the boundary of the task whose clock it is; a stream is for whoever watches that task from outside. What has
//! fired waits in the stream's [`Inbox`] until it is taken, as one [`Expiry`] however often the timer fired meanwhile: a supervisor
//! that is slow loses no interval and has no queue that grows.
//!
//! # Invariants
//! * The sum of `1 + overrun` over what was taken and what waits in the inbox is the intervals that have fired since arming.
//! * An inbox that fills takes the waker, so a supervisor is woken once for what it has not taken yet.
//! * The inbox is filled under the account's lock, before the account can end, and outlives it: what fired in the task's last poll
//!   is delivered before the stream ends. Its own lock is the innermost one, and no user code runs under it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::FusedStream;

use crate::sync::Mutex;
use crate::timer::CpuTimer;
use crate::timer_set::Expiry;

/// What has fired and was not taken yet.
#[derive(Debug)]
pub(crate) struct Inbox(Mutex<Option<Expiry>>);

impl Default for Inbox {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl Inbox {
    /// Adds an expiry to what waits: its `at` stays the first one's, and the later ones are its overrun.
    pub(crate) fn add(&self, expiry: Expiry) {
        let mut waiting = self.0.lock();
        *waiting = Some(match *waiting {
            None => expiry,
            Some(first) => Expiry {
                used: expiry.used,
                at: first.at,
                overrun: first.overrun.saturating_add(1).saturating_add(expiry.overrun),
            },
        });
    }

    pub(crate) fn take(&self) -> Option<Expiry> {
        self.0.lock().take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// A timer on another task's CPU clock whose expiries are a stream; from [`TimerBuilder::stream`](crate::TimerBuilder::stream).
///
/// It delivers also while a poll of that task never returns: the tick finds the expiry and the service thread wakes the
/// supervisor. Expiries that it has not taken yet become one, with the later ones in its `overrun`. A stream whose timer is
/// disarmed, or was a one-shot, waits until it is armed again, and ends when the task has ended; what had fired by then comes
/// first.
///
/// On its own task's clock a stream goes on only as far as the task does other things, since that clock stands still while the task
/// waits.
///
/// Dropping it closes the timer.
///
/// # Cancel safety
/// An expiry is taken only by the poll that returns it, so giving up a `next()` loses nothing.
///
/// ```
/// use std::time::Duration;
/// use futures::executor::block_on;
/// use futures::{StreamExt, join};
/// use stipend_timers::Metered;
/// use stipend_timers::test::Manual;
///
/// let ms = Duration::from_millis;
/// let manual = Manual::new();
/// let _lease = manual.meter().attach();
///
/// // A job of a single poll, of 35 ms.
/// let job = Metered::new(async { manual.advance(ms(35)) });
/// let mut expiries = job.clock().timer().every(ms(10)).stream_after(ms(10))?;
/// let supervisor = async {
///     let expiry = expiries.next().await.unwrap();
///     assert_eq!((expiry.at, expiry.used, expiry.overrun), (ms(10), ms(35), 2));
///     assert_eq!(expiries.next().await, None); // the job has ended
/// };
/// let (done, ()) = block_on(async { join!(job, supervisor) });
/// assert!(done.is_ok());
/// # Ok::<(), stipend_timers::TimerError>(())
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct CpuTimerStream {
    timer: CpuTimer,
    inbox: Arc<Inbox>,
}

impl CpuTimerStream {
    pub(crate) fn new(timer: CpuTimer, inbox: Arc<Inbox>) -> Self {
        Self { timer, inbox }
    }

    /// The timer: to arm it, to disarm it and to read it. An expiry that was not taken yet is forgotten when it is armed or
    /// disarmed; its [`overrun`](CpuTimer::overrun) is that of the expiry taken last.
    pub fn timer(&self) -> &CpuTimer {
        &self.timer
    }
}

impl Stream for CpuTimerStream {
    type Item = Expiry;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Expiry>> {
        // Cloned outside the lock, where the one before is dropped too.
        let mut waker = Some(cx.waker().clone());
        match self.timer.with_now(|timers, id, now_ns| timers.poll_stream(id, now_ns, &mut waker)) {
            Some(Some(expiry)) => Poll::Ready(Some(expiry)),
            // Ended. Its last boundary has left in the inbox what was due.
            None => Poll::Ready(self.inbox.take()),
            Some(None) => {
                self.timer.host().kick_if_due();
                Poll::Pending
            }
        }
    }
}

impl FusedStream for CpuTimerStream {
    fn is_terminated(&self) -> bool {
        self.timer.host().has_ended() && self.inbox.is_empty()
    }
}
