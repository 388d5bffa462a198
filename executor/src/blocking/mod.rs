//! Blocking work: threads of its own, so that no worker waits for a disk or a long computation.
//!
//! * [`job`]: a closure in a task cell; its CPU is charged to the tasks that were running where it was spawned.
//! * [`pool`]: the threads, grown on demand up to a cap, retired when idle.

mod job;
mod pool;

pub(crate) use self::job::JobCore;
pub(crate) use self::pool::Pool;

use std::sync::Arc;

use crate::runtime::Shared;
use crate::task::{JoinHandle, Joining};

/// Runs `f` on the pool of `shared`.
pub(crate) fn spawn<R, F>(shared: &Arc<Shared>, f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    JoinHandle::new(Joining::Job(job::spawn(shared, f)))
}
