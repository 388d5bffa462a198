//! What may happen to a task from outside, wakes, aborts, a handle that is polled or dropped, at each stage of its life.
//!
//! The test holds the task inside its poll and says how that ends, so each stage is met with certainty and not by timing.

mod bounded;
mod common;

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use stipend::runtime::Runtime;
use stipend::task::{JoinError, JoinHandle, JoinSet, TaskState};
use stipend::{spawn, yield_now};

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(1).build().unwrap()
}

/// Waits, without a runtime's help, until `done`. The test's own timeout is the harness's.
fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::yield_now();
    }
}

/// How a poll ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Pending,
    Ready,
    Panic,
}

const EVERY_END: [Ends; 3] = [Ends::Pending, Ends::Ready, Ends::Panic];

#[derive(Debug, Default)]
struct Counts {
    polls: AtomicUsize,
    futures_dropped: AtomicUsize,
    outputs_dropped: AtomicUsize,
}

impl Counts {
    fn polls(&self) -> usize {
        self.polls.load(SeqCst)
    }
    fn futures_dropped(&self) -> usize {
        self.futures_dropped.load(SeqCst)
    }
    fn outputs_dropped(&self) -> usize {
        self.outputs_dropped.load(SeqCst)
    }
}

#[derive(Debug)]
struct Output(CountsOf);

type CountsOf = Arc<Counts>;

impl Drop for Output {
    fn drop(&mut self) {
        self.0.outputs_dropped.fetch_add(1, SeqCst);
    }
}

/// Hands its waker out in each poll, and waits there to be told how to end it.
struct Held {
    counts: CountsOf,
    inside: mpsc::Sender<Waker>,
    ends: mpsc::Receiver<Ends>,
}

impl Future for Held {
    type Output = Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        self.counts.polls.fetch_add(1, SeqCst);
        self.inside.send(cx.waker().clone()).unwrap();
        match self.ends.recv().unwrap() {
            Ends::Pending => Poll::Pending,
            Ends::Ready => Poll::Ready(Output(self.counts.clone())),
            Ends::Panic => panic!("as told"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counts.futures_dropped.fetch_add(1, SeqCst);
    }
}

/// The test's side of a held task.
struct Holder {
    counts: CountsOf,
    inside: mpsc::Receiver<Waker>,
    end: mpsc::Sender<Ends>,
    runtime: Runtime,
}

impl Holder {
    fn spawn() -> (Self, JoinHandle<Output>) {
        let (runtime, counts) = (runtime(), CountsOf::default());
        let (tell, inside) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let task = runtime.spawn(Held { counts: counts.clone(), inside: tell, ends });
        (Self { counts, inside, end, runtime }, task)
    }

    /// The task is in a poll now; its waker.
    fn waker(&self) -> Waker {
        self.inside.recv().unwrap()
    }

    fn end_poll(&self, ends: Ends) {
        self.end.send(ends).unwrap();
    }

    /// The poll in progress ends with `Pending`, and the task has gone to sleep.
    fn idle(&self) {
        self.end_poll(Ends::Pending);
        wait_until(|| self.runtime.handle().tasks()[0].state == TaskState::Idle);
    }

    /// Waits until the worker has nothing left to do.
    fn settle(&self) {
        wait_until(|| self.runtime.handle().metrics().tasks == 0);
    }
}

/// A join handle's waker.
#[derive(Default)]
struct Joiner(AtomicUsize);

impl Wake for Joiner {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, joiner: &Arc<Joiner>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&joiner.clone().into()))
}

fn check(ends: Ends, result: Result<Output, JoinError>) {
    match (ends, result) {
        (Ends::Pending, Err(JoinError::Cancelled))
        | (Ends::Ready, Ok(_))
        | (Ends::Panic, Err(JoinError::Panicked(_))) => {}
        (ends, result) => panic!("{ends:?} and then {result:?}"),
    }
}

