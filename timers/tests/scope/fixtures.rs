//! A thread on the manual clock, and a scope whose run is polled by hand.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stipend_timers::test::Manual;
use stipend_timers::{Account, CancelReason, Control, CpuLimitExceeded, Lease, LimitKind, Scope, ScopeRun};

use crate::common::Wakes;

/// A thread on the manual clock.
pub(super) struct Bench {
    pub(super) manual: Manual,
    pub(super) lease: Lease,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(&Manual::new())
    }

    pub(super) fn on(manual: &Manual) -> Self {
        Self { manual: manual.clone(), lease: manual.meter().attach() }
    }

    /// One poll of an account, as an executor makes it.
    pub(super) fn poll(&self, account: &Account, poll: impl FnOnce()) -> Control {
        let mut run = self.lease.begin(account, self.lease.stamp());
        let control = match run.before_poll() {
            Control::Proceed => {
                poll();
                run.after_poll(false)
            }
            cancel => cancel,
        };
        match control {
            Control::Proceed => {
                run.end();
                account.watch().recheck();
            }
            Control::Cancel(_) => {
                account.end();
                run.end_now();
            }
        }
        control
    }

    pub(super) fn burn(&self, account: &Account, cpu: Duration) -> Control {
        self.poll(account, || self.manual.advance(cpu))
    }
}

/// What the next poll does, and whether that completes it.
pub(super) type Step<'a> = Rc<RefCell<Option<Box<dyn FnOnce() -> bool + 'a>>>>;
pub(super) type Script<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A scope whose run does what it is given, a poll each.
pub(super) struct Request<'a> {
    pub(super) run: Pin<Box<ScopeRun<Script<'a>>>>,
    pub(super) todo: Step<'a>,
    pub(super) wakes: Arc<Wakes>,
}

impl<'a> Request<'a> {
    pub(super) fn new(limit: Duration) -> Self {
        let todo = Step::default();
        let next = todo.clone();
        let script: Script<'a> = Box::pin(poll_fn(move |_| {
            let step = next.borrow_mut().take();
            if step.is_some_and(|step| step()) { Poll::Ready(()) } else { Poll::Pending }
        }));
        Self { run: Box::pin(Scope::with_limit(limit).run(script)), todo, wakes: Arc::default() }
    }

    pub(super) fn poll(&mut self, step: impl FnOnce() -> bool + 'a) -> Poll<Result<(), CpuLimitExceeded>> {
        *self.todo.borrow_mut() = Some(Box::new(step));
        self.again()
    }

    pub(super) fn again(&mut self) -> Poll<Result<(), CpuLimitExceeded>> {
        let waker = Waker::from(self.wakes.clone());
        self.run.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// An account made inside, as a task spawned there.
    pub(super) fn spawn(&mut self) -> (Account, Arc<Wakes>) {
        let made = Rc::new(RefCell::new(None));
        let spawned = made.clone();
        let polled = self.poll(move || {
            *spawned.borrow_mut() = Some(Account::inherit().0);
            false
        });
        assert!(polled.is_pending());
        with_waker(made.take().unwrap())
    }
}

pub(super) fn with_waker(account: Account) -> (Account, Arc<Wakes>) {
    let wakes = Arc::<Wakes>::default();
    account.set_waker(Waker::from(wakes.clone()));
    (account, wakes)
}

#[track_caller]
pub(super) fn over(control: Control) -> CpuLimitExceeded {
    let Control::Cancel(reason) = control else { panic!("it goes on") };
    let CancelReason::CpuLimit(exceeded) = *reason else { panic!("{reason:?}") };
    assert_eq!(exceeded.kind, LimitKind::Scope);
    exceeded
}

#[track_caller]
pub(super) fn over_run(polled: Poll<Result<(), CpuLimitExceeded>>) -> CpuLimitExceeded {
    let Poll::Ready(Err(exceeded)) = polled else { panic!("{polled:?}") };
    assert_eq!(exceeded.kind, LimitKind::Scope);
    exceeded
}

#[track_caller]
pub(super) fn goes_on(control: Control) {
    assert!(matches!(control, Control::Proceed), "{control:?}");
}

#[track_caller]
pub(super) fn requested(control: Control) {
    let Control::Cancel(reason) = control else { panic!("it goes on") };
    assert!(matches!(*reason, CancelReason::Requested), "{reason:?}");
}
