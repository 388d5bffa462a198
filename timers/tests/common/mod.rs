//! What the tests on the manual clock share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use stipend_timers::test::Manual;
use stipend_timers::{CancelReason, Lease, Metered};

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A manual meter with the test's thread attached, and a script: what each poll does.
pub(crate) struct Bench {
    pub(crate) manual: Manual,
    _lease: Lease,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let manual = Manual::new();
        let lease = manual.meter().attach();
        Self { manual, _lease: lease }
    }

    /// A task whose every poll runs `poll`, which answers whether it completes.
    pub(crate) fn task<'a>(&'a self, mut poll: impl FnMut(&Manual) -> bool + 'a) -> Task<'a> {
        let manual = self.manual.clone();
        let future: Pin<Box<dyn Future<Output = ()> + 'a>> =
            Box::pin(std::future::poll_fn(move |_| if poll(&manual) { Poll::Ready(()) } else { Poll::Pending }));
        Task { inner: Box::pin(Metered::new(future)), wakes: Arc::default() }
    }

    /// A task that uses the same CPU time in every poll and never completes.
    pub(crate) fn burner(&self, each: Duration) -> Task<'_> {
        self.task(move |manual| {
            manual.advance(each);
            false
        })
    }
}

pub(crate) type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A metered future with a waker that counts.
pub(crate) struct Task<'a> {
    pub(crate) inner: Pin<Box<Metered<Boxed<'a>>>>,
    pub(crate) wakes: Arc<Wakes>,
}

#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Task<'_> {
    pub(crate) fn poll(&mut self) -> Poll<Result<(), CancelReason>> {
        let waker = self.wakes.clone().into();
        self.inner.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls and expects that it goes on.
    #[track_caller]
    pub(crate) fn pending(&mut self) {
        match self.poll() {
            Poll::Pending => {}
            Poll::Ready(done) => panic!("it should have gone on, and is {done:?}"),
        }
    }

    /// Polls and expects that it is cancelled.
    #[track_caller]
    pub(crate) fn cancelled(&mut self) -> CancelReason {
        match self.poll() {
            Poll::Ready(Err(reason)) => reason,
            other => panic!("it should have been cancelled, and is {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn completed(&mut self) {
        assert!(matches!(self.poll(), Poll::Ready(Ok(()))), "it should have completed");
    }

    pub(crate) fn clock(&self) -> stipend_timers::CpuClock {
        self.inner.clock()
    }
}

/// A log that handlers write to.
pub(crate) type Log<T> = Arc<std::sync::Mutex<Vec<T>>>;

pub(crate) fn log<T>() -> Log<T> {
    Arc::default()
}

pub(crate) fn taken<T>(log: &Log<T>) -> Vec<T> {
    std::mem::take(&mut log.lock().unwrap())
}