#[test]
fn wakes_from_outside_during_a_poll_are_one_more_poll() {
    for ends in EVERY_END {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        let other = waker.clone();
        waker.wake_by_ref();
        waker.wake();
        other.wake();
        holder.end_poll(ends);
        if ends == Ends::Pending {
            drop(holder.waker());
            holder.idle();
            assert_eq!(holder.counts.polls(), 2, "the three wakes are one");
            task.abort();
        }
        check(ends, common::block_on(task));
        assert_eq!(holder.counts.polls(), if ends == Ends::Pending { 2 } else { 1 });
        assert_eq!(holder.counts.futures_dropped(), 1);
        assert_eq!(holder.counts.outputs_dropped(), usize::from(ends == Ends::Ready));
    }
}

#[test]
fn a_wake_of_a_task_that_is_complete_changes_nothing() {
    for ends in [Ends::Ready, Ends::Panic] {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        holder.end_poll(ends);
        wait_until(|| task.is_finished());
        waker.wake_by_ref();
        waker.wake();
        // Had that put it into a queue, it would be run before this one.
        assert_eq!(common::block_on(holder.runtime.spawn(async { 1 })).unwrap(), 1);
        check(ends, common::block_on(task));
        assert_eq!((holder.counts.polls(), holder.counts.futures_dropped()), (1, 1));
    }
}

#[test]
fn an_abort_and_a_wake_during_a_poll_in_either_order() {
    for ends in EVERY_END {
        for wake_first in [false, true] {
            for keep_handle in [false, true] {
                let (holder, task) = Holder::spawn();
                let waker = holder.waker();
                if wake_first {
                    waker.wake_by_ref();
                }
                task.abort();
                let task = keep_handle.then_some(task);
                if !wake_first {
                    waker.wake_by_ref();
                }
                assert_eq!(holder.counts.futures_dropped(), 0, "nothing happens to a task in a poll");
                holder.end_poll(ends);
                if let Some(task) = task {
                    check(ends, common::block_on(task));
                }
                holder.settle();
                waker.wake();
                assert_eq!(holder.counts.polls(), 1, "{ends:?}");
                assert_eq!(holder.counts.futures_dropped(), 1, "{ends:?}");
                drop(holder.runtime);
                assert_eq!(holder.counts.outputs_dropped(), usize::from(ends == Ends::Ready), "{ends:?}");
            }
        }
    }
}

/// Brings a task to each stage in turn and calls `then`; afterwards it is made to complete.
/// Returns the counts of each, and a waker, by which its memory lives on.
fn at_each_stage(then: impl Fn(&Holder, &mut Option<JoinHandle<Output>>, &str)) -> Vec<(CountsOf, Waker)> {
    let mut all = Vec::new();
    // Queued: the only worker is held elsewhere.
    {
        let runtime = runtime();
        let (release, hold) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel();
        drop(runtime.spawn(async move {
            busy.send(()).unwrap();
            hold.recv().unwrap();
        }));
        is_busy.recv().unwrap();
        let counts = CountsOf::default();
        let (tell, inside) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let mut task = Some(runtime.spawn(Held { counts: counts.clone(), inside: tell, ends }));
        let holder = Holder { counts, inside, end, runtime };
        then(&holder, &mut task, "queued");
        release.send(()).unwrap();
        let waker = holder.waker();
        holder.end_poll(Ends::Ready);
        all.push((finish(holder, task), waker));
    }
    for stage in ["running", "idle", "woken", "complete"] {
        let (holder, task) = Holder::spawn();
        let mut task = Some(task);
        let waker = holder.waker();
        match stage {
            "running" => {
                then(&holder, &mut task, stage);
                holder.end_poll(Ends::Ready);
            }
            "idle" => {
                holder.idle();
                then(&holder, &mut task, stage);
                waker.wake_by_ref();
                drop(holder.waker());
                holder.end_poll(Ends::Ready);
            }
            "woken" => {
                waker.wake_by_ref();
                holder.end_poll(Ends::Pending);
                then(&holder, &mut task, stage);
                drop(holder.waker());
                holder.end_poll(Ends::Ready);
            }
            _ => {
                holder.end_poll(Ends::Ready);
                wait_until(|| task.as_ref().is_some_and(JoinHandle::is_finished));
                then(&holder, &mut task, stage);
            }
        }
        all.push((finish(holder, task), waker));
    }
    all
}

