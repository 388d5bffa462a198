//! Timers, sleeps and streams on a group's clock, on the manual clock.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll};
use std::thread::scope;
use std::time::Duration;

use common::{Bench, Log, Task, Wakes, log, ms, taken};
use futures::Stream;
use proptest::prelude::*;
use stipend_timers::test::Manual;
use stipend_timers::{
    Account, Action, CancelReason, Control, CpuLimit, CpuTimer, CpuTimerStream, Expiry, Group, GroupClock, Lease,
    Metered, Offload, Setting,
};

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

fn child(parent: &Group) -> Group {
    Group::builder("child").parent(parent).build().unwrap()
}

fn member<'a>(task: Task<'a>, group: &Group) -> Task<'a> {
    task.inner.account().set_group(group);
    task
}

/// A member that uses so much in every poll.
fn burner<'a>(bench: &'a Bench, group: &Group, each: Duration) -> Task<'a> {
    member(bench.burner(each), group)
}

fn noting<T, U>(log: &Log<T>, what: U) -> impl FnMut(Expiry) + Send + use<T, U>
where
    T: Send + 'static,
    U: Fn(Expiry) -> T + Send + 'static,
{
    let log = log.clone();
    move |expiry| log.lock().unwrap().push(what(expiry))
}

fn handler(clock: &GroupClock, log: &Log<(Duration, Duration, u32)>, at: Duration) -> CpuTimer {
    clock.timer().on_expiry(noting(log, |e| (e.at, e.used, e.overrun))).arm_at(at).unwrap()
}

fn next(stream: &mut CpuTimerStream, wakes: &Arc<Wakes>) -> Option<(Duration, Duration, u32)> {
    let waker = wakes.clone().into();
    match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
        Poll::Ready(Some(e)) => Some((e.at, e.used, e.overrun)),
        Poll::Ready(None) => panic!("a group's clock does not end"),
        Poll::Pending => None,
    }
}

/// One poll of an account on a lease's thread.
fn poll(lease: &Lease, manual: &Manual, account: &Account, used: Duration) -> bool {
    let mut run = lease.begin(account, lease.stamp());
    let mut goes_on = matches!(run.before_poll(), Control::Proceed);
    if goes_on {
        manual.advance(used);
        goes_on = matches!(run.after_poll(false), Control::Proceed);
    }
    run.end();
    account.watch().recheck();
    goes_on
}

#[test]
fn t47_t49_the_clock_is_the_sum_of_live_and_ended_members_and_of_child_groups() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let inner = child(&tenant);
    let (clock, below) = (tenant.cpu_clock(), inner.cpu_clock());
    let (mut a, mut b) = (burner(&bench, &tenant, ms(3)), burner(&bench, &inner, ms(4)));
    let mut stranger = bench.burner(ms(100));
    for _ in 0..3 {
        a.pending();
        b.pending();
        stranger.pending();
    }
    assert_eq!((clock.now(), below.now()), (ms(21), ms(12)));
    drop(b);
    drop((below, inner));
    assert_eq!(clock.now(), ms(21), "what ended members and ended groups used stays");
    a.pending();
    assert_eq!((clock.now(), clock.group().cpu_time()), (ms(24), ms(24)));
    let reading = log();
    let (of_group, sink, counted) = (clock.clone(), reading.clone(), bench.manual.clone());
    let mut task = member(
        bench.task(move |manual| {
            manual.advance(ms(5));
            sink.lock().unwrap().push((of_group.now(), of_group.group().cpu_time()));
            counted.tick();
            true
        }),
        &tenant,
    );
    task.completed();
    assert_eq!(taken(&reading), [(ms(29), ms(24))], "the poll in progress is in it");
    assert_eq!(clock.now(), ms(29));
}

