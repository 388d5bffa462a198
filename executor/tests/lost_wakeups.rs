//! A wake or a spawn from another thread against the moment in which its receiver goes to sleep: none is lost.
//!
//! Each round of a race brings both sides to the same few nanoseconds, with delays that differ; a wake-up that is lost ends
//! the rounds, which the watchdog tells. A release build makes a million rounds of the race that needs no system call, and a
//! hundred thousand of each that puts threads to sleep.

mod common;
mod watched;

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::wait_until;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use stipend::runtime::Runtime;
use stipend::{net, spawn, time};
use watched::{Progress, Random, watched};

/// Debug builds run fewer rounds.
const fn rounds(release: u64) -> u64 {
    if cfg!(debug_assertions) { release / 40 } else { release }
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().worker_threads(workers).build().unwrap()
}

/// One side waits for an answer in each round; the other gives it, and wakes.
#[derive(Default)]
struct Duel {
    asked: AtomicU64,
    answered: AtomicU64,
    waker: OnceLock<Waker>,
}

impl Duel {
    /// Waits for every answer, and returns `Pending` whenever one is not there yet.
    async fn wait(self: Arc<Self>, rounds: u64, progress: Progress) {
        let mut round = 0;
        poll_fn(move |cx| {
            assert!(self.waker.get_or_init(|| cx.waker().clone()).will_wake(cx.waker()));
            loop {
                if self.answered.load(Ordering::Acquire) < round {
                    return Poll::Pending;
                }
                if round == rounds {
                    return Poll::Ready(());
                }
                round += 1;
                progress.step();
                self.asked.store(round, Ordering::Release);
            }
        })
        .await
    }

    /// Answers, if it is asked, and says whether it was the last time.
    fn answer(&self, answered: u64, random: &mut Random) -> bool {
        if self.asked.load(Ordering::Acquire) == answered {
            return false;
        }
        random.dither();
        self.answered.store(answered + 1, Ordering::Release);
        self.waker.get().expect("it has asked").wake_by_ref();
        true
    }

    /// Answers each round at some moment around the one in which the other side goes to sleep.
    fn answer_all(&self, rounds: u64) {
        let mut random = Random::new(rounds);
        for round in 0..rounds {
            wait_until(|| self.asked.load(Ordering::Acquire) > round);
            self.answer(round, &mut random);
        }
    }
}

/// A duel of a task with a foreign thread.
fn duel_with_a_task(runtime: &Runtime, rounds: u64, progress: Progress) {
    let duel = Arc::new(Duel::default());
    let task = runtime.spawn(duel.clone().wait(rounds, progress));
    duel.answer_all(rounds);
    wait_until(|| task.is_finished());
}

#[test]
fn a_wake_against_the_task_going_idle() {
    watched("a wake met a task that was going idle, and was lost", |progress| {
        // There are enough of them to keep the worker awake: it is the task alone that goes to sleep.
        const TASKS: u64 = 16;
        let runtime = runtime(1);
        let rounds = rounds(1_000_000) / TASKS;
        let mut duels: Vec<_> = (0..TASKS).map(|_| (Arc::new(Duel::default()), 0)).collect();
        let tasks: Vec<_> =
            duels.iter().map(|(duel, _)| runtime.spawn(duel.clone().wait(rounds, progress.clone()))).collect();
        let mut random = Random::new(1);
        let mut left = TASKS * rounds;
        while left > 0 {
            let before = left;
            for (duel, answered) in &mut duels {
                if duel.answer(*answered, &mut random) {
                    *answered += 1;
                    left -= 1;
                }
            }
            if left == before {
                thread::yield_now();
            }
        }
        wait_until(|| tasks.iter().all(|task| task.is_finished()));
    });
}

#[test]
fn a_wake_against_a_worker_going_to_sleep_in_the_reactor() {
    // A single worker always sleeps there.
    watched("a wake met a worker on its way into the reactor, and was lost", |progress| {
        duel_with_a_task(&runtime(1), rounds(100_000), progress);
    });
}