fn finish(holder: Holder, task: Option<JoinHandle<Output>>) -> CountsOf {
    if let Some(task) = task {
        check(Ends::Ready, common::block_on(task));
    }
    holder.counts.clone()
}

fn dropped_once(all: &[(CountsOf, Waker)]) {
    for (counts, _) in all {
        assert_eq!((counts.futures_dropped(), counts.outputs_dropped()), (1, 1));
    }
}

#[test]
fn a_handle_dropped_at_any_stage_leaves_the_task_to_complete() {
    let all = at_each_stage(|holder, task, stage| {
        drop(task.take());
        let complete = stage == "complete";
        assert_eq!(holder.counts.outputs_dropped(), usize::from(complete), "{stage}: the output goes with the handle");
    });
    dropped_once(&all);
}

#[test]
fn a_handle_polled_at_any_stage_wakes_its_last_waker_alone_and_keeps_none() {
    let kept = Mutex::new(Vec::new());
    let all = at_each_stage(|_, task, stage| {
        let joiners = [(); 3].map(|()| Arc::<Joiner>::default());
        let handle = task.as_mut().unwrap();
        if stage == "complete" {
            check(Ends::Ready, common::block_on(task.take().unwrap()));
            return;
        }
        for joiner in &joiners {
            // The same waker twice is no change.
            assert!(poll_once(handle, joiner).is_pending());
            assert!(poll_once(handle, joiner).is_pending());
        }
        assert_eq!(joiners.each_ref().map(Arc::strong_count), [1, 1, 2], "{stage}: only the last waker is kept");
        if stage == "idle" {
            // And it goes with the handle.
            drop(task.take());
            assert_eq!(Arc::strong_count(&joiners[2]), 1);
        } else {
            let handle = task.take().unwrap();
            kept.lock().unwrap().push((handle, joiners));
        }
    });
    for (mut handle, joiners) in kept.into_inner().unwrap() {
        wait_until(|| joiners[2].0.load(SeqCst) == 1);
        match poll_once(&mut handle, &joiners[0]) {
            Poll::Ready(result) => check(Ends::Ready, result),
            Poll::Pending => panic!("its waker was woken"),
        }
        drop(handle);
        assert_eq!(joiners.each_ref().map(|joiner| joiner.0.load(SeqCst)), [0, 0, 1]);
        assert_eq!(joiners.each_ref().map(Arc::strong_count), [1, 1, 1]);
    }
    dropped_once(&all);
}

/// Wakes its task as it is dropped, in every way there is.
#[derive(Debug)]
struct WakesInDrop(Arc<Mutex<Option<Waker>>>);

impl Drop for WakesInDrop {
    fn drop(&mut self) {
        let waker = self.0.lock().unwrap().take();
        if let Some(waker) = waker {
            let (elsewhere, another) = (waker.clone(), waker.clone());
            waker.wake_by_ref();
            thread::spawn(move || elsewhere.wake()).join().unwrap();
            waker.wake();
            drop(another);
        }
    }
}

