//! Limits, nesting, offloaded work and panics, on the manual clock.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{Bench, Boxed, log, ms, taken};
use stipend_timers::{
    Action, CancelReason, CheckpointError, CpuClock, CpuLimit, Group, LimitError, LimitKind, Metered, Offload,
    PollLimit, SleepError, checkpoint, cpu_timeout, has_budget,
};

#[test]
fn t53_soft_notifies_and_repeats_and_hard_cancels() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(4));
    let account = task.inner.account();
    let sink = fired.clone();
    account
        .on_soft_limit(move |e| {
            sink.lock().unwrap().push((e.at, e.used));
            Action::Continue
        })
        .unwrap();
    account.set_cpu_limit(CpuLimit::hard(ms(50)).soft(ms(30)).repeat(ms(10))).unwrap();
    for _ in 0..12 {
        task.pending();
    }
    assert_eq!(taken(&fired), [(ms(30), ms(32)), (ms(40), ms(40))]);
    let CancelReason::CpuLimit(exceeded) = task.cancelled() else { panic!("it was not the limit") };
    assert_eq!(taken(&fired), [(ms(50), ms(52))], "what was due up to the limit is delivered with it");
    assert_eq!(exceeded.kind, LimitKind::Total);
    assert_eq!((exceeded.used, exceeded.limit), (ms(52), ms(50)));
    assert_eq!((exceeded.polls, exceeded.longest_poll), (13, ms(4)));
}

#[test]
fn t54_a_soft_limit_of_zero_notifies_at_the_first_boundary() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task(|_| false);
    let sink = fired.clone();
    let account = task.inner.account();
    account
        .on_soft_limit(move |e| {
            sink.lock().unwrap().push(e.used);
            Action::Continue
        })
        .unwrap();
    account.set_cpu_limit(CpuLimit::soft_only(Duration::ZERO)).unwrap();
    task.pending();
    task.pending();
    assert_eq!(taken(&fired), [Duration::ZERO]);
}

#[test]
fn t54_limits_that_cannot_be_kept_are_refused_with_a_typed_error() {
    let bench = Bench::new();
    let task = bench.burner(ms(1));
    let account = task.inner.account();
    account.set_cpu_limit(CpuLimit::hard(ms(7))).unwrap();
    assert_eq!(account.set_cpu_limit(CpuLimit::hard(Duration::ZERO)), Err(LimitError::ZeroHard));
    assert_eq!(
        account.set_cpu_limit(CpuLimit::hard(ms(5)).soft(ms(6))),
        Err(LimitError::SoftAboveHard { soft: ms(6), hard: ms(5) })
    );
    assert_eq!(
        account.set_cpu_limit(CpuLimit::hard(ms(5)).soft(ms(4)).repeat(Duration::ZERO)),
        Err(LimitError::BadRepeat { repeat: Duration::ZERO })
    );
    assert_eq!(account.set_poll_limit(PollLimit::hard(Duration::ZERO)), Err(LimitError::ZeroHard));
    assert_eq!(account.hard_limit(), Some(ms(7)), "a refused call changes nothing");
}

#[test]
fn t55_a_poll_limit_is_reset_by_pending_and_not_by_preemption() {
    let bench = Bench::new();
    let mut n = 0;
    let mut task = bench.task(move |manual| {
        n += 1;
        manual.advance(ms(4));
        manual.advance_wall(ms(100)); // preempted by the kernel: no CPU time
        assert_eq!(checkpoint(), Ok(()));
        if n == 3 {
            manual.advance(ms(1));
            manual.tick();
            let Err(CheckpointError::CpuLimitExceeded(e)) = checkpoint() else { panic!("5 ms in one poll") };
            assert_eq!((e.kind, e.used, e.limit), (LimitKind::Poll, ms(5), ms(5)));
        }
        false
    });
    task.inner.account().set_poll_limit(PollLimit::hard(ms(5))).unwrap();
    task.pending();
    task.pending();
    let CancelReason::CpuLimit(e) = task.cancelled() else { panic!("it was not the limit") };
    assert_eq!((e.kind, e.used, e.limit, e.polls), (LimitKind::Poll, ms(5), ms(5), 3));
}