#[test]
fn t01_t04_t08_a_handler_runs_at_the_boundary_that_comes_to_its_time_on_that_members_account() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    let (mut a, mut b) = (burner(&bench, &tenant, ms(3)), burner(&bench, &tenant, ms(4)));
    let manual = bench.manual.clone();
    let mut note = noting(&fired, |e| (e.at, e.used));
    let _timer = clock
        .timer()
        .on_expiry(move |expiry| {
            note(expiry);
            manual.advance(ms(2));
        })
        .arm_at(ms(11))
        .unwrap();
    a.pending();
    b.pending();
    a.pending();
    assert_eq!(taken(&fired), [], "10 of 11 ms");
    b.pending();
    assert_eq!(taken(&fired), [(ms(11), ms(14))]);
    assert_eq!((a.clock().now(), b.clock().now(), clock.now()), (ms(6), ms(10), ms(16)));
    let _exact = handler(&clock, &log(), ms(100));
    let exactly = log();
    let _timer = handler(&clock, &exactly, ms(19));
    a.pending();
    assert_eq!(taken(&exactly), [(ms(19), ms(19), 0)], "used == expires");
    assert_eq!((a.wakes.count(), b.wakes.count()), (0, 0));
}

#[test]
fn t35_t40_t43_periodic_and_silent_timers_on_a_groups_clock() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    let periodic = clock.timer().every(ms(10)).on_expiry(noting(&fired, |e| (e.at, e.used, e.overrun)));
    let periodic = periodic.arm_after(ms(10)).unwrap();
    let silent = clock.timer().every(ms(7)).arm_after(ms(7)).unwrap();
    let mut work = [4, 4, 1, 96, 2, 30].into_iter();
    let mut a = member(
        bench.task(move |manual| {
            manual.advance(ms(work.next().unwrap()));
            false
        }),
        &tenant,
    );
    let mut total = 0;
    for _ in 0..6 {
        a.pending();
        for (at, used, overrun) in taken(&fired) {
            total += 1 + u128::from(overrun);
            assert!(at <= used);
            assert_eq!((clock.now(), periodic.overrun()), (used, overrun));
        }
        assert_eq!(total, clock.now().as_millis() / 10);
        assert_eq!(u128::from(7 - clock.now().as_millis() as u64 % 7), silent.remaining().as_millis());
    }
    assert_eq!(periodic.remaining(), ms(3));
}

#[test]
fn g20_t57_the_timers_of_every_group_around_a_member_fire() {
    let bench = Bench::new();
    let top = group("top");
    let middle = child(&top);
    let (left, right) = (child(&middle), child(&middle));
    let fired = log();
    let mut timers = Vec::new();
    for (name, group, at) in [("top", &top, 30), ("middle", &middle, 20), ("left", &left, 10), ("right", &right, 10)] {
        let timer = group.cpu_clock().timer().on_expiry(noting(&fired, move |e| (name, e.used))).arm_at(ms(at));
        timers.push(timer.unwrap());
    }
    let mut in_left = burner(&bench, &left, ms(6));
    let mut in_right = burner(&bench, &right, ms(5));
    let mut in_top = burner(&bench, &top, ms(4));
    in_left.pending();
    in_right.pending();
    in_top.pending();
    assert_eq!(taken(&fired), []);
    in_right.pending();
    assert_eq!(taken(&fired), [("right", ms(10))]);
    in_left.pending();
    assert_eq!(taken(&fired), [("left", ms(12)), ("middle", ms(22))]);
    in_top.pending();
    assert_eq!(taken(&fired), [("top", ms(30))]);
    for (group, used) in [(&top, 30), (&middle, 22), (&left, 12), (&right, 10)] {
        assert_eq!((group.cpu_time(), group.cpu_clock().now()), (ms(used), ms(used)));
    }
}

#[test]
fn c04_a_nested_account_is_counted_once_in_what_is_around_both() {
    let bench = Bench::new();
    let top = group("top");
    let (left, right) = (child(&top), child(&top));
    let run = |outer: &Group, inner: &Group| {
        let manual = bench.manual.clone();
        let nested = Metered::new(async move { manual.advance(ms(7)) });
        nested.account().set_group(inner);
        let task = Metered::new(nested);
        task.account().set_group(outer);
        let _ = futures::executor::block_on(task);
    };
    run(&left, &right);
    assert_eq!((left.cpu_time(), right.cpu_time(), top.cpu_time()), (ms(7), ms(7), ms(7)));
    run(&top, &right);
    assert_eq!((left.cpu_time(), right.cpu_time(), top.cpu_time()), (ms(7), ms(14), ms(14)));
    run(&right, &top);
    assert_eq!((left.cpu_time(), right.cpu_time(), top.cpu_time()), (ms(7), ms(21), ms(21)));
    assert_eq!((left.cpu_clock().now(), right.cpu_clock().now(), top.cpu_clock().now()), (ms(7), ms(21), ms(21)));
}

