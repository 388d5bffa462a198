//! One batch: two tasks that take turns on the one worker of a runtime.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use stipend::Runtime;
use stipend::runtime::Handle;
use stipend_benches::os::thread_cpu_ns;
use stipend_benches::work;

use crate::sampler;

/// What one poll does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    compute: work::Work,
    sleep: Option<Duration>,
}

impl Work {
    /// Computes for so long.
    pub(crate) fn compute(length: Duration) -> Self {
        Self { compute: work::Work::lasting(length), sleep: None }
    }

    /// Computes, then blocks the thread.
    pub(crate) fn compute_and_sleep(length: Duration, sleep: Duration) -> Self {
        Self { sleep: Some(sleep), ..Self::compute(length) }
    }

    pub(crate) fn run(self) {
        self.compute.run();
        if let Some(sleep) = self.sleep {
            thread::sleep(sleep);
        }
    }
}

/// What a case does in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Of kind A, of kind B.
    pub(crate) works: [Work; 2],
    /// Polls of each task.
    pub(crate) polls: u64,
    /// How often a round goes through its sequence of batches.
    pub(crate) times: usize,
    /// Whether each poll reads the CPU clock at both ends.
    pub(crate) bracketed: bool,
}

/// What a batch came to. All in nanoseconds; of two tasks each.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Outcome {
    /// The worker's CPU time, by the kernel, less what was billed to the runtime.
    pub(crate) total_ns: u64,
    /// What the accounts say.
    pub(crate) charged_ns: [u64; 2],
    /// What lies between the brackets.
    pub(crate) bracketed_ns: [u64; 2],
    /// What wall time would bill.
    pub(crate) wall_ns: [u64; 2],
}

impl Outcome {
    /// With the two tasks in the other order.
    pub(crate) fn swapped(mut self) -> Self {
        [&mut self.charged_ns, &mut self.bracketed_ns, &mut self.wall_ns].into_iter().for_each(|pair| pair.swap(0, 1));
        self
    }
}

/// Written by the tasks of one batch, which all run on one thread.
#[derive(Default)]
struct Notes {
    bracketed_ns: [AtomicU64; 2],
    wall_ns: [AtomicU64; 2],
    /// When the last poll ended, since the start of the process's clock.
    last_wall_ns: AtomicU64,
}

/// Runs batches one after the other and waits for them. Each is given by its two tasks' kinds: 0 is A, 1 is B.
///
/// A task on the worker drives them, without the thread that waits here: so that the worker does not go to sleep in between,
/// and neighbours in the sequence are neighbours in time.
pub(crate) fn run(runtime: &Runtime, plan: &Plan, batches: Vec<[usize; 2]>) -> Vec<Outcome> {
    let (send, receive) = sync_channel(1);
    let (handle, plan) = (runtime.handle().clone(), *plan);
    drop(runtime.spawn(async move {
        let mut outcomes = Vec::with_capacity(batches.len());
        for kinds in batches {
            outcomes.push(batch(&handle, &plan, kinds).await);
        }
        let _ = send.send(outcomes);
    }));
    receive.recv().expect("the tasks run to their end")
}

async fn batch(handle: &Handle, plan: &Plan, kinds: [usize; 2]) -> Outcome {
    let notes = Arc::new(Notes::default());
    let runtime_ns = || handle.meter().metrics().runtime.as_nanos() as u64;
    // Both are spawned before either runs: they take turns from the first poll on.
    let plan = *plan;
    let tasks = [0, 1].map(|which| {
        let notes = Arc::clone(&notes);
        stipend::spawn(async move { task(&plan, &notes, kinds, which).await })
    });
    let clocks = [tasks[0].cpu_clock(), tasks[1].cpu_clock()];
    let runtime_before_ns = runtime_ns();
    notes.last_wall_ns.store(wall_ns(), Relaxed);
    // The last that this poll does, and below the first that the next one does: what is in the total and in neither task is
    // some 0.3 us of this task.
    let before_ns = thread_cpu_ns();
    let [first, second] = tasks;
    // In this order: the first completes one poll before the second, so this task is in the queue behind the second's last
    // poll and finds both completed.
    first.await.expect("the task runs to its end");
    let after_ns = thread_cpu_ns();
    sampler::nobody_runs();
    second.await.expect("the task runs to its end");
    let billed_to_runtime_ns = runtime_ns() - runtime_before_ns;
    let both = |cells: &[AtomicU64; 2]| [cells[0].load(Relaxed), cells[1].load(Relaxed)];
    Outcome {
        total_ns: (after_ns - before_ns).saturating_sub(billed_to_runtime_ns),
        charged_ns: clocks.map(|clock| clock.usage().cpu.as_nanos() as u64),
        bracketed_ns: both(&notes.bracketed_ns),
        wall_ns: both(&notes.wall_ns),
    }
}

/// Wall time since the first call.
fn wall_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

async fn task(plan: &Plan, notes: &Notes, kinds: [usize; 2], which: usize) {
    let work = plan.works[kinds[which]];
    let mixed = kinds[0] != kinds[1];
    for poll in 0..plan.polls {
        if mixed {
            sampler::runs(kinds[which]);
        }
        if plan.bracketed {
            let before = thread_cpu_ns();
            work.run();
            notes.bracketed_ns[which].fetch_add(thread_cpu_ns() - before, Relaxed);
        } else {
            work.run();
        }
        let now = wall_ns();
        let last = notes.last_wall_ns.swap(now, Relaxed);
        notes.wall_ns[which].fetch_add(now - last, Relaxed);
        if poll + 1 < plan.polls {
            stipend::yield_now().await;
        }
    }
}

/// A runtime's books at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    unattributed_ns: i128,
    threads: Duration,
}

impl Ledger {
    pub(crate) fn of(runtime: &Runtime) -> Self {
        // Until the worker sleeps: what it does on the way there is booked when it wakes.
        thread::sleep(Duration::from_millis(1));
        let metrics = runtime.handle().meter().metrics();
        Self { unattributed_ns: metrics.unattributed_nanos(), threads: metrics.threads }
    }

    /// What was not charged since, of what was used.
    pub(crate) fn error_percent_since(&self, before: &Self) -> f64 {
        let used = (self.threads - before.threads).as_nanos() as f64;
        (self.unattributed_ns - before.unattributed_ns).abs() as f64 / used * 100.0
    }
}
