//! Timers on the clock of the poll in progress, on the manual clock.

mod common;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Bench, Task, Wakes, log, ms, taken};
use futures::Stream;
use proptest::prelude::*;
use stipend_timers::{
    Action, CancelReason, CpuLimit, CpuTimerStream, LimitKind, PollLimit, Setting, TimerError, has_budget,
};

fn left(at: u64, interval: u64) -> Setting {
    let mut setting = Setting::default();
    (setting.remaining, setting.interval) = (ms(at), ms(interval));
    setting
}

/// A task whose polls use what `work` says, one after the other.
fn working<'a>(bench: &'a Bench, work: &[u64]) -> Task<'a> {
    let mut work: VecDeque<_> = work.iter().copied().collect();
    bench.task(move |manual| {
        manual.advance(ms(work.pop_front().unwrap_or(0)));
        false
    })
}

fn next(stream: &mut CpuTimerStream, wakes: &Arc<Wakes>) -> Option<(Duration, Duration, u32)> {
    let waker = wakes.clone().into();
    match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
        Poll::Ready(Some(e)) => Some((e.at, e.used, e.overrun)),
        Poll::Ready(None) => panic!("the task has not ended"),
        Poll::Pending => None,
    }
}

#[test]
fn t47_t55_the_clock_starts_anew_with_every_poll_and_not_by_yielding_or_preemption() {
    let bench = Bench::new();
    let place = Arc::new(Mutex::new(None::<stipend_timers::PollClock>));
    let own = place.clone();
    let mut task = bench.task(move |manual| {
        let clock = own.lock().unwrap().clone().unwrap();
        assert_eq!(clock.now(), ms(0));
        manual.advance(ms(4));
        manual.tick();
        assert!(!clock.now().is_zero());
        manual.advance_wall(ms(100)); // preempted
        manual.tick();
        assert_eq!((clock.now(), has_budget()), (ms(4), false), "the slice is over, the poll is not");
        manual.advance(ms(4));
        assert_eq!(clock.now(), ms(8));
        false
    });
    let clock = task.clock().poll_clock();
    *place.lock().unwrap() = Some(clock.clone());
    for polls in 1..4 {
        assert_eq!(clock.now(), ms(0), "it waits");
        task.pending();
        assert_eq!(task.clock().now(), ms(8 * polls));
    }
    assert_eq!(clock.task_clock().now(), ms(24));
}

#[test]
fn t01_t04_t40_a_handler_runs_once_in_each_poll_that_comes_to_its_time() {
    let bench = Bench::new();
    let (once, every) = (log(), log());
    let mut task = working(&bench, &[9, 10, 3, 25, 0, 47]);
    let clock = task.clock().poll_clock();
    let sink = once.clone();
    let one = clock.timer().on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used, e.overrun))).arm_at(ms(10));
    let one = one.unwrap();
    let sink = every.clone();
    let timer = clock.timer().every(ms(10)).on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used, e.overrun)));
    let timer = timer.arm_at(ms(15)).unwrap();
    for (poll, expected) in [(9, None), (10, None), (3, None), (25, Some(1)), (0, None), (47, Some(3))] {
        assert_eq!((one.setting(), timer.setting()), (left(10, 0), left(15, 10)), "armed as ever");
        task.pending();
        let fires = poll >= 10;
        assert_eq!(taken(&once), if fires { vec![(ms(10), ms(poll), 0)] } else { vec![] });
        assert_eq!(taken(&every), expected.map(|overrun| (ms(15), ms(poll), overrun)).into_iter().collect::<Vec<_>>());
    }
    assert_eq!(timer.overrun(), 3);
    one.disarm();
    assert_eq!(one.setting(), Setting::default());
    task.pending();
    assert_eq!(task.wakes.count(), 0, "the task is not disturbed");
}

#[test]
fn t47_it_does_not_mix_with_the_tasks_own_clock() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(4));
    let clock = task.clock();
    for (name, builder) in [("task", clock.timer()), ("poll", clock.poll_clock().timer())] {
        let sink = fired.clone();
        let timer = builder.on_expiry(move |e| sink.lock().unwrap().push((name, e.used))).arm_after(ms(6)).unwrap();
        std::mem::forget(timer);
    }
    for _ in 0..3 {
        task.pending();
    }
    assert_eq!(taken(&fired), [("task", ms(8))]);
}

