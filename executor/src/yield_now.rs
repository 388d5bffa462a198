//! Giving way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Lets the other tasks of this worker run: the task goes to the back of the run queue.
///
/// The poll ends with it, so a poll limit starts anew and pending expiries are delivered.
///
/// # Cancel safety
/// Nothing is lost when it is dropped.
///
/// ```
/// # let runtime = stipend::runtime::Runtime::new()?;
/// runtime.block_on(async {
///     for _ in 0..3 {
///         // a piece of work
///         stipend::yield_now().await;
///     }
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
