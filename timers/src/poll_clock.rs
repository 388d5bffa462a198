//! The clock of the poll in progress.

use std::time::Duration;

use crate::cpu_clock::CpuClock;
use crate::host::Host;
use crate::timer::TimerBuilder;

/// The CPU time of a task's poll in progress: the clock of `RLIMIT_RTTIME`. It starts at zero with every poll, is not stopped by
/// yielding inside it or reset by the kernel's preemption, and reads zero while the task waits.
///
/// # What arming means across polls
/// A timer is armed for a *reading* of this clock, and the clock comes to it anew in every poll. So an armed timer fires in each
/// poll that uses that much, a periodic one again at each further interval of the same poll, and stays armed until it is
/// disarmed, closed or armed for something else. `arm_after` counts from what the clock reads at that moment: between two polls
/// it is the same as `arm_at`.
///
/// A handler runs at the boundary of the poll, once, with the intervals of that poll in its overrun; a stream delivers while the
/// poll goes on, to whoever watches over the task from outside. What a stream's owner has not taken by the next poll is added up
/// with that one's. [`Action::RearmAfter`](crate::Action::RearmAfter), from a handler, moves the reading for the polls to come.
///
/// A poll without such timers does not pay for them, nor one that ends before their time.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::sync::Arc;
/// use std::task::Poll;
/// use std::time::Duration;
/// use stipend_timers::Metered;
/// use stipend_timers::test::Manual;
///
/// let ms = Duration::from_millis;
/// let manual = Manual::new();
/// let _lease = manual.meter().attach();
///
/// // Polls of 3, 12 and 25 ms.
/// let mut polls = [3, 12, 25].into_iter();
/// let job = Metered::new(std::future::poll_fn(|cx| match polls.next() {
///     Some(used) => {
///         manual.advance(ms(used));
///         cx.waker().wake_by_ref();
///         Poll::Pending
///     }
///     None => Poll::Ready(()),
/// }));
/// let long_polls = Arc::new(AtomicU32::new(0));
/// let count = long_polls.clone();
/// let _timer = job
///     .clock()
///     .poll_clock()
///     .timer()
///     .on_expiry(move |expiry| {
///         assert!(expiry.used >= ms(10));
///         count.fetch_add(1, Ordering::Relaxed);
///     })
///     .arm_at(ms(10))?;
/// assert!(futures::executor::block_on(job).is_ok());
/// assert_eq!(long_polls.load(Ordering::Relaxed), 2);
/// # Ok::<(), stipend_timers::TimerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PollClock {
    task: CpuClock,
}

impl PollClock {
    pub(crate) fn of(task: CpuClock) -> Self {
        Self { task }
    }

    fn host(&self) -> Host {
        Host::Poll(self.task.clone())
    }

    /// The CPU time that the poll in progress has used; zero while there is none.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.host().now_ns())
    }

    /// The smallest step of the clock.
    pub fn resolution(&self) -> Duration {
        self.task.resolution()
    }

    /// A new timer on this clock: see [above](Self#what-arming-means-across-polls).
    pub fn timer(&self) -> TimerBuilder {
        TimerBuilder::new(self.host())
    }

    /// The clock of the task.
    pub fn task_clock(&self) -> &CpuClock {
        &self.task
    }
}
