//! Arming, disarming, closing and the end of the task against a boundary that fires: the real account, timers, slot and boundary.
//!
//! What a boundary and another thread do to one account is exact only together with the rest: the lock, the caches behind it, the
//! wake queue, the charge and the executor's own read-modify-write. So these models run all of it. What handlers do is noted in
//! plain atomics, which loom does not see: it interleaves the crate's steps, and a step of the model's own makes a handler long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::Stream;
use loom::thread;

use crate::account::Account;
use crate::boundary::{Control, Run};
use crate::clock::Clock;
use crate::clock::manual::ManualState;
use crate::service;
use crate::stream::CpuTimerStream;
use crate::sync::{AtomicU64, Ordering};
use crate::thread::ThreadSlot;
use crate::timer::{CpuTimer, TimerBuilder};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.check(f);
}

const fn ns(n: u64) -> Duration {
    Duration::from_nanos(n)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&wakes.waker()))
}

/// A task and the thread that polls it, on the manual clock.
struct Task {
    account: Account,
    slot: &'static ThreadSlot,
    clock: Clock,
    /// The executor's state word.
    state: AtomicU64,
    wakes: Arc<Wakes>,
}

impl Task {
    fn new() -> Self {
        let clock: &'static ManualState = Box::leak(Box::default());
        let task = Self {
            account: Account::new(),
            slot: Box::leak(Box::new(ThreadSlot::new())),
            clock: Clock::Manual(clock),
            state: AtomicU64::new(0),
            wakes: Arc::default(),
        };
        task.account.set_waker(task.wakes.waker());
        task
    }

    fn timer(&self) -> TimerBuilder {
        self.account.clock().timer()
    }

    /// One poll that uses `used` nanoseconds, from the executor's first step to its last.
    fn poll(&self, used: u64) {
        let mut run = Run::begin(self.slot, &self.clock, &self.account, self.clock.stamp(self.slot));
        assert!(matches!(run.before_poll(), Control::Proceed));
        self.slot.advance_manual_cpu(used);
        assert!(matches!(run.after_poll(false), Control::Proceed));
        run.end();
        let watch = self.account.watch();
        self.state.fetch_add(1, Ordering::SeqCst);
        watch.recheck();
    }
}

/// A timer that counts its deliveries and takes a step each time, so that others can come in between.
fn counting(task: &Task) -> (TimerBuilder, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (delivered, step) = (count.clone(), AtomicU64::new(0));
    let builder = task.timer().on_expiry(move |_| {
        step.fetch_add(1, Ordering::Relaxed);
        delivered.fetch_add(1, SeqCst);
    });
    (builder, count)
}

/// Arms by another thread while a poll ends: the boundary delivers it, or the task is woken, so that its next one does.
#[test]
fn loom_t28_a_timer_armed_as_the_poll_ends_is_delivered_or_wakes() {
    model(|| {
        let task = Task::new();
        let (timer, delivered) = counting(&task);
        let timer = timer.build().unwrap();
        let armer = thread::spawn(move || {
            timer.arm_at(ns(5)).unwrap();
            timer
        });
        task.poll(7);
        let _timer = armer.join().unwrap();
        assert!(delivered.load(SeqCst) == 1 || task.wakes.count() > 0, "the expiry is lost");
        task.poll(0);
        assert_eq!(delivered.load(SeqCst), 1);
    });
}

/// Each arming is delivered once or found by the one that takes its place, and the one that is left is not lost.
#[test]
fn loom_t23_t24_arming_against_the_firing() {
    model(|| {
        let task = Task::new();
        let (timer, delivered) = counting(&task);
        let timer = timer.arm_at(ns(5)).unwrap();
        let armer = thread::spawn(move || {
            let before = timer.arm_at(ns(6)).unwrap();
            (timer, usize::from(!before.remaining.is_zero()))
        });
        task.poll(7);
        let (_timer, found) = armer.join().unwrap();
        let by_now = delivered.load(SeqCst) + found;
        assert!(by_now == 2 || by_now == 1 && task.wakes.count() > 0, "the second arming is lost");
        task.poll(0);
        assert_eq!(delivered.load(SeqCst) + found, 2);
    });
}

/// A timer that is disarmed was delivered before, or is not delivered at all.
#[test]
fn loom_t23_t29_disarming_against_the_firing() {
    model(|| {
        let task = Task::new();
        let (timer, delivered) = counting(&task);
        let timer = timer.every(ns(5)).arm_at(ns(5)).unwrap();
        let disarmer = thread::spawn(move || {
            let interval = timer.disarm().interval;
            (timer, interval)
        });
        task.poll(7);
        let (timer, interval) = disarmer.join().unwrap();
        assert_eq!(interval, ns(5), "it was armed, before the delivery and behind it");
        assert!(timer.setting() == crate::timer_set::Setting::default());
        let by_then = delivered.load(SeqCst);
        assert!(by_then <= 1);
        task.poll(20);
        assert_eq!(delivered.load(SeqCst), by_then, "a delivery behind the disarming");
    });
}