#[test]
fn t50_t51_sleeps_and_streams_are_told_at_the_boundary() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let mut task = burner(&bench, &tenant, ms(6));
    let wakes = Arc::<Wakes>::default();
    let waker = wakes.clone().into();
    let mut cx = Context::from_waker(&waker);
    let mut sleep = Box::pin(clock.sleep(ms(10)));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    let (mut stream, told) = (clock.timer().every(ms(5)).stream_after(ms(5)).unwrap(), Arc::<Wakes>::default());
    assert_eq!(next(&mut stream, &told), None);
    task.pending();
    assert_eq!((wakes.count(), told.count()), (0, 1));
    assert!(sleep.as_mut().poll(&mut cx).is_pending(), "a spurious wake does not shorten it");
    task.pending();
    assert_eq!((wakes.count(), told.count()), (1, 1), "woken once for what it has not taken");
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    assert_eq!(next(&mut stream, &told), Some((ms(5), ms(12), 1)));
    assert!(Box::pin(clock.sleep_until(ms(3))).as_mut().poll(&mut cx).is_ready(), "past");
    // Dropped before its time: nobody is told.
    let mut dropped = Box::pin(clock.sleep(ms(1)));
    assert!(dropped.as_mut().poll(&mut cx).is_pending());
    drop(dropped);
    task.pending();
    assert_eq!((wakes.count(), task.wakes.count()), (1, 0));
}

#[test]
fn t60_supervisors_are_told_while_no_members_poll_ends() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let inner = child(&tenant);
    let clock = tenant.cpu_clock();
    let (wakes, told) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut stream = clock.timer().every(ms(10)).stream_after(ms(10)).unwrap();
    assert_eq!(next(&mut stream, &told), None);
    let mut sleep = Box::pin(clock.sleep(ms(15)));
    let waker = wakes.clone().into();
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let fired = log();
    let _timer = handler(&clock, &fired, ms(12));
    let (theirs, seen, none) = ((wakes.clone(), told.clone()), log(), fired.clone());
    let sink = seen.clone();
    let mut task = member(
        bench.task(move |manual| {
            for step in [9, 1, 4, 1, 6] {
                manual.advance(ms(step));
                manual.tick();
                sink.lock().unwrap().push((theirs.0.count(), theirs.1.count(), stipend_timers::has_budget()));
            }
            assert_eq!(taken(&none), [], "handlers are for a boundary");
            false
        }),
        &inner,
    );
    task.pending();
    let expected = [(0, 0, false), (0, 1, false), (0, 1, false), (1, 1, false), (1, 1, false)];
    assert_eq!(taken(&seen), expected);
    assert_eq!(taken(&fired), [(ms(12), ms(21), 0)]);
    assert_eq!(next(&mut stream, &told), Some((ms(10), ms(21), 1)));
}

type Order = Box<dyn FnOnce(&Lease, &Manual) + Send>;

/// Threads that run what they are told, one thing at a time, each with a lease of its own.
struct Threads {
    manual: Manual,
    orders: Vec<mpsc::Sender<Order>>,
    done: mpsc::Receiver<()>,
}

impl Threads {
    fn new(count: usize) -> Self {
        let manual = Manual::new();
        let (told, done) = mpsc::channel();
        let orders = (0..count).map(|_| {
            let (order, orders) = mpsc::channel::<Order>();
            let (manual, told) = (manual.clone(), told.clone());
            std::thread::spawn(move || {
                let lease = manual.meter().attach();
                lease.set_active();
                for order in orders {
                    order(&lease, &manual);
                    let _ = told.send(());
                }
            });
            order
        });
        Self { orders: orders.collect(), manual, done }
    }

    /// Has a thread start something, which may wait.
    fn start(&self, thread: usize, order: impl FnOnce(&Lease, &Manual) + Send + 'static) {
        self.orders[thread].send(Box::new(order)).unwrap();
    }

    fn wait(&self) {
        self.done.recv_timeout(Duration::from_secs(60)).expect("a thread has panicked or is stuck");
    }

    fn run(&self, thread: usize, order: impl FnOnce(&Lease, &Manual) + Send + 'static) {
        self.start(thread, order);
        self.wait();
    }

