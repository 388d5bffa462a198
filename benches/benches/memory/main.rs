//! What a task that waits takes of memory, among a million.
//!
//! A child with one of the runtimes spawns them all and waits until each has been polled once. What its resident memory grew by
//! meanwhile, divided by the tasks, is the figure: all that a task brings is in it, the allocator's overhead, the registry, the
//! account, the timer. `allocated` is what the allocator's books say: it does not know of what was mapped past it.
//!
//! * `pending`: a future that waits for ever and is nothing itself. What the runtime takes for a task, and nobody holds its
//!   waker.
//! * `sleep`: the runtime's own `sleep(1 h)`, so that each has a timer. Its future lies in the task, and counts.
//! * `channel`: each waits at a oneshot channel of `futures`, the same for both. The channel, an allocation of its own, counts, and
//!   so do the 8 bytes by which the other end is kept. Each has left a waker there.
//!
//! Tasks are spawned by a task, a hundred at a time, and their handles dropped: a queue that had to hold a million at once would be
//! counted with them.

use std::future::{Future, pending};
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use stipend_benches::args::Args;
use stipend_benches::child::{self, Role, Running};
use stipend_benches::os;
use stipend_benches::report::Report;
use stipend_benches::row::Row;

const ROLE: Role = ("memory", child);
const TASKS: usize = 1_000_000;
const AT_ONCE: usize = 100;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    child::serve(&[ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    for waits in ["pending", "sleep", "channel"] {
        let name = format!("default/tasks={TASKS}/{waits}");
        if !args.wants(&name) {
            continue;
        }
        let mut columns = [const { Vec::new() }; 4];
        for _ in 0..args.choose(1, 5) {
            for (which, runtime) in ["stipend", "tokio"].into_iter().enumerate() {
                let (resident, allocated) = measured(runtime, waits).expect("the child tells");
                columns[which].push(resident);
                columns[2 + which].push(allocated);
            }
        }
        let [ours, tokio, our_books, tokio_books] = columns;
        let row = Row::new("memory", name, "bytes_per_task", ours).peer("tokio", tokio).over_best_peer();
        report.add(row.extra("allocated", our_books[0]).extra("tokio_allocated", tokio_books[0]));
    }
    report.finish();
}

fn measured(runtime: &str, waits: &str) -> Option<(f64, f64)> {
    let mut child = Running::start(ROLE.0, &[runtime, waits]);
    let mut line = String::new();
    BufReader::new(child.output()?).read_line(&mut line).ok()?;
    let (resident, allocated) = line.trim().split_once(' ')?;
    Some((resident.parse().ok()?, allocated.parse().ok()?))
}

fn child(arguments: &[String]) {
    let [runtime, waits] = arguments else { return eprintln!("which runtime, and how do they wait?") };
    match (runtime.as_str(), waits.as_str()) {
        ("tokio", "sleep") => on_tokio(|| (waiting(|| tokio::time::sleep(HOUR)), ())),
        ("tokio", "channel") => on_tokio(channel),
        ("tokio", _) => on_tokio(|| (waiting(pending::<()>), ())),
        (_, "sleep") => on_stipend(|| (waiting(|| stipend::time::sleep(HOUR)), ())),
        (_, "channel") => on_stipend(channel),
        _ => on_stipend(|| (waiting(pending::<()>), ())),
    }
    std::process::exit(0);
}

/// Tasks that were polled.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Waits for what it makes when it is polled first: had it been handed over, the task would have room for it twice.
async fn waiting<F: Future>(make: impl FnOnce() -> F) {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    let _ = make().await;
}

fn channel() -> (impl Future<Output = ()> + Send, oneshot::Sender<()>) {
    let (keep, end) = oneshot::channel::<()>();
    (waiting(|| end), keep)
}

fn on_tokio<F: Future<Output = ()> + Send + 'static, K: Send + 'static>(make: fn() -> (F, K)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    let fill = fill(make, |future| drop(tokio::spawn(future)), tokio::task::yield_now);
    grown(|| runtime.block_on(async { tokio::spawn(fill).await }).expect("it does not panic"));
}

fn on_stipend<F: Future<Output = ()> + Send + 'static, K: Send + 'static>(make: fn() -> (F, K)) {
    let runtime = stipend::Runtime::new().expect("a runtime can be built");
    let fill = fill(make, |future| drop(stipend::spawn(future)), stipend::yield_now);
    grown(|| runtime.block_on(async { stipend::spawn(fill).await }).expect("it does not panic"));
}

/// Spawns them all, waits until each has been polled, and returns what keeps them waiting.
async fn fill<F, K, Y: Future>(make: fn() -> (F, K), spawn: impl Fn(F), yield_now: fn() -> Y) -> Vec<K> {
    let mut kept = Vec::with_capacity(TASKS);
    while kept.len() < TASKS {
        for _ in 0..AT_ONCE {
            let (future, keep) = make();
            spawn(future);
            kept.push(keep);
        }
        while BEGUN.load(Ordering::Relaxed) < kept.len() {
            yield_now().await;
        }
    }
    kept
}

/// Prints what the process and the allocator's books grew by, by tasks.
fn grown<T>(fill: impl FnOnce() -> T) {
    let resident = || os::resident_bytes().expect("the system tells");
    let allocated = || os::allocated_bytes().unwrap_or(0);
    let before = (resident(), allocated());
    let kept = black_box(fill());
    let each = |before: usize, after: usize| (after as f64 - before as f64) / TASKS as f64;
    println!("{} {}", each(before.0, resident()), each(before.1, allocated()));
    drop(kept);
}
