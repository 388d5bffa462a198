//! What several test files need.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Far more than any test here takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a future on a thread that has nothing to do with any runtime.
///
/// # Panics
/// If it is not ready after [`PATIENCE`].
#[track_caller]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let began = Instant::now();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                let left = PATIENCE.saturating_sub(began.elapsed());
                assert!(!left.is_zero(), "not ready after {PATIENCE:?}");
                thread::park_timeout(left);
            }
        }
    }
}

/// Waits, without a runtime's help, until `done`, which another thread brings about.
///
/// # Panics
/// If it has not after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        let waited = began.elapsed();
        assert!(waited < PATIENCE, "not so after {PATIENCE:?}");
        // Two threads that run at the same time meet within moments; one that does not run needs this one's core.
        if waited < Duration::from_micros(100) {
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}