    fn poll(&self, thread: usize, account: &Arc<Account>, used: Duration) {
        let account = account.clone();
        self.run(thread, move |lease, manual| {
            poll(lease, manual, &account, used);
        });
    }
}

fn account(group: &Group) -> Arc<Account> {
    let account = Account::new();
    account.set_group(group);
    Arc::new(account)
}

#[test]
fn t60_polls_on_several_threads_come_to_the_time_together() {
    let threads = Threads::new(4);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let told = Arc::<Wakes>::default();
    let mut stream = clock.timer().stream_at(ms(40)).unwrap();
    assert_eq!(next(&mut stream, &told), None);
    let fired = log();
    let _timer = handler(&clock, &fired, ms(44));
    let gates: Vec<_> = [16, 14, 5]
        .into_iter()
        .enumerate()
        .map(|(thread, used)| {
            let (account, (open, gate), (at_gate, arrived)) =
                (account(&tenant), mpsc::channel::<()>(), mpsc::channel());
            threads.start(thread, move |lease, manual| {
                let mut run = lease.begin(&account, lease.stamp());
                manual.advance(ms(used));
                at_gate.send(()).unwrap();
                gate.recv().unwrap();
                manual.advance(ms(used));
                at_gate.send(()).unwrap();
                gate.recv().unwrap();
                let _ = run.after_poll(false);
                run.end();
            });
            arrived.recv().unwrap();
            (open, arrived)
        })
        .collect();
    // 16 + 14 + 5 are in progress, and nothing is charged.
    threads.manual.tick();
    assert_eq!((clock.now(), told.count()), (ms(35), 0));
    gates[2].0.send(()).unwrap();
    gates[2].1.recv().unwrap();
    assert_eq!(tenant.cpu_time(), ms(0));
    threads.manual.tick();
    assert_eq!((clock.now(), told.count()), (ms(40), 1), "no thread has come to it alone");
    assert_eq!(next(&mut stream, &told), Some((ms(40), ms(40), 0)));
    gates[1].0.send(()).unwrap();
    gates[1].1.recv().unwrap();
    threads.manual.tick();
    assert_eq!(taken(&fired), []);
    // A poll on the fourth thread, which was not there when the tick looked, and uses nothing.
    threads.poll(3, &account(&tenant), ms(0));
    assert_eq!(taken(&fired), [(ms(44), ms(54), 0)]);
    assert_eq!((clock.now(), tenant.cpu_time()), (ms(54), ms(0)));
    let _later = handler(&clock, &fired, ms(68));
    gates[0].0.send(()).unwrap();
    gates[0].1.recv().unwrap();
    threads.manual.tick();
    assert_eq!(taken(&fired), []);
    // The shortest of them ends: it has used 10 ms itself, and finds that all have used 70.
    gates[2].0.send(()).unwrap();
    threads.wait();
    assert_eq!(taken(&fired), [(ms(68), ms(70), 0)]);
    assert_eq!((clock.now(), tenant.cpu_time()), (ms(70), ms(10)));
    for (open, _) in &gates[..2] {
        let _ = (open.send(()), open.send(()));
        threads.wait();
    }
    assert_eq!(clock.now(), ms(70));
}

#[test]
fn t28_a_time_that_is_past_wakes_a_member_that_waits() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let inner = child(&tenant);
    let clock = tenant.cpu_clock();
    let fired = log();
    let mut gone = burner(&bench, &tenant, ms(5));
    gone.pending();
    drop(gone);
    // Nobody is there: the next member finds it.
    let _early = handler(&clock, &fired, ms(3));
    assert_eq!(taken(&fired), []);
    let mut a = member(bench.task(|_| false), &inner);
    a.pending();
    assert_eq!(taken(&fired), [(ms(3), ms(5), 0)], "although it uses nothing");
    let _past = handler(&clock, &fired, ms(4));
    assert_eq!((taken(&fired), a.wakes.count()), (vec![], 1), "a handler runs at a boundary");
    a.pending();
    assert_eq!(taken(&fired), [(ms(4), ms(5), 0)]);
    // For supervisors nobody need be woken.
    let told = Arc::<Wakes>::default();
    let mut stream = clock.timer().stream_at(ms(2)).unwrap();
    assert_eq!(next(&mut stream, &told), Some((ms(2), ms(5), 0)));
    assert_eq!(next(&mut stream, &told), None);
    stream.timer().arm_at(ms(1)).unwrap();
    assert_eq!((told.count(), a.wakes.count()), (1, 1));
}