#[test]
fn t50_t60_a_stream_delivers_while_the_poll_goes_on_and_not_again_at_its_end() {
    let bench = Bench::new();
    let place = Rc::new(RefCell::new(None::<(CpuTimerStream, Arc<Wakes>)>));
    let theirs = place.clone();
    let mut task = bench.task(move |manual| {
        let mut place = theirs.borrow_mut();
        let (stream, wakes) = place.as_mut().unwrap();
        assert_eq!(next(stream, wakes), None);
        let woken = wakes.count();
        manual.advance(ms(9));
        manual.tick();
        assert_eq!((wakes.count(), next(stream, wakes)), (woken, None), "not before its time");
        manual.advance(ms(1));
        manual.tick();
        assert_eq!(wakes.count(), woken + 1, "the service thread wakes the supervisor");
        manual.tick();
        assert_eq!(next(stream, wakes), Some((ms(10), ms(10), 0)));
        let report = manual.tick();
        assert_eq!(report.handed_over, 1, "for the end of the slice only: nothing is left in this poll");
        manual.advance(ms(20));
        manual.tick();
        assert_eq!(next(stream, wakes), None);
        false
    });
    let stream = task.clock().poll_clock().timer().stream_after(ms(10)).unwrap();
    *place.borrow_mut() = Some((stream, Arc::default()));
    for polls in 1..4 {
        task.pending();
        let mut place = place.borrow_mut();
        let (stream, wakes) = place.as_mut().unwrap();
        assert_eq!((wakes.count(), next(stream, wakes)), (polls, None));
        assert_eq!(stream.timer().remaining(), ms(10));
    }
}

#[test]
fn t27_t60_the_alarm_stands_for_the_next_poll_although_it_was_delivered_in_this_one() {
    let bench = Bench::new();
    let wakes = Arc::<Wakes>::default();
    let theirs = wakes.clone();
    let mut task = bench.task(move |manual| {
        let woken = theirs.count();
        manual.advance(ms(10));
        manual.tick();
        assert_eq!(theirs.count(), 1, "woken once, for what it has not taken; {woken} before");
        false
    });
    let mut stream = task.clock().poll_clock().timer().stream_after(ms(10)).unwrap();
    assert_eq!(next(&mut stream, &wakes), None);
    // Between them nobody touches the stream.
    for _ in 0..3 {
        task.pending();
    }
    assert_eq!(next(&mut stream, &wakes), Some((ms(10), ms(10), 2)));
}

#[test]
fn t02_t57_neither_the_limit_nor_a_timer_shadows_the_other() {
    for (limit, at) in [(10, 20), (20, 10), (10, 10)] {
        let bench = Bench::new();
        let fired = log();
        let mut task = bench.task(|manual| {
            for _ in 0..5 {
                manual.advance(ms(5));
                manual.tick();
            }
            assert!(stipend_timers::checkpoint().is_err());
            false
        });
        task.inner.account().set_poll_limit(PollLimit::hard(ms(limit))).unwrap();
        let sink = fired.clone();
        let clock = task.clock().poll_clock();
        let _timer = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_at(ms(at)).unwrap();
        let CancelReason::CpuLimit(exceeded) = task.cancelled() else { panic!("it was not the limit") };
        assert_eq!((exceeded.kind, exceeded.used, exceeded.limit), (LimitKind::Poll, ms(25), ms(limit)));
        assert_eq!(taken(&fired), if at <= limit { vec![ms(at)] } else { vec![] }, "what lies behind the limit is not");
    }
}

#[test]
fn t53_what_lies_behind_the_tasks_limit_is_not_delivered() {
    let bench = Bench::new();
    let fired = log();
    let mut task = working(&bench, &[10, 10]);
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(16))).unwrap();
    let clock = task.clock().poll_clock();
    let timers = [5, 6, 7].map(|at| {
        let sink = fired.clone();
        clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_at(ms(at)).unwrap()
    });
    task.pending();
    assert_eq!(taken(&fired), [ms(5), ms(6), ms(7)]);
    assert!(matches!(task.cancelled(), CancelReason::CpuLimit(_)));
    assert_eq!(taken(&fired), [ms(5), ms(6)], "16 ms in all are 6 ms of this poll");
    drop(timers);
}

#[test]
fn t05_t07_a_pass_is_bounded_and_the_rest_follows_in_order() {
    let bench = Bench::new();
    let fired = log();
    let mut task = working(&bench, &[20, 0, 20]);
    let clock = task.clock().poll_clock();
    let timers: Vec<_> = (0..50)
        .map(|n| {
            let sink = fired.clone();
            clock.timer().on_expiry(move |e| sink.lock().unwrap().push((n, e.used))).arm_at(ms(7)).unwrap()
        })
        .collect();
    task.pending();
    assert_eq!((taken(&fired).len(), task.wakes.count()), (32, 1));
    assert_eq!(timers[0].setting(), left(7, 0));
    task.pending();
    assert_eq!(taken(&fired), (32..50).map(|n| (n, ms(20))).collect::<Vec<_>>(), "behind a poll that used nothing");
    task.pending();
    assert_eq!(taken(&fired).len(), 32, "the poll after has all of them again");
}

#[test]
fn t12_t17_what_a_handler_arms_is_for_the_polls_to_come() {
    let bench = Bench::new();
    let fired = log();
    let mut task = working(&bench, &[30, 30, 30, 40]);
    let clock = task.clock().poll_clock();
    let sink = fired.clone();
    let inner = clock.clone();
    let mut armed = Vec::new();
    let _timer = clock
        .timer()
        .on_expiry(move |e| {
            sink.lock().unwrap().push(("outer", e.at));
            let sink = sink.clone();
            let timer = inner.timer().on_expiry(move |e| sink.lock().unwrap().push(("inner", e.at)));
            let timer = timer.arm_after(ms(5)).unwrap();
            assert_eq!(timer.setting(), left(5, 0), "counted from zero: that poll is over");
            armed.push(timer);
            Action::RearmAfter(ms(10))
        })
        .arm_at(ms(20))
        .unwrap();
    task.pending();
    assert_eq!(taken(&fired), [("outer", ms(20))]);
    task.pending();
    assert_eq!(taken(&fired), [("inner", ms(5))], "the other is armed for 30 + 10 now");
    task.pending();
    assert_eq!(taken(&fired), [("inner", ms(5))]);
    task.pending();
    assert_eq!(taken(&fired), [("inner", ms(5)), ("outer", ms(40))]);
}