#[test]
fn t56_completing_in_the_poll_that_crosses_the_limit_returns_the_value() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(60));
        true
    });
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(50))).unwrap();
    let before = bench.manual.meter().metrics().late_completions;
    task.completed();
    assert_eq!(bench.manual.meter().metrics().late_completions, before + 1, "the overrun is counted");
}

#[test]
fn t57_the_earlier_of_timer_and_limit_is_never_shadowed() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(1));
    let sink = fired.clone();
    let timer = task.clock().timer().on_expiry(move |e| sink.lock().unwrap().push(e.used)).arm_at(ms(3)).unwrap();
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(5))).unwrap();
    for _ in 0..4 {
        task.pending();
    }
    assert_eq!(taken(&fired), [ms(3)]);
    timer.arm_at(ms(500)).unwrap();
    assert!(matches!(task.cancelled(), CancelReason::CpuLimit(_)));
}

#[test]
fn t58_limits_can_be_raised_and_lowered_while_the_task_runs() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(10));
    let clock = task.clock();
    clock.set_cpu_limit(CpuLimit::hard(ms(15))).unwrap();
    task.pending();
    clock.set_cpu_limit(CpuLimit::hard(ms(25))).unwrap();
    task.pending();
    assert_eq!(task.wakes.count(), 0);
    clock.set_cpu_limit(CpuLimit::hard(ms(5))).unwrap();
    assert_eq!(task.wakes.count(), 1, "lowered below what is used: the next boundary is now");
    let CancelReason::CpuLimit(e) = task.cancelled() else { panic!("it was not the limit") };
    assert_eq!((e.used, e.limit, e.polls), (ms(20), ms(5), 2), "it was not polled again");
}

#[test]
fn t58_a_limit_raised_in_time_takes_the_post_back() {
    let bench = Bench::new();
    let place = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuClock>));
    let theirs = place.clone();
    let mut task = bench.task(move |manual| {
        manual.advance(ms(10));
        manual.tick();
        assert!(checkpoint().is_err());
        theirs.lock().unwrap().as_ref().unwrap().set_cpu_limit(CpuLimit::hard(ms(100))).unwrap();
        assert_eq!(checkpoint(), Ok(()));
        false
    });
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(5))).unwrap();
    *place.lock().unwrap() = Some(task.clock());
    task.pending();
}

#[test]
fn t59_the_destructor_runs_once_and_is_charged_to_the_task() {
    struct Costly(stipend_timers::test::Manual, Arc<AtomicUsize>);
    impl Drop for Costly {
        fn drop(&mut self) {
            self.0.advance(ms(9));
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let bench = Bench::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let costly = Costly(bench.manual.clone(), drops.clone());
    let mut task = bench.task(move |manual| {
        let _keep = &costly;
        manual.advance(ms(5));
        false
    });
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(5))).unwrap();
    let clock = task.clock();
    task.cancelled();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(clock.now(), ms(14));
    drop(task);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn t59_a_handler_that_panics_ends_its_task_alone() {
    let bench = Bench::new();
    let mut bad = bench.burner(ms(5));
    let mut good = bench.burner(ms(5));
    let _timer = bad.clock().timer().on_expiry(|_| -> () { panic!("in a handler") }).arm_at(ms(5)).unwrap();
    let CancelReason::HandlerPanicked(payload) = bad.cancelled() else { panic!("it was the handler") };
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"in a handler"));
    good.pending();
}

#[test]
fn t60_a_supervisor_wakes_while_the_poll_goes_on() {
    let bench = Bench::new();
    let woken = Arc::new(common::Wakes::default());
    let place = Arc::new(std::sync::Mutex::new(None::<std::pin::Pin<Box<stipend_timers::CpuSleep>>>));
    let (theirs, wakes) = (place.clone(), woken.clone());
    let mut task = bench.task(move |manual| {
        manual.advance(ms(9));
        manual.tick();
        assert_eq!(wakes.count(), 0);
        manual.advance(ms(1));
        manual.tick();
        assert_eq!(wakes.count(), 1, "while the task is still in its poll");
        let waker = Waker::from(wakes.clone());
        let mut sleep = theirs.lock().unwrap().take().unwrap();
        // Asked from another thread, as a supervisor is.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                assert!(matches!(sleep.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(()))));
            });
        });
        false
    });
    let mut sleep = Box::pin(task.clock().sleep(ms(10)));
    let waker = Waker::from(woken.clone());
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    *place.lock().unwrap() = Some(sleep);
    task.pending();
}