#[test]
fn t03_blocking_jobs_count_and_wake_their_task_for_a_handler() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let (fired, jobs) = (log(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let place = jobs.clone();
    let mut task = member(
        bench.task(move |_| {
            place.lock().unwrap().push(Offload::capture());
            false
        }),
        &tenant,
    );
    task.pending();
    task.pending();
    let lease = bench.manual.meter().attach();
    let job = jobs.lock().unwrap().pop().unwrap();
    let _timer = handler(&clock, &fired, ms(10));
    let run = lease.offload(&job, lease.stamp());
    bench.manual.advance(ms(12));
    run.end();
    assert_eq!((clock.now(), task.wakes.count()), (ms(12), 1));
    task.pending();
    assert_eq!(taken(&fired), [(ms(10), ms(12), 0)]);
    // The same while a job does not end.
    let _timer = handler(&clock, &fired, ms(20));
    let job = jobs.lock().unwrap().pop().unwrap();
    let run = lease.offload(&job, lease.stamp());
    bench.manual.advance(ms(7));
    bench.manual.tick();
    assert_eq!(task.wakes.count(), 1);
    bench.manual.advance(ms(1));
    bench.manual.tick();
    assert_eq!(task.wakes.count(), 2);
    run.end();
    task.pending();
    assert_eq!(taken(&fired), [(ms(20), ms(20), 0)]);
}

#[test]
fn t11_what_becomes_due_in_a_members_last_moments_is_left_to_another() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    struct Costly(Manual);
    impl Drop for Costly {
        fn drop(&mut self) {
            self.0.advance(ms(30));
        }
    }
    let costly = Costly(bench.manual.clone());
    let mut other = member(bench.task(|_| false), &tenant);
    other.pending();
    let mut task = member(
        bench.task(move |_| {
            let _held = &costly;
            true
        }),
        &tenant,
    );
    let _timer = handler(&clock, &fired, ms(20));
    task.completed();
    drop(task);
    assert_eq!((clock.now(), taken(&fired), other.wakes.count()), (ms(30), vec![], 1));
    other.pending();
    assert_eq!(taken(&fired), [(ms(20), ms(30), 0)]);
}

#[test]
fn t53_a_member_that_is_cancelled_leaves_the_groups_handlers_to_the_others() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    let mut other = member(bench.task(|_| false), &tenant);
    other.pending();
    let mut task = burner(&bench, &tenant, ms(10));
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(10))).unwrap();
    let _timer = handler(&clock, &fired, ms(5));
    assert!(matches!(task.cancelled(), CancelReason::CpuLimit(_)));
    assert_eq!((taken(&fired), other.wakes.count()), (vec![], 1));
    other.pending();
    assert_eq!(taken(&fired), [(ms(5), ms(10), 0)]);
}

#[test]
fn t59_a_handler_that_panics_or_cancels_ends_the_member_at_whose_boundary_it_ran() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    let (mut a, mut b) = (burner(&bench, &tenant, ms(5)), burner(&bench, &tenant, ms(5)));
    let _bad = clock.timer().every(ms(8)).on_expiry(|_| -> () { panic!("in a handler") }).arm_at(ms(8)).unwrap();
    let _good = handler(&clock, &fired, ms(9));
    a.pending();
    assert!(matches!(b.cancelled(), CancelReason::HandlerPanicked(_)));
    assert_eq!((taken(&fired), a.wakes.count()), (vec![], 1), "the rest is for another");
    a.pending();
    assert_eq!(taken(&fired), [(ms(9), ms(10), 0)]);
    let mut c = burner(&bench, &tenant, ms(6));
    let _cancels = clock.timer().on_expiry(|_| Action::Cancel).arm_at(ms(20)).unwrap();
    drop(_bad);
    assert!(matches!(c.cancelled(), CancelReason::Requested));
    a.pending();
}