#[test]
fn t25_t48_timers_end_with_the_task_behind_what_its_last_poll_was_due() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task(|manual| {
        manual.advance(ms(25));
        true
    });
    let clock = task.clock().poll_clock();
    let sink = fired.clone();
    let timer = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_at(ms(10)).unwrap();
    let (mut stream, wakes) = (clock.timer().every(ms(10)).stream_after(ms(10)).unwrap(), Arc::<Wakes>::default());
    assert_eq!(next(&mut stream, &wakes), None);
    task.completed();
    assert_eq!((taken(&fired), wakes.count()), (vec![ms(10)], 1));
    assert_eq!(next(&mut stream, &wakes), Some((ms(10), ms(25), 1)));
    let waker = wakes.into();
    assert_eq!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)), Poll::Ready(None));
    assert_eq!(timer.arm_at(ms(1)), Err(TimerError::Exited));
    assert_eq!(clock.now(), ms(0));
}

#[derive(Clone, Debug)]
struct Case {
    /// Time, interval (0: none) and whether it is a stream's.
    timers: Vec<(u64, u64, bool)>,
    /// For each poll the pieces of work, with a tick behind each.
    polls: Vec<Vec<u64>>,
}

fn cases() -> impl Strategy<Value = Case> {
    let timer = (1..30u64, prop_oneof![Just(0), 1..20u64], any::<bool>());
    let poll = prop::collection::vec(0..15u64, 0..5);
    (prop::collection::vec(timer, 1..8), prop::collection::vec(poll, 1..8))
        .prop_map(|(timers, polls)| Case { timers, polls })
}

/// How often a timer fires in a poll that has used so much.
fn firings(at: u64, interval: u64, used: u64) -> u64 {
    if used < at { 0 } else { 1 + (used - at).checked_div(interval).unwrap_or(0) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t01_t05_t43_t45_t60_any_polls_agree_with_a_count_of_the_grid(case in cases()) {
        let bench = Bench::new();
        let delivered = log();
        let streams = Rc::new(RefCell::new(Vec::<(u64, u64, CpuTimerStream, u64)>::new()));
        let waker = Arc::<Wakes>::default();
        let take = {
            let (streams, waker) = (streams.clone(), waker.clone());
            move |used: u64| {
                for (at, interval, stream, sum) in streams.borrow_mut().iter_mut() {
                    if let Some((_, _, overrun)) = next(stream, &waker) {
                        *sum += 1 + u64::from(overrun);
                    }
                    assert_eq!(*sum, firings(*at, *interval, used), "{at} {interval} at {used}");
                }
            }
        };
        let (mut polls, taker) = (case.polls.clone().into_iter(), take.clone());
        let mut task = bench.task(move |manual| {
            let mut used = 0;
            for piece in polls.next().unwrap() {
                manual.advance(ms(piece));
                used += piece;
                manual.tick();
                taker(used);
            }
            false
        });
        let clock = task.clock().poll_clock();
        let mut timers = Vec::new();
        for (i, &(at, interval, is_stream)) in case.timers.iter().enumerate() {
            let mut builder = clock.timer();
            if interval > 0 {
                builder = builder.every(ms(interval));
            }
            if is_stream {
                streams.borrow_mut().push((at, interval, builder.stream_after(ms(at)).unwrap(), 0));
            } else {
                let sink = delivered.clone();
                let builder = builder.on_expiry(move |e| sink.lock().unwrap().push((e.at, i, e.used, e.overrun)));
                timers.push(builder.arm_at(ms(at)).unwrap());
            }
        }
        take(0);
        for poll in &case.polls {
            let used: u64 = poll.iter().sum();
            task.pending();
            take(used);
            for (_, _, stream, sum) in streams.borrow_mut().iter_mut() {
                *sum = 0;
                assert_eq!(next(stream, &waker), None);
            }
            let mut expected: Vec<_> = case.timers.iter().enumerate().filter(|(_, (at, _, is_stream))| !is_stream && used >= *at).collect();
            expected.sort_by_key(|&(i, (at, ..))| (*at, i));
            let expected: Vec<_> = expected.into_iter().map(|(i, &(at, interval, _))| {
                let overrun = firings(at, interval, used) - 1;
                (ms(at), i, ms(used), u32::try_from(overrun).unwrap())
            }).collect();
            let fired = taken(&delivered);
            // A periodic one stands behind the others of its time once it has fired; each is there once.
            let mut sorted = fired.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, expected);
            assert!(fired.is_sorted_by_key(|fired| fired.0), "{fired:?}");
        }
    }
}