#[test]
fn a_task_woken_by_its_own_destructors_is_not_polled_again() {
    for how in ["completes", "panics", "is aborted", "is left over"] {
        for in_output in [false, true] {
            let runtime = runtime();
            let (polls, place) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
            let (count, kept) = (polls.clone(), place.clone());
            let wakes = WakesInDrop(place);
            let task = runtime.spawn(async move {
                let mut wakes = Some(wakes);
                poll_fn(|cx| {
                    count.fetch_add(1, SeqCst);
                    *kept.lock().unwrap() = Some(cx.waker().clone());
                    match how {
                        "completes" => Poll::Ready(()),
                        "panics" => panic!("as told"),
                        _ => Poll::Pending,
                    }
                })
                .await;
                if in_output { wakes.take() } else { None }
            });
            wait_until(|| polls.load(SeqCst) == 1);
            match how {
                "is aborted" => task.abort(),
                "is left over" => {
                    drop(runtime);
                    assert!(common::block_on(task).unwrap_err().is_cancelled());
                    assert_eq!(polls.load(SeqCst), 1);
                    continue;
                }
                _ => {}
            }
            match common::block_on(task) {
                Ok(output) => assert_eq!((how, output.is_some()), ("completes", in_output)),
                Err(error) => {
                    assert_eq!((error.is_panic(), error.is_cancelled()), (how == "panics", how == "is aborted"))
                }
            }
            drop(runtime);
            assert_eq!(polls.load(SeqCst), 1, "a task that {how}");
        }
    }
}

#[test]
fn wakers_cloned_woken_and_dropped_on_many_threads_free_the_task_once() {
    for round in 0..200 {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        thread::scope(|scope| {
            for n in 0..4 {
                let waker = waker.clone();
                scope.spawn(move || {
                    for _ in 0..n * 3 {
                        drop(waker.clone());
                        waker.wake_by_ref();
                    }
                    if n % 2 == 0 { waker.wake() } else { drop(waker) }
                });
            }
            drop(waker);
            match round % 3 {
                0 => holder.end_poll(Ends::Ready),
                1 => holder.end_poll(Ends::Panic),
                _ => {
                    task.abort();
                    holder.end_poll(Ends::Pending);
                }
            }
            if round % 2 == 0 {
                let _ = common::block_on(task);
            } else {
                drop(task);
            }
        });
        let counts = holder.counts.clone();
        drop(holder);
        assert_eq!(counts.futures_dropped(), 1);
        assert_eq!(counts.outputs_dropped(), usize::from(round % 3 == 0));
    }
}

#[test]
fn wakes_from_other_threads_after_the_end_of_task_and_runtime_are_harmless() {
    for round in 0..100 {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        let counts = holder.counts.clone();
        let begun = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                let (waker, begun) = (waker.clone(), &begun);
                scope.spawn(move || {
                    begun.wait();
                    for _ in 0..200 {
                        waker.wake_by_ref();
                    }
                    let other = waker.clone();
                    other.wake();
                });
            }
            holder.end_poll(if round % 2 == 0 { Ends::Ready } else { Ends::Panic });
            begun.wait();
            drop(holder);
        });
        waker.wake();
        assert_eq!((counts.polls(), counts.futures_dropped()), (1, 1));
        drop(task);
        assert_eq!(counts.outputs_dropped(), usize::from(round % 2 == 0));
    }
}

#[test]
fn a_task_that_holds_its_own_handle_ends_with_the_runtime() {
    let runtime = runtime();
    let counts = CountsOf::default();
    let (give, given) = futures::channel::oneshot::channel::<JoinHandle<()>>();
    let output = Output(counts.clone());
    let task = runtime.spawn(async move {
        let _output = output;
        // It waits for itself.
        let _ = given.await.unwrap().await;
    });
    assert!(give.send(task).is_ok());
    wait_until(|| runtime.handle().tasks()[0].polls >= 1);
    drop(runtime);
    assert_eq!(counts.outputs_dropped(), 1);
}

#[test]
fn a_joiner_that_is_aborted_leaves_its_task_alone() {
    let (holder, task) = Holder::spawn();
    let waker = holder.waker();
    let other = runtime();
    let joiner = other.spawn(task);
    wait_until(|| other.handle().tasks()[0].state == TaskState::Idle);
    joiner.abort();
    assert!(common::block_on(joiner).unwrap_err().is_cancelled());
    holder.idle();
    waker.wake();
    drop(holder.waker());
    holder.end_poll(Ends::Ready);
    holder.settle();
    drop(holder.runtime);
    assert_eq!((holder.counts.polls(), holder.counts.outputs_dropped()), (2, 1));
}

