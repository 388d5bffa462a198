//! Timers, sleeps and streams on the clock of all of a meter's threads, on the manual clock.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Bench, Wakes, log, ms, taken};
use futures::Stream;
use futures::stream::FusedStream;
use stipend_timers::test::Manual;
use stipend_timers::{
    Account, Control, CpuTimerStream, Meter, MeterClock, Metered, Offload, Setting, SleepError, TimerError,
};

fn next(stream: &mut CpuTimerStream, wakes: &Arc<Wakes>) -> Option<(Duration, Duration, u32)> {
    let waker = wakes.clone().into();
    match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
        Poll::Ready(Some(e)) => Some((e.at, e.used, e.overrun)),
        Poll::Ready(None) => panic!("the meter was not stopped"),
        Poll::Pending => None,
    }
}

#[test]
fn t47_t49_it_counts_accounts_and_the_runtime_of_threads_that_live_and_that_are_gone() {
    let manual = Manual::new();
    let (clock, other) = (manual.meter().cpu_clock(), Manual::new().meter().cpu_clock());
    let reads = |used| assert_eq!(clock.now(), ms(used));
    let lease = manual.meter().attach();
    let at = lease.stamp();
    manual.advance(ms(2));
    reads(0);
    lease.charge_runtime(at);
    reads(2);
    let account = Account::new();
    let mut run = lease.begin(&account, lease.stamp());
    manual.advance(ms(3));
    reads(5);
    let nested = Metered::new(async { manual.advance(ms(4)) });
    assert!(futures::executor::block_on(nested).is_ok());
    reads(9);
    assert!(matches!(run.after_poll(false), Control::Proceed));
    run.end();
    reads(9);
    for round in 1..20 {
        std::thread::scope(|s| {
            s.spawn(|| {
                let lease = manual.meter().attach();
                let nobodys = Offload::default();
                let job = lease.offload(&nobodys, lease.stamp());
                manual.advance(ms(1));
                job.end();
                reads(9 + round);
            });
        });
        reads(9 + round);
    }
    drop(run);
    drop(lease);
    reads(28);
    let metrics = manual.meter().metrics();
    assert_eq!(clock.now(), metrics.charged + metrics.runtime);
    assert_eq!(other.now(), ms(0));
    drop(manual);
    reads(28);
}

#[test]
fn t01_t02_t18_a_handler_runs_at_the_first_boundary_behind_the_tick_that_finds_it() {
    let bench = Bench::new();
    let clock = bench.manual.meter().cpu_clock();
    let fired = log();
    let sink = fired.clone();
    let timer = clock.timer().every(ms(10)).on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used, e.overrun)));
    let timer = timer.arm_after(ms(10)).unwrap();
    let (mut short, mut long) = (
        bench.burner(ms(5)),
        bench.task(|manual| {
            manual.advance(ms(2));
            manual.tick();
            manual.advance(ms(2));
            manual.tick();
            manual.advance(ms(1));
            false
        }),
    );
    short.pending();
    long.pending();
    assert_eq!(taken(&fired), [], "10 ms, and the tick saw 9");
    long.pending();
    assert_eq!(taken(&fired), [(ms(10), ms(15), 0)]);
    // Short polls that no tick sees: what is charged is found by the next, and what ran last is woken for it.
    for _ in 0..6 {
        short.pending();
    }
    assert_eq!((taken(&fired), timer.remaining()), (vec![], ms(5)));
    bench.manual.tick();
    assert_eq!((taken(&fired), short.wakes.count(), long.wakes.count()), (vec![], 1, 0));
    bench.manual.tick();
    assert_eq!(short.wakes.count(), 1, "once");
    short.pending();
    assert_eq!(taken(&fired), [(ms(20), ms(45), 2)]);
}

#[test]
fn t50_t60_supervisors_are_told_while_no_poll_ends_and_for_what_the_runtime_used() {
    let bench = Bench::new();
    let clock = bench.manual.meter().cpu_clock();
    let (told, woken) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut stream = clock.timer().every(ms(10)).stream_after(ms(10)).unwrap();
    assert_eq!(next(&mut stream, &told), None);
    let waker = woken.clone().into();
    let mut sleep = Box::pin(clock.sleep(ms(15)));
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let counts = log();
    let (sink, theirs) = (counts.clone(), (told.clone(), woken.clone()));
    let mut task = bench.task(move |manual| {
        for step in [9, 1, 4, 1] {
            manual.advance(ms(step));
            manual.tick();
            sink.lock().unwrap().push((theirs.0.count(), theirs.1.count()));
        }
        false
    });
    task.pending();
    assert_eq!(taken(&counts), [(0, 0), (1, 0), (1, 0), (1, 1)]);
    assert_eq!(sleep.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
    assert_eq!(next(&mut stream, &told), Some((ms(10), ms(10), 0)));
    assert_eq!(next(&mut stream, &told), None);
    let lease = bench.manual.meter().attach();
    let at = lease.stamp();
    bench.manual.advance(ms(5));
    lease.charge_runtime(at);
    assert_eq!(told.count(), 1);
    bench.manual.tick();
    assert_eq!((told.count(), next(&mut stream, &told)), (2, Some((ms(20), ms(20), 0))));
}

#[test]
fn t28_a_time_that_is_past_wakes_what_ran_last_or_waits_for_what_runs_next() {
    let bench = Bench::new();
    let clock = bench.manual.meter().cpu_clock();
    let fired = log();
    let handler = |at| {
        let sink = fired.clone();
        clock.timer().on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used))).arm_at(at).unwrap()
    };
    let mut task = bench.burner(ms(5));
    task.pending();
    let _past = handler(ms(3));
    assert_eq!((taken(&fired), task.wakes.count()), (vec![], 1));
    task.pending();
    assert_eq!(taken(&fired), [(ms(3), ms(5))]);
    drop(task);
    let _past = handler(ms(4));
    let mut task = bench.task(|manual| {
        manual.tick();
        true
    });
    task.completed();
    assert_eq!(taken(&fired), [(ms(4), ms(10))]);
}