#[test]
fn t05_t07_a_pass_is_bounded_and_the_rest_follows_in_order() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let fired = log();
    let clock = tenant.cpu_clock();
    let timer = |n: u64| clock.timer().on_expiry(noting(&fired, move |_| n)).arm_at(ms(5)).unwrap();
    let timers: Vec<_> = (0..100).map(timer).collect();
    let mut a = burner(&bench, &tenant, ms(5));
    let mut runs = Vec::new();
    while runs.len() < 100 {
        a.pending();
        let ran = taken(&fired);
        // One pass before the poll and one behind it.
        assert!((1..=64).contains(&ran.len()), "{} at the boundaries of a poll", ran.len());
        runs.extend(ran);
        assert!(a.wakes.count() > 0, "it is woken for the rest");
    }
    assert_eq!(runs, (0..100).collect::<Vec<_>>());
    drop(timers);
}

#[test]
fn t12_t17_handlers_arm_and_rearm() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let fired = log();
    let clock = tenant.cpu_clock();
    let mut note = noting(&fired, |e| (e.at, e.used));
    let _timer = clock
        .timer()
        .on_expiry(move |e| {
            note(e);
            Action::RearmAfter(ms(7))
        })
        .arm_at(ms(5))
        .unwrap();
    let (mut a, mut b) = (burner(&bench, &tenant, ms(4)), burner(&bench, &tenant, ms(2)));
    for _ in 0..4 {
        a.pending();
        b.pending();
    }
    assert_eq!(taken(&fired), [(ms(5), ms(6)), (ms(13), ms(16)), (ms(23), ms(24))]);
}

#[test]
fn t13_t48_a_timer_keeps_its_group_and_the_number_goes_to_a_fresh_clock() {
    let bench = Bench::new();
    let fired = log();
    for round in 0..50 {
        let tenant = group("tenant");
        assert!(tenant.cpu_clock().now().is_zero());
        let timer = handler(&tenant.cpu_clock(), &fired, ms(3));
        let mut task = burner(&bench, &tenant, ms(2));
        drop(tenant);
        task.pending();
        assert_eq!(taken(&fired), []);
        if round % 2 == 0 {
            task.pending();
            assert_eq!(taken(&fired), [(ms(3), ms(4), 0)]);
        }
        drop(task);
        let remaining = if round % 2 == 0 { ms(0) } else { ms(1) };
        assert_eq!(timer.setting(), Setting { remaining, ..Setting::default() });
    }
}

#[test]
fn t19_t21_closing_on_a_groups_clock() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let fired = log();
    let mut task = burner(&bench, &tenant, ms(5));
    let closed = handler(&clock, &fired, ms(5));
    let mut closing = tokio_test::task::spawn(closed.close());
    assert!(closing.poll().is_ready());
    let place = Arc::new(std::sync::Mutex::new(None::<CpuTimer>));
    let (own, mut note) = (place.clone(), noting(&fired, |e| (e.at, e.used, e.overrun)));
    let inside = clock.timer().every(ms(1)).on_expiry(move |e| {
        note(e);
        drop(own.lock().unwrap().take());
    });
    *place.lock().unwrap() = Some(inside.arm_after(ms(1)).unwrap());
    for _ in 0..3 {
        task.pending();
    }
    assert_eq!(taken(&fired), [(ms(1), ms(5), 4)]);
}

#[test]
fn t26_one_thread_at_a_time_expires_and_another_takes_over_what_is_left() {
    let threads = Threads::new(2);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let (a, b) = (account(&tenant), account(&tenant));
    let (entered, inside) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let fired = log();
    let mut note = noting(&fired, |e| ("slow", e.used));
    let _slow = clock
        .timer()
        .on_expiry(move |e| {
            note(e);
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })
        .arm_at(ms(5))
        .unwrap();
    let _second = clock.timer().on_expiry(noting(&fired, |e| ("second", e.used))).arm_at(ms(6)).unwrap();
    let first = a.clone();
    threads.start(0, move |lease, manual| {
        poll(lease, manual, &first, ms(5));
    });
    inside.recv().unwrap();
    // The handler is out on the other thread; this one comes to the second timer's time, and goes on.
    threads.poll(1, &b, ms(5));
    assert_eq!(taken(&fired), [("slow", ms(5))]);
    open.send(()).unwrap();
    threads.wait();
    assert_eq!(taken(&fired), [("second", ms(10))], "the thread that is at it looks once more");
}

