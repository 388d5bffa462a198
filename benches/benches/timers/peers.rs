//! The same with POSIX timers, and with tokio's `Sleep`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use stipend_benches::posix;
use stipend_benches::random::Random;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::cpu::{Batch, Operation, far_ns, timed};

/// POSIX timers on this thread's CPU clock, all armed.
pub(crate) struct Posix(Vec<posix::Timer>);

impl Posix {
    pub(crate) fn new(random: &mut Random, timers: usize) -> Self {
        let armed = (0..timers).map_while(|_| posix::Timer::new().ok()).inspect(|timer| timer.set(far_ns(random)));
        Self(armed.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn run(&self, batch: &Batch) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        // A tenth of the steps: they take ten times as long.
        let steps = batch.steps.len() / 10;
        timed(steps, || {
            for (which, at_ns) in batch.steps(self.0.len()).take(steps) {
                let timer = &self.0[which];
                if batch.operation == Operation::DisarmArm {
                    timer.set(0);
                }
                timer.set(at_ns);
            }
        })
    }
}

/// tokio's sleeps on a runtime of one thread, all registered.
pub(crate) struct Sleeps {
    runtime: tokio::runtime::Runtime,
    base: Instant,
    sleeps: Vec<Pin<Box<Sleep>>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be built")
}

/// Runs `body` once inside a poll on the runtime, without tokio's budget, which would stop sleeps from registering.
fn inside<R>(runtime: &tokio::runtime::Runtime, mut body: impl FnMut(&mut Context<'_>) -> R) -> R {
    runtime.block_on(tokio::task::unconstrained(poll_fn(|cx| Poll::Ready(body(cx)))))
}

impl Sleeps {
    pub(crate) fn new(random: &mut Random, timers: usize) -> Self {
        let runtime = runtime();
        let base = Instant::now();
        let sleeps = inside(&runtime, |cx| {
            (0..timers)
                .map(|_| {
                    let mut sleep = Box::pin(sleep_until(base + Duration::from_nanos(far_ns(random))));
                    assert!(sleep.as_mut().poll(cx).is_pending());
                    sleep
                })
                .collect()
        });
        Self { runtime, base, sleeps }
    }

    pub(crate) fn run(&mut self, batch: &Batch) -> f64 {
        let (sleeps, base) = (&mut self.sleeps, self.base);
        inside(&self.runtime, |cx| {
            timed(batch.steps.len(), || {
                for (which, at_ns) in batch.steps(sleeps.len()) {
                    let sleep = &mut sleeps[which];
                    let at = base + Duration::from_nanos(at_ns);
                    match batch.operation {
                        Operation::DisarmArm => {
                            sleep.set(sleep_until(at));
                            let _ = sleep.as_mut().poll(cx);
                        }
                        Operation::Rearm => sleep.as_mut().reset(at),
                    }
                }
            })
        })
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until the driver has woken for each: what the thread used in one wait for the last of them.
pub(crate) fn fire_tokio(random: &mut Random, timers: usize) -> f64 {
    let runtime = runtime();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    // Behind the registering, which takes less than a microsecond each.
    let from = Instant::now() + Duration::from_millis(2) + Duration::from_micros(timers as u64);
    let _sleeps: Vec<Pin<Box<Sleep>>> = inside(&runtime, |_| {
        (0..timers)
            .map(|_| {
                let mut sleep = Box::pin(sleep_until(from + Duration::from_nanos(random.below(1_000) as u64)));
                let _ = sleep.as_mut().poll(&mut Context::from_waker(&waker));
                sleep
            })
            .collect()
    });
    let fired_before = count.0.load(Ordering::Relaxed);
    let ns = timed(1, || runtime.block_on(async { sleep_until(from + Duration::from_millis(2)).await }));
    ns / (count.0.load(Ordering::Relaxed) - fired_before) as f64
}
