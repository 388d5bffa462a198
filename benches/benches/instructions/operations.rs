//! The operations, done so many times by a child on one worker.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;
use stipend::{Group, task};
use stipend_benches::child::Role;

/// Ours, with all tasks in one group.
pub(crate) const IN_ONE_GROUP: &str = "stipend-group";

pub(crate) const NAMES: [&str; 3] = ["yield", "spawn", "wake"];

/// The role of such a child: which runtime, what to do, how often.
pub(crate) const ROLE: Role = ("instructions", child);

/// As many tasks yield, and as many are spawned at once: fewer than tokio's queue holds.
const TASKS: u64 = 100;

/// How often things happened that go by time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) clock_reads: f64,
    pub(crate) reactor_checks: f64,
}

impl Counts {
    /// Of what a child printed; zeros if it has no such thing.
    pub(crate) fn parse(said: &str) -> Self {
        let mut numbers = said.split_whitespace().map(|number| number.parse().unwrap_or(0.0));
        let mut next = || numbers.next().unwrap_or(0.0);
        Self { clock_reads: next(), reactor_checks: next() }
    }
}

fn child(arguments: &[String]) {
    let [runtime_name, operation, times] = arguments else { return eprintln!("which runtime, what, how often?") };
    let times: u64 = times.parse().expect("a number");
    match runtime_name.as_str() {
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime can be built");
            run(Tokio, operation, times, |future| drop(runtime.spawn(future)));
        }
        _ => {
            let builder = stipend::Runtime::builder().worker_threads(1).tick_period(Duration::from_secs(1));
            let runtime = builder.clock(stipend::ClockSource::Guard).build().expect("a runtime can be built");
            // All that the first one spawns is in its group.
            let group =
                (runtime_name == IN_ONE_GROUP).then(|| Group::builder("all").build().expect("a group can be made"));
            run(Stipend, operation, times, |future| match &group {
                None => drop(runtime.spawn(future)),
                Some(group) => {
                    let task = task::Builder::new().group(group).spawn_on(runtime.handle(), future);
                    drop(task.expect("the runtime lives"));
                }
            });
            let (handle, meter) = (runtime.handle(), runtime.handle().meter());
            println!("{} {}", meter.metrics().clock_reads, handle.metrics().reactor_checks);
        }
    }
    std::process::exit(0);
}

/// What the operations need of a runtime, on one of its workers.
trait Contestant: Copy + Send + 'static {
    /// Spawns a task and lets go of its handle.
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F);
    /// Lets others run.
    fn yield_now(self) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Copy)]
struct Stipend;

impl Contestant for Stipend {
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        drop(stipend::spawn(future));
    }

    fn yield_now(self) -> impl Future<Output = ()> + Send {
        stipend::yield_now()
    }
}

#[derive(Clone, Copy)]
struct Tokio;

impl Contestant for Tokio {
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        drop(tokio::spawn(future));
    }

    fn yield_now(self) -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Has the runtime do it, and waits parked for the end.
fn run<C: Contestant>(on: C, operation: &str, times: u64, start: impl FnOnce(Boxed)) {
    let (done, wait) = sync_channel(1);
    start(match operation {
        "yield" => Box::pin(yields(on, times, done)),
        "spawn" => Box::pin(spawns(on, times, done)),
        "wake" => Box::pin(wakes(on, times, done)),
        unknown => panic!("there is no operation {unknown}"),
    });
    wait.recv().expect("it says when it is done");
}

async fn yields<C: Contestant>(on: C, times: u64, done: SyncSender<()>) {
    let left = Arc::new(AtomicU64::new(TASKS));
    for _ in 0..TASKS {
        let (left, done) = (left.clone(), done.clone());
        on.spawn(async move {
            for _ in 0..times / TASKS {
                on.yield_now().await;
            }
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                // The other end waits for just this, here and below.
                let _ = done.send(());
            }
        });
    }
}

async fn spawns<C: Contestant>(on: C, times: u64, done: SyncSender<()>) {
    for _ in 0..times / TASKS {
        for _ in 0..TASKS {
            on.spawn(async {});
        }
        on.yield_now().await;
    }
    let _ = done.send(());
}

/// Where one task waits for the other.
#[derive(Default)]
struct Place {
    waker: AtomicWaker,
    called: AtomicBool,
}

impl Place {
    fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            let is_called = || self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::Relaxed);
            if is_called() {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            if is_called() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

async fn wakes<C: Contestant>(on: C, times: u64, done: SyncSender<()>) {
    let (here, there) = (Arc::new(Place::default()), Arc::new(Place::default()));
    let (waits, calls) = (there.clone(), here.clone());
    on.spawn(async move {
        for _ in 0..times / 2 {
            waits.wait().await;
            calls.call();
        }
    });
    for _ in 0..times / 2 {
        there.call();
        here.wait().await;
    }
    let _ = done.send(());
}