#[test]
fn a_finished_task_and_its_runtime_go_in_either_order() {
    for runtime_first in [false, true] {
        let (holder, task) = Holder::spawn();
        drop(holder.waker());
        holder.end_poll(Ends::Ready);
        wait_until(|| task.is_finished());
        assert_eq!(holder.counts.outputs_dropped(), 0);
        if runtime_first {
            drop(holder.runtime);
            assert_eq!(holder.counts.outputs_dropped(), 0);
            drop(task);
        } else {
            drop(task);
            assert_eq!(holder.counts.outputs_dropped(), 1);
            drop(holder.runtime);
        }
        assert_eq!((holder.counts.futures_dropped(), holder.counts.outputs_dropped()), (1, 1));
    }
}

#[test]
fn a_forgotten_runtime_goes_on() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    std::mem::forget(runtime);
    let sum = common::block_on(handle.spawn(async {
        let mut sum = 0;
        for n in 0..10 {
            sum += spawn(async move { n }).await.unwrap();
        }
        sum
    }));
    assert_eq!(sum.unwrap(), 45);
}

#[test]
fn tasks_of_two_runtimes_await_each_other_and_one_runtime_outlives_the_other() {
    let (ours, theirs) = (runtime(), runtime());
    let to_theirs = theirs.handle().clone();
    let to_ours = ours.handle().clone();
    let sum = common::block_on(ours.spawn(async move {
        let mut sum = 0;
        for n in 0..100 {
            let to_ours = to_ours.clone();
            let task = to_theirs.spawn(async move { to_ours.spawn(async move { n }).await.unwrap() + 1 });
            sum += task.await.unwrap();
        }
        sum
    }));
    assert_eq!(sum.unwrap(), (1..=100).sum::<i32>());
    let waits = theirs.spawn(pending::<()>());
    let joiner = ours.spawn(waits);
    wait_until(|| ours.handle().tasks().iter().all(|task| task.state == TaskState::Idle));
    drop(theirs);
    assert!(common::block_on(joiner).unwrap().unwrap_err().is_cancelled());
    assert_eq!(common::block_on(ours.spawn(async { 5 })).unwrap(), 5);
}

#[test]
fn an_iterator_that_panics_while_it_spawns_leaves_no_task_behind() {
    bounded::run(async {
        let counts = CountsOf::default();
        let shared = counts.clone();
        let spawning = spawn(async move {
            let tasks = (0..10).map(|n| {
                assert!(n < 7, "no more");
                let output = Output(shared.clone());
                spawn(async move {
                    let _output = output;
                    pending::<()>().await;
                })
            });
            tasks.collect::<JoinSet<()>>().len()
        });
        assert!(spawning.await.unwrap_err().is_panic());
        while counts.outputs_dropped() < 7 {
            yield_now().await;
        }
    });
}

#[repr(align(4096))]
#[derive(Clone, Copy)]
struct Page(u8);

#[test]
fn tasks_of_any_size_and_alignment() {
    fn is_aligned<T>(value: &T) {
        assert_eq!(std::ptr::from_ref(value).addr() % align_of::<T>(), 0);
    }
    bounded::run(async {
        spawn(async {}).await.unwrap();
        let page = Page(7);
        let page = spawn(async move {
            let page = page;
            is_aligned(&page);
            yield_now().await;
            is_aligned(&page);
            page
        });
        assert_eq!(page.await.unwrap().0, 7);
        // The future and its output.
        let large = [3u8; 1 << 16];
        let large = spawn(async move {
            yield_now().await;
            large
        });
        assert!(large.await.unwrap().iter().all(|&byte| byte == 3));
    });
}
