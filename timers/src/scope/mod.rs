//! One CPU limit for everything that is done on behalf of one request.
//!
//! A limit on a task ends at what the task spawns; a [`Scope`]'s does not. It is the account of the future that it runs,
//! and the tasks spawned inside add to it: see [`members`].

pub(crate) mod members;
#[cfg(all(test, loom))]
mod models;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use crate::account::Account;
use crate::cpu_clock::CpuClock;
use crate::error::{CpuLimitExceeded, LimitError};
use crate::limit::CpuLimit;
use crate::metered::{Metered, only_exceeded};
use crate::slot::FRAMES;
use crate::thread::{self, ThreadSlot};

/// From this depth on a run is not shown in the slot.
const HIDDEN_FROM: u32 = FRAMES as u32;

/// One CPU limit over a future, the tasks spawned inside it, by them in turn, and the blocking jobs of all of these: for
/// a request, whatever it starts.
///
/// The future runs in the current task, as in a [`cpu_timeout`](crate::cpu_timeout), and its time is that task's too.
/// Tasks spawned while it is polled become *members*, in whatever group and with whatever limits of their own. (An
/// executor makes accounts with [`Account::inherit`]; Stipend does.)
///
/// # At the limit
/// When the sum reaches the limit, every member ends at its next boundary, those that wait too, and none is polled again:
/// a task's handle and [`run`](Self::run) answer [`CpuLimitExceeded`] with [`LimitKind::Scope`](crate::LimitKind::Scope).
/// One that completes in that very poll returns its value. A poll that goes on is told by the tick:
/// [`checkpoint`](crate::checkpoint) fails and [`has_budget`](crate::has_budget) is false. A blocking job cannot be
/// ended; it hears of it by `checkpoint` too.
///
/// # At the end
/// Nothing outlives the scope but by the poll it is in: when the run completes or is dropped, members that still run are
/// cancelled (a handle answers that the task was cancelled, as if it had been aborted). So await what is to be finished.
///
/// # Nesting
/// A scope's run inside another scope counts into both; the tightest limit binds. If it is the outer one's, the inner run
/// ends with the outer one's error. More than eight scopes inside each other are charged and ended like any other, but
/// the tick sees the innermost eight.
///
/// # Cost
/// A record of 192 bytes, which comes from the accounts' arena, and 64 bytes beside the future. `cargo bench -p
/// stipend-benches --bench scope` measures the time.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::Scope;
///
/// let answer = Scope::with_limit(Duration::from_millis(50)).run(async { 6 * 7 });
/// assert_eq!(futures::executor::block_on(answer).unwrap(), 42);
/// ```
#[derive(Debug)]
#[must_use = "a scope does nothing until it runs a future"]
pub struct Scope {
    account: Account,
}

impl Scope {
    /// A scope with this much CPU time.
    ///
    /// # Panics
    /// If `limit` is zero: nothing could run under it. See [`try_with_limit`](Self::try_with_limit) for a limit from outside.
    #[track_caller]
    pub fn with_limit(limit: Duration) -> Self {
        match Self::try_with_limit(limit) {
            Ok(scope) => scope,
            Err(error) => panic!("Scope::with_limit: {error}"),
        }
    }

    /// [`with_limit`](Self::with_limit) for a limit that comes from outside.
    ///
    /// # Errors
    /// [`LimitError::ZeroHard`] if `limit` is zero.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stipend_timers::{LimitError, Scope};
    ///
    /// assert_eq!(Scope::try_with_limit(Duration::ZERO).unwrap_err(), LimitError::ZeroHard);
    /// ```
    pub fn try_with_limit(limit: Duration) -> Result<Self, LimitError> {
        let account = Account::new();
        members::make_scope(account.record());
        account.set_cpu_limit(CpuLimit::hard(limit))?;
        Ok(Self { account })
    }

    /// The clock that the limit is on: what the run and all members have used, blocking jobs included.
    pub fn clock(&self) -> CpuClock {
        self.account.clock()
    }

    /// Runs a future in this scope, as a part of whatever polls it. The scope is inside the one that it is first polled in.
    ///
    /// # Errors
    /// The output is [`CpuLimitExceeded`] when the limit, or that of a scope around, was reached first.
    ///
    /// # Cancel safety
    /// Dropping it drops the future and cancels the members.
    pub fn run<F: Future>(self, future: F) -> ScopeRun<F> {
        ScopeRun { metered: Metered::on(self.account, future) }
    }
}

/// Future of [`Scope::run`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ScopeRun<F> {
    #[pin]
    metered: Metered<F>,
}