#[test]
fn t27_a_share_that_was_not_used_does_not_hide_the_expiry() {
    // One thread is given a large share and waits, another brings the clock near the expiry, then the first goes on.
    let threads = Threads::new(3);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let members = [(); 3].map(|()| account(&tenant));
    let fired = log();
    for start in 0..3 {
        let used = clock.now();
        let _timer = handler(&clock, &fired, used + ms(100));
        for (thread, member) in members.iter().enumerate() {
            threads.poll(thread, member, us(100));
        }
        let (one, other) = (start, (start + 1) % 3);
        while clock.now() < used + ms(99) {
            threads.poll(one, &members[one], us(100));
        }
        assert_eq!(taken(&fired), []);
        while taken(&fired).is_empty() {
            assert!(clock.now() < used + ms(100), "late");
            threads.poll(other, &members[other], us(20));
        }
        assert_eq!(clock.now(), used + ms(100));
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A timer on a group's clock: which group, when from now, interval (0: none), whether it is a stream's.
    Arm(usize, u64, u64, bool),
    /// Moves a timer.
    Move(usize, u64),
    Drop(usize),
    /// A member's poll: thread, member, use.
    Poll(usize, usize, u64),
    Regroup(usize, usize),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3usize, 1..300u64, prop_oneof![2 => Just(0), 1 => 20..200u64], any::<bool>())
            .prop_map(|(group, after, every, stream)| Op::Arm(group, after, every, stream)),
        1 => (any::<usize>(), 1..300u64).prop_map(|(timer, after)| Op::Move(timer, after)),
        1 => any::<usize>().prop_map(Op::Drop),
        10 => (0..2usize, 0..4usize, 0..60u64).prop_map(|(thread, member, used)| Op::Poll(thread, member, used)),
        1 => (0..4usize, 0..3usize).prop_map(|(member, group)| Op::Regroup(member, group)),
    ]
}

struct Modelled {
    timer: Result<CpuTimer, (CpuTimerStream, Arc<Wakes>)>,
    group: usize,
    at: Option<u64>,
    every: u64,
    fired: u64,
    heard: Arc<AtomicU64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that keeps each group's use in a number: nothing is early, and nothing is found later than at the boundary
    /// that comes to it, whichever thread it is on.
    #[test]
    fn t01_t27_t43_t49_t57_g12_any_sequence_on_two_threads_agrees_with_the_model(ops in prop::collection::vec(ops(), 1..120)) {
        let threads = Threads::new(2);
        let top = group("top");
        let groups = [top.clone(), child(&top), child(&top)];
        let inside = |group: usize, of: usize| of == 0 || group == of;
        let mut used = [0u64; 3];
        let members = [0, 1, 2, 1].map(|g: usize| (account(&groups[g]), AtomicUsize::new(g)));
        let mut timers: Vec<Modelled> = Vec::new();
        for op in ops {
            match op {
                Op::Arm(of, after, every, is_stream) => {
                    let heard = Arc::new(AtomicU64::new(0));
                    let sink = heard.clone();
                    let mut builder = groups[of].cpu_clock().timer();
                    if every > 0 {
                        builder = builder.every(us(every));
                    }
                    let timer = if is_stream {
                        let mut stream = builder.stream_after(us(after)).unwrap();
                        let wakes = Arc::default();
                        assert_eq!(next(&mut stream, &wakes), None);
                        Err((stream, wakes))
                    } else {
                        Ok(builder.on_expiry(move |e| {
                            assert!(e.used >= e.at);
                            sink.fetch_add(1 + u64::from(e.overrun), SeqCst);
                        }).arm_after(us(after)).unwrap())
                    };
                    timers.push(Modelled { timer, group: of, at: Some(used[of] + after), every, fired: 0, heard });
                }
                Op::Move(any, after) => if !timers.is_empty() {
                    let any = any % timers.len();
                    let timer = &mut timers[any];
                    let handle = match &timer.timer { Ok(timer) => timer, Err((stream, _)) => stream.timer() };
                    handle.arm_after(us(after)).unwrap();
                    timer.at = Some(used[timer.group] + after);
                    (timer.every, timer.fired) = (0, 0);
                    timer.heard.store(0, SeqCst);
                },
                Op::Drop(any) => if !timers.is_empty() {
                    timers.swap_remove(any % timers.len());
                },
                Op::Regroup(member, group) => {
                    members[member].0.set_group(&groups[group]);
                    members[member].1.store(group, SeqCst);
                }
                Op::Poll(thread, member, work) => {
                    let (account, group) = &members[member];
                    threads.poll(thread, account, us(work));
                    for (of, used) in used.iter_mut().enumerate() {
                        if inside(group.load(SeqCst), of) {
                            *used += work;
                        }
                    }
                }
            }
            for timer in &mut timers {
                let now = used[timer.group];
                while let Some(at) = timer.at.filter(|&at| at <= now) {
                    timer.fired += 1;
                    timer.at = (timer.every > 0).then(|| at + timer.every);
                }
                if let Err((stream, wakes)) = &mut timer.timer
                    && let Some((_, _, overrun)) = next(stream, wakes)
                {
                    timer.heard.fetch_add(1 + u64::from(overrun), SeqCst);
                }
                assert_eq!(timer.heard.load(SeqCst), timer.fired, "at {now}");
            }
            for (group, used) in groups.iter().zip(used) {
                assert_eq!((group.cpu_time(), group.cpu_clock().now()), (us(used), us(used)));
            }
        }
    }
}

