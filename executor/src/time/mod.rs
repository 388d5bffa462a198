//! Waiting for wall time.
//!
//! These are the clocks on the wall; for waiting until a task has *used* CPU time, see
//! [`stipend_timers`].
//!
//! Timers never fire early. They fire late by at most what it takes until a worker gets to the reactor, plus the
//! granularity of the operating system's wait: that of the kernel's own timers on Linux (microseconds), a millisecond or more
//! elsewhere. A future made here binds to the runtime that polls it first, costs nothing until then, and needs no allocation
//! afterwards to be re-armed. On Linux a timer that is dropped before its deadline may cost the worker a wake-up at that time, if no
//! other was due before it when the worker went to sleep.

mod interval;
mod sleep;
mod timeout;

use std::time::{Duration, Instant};

pub use self::interval::{Interval, interval};
#[cfg(feature = "hyper")]
pub(crate) use self::sleep::sleep_unhurried;
pub use self::sleep::{Sleep, sleep, sleep_until};
pub use self::timeout::{Elapsed, Timeout, timeout};

/// As far away as every platform can represent.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The instant `after` has passed since `from`; 30 years after it if that cannot be represented.
fn instant_after(from: Instant, after: Duration) -> Instant {
    from.checked_add(after).unwrap_or_else(|| from + FAR)
}