impl<F> ScopeRun<F> {
    /// The clock that the limit is on; see [`Scope::clock`].
    pub fn clock(&self) -> CpuClock {
        self.metered.clock()
    }
}

impl<F: Future> Future for ScopeRun<F> {
    type Output = Result<F::Output, CpuLimitExceeded>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let metered = self.project().metered;
        // A thread that is not metered yet has nothing around.
        let _inside = thread::current().and_then(|current| {
            let before = members::enter(metered.account().record(), current.slot)?;
            Some(Inside { slot: current.slot, before })
        });
        metered.poll(cx).map(|done| done.map_err(|reason| only_exceeded(reason, "scope")))
    }
}

/// Inside a run that the slot does not show.
struct Inside {
    slot: &'static ThreadSlot,
    before: u32,
}

impl Drop for Inside {
    fn drop(&mut self) {
        members::leave(self.slot, self.before);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc::channel;
    use std::task::Waker;

    use super::*;
    use crate::boundary::{CancelReason, Control};
    use crate::current::checkpoint;
    use crate::error::{CheckpointError, LimitKind};
    use crate::offload::Offload;
    use crate::record::Record;
    use crate::test::Manual;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A member that is polled on another thread has used 30 of 50 ms, which are not charged yet; `here` is run on this one, with
    /// another.
    fn beside_a_long_poll(here: impl FnOnce(&Manual, &thread::Lease, &Account)) {
        let manual = Manual::new();
        let lease = manual.meter().attach();
        let members = RefCell::new(Vec::new());
        let request = std::future::poll_fn(|_| {
            members.borrow_mut().extend([Account::inherit().0, Account::inherit().0]);
            Poll::<()>::Pending
        });
        let mut run = Box::pin(Scope::with_limit(ms(50)).run(request));
        assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let members = members.take();
        std::thread::scope(|threads| {
            let (burnt, wait_burnt) = channel();
            let (go_on, wait_go_on) = channel::<()>();
            let (theirs, manual_there) = (&members[0], manual.clone());
            threads.spawn(move || {
                let lease = manual_there.meter().attach();
                let mut run = lease.begin(theirs, lease.stamp());
                assert!(matches!(run.before_poll(), Control::Proceed));
                manual_there.advance(ms(30));
                burnt.send(()).unwrap();
                wait_go_on.recv().unwrap();
                let _ = run.after_poll(false);
                run.end_now();
            });
            wait_burnt.recv().unwrap();
            here(&manual, &lease, &members[1]);
            go_on.send(()).unwrap();
        });
    }

    #[test]
    fn s02_what_the_tick_has_confirmed_ends_a_member_before_the_service_thread_gets_to_it() {
        beside_a_long_poll(|manual, lease, member| {
            let mut run = lease.begin(member, lease.stamp());
            assert!(matches!(run.before_poll(), Control::Proceed));
            manual.advance(ms(30));
            assert!(manual.meter().inner().tick().confirmed > 0);
            let control = run.after_poll(false);
            run.end_now();
            let Control::Cancel(reason) = control else { panic!("it goes on") };
            let CancelReason::CpuLimit(exceeded) = *reason else { panic!("{reason:?}") };
            assert_eq!((exceeded.kind, exceeded.used, exceeded.limit), (LimitKind::Scope, ms(60), ms(50)));
        });
    }

    #[test]
    fn s02_a_blocking_job_hears_of_what_the_tick_has_confirmed() {
        beside_a_long_poll(|manual, lease, member| {
            let mut run = lease.begin(member, lease.stamp());
            assert!(matches!(run.before_poll(), Control::Proceed));
            let captured = Offload::capture();
            assert!(matches!(run.after_poll(false), Control::Proceed));
            run.end();
            let job = lease.offload(&captured, lease.stamp());
            manual.advance(ms(30));
            assert_eq!(checkpoint(), Ok(()));
            assert!(manual.meter().inner().tick().confirmed > 0);
            let stopped = checkpoint();
            drop(job);
            let Err(CheckpointError::CpuLimitExceeded(exceeded)) = stopped else { panic!("{stopped:?}") };
            assert_eq!((exceeded.kind, exceeded.used, exceeded.limit), (LimitKind::Scope, ms(60), ms(50)));
        });
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn s03_a_scope_is_at_most_256_bytes() {
        // The waker that the account shares: two counts and the waker.
        let waker = 2 * size_of::<usize>() + size_of::<std::task::Waker>();
        assert!(size_of::<Record>() + size_of::<ScopeRun<()>>() + waker <= 256);
    }
}
