//! Loom models of the task cell: the real cell, with a queue and a flag where the runtime has workers and a meter.
//!
//! Each model is a race that [`state`](super::state) speaks of. What it asserts: no run is lost, the
//! future is dropped exactly once, the joiner learns the outcome. That accesses do not overlap loom checks by itself,
//! for stage and join waker are in its cells; that the cell is freed, by its count of `Arc`s.

#![allow(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::registry::Slot;
use super::{End, Joint, Run, Runnable, Schedule, TaskRef, Verdict, allocate};

/// What the model's tasks have for a runtime: a queue, and an aborter's flag for an account.
#[derive(Clone)]
struct World(Arc<WorldState>);

struct WorldState {
    queue: Mutex<Vec<Runnable<World>>>,
    cancelled: AtomicBool,
    retired: AtomicUsize,
}

impl World {
    fn new() -> Self {
        Self(Arc::new(WorldState {
            queue: Mutex::new(Vec::new()),
            cancelled: AtomicBool::new(false),
            retired: AtomicUsize::new(0),
        }))
    }

    /// A task with its first run queued.
    fn spawn<F>(&self, future: F) -> (TaskRef<World>, Joint<F::Output, World>)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (runnable, task, joint) = allocate(|| self.clone(), future);
        World::schedule(runnable);
        (task, joint)
    }

    /// Runs what is queued. Returns how much that was.
    fn work(&self) -> usize {
        let mut runs = 0;
        loop {
            let Some(runnable) = self.0.queue.lock().unwrap().pop() else {
                return runs;
            };
            runnable.run(|world| Bracket(&world.0));
            runs += 1;
        }
    }

    fn abort(&self, task: &TaskRef<World>) {
        self.0.cancelled.store(true, Ordering::Release);
        task.waker().wake();
    }
}

impl Schedule for World {
    type Reason = ();
    type Stamp = ();
    type Run<'a> = Bracket<'a>;

    fn schedule(runnable: Runnable<Self>) {
        let world = runnable.core().clone();
        world.0.queue.lock().unwrap().push(runnable);
    }

    fn retire(&self) -> Option<TaskRef<Self>> {
        self.0.retired.fetch_add(1, Ordering::Relaxed);
        None
    }
}

struct Bracket<'a>(&'a WorldState);

impl Bracket<'_> {
    fn verdict(&self) -> Verdict<()> {
        if self.0.cancelled.load(Ordering::Acquire) { Verdict::Cancel(()) } else { Verdict::Proceed }
    }
}

impl Run<()> for Bracket<'_> {
    type Stamp = ();

    fn before_poll(&mut self) -> Verdict<()> {
        self.verdict()
    }
    fn after_pending(&mut self) -> Verdict<()> {
        self.verdict()
    }
    fn after_ready(&mut self) {}
    fn end(&mut self) {}
    fn end_now(&mut self) {}
    fn complete(&mut self) {}
}

/// Ready once the flag is up; leaves its waker; counts its drops.
struct Flagged {
    shared: Arc<Flag>,
    drops: Arc<AtomicUsize>,
}

