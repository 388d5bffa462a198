//! Expiries on a runtime of ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stipend::{CpuLimit, Expiry, Runtime, checkpoint, current_clock, has_budget, task, yield_now};
use stipend_benches::os::thread_cpu_ns;
use stipend_benches::random::Random;
use stipend_benches::work::Work;
use stipend_timers::DEFAULT_TICK_PERIOD;

use crate::Samples;

/// How the task polls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// Polls of this length.
    Polls(Duration),
    /// Polls until the flag says that it is enough.
    HasBudget,
    /// One poll, until the checkpoint fails.
    Checkpoint,
}

impl Style {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Polls(length) => format!("{}us", length.as_micros()),
            Self::HasBudget => "has_budget".to_owned(),
            Self::Checkpoint => "checkpoint".to_owned(),
        }
    }
}

/// What the handler saw.
#[derive(Clone, Copy)]
struct Seen {
    expiry: Expiry,
    at: Instant,
    cpu_ns: u64,
}

/// The runtime, of one worker.
pub(crate) struct Ours(Runtime);

impl Ours {
    pub(crate) fn new() -> Self {
        Self(Runtime::builder().worker_threads(1).build().expect("a runtime can be built"))
    }

    /// Expiries for so long, and at least one. The calling thread parks.
    pub(crate) fn measure(&self, style: Style, budget: Duration, time: Duration, samples: &mut Samples) {
        let measured = match style {
            Style::Polls(length) => self.0.spawn(with_timer(Some(Work::lasting(length)), budget, time)),
            Style::HasBudget => self.0.spawn(with_timer(None, budget, time)),
            Style::Checkpoint => self.0.spawn(with_limits(budget, time)),
        };
        let mut measured = self.0.block_on(measured).expect("nobody cancels it");
        samples.early += measured.early;
        samples.overshoot_us.append(&mut measured.overshoot_us);
        samples.delay_us.append(&mut measured.delay_us);
    }
}

/// Another for each measurement.
static SEED: AtomicU64 = AtomicU64::new(1);

/// About as long as between two looks at a flag.
const STEP: Duration = Duration::from_micros(1);

/// The latest expiry may have come with a tick. Computes for some part of a period, in short polls, so that the next arming is in
/// step with none.
async fn out_of_step(random: &mut Random) {
    let step = Work::lasting(STEP);
    let end = Instant::now() + DEFAULT_TICK_PERIOD.mul_f64(random.unit());
    while Instant::now() < end {
        step.run();
        yield_now().await;
    }
}

/// Polls of `work`, or as long as there is budget; the handler is what is late.
async fn with_timer(work: Option<Work>, budget: Duration, time: Duration) -> Samples {
    let step = Work::lasting(STEP);
    let seen: Arc<Mutex<Option<Seen>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |expiry: Expiry| {
            let now = Seen { expiry, at: Instant::now(), cpu_ns: thread_cpu_ns() };
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
    };
    let clock = current_clock().expect("this is a task");
    let timer = clock.timer().on_expiry(handler).build().expect("this task lives");
    let mut samples = Samples::default();
    let mut random = Random::seeded(SEED.fetch_add(1, Ordering::Relaxed));
    let start = Instant::now();
    while start.elapsed() < time || samples.overshoot_us.is_empty() {
        match work {
            // No tick is needed to find these.
            Some(_) => yield_now().await,
            None => out_of_step(&mut random).await,
        }
        let armed_at_cpu_ns = thread_cpu_ns();
        timer.arm_after(budget).expect("this task lives");
        let (seen, noticed) = loop {
            match work {
                Some(work) => work.run(),
                None => {
                    while has_budget() {
                        step.run();
                    }
                }
            }
            let noticed = Instant::now();
            yield_now().await;
            if let Some(seen) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
                break (seen, noticed);
            }
        };
        let early_by_account = seen.expiry.used < seen.expiry.at;
        let early_by_kernel = seen.cpu_ns < armed_at_cpu_ns + budget.as_nanos() as u64;
        samples.early += u64::from(early_by_account || early_by_kernel);
        samples.overshoot_us.push((seen.expiry.used.as_nanos() as f64 - seen.expiry.at.as_nanos() as f64) / 1e3);
        samples.delay_us.push(seen.at.saturating_duration_since(noticed).as_nanos() as f64 / 1e3);
    }
    samples
}

/// A task with a hard limit, again and again, in one poll; its checkpoint is what is late.
async fn with_limits(budget: Duration, time: Duration) -> Samples {
    let step = Work::lasting(STEP);
    let mut samples = Samples::default();
    let mut random = Random::seeded(SEED.fetch_add(1, Ordering::Relaxed));
    let start = Instant::now();
    while start.elapsed() < time || samples.overshoot_us.is_empty() {
        out_of_step(&mut random).await;
        let failed: Arc<Mutex<Option<u64>>> = Arc::default();
        let tell = Arc::clone(&failed);
        // Nothing before this is charged to the task: the one worker is here until the next `await`.
        let before_cpu_ns = thread_cpu_ns();
        let limited = task::Builder::new().cpu_limit(CpuLimit::hard(budget)).spawn(async move {
            while checkpoint().is_ok() {
                step.run();
            }
            let cpu_ns = thread_cpu_ns();
            *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu_ns);
            // So that the limit ends it, and not its own end.
            std::future::pending::<()>().await;
        });
        let ended = limited.expect("the limit is valid").await;
        let failed_cpu_ns = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Err(_), Some(failed_cpu_ns)) = (ended, failed_cpu_ns) else {
            panic!("the limit ends the task, and not before its poll is over");
        };
        let over_ns = (failed_cpu_ns - before_cpu_ns) as f64 - budget.as_nanos() as f64;
        samples.early += u64::from(over_ns < 0.0);
        samples.overshoot_us.push(over_ns / 1e3);
    }
    samples
}
