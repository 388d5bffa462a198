//! Stipend: an async executor that gives every task a CPU allowance and holds it to it.
//!
//! Every task has a CPU clock, exact enough to bill by and cheap enough to be always on. On that clock there are timers,
//! soft and hard limits, limits for a single poll, and groups with weights. A task that reaches its hard limit
//! ends with [`JoinError::CpuLimitExceeded`](task::JoinError::CpuLimitExceeded), and the others do not notice.
//!
//! ```
//! use std::time::Duration;
//! use stipend::{CpuLimit, runtime::Runtime, task};
//!
//! let runtime = Runtime::new()?;
//! runtime.block_on(async {
//!     let task = task::Builder::new()
//!         .name("sum")
//!         .cpu_limit(CpuLimit::hard(Duration::from_millis(50)))
//!         .spawn(async { (1..=10).sum::<u64>() })
//!         .expect("a valid limit");
//!     let clock = task.cpu_clock();
//!     assert_eq!(task.await.unwrap(), 55);
//!     assert!(clock.now() < Duration::from_millis(50));
//! });
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The way of one poll
//!
//! ```text
//!  worker ---------> slot -----------> poll ------------> boundary --------> account
//!  takes a task,     says who runs     Future::poll       stamps, charges,   CPU used, next
//!  opens a run       here since when                      compares           expiry
//!    ^                 |                                    |                  |
//!    |                 | looks (a few loads)                | if anything      | is the next expiry
//!    |               the tick, every few ms                 | is pending       | reached?
//!    |                 |                                    v                  v
//!    |                 '---- posts, if it is so -----> wake queue <------------'
//!    |                                                      |
//!    |                                                      v
//!    '------ goes on, or ends the task <--------------- handler
//!                                                       expiry, limit, cancel; on the task's own account
//! ```
//!
//! * **worker**: a thread of the [`runtime`]; it takes tasks from its queue, the injector or another worker's queue.
//! * **slot**: where a worker publishes which account runs and since when, for the tick to see.
//! * **boundary**: the moment the worker is back from the poll, or is about to begin one. All decisions are made here.
//! * **account**: what is known of a task's CPU time.
//! * **wake queue**: one word in the account, in which the tick, an aborter, a supervisor leave what is to be done.
//! * **handler**: what the task's owner asked to be called, and the limits' own answer.
//!
//! A poll cannot be interrupted: what happens to a task happens at its boundaries. In between it is seen, not stopped.
//!
//! # Where to look
//!
//! [`spawn`], [`spawn_local`], [`spawn_blocking`], [`yield_now`] and [`task`] for tasks; [`runtime`] for building and shutting down;
//! [`net`] for sockets, [`time`] for wall time, [`signal`] for signals; [`compat`] for other crates. The CPU side
//! ([`CpuLimit`], [`CpuClock`], [`Group`], [`Scope`]) is of `stipend-timers`, which serves any executor; the examples on those pages
//! say `stipend_timers::` where you write `stipend::`.

// Under loom only the cell and the protocols are built: what uses them is absent.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod sync;

#[cfg(not(loom))]
mod blocking;
#[cfg(not(loom))]
pub mod compat;
#[cfg(not(loom))]
mod coop;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
mod reactor;
/// What of it is modelled.
#[cfg(all(test, loom))]
mod reactor {
    mod gate;
    mod readiness;
    mod wakers;
}
#[cfg(not(loom))]
pub mod runtime;
mod scheduler;
#[cfg(all(unix, not(loom)))]
pub mod signal;
pub mod task;
#[cfg(not(loom))]
pub mod time;
mod yield_now;

pub use stipend_timers::{
    self, AccuracyClass, Action, CheckpointError, ClockError, ClockSource, CpuClock, CpuLimit, CpuLimitExceeded,
    CpuSleep, CpuTimeout, CpuTimer, CpuTimerStream, Exited, Expiry, Group, GroupBuilder, GroupClock, GroupError,
    GroupId, LimitError, LimitKind, Meter, MeterClock, MeterMetrics, Metered, PollClock, PollLimit, Scope, ScopeRun,
    Setting, SleepError, TimerBuilder, TimerError, Usage, checkpoint, cpu_timeout, current_clock, has_budget, test,
    try_cpu_timeout,
};

#[cfg(not(loom))]
pub use self::runtime::{LocalRuntime, Runtime};
#[cfg(not(loom))]
pub use self::spawn::{spawn, spawn_blocking, spawn_local};
pub use self::yield_now::{YieldNow, yield_now};

#[cfg(not(loom))]
mod spawn;
