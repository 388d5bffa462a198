//! Loom models of the way to sleep: no wake-up is lost.
//!
//! The real [`Idle`] and [`Parker`]; the run queues are a counter that orders nothing by itself, so that a wake-up that
//! is not lost is not lost because of the protocol, and not because of a lock in a queue.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::idle::{Idle, Place};
use super::parker::Parker;

struct World {
    idle: Idle,
    parkers: Vec<Parker>,
    queued: AtomicUsize,
    done: AtomicUsize,
}

impl World {
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Idle::new(workers),
            parkers: (0..workers).map(|_| Parker::new()).collect(),
            queued: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        })
    }

    fn push(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.wake_one();
    }

    fn wake_one(&self) {
        if let Some((worker, _)) = self.idle.worker_to_wake() {
            self.parkers[worker].notify();
        }
    }

    fn take(&self) -> bool {
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }

    /// The worker's loop, until all `tasks` are done; then it calls the others, as the runtime's stop does.
    fn work(&self, worker: usize, tasks: usize) {
        let mut searching = false;
        loop {
            if self.done.load(Ordering::SeqCst) == tasks {
                return;
            }
            searching = searching || self.idle.try_search();
            if self.take() {
                if std::mem::take(&mut searching) && self.idle.end_search() {
                    self.wake_one();
                }
                if self.done.fetch_add(1, Ordering::SeqCst) + 1 == tasks {
                    self.parkers.iter().for_each(Parker::notify);
                    return;
                }
                continue;
            }
            self.idle.sleep(worker, std::mem::take(&mut searching), Place::Parker);
            if self.queued.load(Ordering::Relaxed) == 0 && self.done.load(Ordering::SeqCst) != tasks {
                self.parkers[worker].park();
            }
            searching = !self.idle.wake_up(worker);
        }
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(f);
}

/// If a wake-up were lost the worker would sleep for ever, which loom reports as a deadlock.
#[test]
fn a_push_that_races_going_to_sleep_is_seen() {
    model(|| {
        let world = World::new(1);
        let worker = thread::spawn({
            let world = world.clone();
            move || world.work(0, 1)
        });
        world.push();
        worker.join().unwrap();
    });
}

/// Two pushes, of which the second may find a searcher and wake nobody.
#[test]
fn two_pushes_to_two_workers_are_both_run() {
    model(|| {
        let world = World::new(2);
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let world = world.clone();
                thread::spawn(move || world.work(worker, 2))
            })
            .collect();
        world.push();
        world.push();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// A push that finds a searcher, which found nothing, and does not search again and never comes back if it sees nothing now: another worker
/// runs what was pushed, or it does.
#[test]
fn a_searcher_that_gives_up_but_does_not_sleep_looks_once_more() {
    model(|| {
        let world = World::new(2);
        assert!(world.idle.try_search());
        let busy = thread::spawn({
            let world = world.clone();
            move || {
                if world.idle.leave_search() && world.queued.load(Ordering::Relaxed) > 0 {
                    world.work(0, 1);
                }
            }
        });
        let worker = thread::spawn({
            let world = world.clone();
            move || world.work(1, 1)
        });
        world.push();
        busy.join().unwrap();
        worker.join().unwrap();
    });
}

/// A notification that comes before the sleep ends it at once, and is used up by it.
#[test]
fn a_parker_keeps_a_notification() {
    model(|| {
        let parker = Arc::new(Parker::new());
        let notifier = thread::spawn({
            let parker = parker.clone();
            move || parker.notify()
        });
        parker.park();
        notifier.join().unwrap();
    });
}
