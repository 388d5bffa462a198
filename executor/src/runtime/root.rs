//! `block_on`: a future polled by the thread that calls, metered like a task.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Wake, Waker};

use stipend_timers::{Account, CancelReason, Control, Lease, Stamp};

use super::Shared;
use super::context::{self, Role};
use crate::scheduler::parker::Parker;

/// A root future with its account.
pub(super) struct Root<'a, F> {
    account: OnEnd,
    /// In an option, so that its destructor can run inside the metered section.
    future: Pin<&'a mut Option<F>>,
}

impl<'a, F: Future> Root<'a, F> {
    /// Woken by `waker`.
    pub(super) fn new(future: Pin<&'a mut Option<F>>, waker: Waker) -> Self {
        let account = OnEnd(Account::new());
        account.0.set_waker(waker);
        Self { account, future }
    }

    /// Polls it once, between the brackets. If it is ready, it is dropped too.
    pub(super) fn poll(&mut self, lease: &Lease, at: Stamp, cx: &mut Context<'_>) -> (Poll<F::Output>, Stamp) {
        let account = &self.account.0;
        // A panic of the poll is the caller's: it unwinds through here, and dropping `run` closes the bracket.
        let mut run = lease.begin(account, at);
        stop_if_cancelled(run.before_poll());
        let polled = match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => unreachable!("the root future is polled until it is ready"),
        };
        let control = run.after_poll(polled.is_ready());
        if polled.is_ready() {
            run.section();
            self.future.set(None);
            account.end();
            return (polled, run.end_now());
        }
        stop_if_cancelled(control);
        let at = run.end();
        // A timer may just have been armed on this account, from outside: see `Account::watch`.
        fence(Ordering::SeqCst);
        account.watch().recheck();
        (Poll::Pending, at)
    }
}

/// Refuses to block a thread that polls already.
pub(super) fn check_role() {
    match context::role() {
        Role::Foreign => {}
        Role::Worker => panic!(
            "block_on was called on a worker thread: it would block the other tasks; await the future, or \
             call block_on inside spawn_blocking"
        ),
        Role::Root => panic!("block_on was called inside block_on: await the future instead"),
    }
}

struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify();
    }
}

pub(super) fn block_on<F: Future>(shared: &Arc<Shared>, future: F) -> F::Output {
    check_role();
    let _role = context::take_role(Role::Root);
    let _runtime = context::enter(shared);
    let unpark = Arc::new(Unpark(Parker::new()));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut cx = Context::from_waker(&waker);
    let future = pin!(Some(future));
    let mut root = Root::new(future, waker.clone());

    let lease = shared.meter().attach();
    lease.set_active();
    let mut at = lease.stamp();
    loop {
        let (polled, now) = root.poll(&lease, at, &mut cx);
        at = now;
        if let Poll::Ready(output) = polled {
            lease.charge_runtime(at);
            return output;
        }
        lease.set_idle();
        unpark.0.park();
        lease.set_active();
        at = lease.charge_runtime(at);
    }
}

/// A root future has nobody to be cancelled by but its own handlers and limits: its caller is told by a panic.
fn stop_if_cancelled(control: Control) {
    let Control::Cancel(reason) = control else { return };
    match *reason {
        CancelReason::HandlerPanicked(payload) => std::panic::resume_unwind(payload),
        CancelReason::CpuLimit(exceeded) => panic!("the root future was cancelled: {exceeded}"),
        _ => panic!("the root future was cancelled"),
    }
}

/// Ends the account however `block_on` is left.
struct OnEnd(Account);

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}