/// What a member used, by its own account, beside the threads that run it.
#[test]
fn t26_t49_stress_on_threads_the_clock_is_the_sum_and_each_timer_is_delivered_once() {
    const THREADS: usize = 4;
    let manual = Manual::new();
    let tenant = group("tenant");
    let groups = [tenant.clone(), child(&tenant), child(&tenant)];
    let clock = tenant.cpu_clock();
    let stop = AtomicBool::new(false);
    let start = Barrier::new(THREADS + 2);
    let members: Vec<_> = (0..THREADS).map(|n| account(&groups[n % 3])).collect();
    let running = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let (mut went_back, mut delivered) = (0, 0u64);
    scope(|s| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let _stop = Stop(&stop);
        for (n, account) in members.iter().enumerate() {
            let (manual, start, stop) = (&manual, &start, &stop);
            s.spawn(move || {
                let lease = manual.meter().attach();
                lease.set_active();
                start.wait();
                let mut step = n as u64;
                while !stop.load(SeqCst) {
                    step = (step * 31 + 7) % 97;
                    poll(&lease, manual, account, us(step));
                    if step.is_multiple_of(16) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let reader = {
            let (clock, start, stop) = (clock.clone(), &start, &stop);
            s.spawn(move || {
                start.wait();
                let (mut last, mut back) = (Duration::ZERO, 0);
                while !stop.load(SeqCst) {
                    let now = clock.now();
                    back += usize::from(now < last);
                    last = now.max(last);
                    std::thread::yield_now();
                }
                back
            })
        };
        start.wait();
        for round in 0..1_500u64 {
            let (tell, heard) = mpsc::channel();
            let (running, group) = (running[round as usize % 3].clone(), &groups[round as usize % 3]);
            let clock = group.cpu_clock();
            let at = clock.now() + us(round % 700);
            let timer = clock
                .timer()
                .on_expiry(move |e| {
                    assert_eq!(running.fetch_add(1, SeqCst) & 1, 0, "two threads at once");
                    let _ = tell.send((e.at, e.used));
                    running.fetch_add(1, SeqCst);
                })
                .build()
                .unwrap();
            timer.arm_at(at.max(us(1))).unwrap();
            let (armed_for, used) = heard.recv_timeout(Duration::from_secs(60)).expect("a timer is lost");
            assert!(armed_for <= used, "early: {armed_for:?} at {used:?}");
            assert!(heard.recv_timeout(Duration::ZERO).is_err(), "twice");
            delivered += 1;
        }
        stop.store(true, SeqCst);
        went_back += reader.join().unwrap();
    });
    assert_eq!((went_back, delivered), (0, 1_500));
    let sum: Duration = members.iter().map(|account| account.usage().cpu).sum();
    assert_eq!((tenant.cpu_time(), clock.now()), (sum, sum));
    let below: Duration = groups[1..].iter().map(Group::cpu_time).sum();
    let own: Duration = members.iter().step_by(3).map(|account| account.usage().cpu).sum();
    assert_eq!(below + own, sum);
}
