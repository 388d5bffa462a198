//! CPU clocks, CPU timers and CPU limits for async tasks.
//!
//! A thread that polls tasks shows in a *slot* what it polls; a *tick* thread looks at the slots and, when a task has used up
//! its time, queues a notification on that task's *wake queue*; what follows (handlers, cancellation) happens at the *poll
//! boundary*, the moment at which the thread is back from `Future::poll`, on the task's own account. Nothing but a lock-free
//! check happens in tick context. It is what Linux does with POSIX CPU timers since 2020, where the timer interrupt only checks
//! and expiry is handled as `task_work` on the way back to user space.
//!
//! ```text
//!   polling thread                               tick thread (while anything polls)
//!   ──────────────                               ──────────────────────────────────
//!   begin      show the account in the slot ───> read the slot
//!   poll       user code runs                    use + wall time since >= next expiry?
//!                has_budget(), checkpoint() <─── confirm by the thread's CPU clock, post TICK
//!   after_poll charge the account                 │
//!              use >= next expiry, or posted?     └> service thread: supervisors' timers
//!              run handlers, or cancel
//!   end        leave the slot
//! ```
//!
//! This crate knows no executor. [`Metered`] and [`cpu_timeout`] meter a future anywhere, under Tokio too. An executor that
//! meters its tasks itself keeps an [`Account`] a task and a [`Lease`] a worker, and runs each poll inside a [`Run`].
//!
//! # Features of the system it builds on
//! Linux: the tick reads other threads' CPU clocks (`pthread_getcpuclockid`) and sleeps on a timerfd. Elsewhere wall time is
//! billed, which [`Meter::accuracy`] reports. What follows is used where the kernel has it and grants it, and done without where not:
//!
//! * `rseq`, which glibc has registered for each thread, or else a perf event, tells whether a thread was switched out since its CPU clock
//!   was read: see [`MeterBuilder::clock`].
//! * `membarrier` pays for the fence of every charge when a timer is armed on a group's clock. Without it the charges pay.
//! * A short scheduler slice (`sched_setattr`, from Linux 6.12 on) lets the tick thread get to a busy processor sooner.

mod account;
mod boundary;
mod clock;
mod cpu_clock;
mod current;
mod error;
mod gate;
mod group;
#[doc(hidden)]
pub mod heap;
mod histogram;
mod host;
mod lateness;
mod limit;
mod membarrier;
mod meter;
mod meter_clock;
mod metered;
#[cfg(all(test, loom))]
mod models;
mod offload;
mod panics;
mod poll_clock;
mod poll_timers;
mod record;
mod scope;
mod service;
mod sleep;
mod sleeper;
mod slot;
mod stream;
mod sum;
mod sync;
pub mod test;
mod thread;
mod tick;
mod timer;
mod timer_set;
mod total;
mod units;
mod wake_queue;

pub use account::{Account, Usage, Watch};
pub use boundary::{CancelReason, Control, PASS, Run};
pub use clock::{AccuracyClass, ClockError, ClockSource, Stamp};
pub use cpu_clock::CpuClock;
pub use current::{checkpoint, current_clock, has_budget};
pub use error::{CheckpointError, CpuLimitExceeded, Exited, LimitError, LimitKind, MeterError, SleepError, TimerError};
pub use group::{DEFAULT_WEIGHT, Group, GroupBuilder, GroupClock, GroupError, GroupId, GroupKey};
pub use histogram::Distribution;
pub use limit::{CpuLimit, PollLimit};
pub use meter::{DEFAULT_TICK_PERIOD, Meter, MeterBuilder, MeterMetrics};
pub use meter_clock::MeterClock;
pub use metered::{CpuTimeout, Metered, cpu_timeout, try_cpu_timeout};
pub use offload::{Offload, OffloadRun};
pub use poll_clock::PollClock;
pub use scope::{Scope, ScopeRun};
pub use sleep::CpuSleep;
pub use stream::CpuTimerStream;
pub use thread::Lease;
pub use timer::{CloseTimer, CpuTimer, TimerBuilder};
pub use timer_set::{Action, Expiry, Setting};
