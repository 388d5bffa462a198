//! What is done: the cases of tokio's own `rt_multi_threaded` bench.
//!
//! Each takes an executor, does its work once and returns the nanoseconds of one operation. The thread that waits parks in a
//! channel of the standard library.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

use futures::channel::oneshot;

use crate::contestants::Contestant;

const SPAWNS: usize = 10_000;
const YIELDERS: usize = 200;
const YIELDS: usize = 1_000;
const PAIRS: usize = 2_000;
const CHAIN: usize = 5_000;

/// Says that all is done, at the last of so many calls.
#[derive(Clone)]
struct Countdown(Arc<(AtomicUsize, SyncSender<()>)>);

impl Countdown {
    fn done_one(&self) {
        if self.0.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The other end waits for just this.
            let _ = self.0.1.send(());
        }
    }
}

/// Starts, waits for the countdown, and divides.
fn timed(count: usize, operations: usize, start: impl FnOnce(Countdown)) -> f64 {
    let (done, wait) = sync_channel(1);
    let countdown = Countdown(Arc::new((AtomicUsize::new(count), done)));
    let began = Instant::now();
    start(countdown);
    wait.recv().expect("every task counts down");
    began.elapsed().as_nanos() as f64 / operations as f64
}

/// A task on a worker spawns all of them.
pub(crate) fn spawn_many_local(on: impl Contestant) -> f64 {
    timed(SPAWNS, SPAWNS, |countdown| {
        on.spawn_from_outside(async move {
            for _ in 0..SPAWNS {
                let countdown = countdown.clone();
                on.spawn(async move { countdown.done_one() });
            }
        });
    })
}

/// This thread spawns all of them.
pub(crate) fn spawn_many_remote(on: impl Contestant) -> f64 {
    timed(SPAWNS, SPAWNS, |countdown| {
        for _ in 0..SPAWNS {
            let countdown = countdown.clone();
            on.spawn_from_outside(async move { countdown.done_one() });
        }
    })
}

/// Tasks that do nothing but give way.
pub(crate) fn yield_many(on: impl Contestant) -> f64 {
    timed(YIELDERS, YIELDERS * YIELDS, |countdown| {
        for _ in 0..YIELDERS {
            let countdown = countdown.clone();
            on.spawn_from_outside(async move {
                for _ in 0..YIELDS {
                    on.yield_now().await;
                }
                countdown.done_one();
            });
        }
    })
}

/// Pairs of tasks that send each other a word and wait for the answer.
pub(crate) fn ping_pong(on: impl Contestant) -> f64 {
    timed(PAIRS, PAIRS, |countdown| {
        on.spawn_from_outside(async move {
            for _ in 0..PAIRS {
                let countdown = countdown.clone();
                on.spawn(async move {
                    let (ping, pinged) = oneshot::channel();
                    let (pong, ponged) = oneshot::channel();
                    on.spawn(async move {
                        let _ = pinged.await;
                        let _ = pong.send(());
                    });
                    let _ = ping.send(());
                    let _ = ponged.await;
                    countdown.done_one();
                });
            }
        });
    })
}

/// Each task spawns the next.
pub(crate) fn chained_spawn(on: impl Contestant) -> f64 {
    timed(1, CHAIN, |countdown| on.spawn_from_outside(link(on, CHAIN, countdown)))
}

fn link(on: impl Contestant, left: usize, countdown: Countdown) -> impl Future<Output = ()> + Send + 'static {
    // A future cannot contain itself: the recursion goes through a function that names its type.
    fn next<C: Contestant>(on: C, left: usize, countdown: Countdown) {
        on.spawn(async move { if left == 0 { countdown.done_one() } else { next(on, left - 1, countdown) } });
    }
    async move { next(on, left - 1, countdown) }
}