struct Flag {
    up: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self { up: AtomicBool::new(false), waker: Mutex::new(None) })
    }

    fn raise(&self) {
        self.up.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Flagged {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        *self.shared.waker.lock().unwrap() = Some(cx.waker().clone());
        if self.shared.up.load(Ordering::Acquire) { Poll::Ready(7) } else { Poll::Pending }
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A joiner's waker.
struct Woken(AtomicUsize);

impl Woken {
    fn new() -> (std::sync::Arc<Self>, Waker) {
        let woken = std::sync::Arc::new(Self(AtomicUsize::new(0)));
        (std::sync::Arc::clone(&woken), Waker::from(woken))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn value(end: Poll<End<u32, ()>>) -> Option<u32> {
    match end {
        Poll::Ready(End::Returned(value)) => Some(value),
        _ => None,
    }
}

/// Transitions 2 to 6: a wake that comes before, during or after a poll leads to one more.
#[test]
fn a_wake_that_races_the_poll_is_not_lost() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        let (task, mut joint) = world.spawn(Flagged { shared: flag.clone(), drops: drops.clone() });
        let raiser = thread::spawn({
            let flag = flag.clone();
            move || flag.raise()
        });
        world.work();
        raiser.join().unwrap();
        world.work();
        drop(task);
        let (_, waker) = Woken::new();
        assert_eq!(value(joint.poll(&mut Context::from_waker(&waker))), Some(7));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(world.0.retired.load(Ordering::Relaxed), 1);
    });
}

/// Transition 5: of two wakers one makes the runnable, and two workers never run it at once.
#[test]
fn two_wakers_and_two_workers_run_it_once_each_time() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        let (task, joint) = world.spawn(Flagged { shared: flag.clone(), drops: drops.clone() });
        assert_eq!(world.work(), 1);
        flag.up.store(true, Ordering::Release);
        let other = thread::spawn({
            let (world, waker) = (world.clone(), task.waker());
            move || {
                waker.wake();
                world.work();
            }
        });
        task.waker().wake_by_ref();
        world.work();
        other.join().unwrap();
        world.work();
        assert!(joint.is_complete());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        flag.waker.lock().unwrap().take();
    });
}

/// Abort is a post and a wake: whatever it races, the task ends, and its future is dropped once.
#[test]
fn an_abort_that_races_completion_ends_the_task_once() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        let (task, mut joint) = world.spawn(Flagged { shared: flag.clone(), drops: drops.clone() });
        flag.up.store(true, Ordering::Release);
        let aborter = thread::spawn({
            let (world, task) = (world.clone(), task.clone());
            move || world.abort(&task)
        });
        world.work();
        aborter.join().unwrap();
        world.work();
        let (_, waker) = Woken::new();
        match joint.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(End::Returned(7) | End::Cancelled(())) => {}
            _ => panic!("the task has not ended"),
        }
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(world.0.retired.load(Ordering::Relaxed), 1);
        flag.waker.lock().unwrap().take();
    });
}

/// An abort of a task that sleeps, or falls asleep, is seen by its next run.
#[test]
fn an_abort_reaches_a_task_that_falls_asleep() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        let (task, joint) = world.spawn(Flagged { shared: flag.clone(), drops: drops.clone() });
        let aborter = thread::spawn({
            let (world, task) = (world.clone(), task.clone());
            move || world.abort(&task)
        });
        world.work();
        aborter.join().unwrap();
        world.work();
        assert!(joint.is_complete());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        flag.waker.lock().unwrap().take();
    });
}

/// Transitions 7, 8 and 10: a joiner that registers while the task completes either sees that or is woken.
#[test]
fn a_joiner_that_races_completion_is_woken_or_served() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        flag.up.store(true, Ordering::Release);
        let (task, mut joint) = world.spawn(Flagged { shared: flag.clone(), drops });
        drop(task);
        let worker = thread::spawn({
            let world = world.clone();
            move || world.work()
        });
        let (woken, waker) = Woken::new();
        let first = value(joint.poll(&mut Context::from_waker(&waker)));
        worker.join().unwrap();
        if first.is_none() {
            assert_eq!(woken.times(), 1);
            assert_eq!(value(joint.poll(&mut Context::from_waker(&waker))), Some(7));
        }
        flag.waker.lock().unwrap().take();
    });
}

/// Transition 9: replacing the join waker while the task completes.
#[test]
fn a_joiner_that_changes_its_waker_is_woken_or_served() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        flag.up.store(true, Ordering::Release);
        let (task, mut joint) = world.spawn(Flagged { shared: flag.clone(), drops });
        drop(task);
        let (_, before) = Woken::new();
        assert!(joint.poll(&mut Context::from_waker(&before)).is_pending());
        let worker = thread::spawn({
            let world = world.clone();
            move || world.work()
        });
        let (woken, waker) = Woken::new();
        let second = value(joint.poll(&mut Context::from_waker(&waker)));
        worker.join().unwrap();
        if second.is_none() {
            assert_eq!(woken.times(), 1);
            assert_eq!(value(joint.poll(&mut Context::from_waker(&waker))), Some(7));
        }
        flag.waker.lock().unwrap().take();
    });
}

