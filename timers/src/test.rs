//! Tests of limits that are exact: a CPU clock that stands still until it is moved, and a tick made by hand.
//!
//! ```
//! use std::future::Future;
//! use std::task::Poll;
//! use std::time::Duration;
//! use stipend_timers::test::Manual;
//! use stipend_timers::{CpuLimit, Metered};
//!
//! let ms = Duration::from_millis;
//! let manual = Manual::new();
//! let _lease = manual.meter().attach();
//!
//! let job = Metered::new(std::future::poll_fn(|cx| {
//!     manual.advance(ms(10)); // this poll uses 10 ms of CPU, whatever the machine does
//!     cx.waker().wake_by_ref();
//!     Poll::<()>::Pending
//! }));
//! job.account().set_cpu_limit(CpuLimit::hard(ms(25)))?;
//! let stopped = futures::executor::block_on(job).unwrap_err();
//! assert!(stopped.to_string().contains("used 30.000 ms of 25.000 ms"), "{stopped}");
//! # Ok::<(), stipend_timers::LimitError>(())
//! ```

use std::time::Duration;

use crate::clock::manual::ManualState;
use crate::meter::{DEFAULT_TICK_PERIOD, Meter};
use crate::thread;
pub use crate::tick::TickReport;
use crate::units::nanos;

/// A meter whose clock and tick are moved by hand. Clones move the same clock.
///
/// Each thread that the meter leases a slot to has a CPU clock of its own. There is no tick thread and no service thread: what
/// they would do happens inside [`tick`](Self::tick). The clock's few bytes are never freed.
#[derive(Clone, Debug)]
pub struct Manual {
    state: &'static ManualState,
    meter: Meter,
}

impl Manual {
    /// A manual meter whose clocks read zero.
    #[allow(clippy::new_without_default, reason = "each one is another clock")]
    pub fn new() -> Self {
        let state: &'static ManualState = Box::leak(Box::default());
        Self { state, meter: Meter::manual(state, DEFAULT_TICK_PERIOD) }
    }

    /// The meter: attach threads to it, or build a runtime on it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The calling thread uses this much CPU time, and as much wall time passes.
    ///
    /// # Panics
    /// If the calling thread is not attached to this meter.
    #[track_caller]
    pub fn advance(&self, cpu: Duration) {
        match thread::current() {
            Some(current) if current.clock.is_manual(self.state) => current.slot.advance_manual_cpu(nanos(cpu)),
            _ => {
                panic!("advance() was called on a thread that is not attached to this manual meter")
            }
        }
        self.state.advance_fast(nanos(cpu));
    }

    /// Wall time passes and nobody uses CPU time: everything is preempted, or blocked.
    pub fn advance_wall(&self, wall: Duration) {
        self.state.advance_fast(nanos(wall));
    }

    /// Makes one tick, and does what the service thread would do then, on the calling thread.
    pub fn tick(&self) -> TickReport {
        let report = self.meter.inner().tick();
        self.meter.inner().serve();
        report
    }
}

/// How many account records and thread slots the process has made, in use or waiting for reuse: both stay flat however many
/// tasks and threads come and go.
pub fn allocated() -> Allocated {
    Allocated { accounts: crate::record::allocated(), slots: thread::all_slots().count() }
}

/// What [`allocated`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Allocated {
    /// Records of accounts.
    pub accounts: usize,
    /// Slots of threads.
    pub slots: usize,
}
