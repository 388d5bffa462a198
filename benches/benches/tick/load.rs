//! A runtime with something to do, and its tick thread.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stipend::{CpuTimer, Meter, MeterMetrics, Runtime};
use stipend_benches::{os, threads};

/// What the workers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// Each worker polls a task that computes for about a microsecond and yields, without end.
    Saturated,
    /// A task computes a little and sleeps for a millisecond: enough for the tick to stay on, and processors are free.
    Light,
}

/// A runtime of ours that is loaded on demand.
pub(crate) struct Loaded {
    runtime: Runtime,
    workers: usize,
    tick_thread: u32,
    /// What else there is on it, and does nothing.
    _timers: Vec<CpuTimer>,
}

/// What a stretch of load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) turns_per_s: f64,
    /// CPU time of the whole process for one turn, in nanoseconds.
    pub(crate) cpu_ns_per_turn: f64,
    /// CPU time of the tick thread by wall time.
    pub(crate) tick_cpu_percent: f64,
}

impl Loaded {
    pub(crate) fn new(workers: usize, period: Option<Duration>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("load{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut builder = Runtime::builder().worker_threads(workers).thread_name(name.as_str());
        if let Some(period) = period {
            builder = builder.tick_period(period);
        }
        let runtime = builder.build().expect("a runtime can be built");
        // It names itself as it starts.
        let tick_thread = loop {
            match threads::named(&format!("{name}-tick")) {
                Some(thread) => break thread.id,
                None => std::thread::yield_now(),
            }
        };
        Self { runtime, workers, tick_thread, _timers: Vec::new() }
    }

    /// Adds tasks that wait for ever, and timers on their clocks in turn.
    pub(crate) fn with(mut self, tasks: usize, timers: usize) -> Self {
        let handles: Vec<_> = (0..tasks).map(|_| self.runtime.spawn(std::future::pending::<()>())).collect();
        let hour = Duration::from_secs(3600);
        self._timers = (0..timers)
            .map(|timer| {
                let timer = handles[timer % tasks].cpu_clock().timer().on_expiry(|_| ());
                timer.arm_after(hour).expect("its task lives")
            })
            .collect();
        // Until each has been polled, which is when it begins to wait.
        let polled = self.runtime.spawn(async {});
        self.runtime.block_on(polled).expect("nobody cancels it");
        while self.runtime.handle().metrics().runs < tasks as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self
    }

    pub(crate) fn meter(&self) -> &Meter {
        self.runtime.handle().meter()
    }

    pub(crate) fn metrics(&self) -> MeterMetrics {
        self.meter().metrics()
    }

    /// Puts load on it for so long, and counts ticks from then on. The calling thread parks meanwhile.
    pub(crate) fn run(&self, load: Load, time: Duration) -> Stretch {
        self.meter().clear_tick_distributions();
        let process = std::process::id();
        let cpu = || os::process_cpu_ns(process).expect("this process lives");
        let tick_cpu = || os::thread_cpu_ns_of(self.tick_thread).expect("the tick thread lives");
        let (start, cpu_before, tick_before) = (Instant::now(), cpu(), tick_cpu());
        let end = start + time;
        let turns = match load {
            Load::Saturated => self.all((0..self.workers).map(|_| saturate(end)).collect()),
            Load::Light => self.all(vec![now_and_then(end)]),
        };
        let (took, cpu_ns, tick_ns) = (start.elapsed(), cpu() - cpu_before, tick_cpu() - tick_before);
        Stretch {
            turns_per_s: turns as f64 / took.as_secs_f64(),
            cpu_ns_per_turn: cpu_ns as f64 / turns as f64,
            tick_cpu_percent: 100.0 * tick_ns as f64 / took.as_nanos() as f64,
        }
    }

    fn all<F: Future<Output = u64> + Send + 'static>(&self, futures: Vec<F>) -> u64 {
        let handles: Vec<_> = futures.into_iter().map(|future| self.runtime.spawn(future)).collect();
        handles.into_iter().map(|handle| self.runtime.block_on(handle).expect("nobody cancels it")).sum()
    }
}

fn compute() {
    std::hint::black_box((0..500_u64).fold(0, |sum: u64, n| sum.rotate_left(5) ^ std::hint::black_box(n)));
}

async fn saturate(end: Instant) -> u64 {
    let mut turns = 0;
    while Instant::now() < end {
        for _ in 0..16 {
            compute();
            stipend::yield_now().await;
        }
        turns += 16;
    }
    turns
}

async fn now_and_then(end: Instant) -> u64 {
    let mut turns = 0;
    while Instant::now() < end {
        compute();
        stipend::time::sleep(Duration::from_millis(1)).await;
        turns += 1;
    }
    turns
}