/// Transition 11: output and join waker are dropped once, by whoever is left with them.
#[test]
fn a_join_handle_dropped_at_completion_leaks_nothing() {
    model(|| {
        let (world, flag, drops) = (World::new(), Flag::new(), Arc::new(AtomicUsize::new(0)));
        flag.up.store(true, Ordering::Release);
        let output = Arc::new(AtomicUsize::new(0));
        let future = {
            let (inner, output) = (Flagged { shared: flag.clone(), drops: drops.clone() }, output.clone());
            async move {
                inner.await;
                output
            }
        };
        let (task, mut joint) = world.spawn(future);
        drop(task);
        let (_, waker) = Woken::new();
        assert!(joint.poll(&mut Context::from_waker(&waker)).is_pending());
        let worker = thread::spawn({
            let world = world.clone();
            move || world.work()
        });
        drop(joint);
        worker.join().unwrap();
        flag.waker.lock().unwrap().take();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        // The cell is gone, and the output with it.
        assert_eq!(Arc::strong_count(&output), 1);
        assert_eq!(std::sync::Arc::strong_count(&waker_arc(&waker)), 2);
    });
}

/// The `Arc` behind a joiner's waker, counted once more.
fn waker_arc(waker: &Waker) -> std::sync::Arc<Woken> {
    // SAFETY: every waker of these models comes from `Woken::new`, that is, from `Arc::into_raw` of an `Arc<Woken>`;
    // the count is raised before an `Arc` takes it over.
    unsafe {
        std::sync::Arc::increment_strong_count(waker.data().cast::<Woken>());
        std::sync::Arc::from_raw(waker.data().cast())
    }
}

/// A place for a runnable: its owner puts and takes, a thief takes, and every task is run once, by whoever has it.
#[test]
fn a_place_gives_each_runnable_out_once() {
    model(|| {
        let world = World::new();
        let place = Arc::new(super::Place::new());
        let polls = Arc::new(AtomicUsize::new(0));
        let task = |polls: Arc<AtomicUsize>| async move {
            polls.fetch_add(1, Ordering::Relaxed);
        };
        let (first, _, _joint) = allocate(|| world.clone(), task(polls.clone()));
        let (second, _, _joint2) = allocate(|| world.clone(), task(polls.clone()));
        let thief = thread::spawn({
            let (place, world) = (place.clone(), world.clone());
            move || {
                if let Some(stolen) = place.take() {
                    stolen.run(|_| Bracket(&world.0));
                }
            }
        });
        let run = |runnable: Option<Runnable<World>>| {
            if let Some(runnable) = runnable {
                runnable.run(|_| Bracket(&world.0));
            }
        };
        run(place.put(first));
        run(place.put(second));
        run(place.take());
        thief.join().unwrap();
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    });
}

/// A slot of the registry: who looks for the task as it leaves gets a reference of its own or nothing, and the task is freed once.
#[test]
fn a_slot_is_left_while_others_look_into_it() {
    model(|| {
        let world = World::new();
        let slot = Arc::new(Slot::<World>::new());
        let drops = Arc::new(AtomicUsize::new(0));
        let flag = Flag::new();
        flag.up.store(true, Ordering::Relaxed);
        let (runnable, task, joint) =
            allocate(|| world.clone(), Flagged { shared: flag.clone(), drops: drops.clone() });
        slot.put(task);
        let looks = |slot: &Slot<World>| {
            if let Some(found) = slot.find(|_| true) {
                found.wake();
            }
        };
        let other = thread::spawn({
            let slot = slot.clone();
            move || looks(&slot)
        });
        drop(joint);
        runnable.run(|world| Bracket(&world.0));
        assert!(slot.remove().is_some(), "nobody else takes it out");
        assert!(slot.find(|_| true).is_none());
        other.join().unwrap();
        flag.waker.lock().unwrap().take();
        world.work();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}