/// After a close its handler neither runs nor starts; a close that has to wait is woken.
#[test]
fn loom_t19_t20_t22_closing_against_the_firing() {
    static WAITED: AtomicBool = AtomicBool::new(false);
    static PREVENTED: AtomicBool = AtomicBool::new(false);
    model(|| {
        let task = Task::new();
        let (started, ended, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let timer = {
            let (started, ended, closed) = (started.clone(), ended.clone(), Arc::<AtomicBool>::clone(&closed));
            let step = AtomicU64::new(0);
            task.timer().on_expiry(move |_| {
                assert!(!closed.load(SeqCst), "it starts behind the close");
                started.fetch_add(1, SeqCst);
                step.fetch_add(1, Ordering::Relaxed);
                step.fetch_add(1, Ordering::Relaxed);
                ended.fetch_add(1, SeqCst);
            })
        };
        let timer = timer.arm_at(ns(5)).unwrap();
        let closer = {
            let (started, ended) = (started.clone(), ended.clone());
            thread::spawn(move || {
                let wakes = Arc::<Wakes>::default();
                let mut closing = Box::pin(timer.close());
                let is_closed = poll_once(closing.as_mut(), &wakes).is_ready();
                if is_closed {
                    closed.store(true, SeqCst);
                    assert_eq!(started.load(SeqCst), ended.load(SeqCst), "it runs behind the close");
                }
                (closing, wakes, is_closed)
            })
        };
        task.poll(7);
        let (mut closing, wakes, was_closed) = closer.join().unwrap();
        if !was_closed {
            WAITED.store(true, SeqCst);
            assert_eq!((ended.load(SeqCst), wakes.count()), (1, 1), "whoever waits for the close is not told");
            assert!(poll_once(closing.as_mut(), &wakes).is_ready());
        }
        let runs = ended.load(SeqCst);
        PREVENTED.fetch_or(runs == 0, SeqCst);
        task.poll(7);
        assert!(runs <= 1 && ended.load(SeqCst) == runs);
    });
    assert!(WAITED.load(SeqCst) && PREVENTED.load(SeqCst), "the race was none");
}

/// The task ends while its timer fires, by the boundary or by the service thread: a sleeper on its clock hears of the one or the
/// other.
#[test]
fn loom_t25_a_target_that_ends_while_a_sleep_on_its_clock_fires() {
    model(|| {
        let task = Task::new();
        let (clock, target) = (task.account.clock(), task.account.record().target());
        let sleeper = thread::spawn(move || {
            let wakes = Arc::<Wakes>::default();
            let mut sleep = Box::pin(clock.sleep_until(ns(5)));
            let first = poll_once(sleep.as_mut(), &wakes);
            (sleep, wakes, first)
        });
        // It has seen the poll that is over 5 ns, and comes late.
        let service = thread::spawn(move || service::serve_one(service::Request { target, wake_task: false }));
        task.poll(7);
        task.account.end();
        drop(task);
        service.join().unwrap();
        let (mut sleep, wakes, first) = sleeper.join().unwrap();
        if first.is_pending() {
            assert!(wakes.count() >= 1, "the sleeper waits for ever");
            assert!(poll_once(sleep.as_mut(), &wakes).is_ready());
        }
    });
}

/// How many intervals a supervisor takes; 0 at the end.
fn take(stream: &mut CpuTimerStream, wakes: &Arc<Wakes>) -> Poll<u32> {
    let next = Pin::new(stream).poll_next(&mut Context::from_waker(&wakes.waker()));
    next.map(|expiry| expiry.map_or(0, |expiry| 1 + expiry.overrun))
}

/// The same for a stream: nothing that had fired goes with the task.
#[test]
fn loom_t25_t48_a_target_that_ends_while_its_stream_fires() {
    model(|| {
        let task = Task::new();
        let mut stream = task.timer().every(ns(3)).stream_at(ns(3)).unwrap();
        let supervisor = thread::spawn(move || {
            let wakes = Arc::<Wakes>::default();
            let first = take(&mut stream, &wakes);
            (stream, wakes, first)
        });
        task.poll(10);
        task.account.end();
        let (mut stream, wakes, first) = supervisor.join().unwrap();
        let mut sum = match first {
            Poll::Ready(n) => n,
            Poll::Pending => {
                assert!(wakes.count() >= 1, "the supervisor waits for ever");
                0
            }
        };
        while let Poll::Ready(n @ 1..) = take(&mut stream, &wakes) {
            sum += n;
        }
        assert_eq!(sum, 3, "at 3, 6 and 9 ns");
        assert_eq!(take(&mut stream, &wakes), Poll::Ready(0), "it does not end");
    });
}

/// A timer that is closed as its task ends is not closed twice, and nobody waits for it.
#[test]
fn loom_t25_a_target_that_ends_while_its_timer_is_closed() {
    model(|| {
        let task = Task::new();
        let (timer, delivered) = counting(&task);
        let timer: CpuTimer = timer.arm_at(ns(5)).unwrap();
        let closer = thread::spawn(move || {
            let wakes = Arc::<Wakes>::default();
            let mut closing = Box::pin(timer.close());
            let first = poll_once(closing.as_mut(), &wakes);
            (closing, wakes, first)
        });
        task.poll(7);
        task.account.end();
        drop(task);
        let (mut closing, wakes, first) = closer.join().unwrap();
        if first.is_pending() {
            assert!(wakes.count() >= 1, "whoever waits for the close is not told");
            assert!(poll_once(closing.as_mut(), &wakes).is_ready());
        }
        assert!(delivered.load(SeqCst) <= 1);
    });
}

/// An account that nobody has looked at ends without taking its lock; whoever gets a clock of it at that moment sees the end.
#[test]
fn loom_t25_t48_a_clock_made_as_its_account_ends() {
    model(|| {
        let account = Arc::new(Account::new());
        let ending = account.clone();
        let looker = thread::spawn(move || {
            let wakes = Arc::<Wakes>::default();
            let mut sleep = Box::pin(ending.clock().sleep_until(ns(5)));
            let first = poll_once(sleep.as_mut(), &wakes);
            (sleep, wakes, first)
        });
        account.end();
        let (_sleep, wakes, first) = looker.join().unwrap();
        assert!(first.is_ready() || wakes.count() == 1, "the sleeper waits for ever");
    });
}