#[test]
fn t09_a_meter_with_nothing_armed_on_its_clock_suspects_nobody() {
    let bench = Bench::new();
    let clock = bench.manual.meter().cpu_clock();
    let mut task = bench.task(|manual| {
        manual.advance(ms(1));
        assert_eq!(manual.tick().suspects, 0);
        false
    });
    task.pending();
    let silent = clock.timer().arm_at(ms(1)).unwrap();
    task.pending();
    assert_eq!(silent.setting(), Setting::default(), "a silent one has come to its time unheard");
}

#[test]
fn t05_t07_a_pass_is_bounded_and_the_rest_follows_in_order() {
    let bench = Bench::new();
    let clock = bench.manual.meter().cpu_clock();
    let fired = log();
    let timer = |n: u64| {
        let sink = fired.clone();
        clock.timer().on_expiry(move |_| sink.lock().unwrap().push(n)).arm_at(ms(5)).unwrap()
    };
    let timers: Vec<_> = (0..50).map(timer).collect();
    let mut first = true;
    let mut task = bench.task(move |manual| {
        if std::mem::take(&mut first) {
            manual.advance(ms(5));
            manual.tick();
        }
        false
    });
    task.pending();
    assert_eq!((taken(&fired), task.wakes.count()), ((0..32).collect(), 1));
    task.pending();
    assert_eq!(taken(&fired), (32..50).collect::<Vec<_>>());
    drop(timers);
}

/// The real tick and the real clock, with a thread that is idle again and again.
#[test]
fn t60_the_tick_tells_sleepers_what_the_runtime_used_between_its_idle_times() {
    let meter = Meter::builder().tick_period(ms(1)).build().unwrap();
    let clock = meter.cpu_clock();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let (meter, stop) = (&meter, &stop);
        let worker = s.spawn(move || {
            let lease = meter.attach();
            let mut at = lease.stamp();
            while !stop.load(SeqCst) {
                lease.set_active();
                for _ in 0..10_000 {
                    std::hint::spin_loop();
                }
                at = lease.charge_runtime(at);
                lease.set_idle();
                std::thread::sleep(ms(1) / 10);
            }
        });
        for _ in 0..100 {
            futures::executor::block_on(clock.sleep(Duration::from_micros(50))).unwrap();
        }
        stop.store(true, SeqCst);
        worker.join().unwrap();
    });
    assert!(clock.now() >= ms(5));
}

#[test]
fn t51_who_waits_is_told_when_the_meter_stops() {
    let clock = {
        let manual = Manual::new();
        manual.meter().cpu_clock()
    };
    // The last handle is gone already.
    assert_eq!(futures::executor::block_on(clock.sleep(ms(1))), Err(SleepError::Exited));
    assert_eq!(clock.timer().arm_after(ms(1)).map(drop), Err(TimerError::Exited));

    let meter = Meter::builder().build().unwrap();
    let clock = meter.cpu_clock();
    let mut sleep = Box::pin(clock.sleep(ms(1_000)));
    let mut stream = clock.timer().every(ms(1_000)).stream().unwrap();
    stream.timer().arm_after(ms(1_000)).unwrap();
    let (slept, streamed) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let (sleeper, streamer) = (slept.clone().into(), streamed.clone().into());
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&sleeper)).is_pending());
    assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&streamer)).is_pending());
    drop(meter);
    assert_eq!((slept.count(), streamed.count()), (1, 1));
    assert_eq!(sleep.as_mut().poll(&mut Context::from_waker(&sleeper)), Poll::Ready(Err(SleepError::Exited)));
    assert_eq!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&streamer)), Poll::Ready(None));
    assert!(stream.is_terminated());
}

/// Says so when it is dropped, and holds another meter.
struct Captured(Arc<AtomicBool>, #[expect(dead_code, reason = "it is held")] MeterClock);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn t20_a_stopped_meters_timers_are_gone_with_their_handlers() {
    let meter = Meter::builder().build().unwrap();
    let lease = meter.attach();
    let (ran, dropped) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let captured = Captured(dropped.clone(), Meter::builder().build().unwrap().cpu_clock());
    let tells = ran.clone();
    let timer = meter.cpu_clock().timer().on_expiry(move |_| {
        let _held = &captured;
        tells.store(true, SeqCst);
    });
    let timer = timer.arm_after(ms(1)).unwrap();
    drop(meter);
    // Not by whoever has its place next, who may be anybody.
    assert!(dropped.load(SeqCst));
    futures::executor::block_on(timer.close());
    let account = Account::new();
    let expiry = account.clock().timer().on_expiry(|_| ()).arm_after(ms(1)).unwrap();
    lease.set_active();
    let mut run = lease.begin(&account, lease.stamp());
    assert!(matches!(run.before_poll(), Control::Proceed));
    while account.clock().now() < ms(3) {}
    assert!(matches!(run.after_poll(false), Control::Proceed));
    run.end_now();
    assert!(expiry.setting() == Setting::default() && !ran.load(SeqCst));
    // And the place is to be had again.
    drop(Meter::builder().build().unwrap());
}
