//! What the runtime counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::Shared;

/// A runtime's counters; see [`Handle::metrics`](super::Handle::metrics).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Worker threads.
    pub workers: usize,
    /// Workers that sleep now.
    pub sleeping_workers: usize,
    /// Live tasks.
    pub tasks: usize,
    /// Runs of tasks so far: polls, and ends without a poll.
    pub runs: u64,
    /// How often a worker stole from another.
    pub steals: u64,
    /// How often a worker went to sleep.
    pub parks: u64,
    /// How often a worker that did not sleep looked at the reactor.
    pub reactor_checks: u64,
    /// Threads of the blocking pool.
    pub blocking_threads: usize,
    /// Those of them that have nothing to do.
    pub idle_blocking_threads: usize,
    /// Blocking jobs that wait for a thread.
    pub queued_blocking_jobs: usize,
}

/// One worker's counters. It alone writes them, so adding is a load and a store.
#[derive(Debug, Default)]
pub(super) struct WorkerCounters {
    /// Tasks that its tasks have spawned, and tasks that it has ended.
    pub(super) spawned: Counter,
    pub(super) ended: Counter,
    pub(super) runs: Counter,
    pub(super) steals: Counter,
    pub(super) parks: Counter,
    pub(super) reactor_checks: Counter,
}

/// Counts what one thread does.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        // One writer. Release: who reads the count sees what was counted.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Metrics {
    pub(super) fn of(shared: &Shared) -> Self {
        let sum = |counter: fn(&WorkerCounters) -> &Counter| {
            shared.peers.iter().map(|peer| counter(&peer.counters).get()).sum()
        };
        let threads = shared.pool().threads();
        Self {
            workers: shared.peers.len(),
            sleeping_workers: shared.idle.sleeping(),
            tasks: shared.task_count(),
            runs: sum(|counters| &counters.runs),
            steals: sum(|counters| &counters.steals),
            parks: sum(|counters| &counters.parks),
            reactor_checks: sum(|counters| &counters.reactor_checks),
            blocking_threads: threads.total,
            idle_blocking_threads: threads.idle,
            queued_blocking_jobs: threads.queued,
        }
    }
}