#[test]
fn a_wake_against_a_worker_going_to_sleep_in_its_parker() {
    // With two of them one sleeps in the reactor, and the one with the parker is called first.
    watched("a wake met a worker on its way into its parker, and was lost", |progress| {
        duel_with_a_task(&runtime(2), rounds(100_000), progress);
    });
}

#[test]
fn a_wake_against_the_thread_in_block_on_going_to_sleep() {
    watched("a wake met a thread in block_on that was going to sleep, and was lost", |progress| {
        let runtime = runtime(1);
        let duel = Arc::new(Duel::default());
        let rounds = rounds(100_000);
        thread::scope(|scope| {
            scope.spawn(|| duel.answer_all(rounds));
            runtime.block_on(duel.clone().wait(rounds, progress));
        });
    });
}

/// Spawns one task after another, each when the one before has run and the workers look for something to do.
fn spawn_against_sleep(workers: usize, rounds: u64, progress: &Progress) {
    let runtime = runtime(workers);
    let ran = Arc::new(AtomicU64::new(0));
    let mut random = Random::new(rounds);
    for round in 1..=rounds {
        random.dither();
        let ran_now = ran.clone();
        drop(runtime.spawn(async move { ran_now.store(round, Ordering::Release) }));
        wait_until(|| ran.load(Ordering::Acquire) == round);
        progress.step();
    }
}

#[test]
fn a_spawn_from_outside_against_the_only_worker_going_to_sleep() {
    watched("a spawn met a worker that was going to sleep, and was lost", |progress| {
        spawn_against_sleep(1, rounds(100_000), &progress);
    });
}

#[test]
fn a_spawn_from_outside_against_all_workers_going_to_sleep() {
    watched("a spawn met workers that were going to sleep, and was lost", |progress| {
        spawn_against_sleep(3, rounds(100_000), &progress);
    });
}

#[test]
fn a_task_that_ends_against_its_joiner_going_to_sleep() {
    watched("a joiner was not told of its task's end", |progress| {
        runtime(2).block_on(async {
            let mut random = Random::new(1);
            for round in 0..rounds(100_000) {
                let length = random.below(300);
                let task = spawn(async move {
                    for _ in 0..length {
                        std::hint::spin_loop();
                    }
                    round
                });
                random.dither();
                assert_eq!(task.await.unwrap(), round);
                progress.step();
            }
        });
    });
}

/// What the reactor itself wakes by: a socket that becomes ready, and a time that comes, as the worker goes to sleep in it.
#[test]
fn readiness_and_time_against_a_worker_going_to_sleep_in_the_reactor() {
    for workers in [1, 2] {
        watched("a readiness or a time met a worker on its way into the reactor, and was lost", move |progress| {
            let runtime = runtime(workers);
            let rounds = rounds(40_000);
            let (mut near, far) = {
                let _inside = runtime.enter();
                let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                near.set_nonblocking(true).unwrap();
                (net::UnixStream::from_std(near).unwrap(), far)
            };
            let timers = progress.clone();
            let sleeper = runtime.spawn(async move {
                for round in 0..rounds / 10 {
                    time::sleep(Duration::from_micros(round % 300)).await;
                    timers.step();
                }
            });
            let reader = runtime.spawn(async move {
                let mut byte = [0];
                for _ in 0..rounds {
                    near.read_exact(&mut byte).await.unwrap();
                    near.write_all(&byte).await.unwrap();
                    progress.step();
                }
            });
            let mut random = Random::new(rounds);
            let mut byte = [0];
            for _ in 0..rounds {
                use std::io::{Read, Write};
                random.dither();
                (&far).write_all(&byte).unwrap();
                (&far).read_exact(&mut byte).unwrap();
            }
            wait_until(|| reader.is_finished() && sleeper.is_finished());
        });
    }
}