#[test]
fn t48_t50_t51_sleeps_on_a_cpu_clock() {
    let bench = Bench::new();
    let woken = Arc::new(common::Wakes::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let mut task = bench.burner(ms(5));
    let clock = task.clock();
    task.pending();
    let mut past = Box::pin(clock.sleep_until(ms(3)));
    assert_eq!(past.as_mut().poll(&mut cx), Poll::Ready(Ok(())), "a time in the past");
    let mut sleep = Box::pin(clock.sleep(ms(8)));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    assert!(sleep.as_mut().poll(&mut cx).is_pending(), "a spurious wake does not shorten it");
    task.pending();
    assert_eq!(woken.count(), 0);
    task.pending();
    assert_eq!(woken.count(), 1);
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(Ok(())));

    let mut endless = Box::pin(clock.sleep(Duration::MAX));
    assert!(endless.as_mut().poll(&mut cx).is_pending());
    task.inner.account().end();
    assert_eq!(woken.count(), 2, "the end of the task is told");
    assert_eq!(endless.as_mut().poll(&mut cx), Poll::Ready(Err(SleepError::Exited)));

    let place = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuClock>));
    let theirs = place.clone();
    let mut own = bench.task(move |_| {
        let mut sleep = Box::pin(theirs.lock().unwrap().as_ref().unwrap().sleep(ms(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(Err(SleepError::OwnClock)));
        false
    });
    *place.lock().unwrap() = Some(own.clock());
    own.pending();
}

#[test]
fn t61_c04_nested_timeouts_bind_tighter_and_bill_once() {
    let bench = Bench::new();
    let manual = bench.manual.clone();
    let inner_work = std::future::poll_fn(move |_| {
        manual.advance(ms(4));
        Poll::<()>::Pending
    });
    let results = log();
    let sink = results.clone();
    let manual = bench.manual.clone();
    let outer = Metered::new(async move {
        let exceeded = cpu_timeout(ms(10), cpu_timeout(ms(6), inner_work)).await.unwrap().unwrap_err();
        sink.lock().unwrap().push((exceeded.used, exceeded.limit));
        manual.advance(ms(1));
    });
    let clock = outer.clock();
    let mut outer = Box::pin(outer);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(outer.as_mut().poll(&mut cx).is_pending());
    assert!(outer.as_mut().poll(&mut cx).is_ready());
    assert_eq!(taken(&results), [(ms(8), ms(6))], "the tighter binds");
    let usage = clock.usage();
    assert_eq!(usage.cpu, ms(9), "inclusive: what ran inside, once");
    assert_eq!(usage.nested, ms(8));
    assert_eq!(usage.cpu - usage.nested, ms(1), "self");
    assert_eq!(bench.manual.meter().metrics().charged, ms(9), "the books count the outermost account only");
}

/// Deeper than accounts are shown to the tick.
#[test]
fn t61_c04_six_levels_are_billed_once_in_each_and_once_in_their_groups() {
    let bench = Bench::new();
    let [all, outer, inner] = ["all six", "the first", "the last two"].map(|name| Group::new(name).unwrap());
    let (one, two) = (Some(&outer), Some(&inner));
    for groups in [[Some(&all); 6], [one, None, None, None, None, None], [None, None, None, None, two, two]] {
        let mut clocks = Vec::new();
        let manual = bench.manual.clone();
        let mut nest: Boxed<'_> = Box::pin(async move { manual.advance(ms(10)) });
        for group in groups.into_iter().rev() {
            let level = Metered::new(nest);
            if let Some(group) = group {
                level.account().set_group(group);
            }
            clocks.insert(0, level.clock());
            let manual = bench.manual.clone();
            nest = Box::pin(async move {
                level.await.unwrap();
                manual.advance(ms(1));
            });
        }
        assert!(nest.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        let usages: Vec<_> = clocks.iter().map(CpuClock::usage).collect();
        let cpu: Vec<_> = usages.iter().map(|usage| usage.cpu).collect();
        assert_eq!(cpu, [ms(15), ms(14), ms(13), ms(12), ms(11), ms(10)]);
        let own: Vec<_> = usages.iter().map(|usage| usage.cpu - usage.nested).collect();
        assert_eq!(own, [ms(1), ms(1), ms(1), ms(1), ms(11), ms(10)], "the sixth is not told apart from the fifth");
    }
    assert_eq!((all.cpu_time(), outer.cpu_time(), inner.cpu_time()), (ms(15), ms(15), ms(11)));
}

#[test]
fn t61_a_post_for_the_outer_is_not_lost_when_the_inner_ends() {
    let bench = Bench::new();
    let manual = bench.manual.clone();
    let mut task = bench.task(move |_| {
        let work = manual.clone();
        let mut inner = Box::pin(cpu_timeout(ms(100), async move {
            work.advance(ms(10));
            work.tick();
            assert!(checkpoint().is_err(), "the outer limit is seen from inside");
        }));
        assert!(inner.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(!has_budget());
        assert!(checkpoint().is_err(), "and still after the inner has ended");
        false
    });
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(5))).unwrap();
    assert!(matches!(task.cancelled(), CancelReason::CpuLimit(_)));
}

#[test]
fn c03_c04_a_blocking_job_is_charged_to_its_task_and_wakes_it_at_the_limit() {
    let bench = Bench::new();
    let offload = Arc::new(std::sync::Mutex::new(None));
    let theirs = offload.clone();
    let mut task = bench.task(move |manual| {
        manual.advance(ms(1));
        *theirs.lock().unwrap() = Some(Offload::capture());
        false
    });
    task.inner.account().set_cpu_limit(CpuLimit::hard(ms(10))).unwrap();
    let clock = task.clock();
    task.pending();
    let job = offload.lock().unwrap().take().unwrap();
    let manual = bench.manual.clone();
    std::thread::spawn(move || {
        let lease = manual.meter().attach();
        lease.set_active();
        let run = lease.offload(&job, lease.stamp());
        manual.advance(ms(8));
        manual.tick();
        assert_eq!(checkpoint(), Ok(()));
        manual.advance(ms(4));
        manual.tick();
        assert!(matches!(checkpoint(), Err(CheckpointError::CpuLimitExceeded(_))));
        run.end();
    })
    .join()
    .unwrap();
    assert_eq!(clock.usage().offloaded, ms(12));
    assert!(task.wakes.count() > 0, "the parked task hears of it");
    let CancelReason::CpuLimit(e) = task.cancelled() else { panic!("it was not the limit") };
    assert_eq!((e.used, e.polls), (ms(13), 1), "before it was polled again");
}

#[test]
fn c05_the_clock_never_goes_back_while_polls_begin_and_end() {
    let bench = Bench::new();
    let mut task = bench.burner(Duration::from_micros(3));
    let clock = task.clock();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let now = clock.now();
                assert!(now >= last, "{now:?} after {last:?}");
                last = now;
            }
        });
        for _ in 0..20_000 {
            task.pending();
        }
        let now = clock.now();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(now, Duration::from_micros(60_000), "and it never runs ahead");
    });
}

#[test]
fn t13_cancelling_an_ended_account_is_refused() {
    let account = stipend_timers::Account::new();
    account.end();
    assert_eq!(account.cancel(), Err(stipend_timers::Exited));
}

#[test]
fn r06_the_end_of_a_slice_takes_the_budget_and_the_next_poll_has_a_fresh_one() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        assert!(has_budget());
        // Wall time counts here, as the slice is about others' turn.
        manual.advance_wall(ms(6));
        manual.tick();
        assert!(!has_budget());
        assert_eq!(checkpoint(), Ok(()), "a slice's end is no reason to stop");
        false
    });
    task.pending();
    task.pending();
    assert!(has_budget(), "outside polls");
}
