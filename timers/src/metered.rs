//! One future with an account of its own, on any executor.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project::pin_project;

use crate::account::Account;
use crate::boundary::{CancelReason, Control, Run};
use crate::cpu_clock::CpuClock;
use crate::error::{CpuLimitExceeded, LimitError};
use crate::limit::CpuLimit;
use crate::sync::{Ordering, fence};
use crate::thread;

/// A future whose polls are metered on an account of its own: under Tokio, smol or any other executor, or inside a Stipend
/// task, where its time is a part of the task's too.
///
/// Its output is the inner future's, or why that was cancelled; then the inner future has been dropped already. On a thread
/// that belongs to no Stipend runtime the first poll starts the process-wide [`Meter`](crate::Meter).
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::{CpuLimit, Metered};
///
/// let job = Metered::new(async { 2 + 2 });
/// job.account().set_cpu_limit(CpuLimit::hard(Duration::from_millis(50)))?;
/// let clock = job.clock();
/// assert_eq!(futures::executor::block_on(job).unwrap(), 4);
/// assert!(clock.has_ended());
/// # Ok::<(), stipend_timers::LimitError>(())
/// ```
#[pin_project(PinnedDrop)]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Metered<F> {
    /// `None` once it has completed or was cancelled.
    #[pin]
    inner: Option<F>,
    account: Account,
    /// The waker that the account has.
    waker: Option<Waker>,
}

impl<F: Future> Metered<F> {
    /// Wraps a future; its account has no limit yet.
    pub fn new(future: F) -> Self {
        Self::on(Account::new(), future)
    }

    pub(crate) fn on(account: Account, future: F) -> Self {
        Self { inner: Some(future), account, waker: None }
    }
}

impl<F> Metered<F> {
    /// The account, for limits and handlers.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The account's clock.
    pub fn clock(&self) -> CpuClock {
        self.account.clock()
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = Result<F::Output, CancelReason>;

    /// # Panics
    /// If polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        assert!(this.inner.is_some(), "a Metered future was polled after it was ready");
        if !this.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *this.waker = Some(cx.waker().clone());
            this.account.set_waker(cx.waker().clone());
        }
        let account = &*this.account;
        let polled = thread::with_current(|current, foreign| {
            let outermost = current.slot.shown.depth() == 0;
            if outermost && let Some(lease) = foreign {
                lease.set_active();
            }
            // Whatever way the poll ends, an idle foreign thread keeps no tick awake.
            let _idle = SetIdle(foreign.filter(|_| outermost));
            let mut run = Run::begin(current.slot, &current.clock, account, current.clock.stamp(current.slot));
            let control = match run.before_poll() {
                Control::Proceed => {
                    // A panic unwinds through `run`, which then ends: what was used is charged.
                    match poll_inner(this.inner.as_mut(), cx) {
                        Poll::Ready(value) => {
                            let _ = run.after_poll(true);
                            this.inner.as_mut().set(None);
                            account.end();
                            run.end_now();
                            return Poll::Ready(Ok(value));
                        }
                        Poll::Pending => run.after_poll(false),
                    }
                }
                cancel @ Control::Cancel(_) => cancel,
            };
            match control {
                Control::Proceed => {
                    run.end();
                    // The executor's own transition is not ours to wait for: see `boundary`.
                    fence(Ordering::SeqCst);
                    account.watch().recheck();
                    Poll::Pending
                }
                Control::Cancel(reason) => {
                    run.section();
                    this.inner.as_mut().set(None);
                    account.end();
                    run.end_now();
                    Poll::Ready(Err(*reason))
                }
            }
        });
        // A thread that is ending, or one for which no tick could be started, is not metered; the future still runs.
        polled.unwrap_or_else(|| poll_inner(this.inner, cx).map(Ok))
    }
}

fn poll_inner<F: Future>(inner: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    // `None` only after it was ready, which `poll` refuses.
    inner.as_pin_mut().map_or(Poll::Pending, |inner| inner.poll(cx))
}

#[pin_project::pinned_drop]
impl<F> PinnedDrop for Metered<F> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.inner.is_none() {
            return;
        }
        // The destructor's time belongs to the account too.
        let account = &*this.account;
        if let Some(current) = thread::current() {
            let mut run = Run::begin(current.slot, &current.clock, account, current.clock.stamp(current.slot));
            this.inner.as_mut().set(None);
            run.end_now();
        }
    }
}

struct SetIdle<'a>(Option<&'a thread::Lease>);

impl Drop for SetIdle<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.0 {
            lease.set_idle();
        }
    }
}

/// Gives a future this much CPU time: the CPU twin of a timeout. The clock runs only while the future is polled, or blocking
/// jobs that it started run; waiting costs nothing.
///
/// When the limit is reached, the future is dropped at the end of the poll that reached it. One that completes in that poll
/// returns its value. Nested ones are billed to each; the tighter binds.
///
/// # Errors
/// The future's output is [`CpuLimitExceeded`] when the limit was reached first.
///
/// # Panics
/// If `limit` is zero: nothing could run under it.
///
/// # Cancel safety
/// Dropping it drops the inner future.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::cpu_timeout;
///
/// let parsed = cpu_timeout(Duration::from_millis(50), async { "42".parse::<u32>() });
/// assert_eq!(futures::executor::block_on(parsed).unwrap(), Ok(42));
/// ```
#[track_caller]
pub fn cpu_timeout<F: Future>(limit: Duration, future: F) -> CpuTimeout<F> {
    match try_cpu_timeout(limit, future) {
        Ok(timeout) => timeout,
        Err(error) => panic!("cpu_timeout: {error}"),
    }
}

/// [`cpu_timeout`] for a limit that comes from outside.
///
/// # Errors
/// [`LimitError::ZeroHard`] if `limit` is zero.
pub fn try_cpu_timeout<F: Future>(limit: Duration, future: F) -> Result<CpuTimeout<F>, LimitError> {
    let metered = Metered::new(future);
    metered.account.set_cpu_limit(CpuLimit::hard(limit))?;
    Ok(CpuTimeout { metered })
}

/// Future of [`cpu_timeout`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct CpuTimeout<F> {
    #[pin]
    metered: Metered<F>,
}

impl<F> CpuTimeout<F> {
    /// The clock that the limit is on.
    pub fn clock(&self) -> CpuClock {
        self.metered.clock()
    }
}

impl<F: Future> Future for CpuTimeout<F> {
    type Output = Result<F::Output, CpuLimitExceeded>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().metered.poll(cx).map(|done| done.map_err(|reason| only_exceeded(reason, "cpu_timeout")))
    }
}

/// Why a run ended whose account is this crate's own, with a handle to its clock only: nobody can cancel it but a handler that was armed
/// through that clock. It ends the surrounding task, as a panic in its poll would.
pub(crate) fn only_exceeded(reason: CancelReason, what: &str) -> CpuLimitExceeded {
    match reason {
        CancelReason::CpuLimit(exceeded) => exceeded,
        CancelReason::HandlerPanicked(payload) => std::panic::resume_unwind(payload),
        CancelReason::Requested => panic!("an expiry handler cancelled a {what}"),
    }
}
