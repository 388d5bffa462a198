//! Expiry and arming, on the manual clock.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Bench, log, ms, taken};
use stipend_timers::{Action, PASS, TimerError};

#[test]
fn t01_t62_never_early_whatever_wall_time_passes() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task(|manual| {
        // Four times as much wall time as CPU time: a busy machine.
        manual.advance(ms(1));
        manual.advance_wall(ms(3));
        let report = manual.tick();
        assert_eq!(report.posted, report.confirmed, "only what is confirmed is posted");
        false
    });
    let clock = task.clock();
    let sink = fired.clone();
    let _timer = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.used)).arm_after(ms(10)).unwrap();
    for _ in 0..9 {
        task.pending();
        assert_eq!(taken(&fired), []);
    }
    task.pending();
    assert_eq!(taken(&fired), [ms(10)]);
}

#[test]
fn t01_the_tick_posts_nothing_on_suspicion_alone() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(1));
        manual.advance_wall(ms(3));
        let report = manual.tick();
        assert_eq!((report.suspects, report.confirmed, report.posted), (1, 0, 0));
        assert!(stipend_timers::has_budget());
        false
    });
    let _timer = task.clock().timer().on_expiry(|_| ()).arm_after(ms(2)).unwrap();
    task.pending();
}

#[test]
fn t02_the_first_tick_after_the_budget_is_reached_posts() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(1));
        assert_eq!(manual.tick().posted, 0);
        assert!(stipend_timers::has_budget());
        manual.advance(ms(1));
        assert_eq!(manual.tick().posted, 1);
        assert!(!stipend_timers::has_budget());
        false
    });
    let _timer = task.clock().timer().on_expiry(|_| ()).arm_after(ms(2)).unwrap();
    task.pending();
}

#[test]
fn t02_also_when_armed_or_lowered_in_the_middle_of_the_poll() {
    let bench = Bench::new();
    let clock = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuClock>));
    let theirs = clock.clone();
    let mut task = bench.task(move |manual| {
        let clock = theirs.lock().unwrap().clone().unwrap();
        manual.advance(ms(3));
        assert_eq!(manual.tick().posted, 0, "nothing is armed yet");
        // Another thread lowers the limit below what the poll in progress has used.
        std::thread::scope(|scope| {
            scope.spawn(|| clock.set_cpu_limit(stipend_timers::CpuLimit::hard(ms(2))).unwrap());
        });
        assert_eq!(stipend_timers::checkpoint(), Ok(()), "not before a tick has confirmed it");
        assert_eq!(manual.tick().posted, 1);
        let error = stipend_timers::checkpoint().unwrap_err();
        assert!(error.to_string().contains("used 3.000 ms of 2.000 ms"), "{error}");
        false
    });
    *clock.lock().unwrap() = Some(task.clock());
    assert!(task.cancelled().to_string().contains("used 3.000 ms of 2.000 ms"));
}

#[test]
fn t03_the_clock_of_a_waiting_task_stands_still() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(1));
    let clock = task.clock();
    let sink = fired.clone();
    let _timer = clock.timer().on_expiry(move |_| sink.lock().unwrap().push(())).arm_after(ms(2)).unwrap();
    task.pending();
    // The thread goes on with other things.
    bench.manual.advance(ms(500));
    bench.manual.tick();
    assert_eq!(clock.now(), ms(1));
    assert_eq!(task.wakes.count(), 0);
    assert_eq!(taken(&fired), []);
}

#[test]
fn t04_used_equal_to_expires_fires() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let sink = fired.clone();
    let _timer =
        task.clock().timer().on_expiry(move |e| sink.lock().unwrap().push((e.used, e.at))).arm_at(ms(5)).unwrap();
    task.pending();
    assert_eq!(taken(&fired), [(ms(5), ms(5))]);
}

#[test]
fn t05_equal_expiries_fire_in_the_order_of_arming() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let clock = task.clock();
    let timers: Vec<_> = (0..20)
        .map(|i| {
            let sink = fired.clone();
            clock.timer().on_expiry(move |_| sink.lock().unwrap().push(i)).build().unwrap()
        })
        .collect();
    let order: Vec<_> = (0..20).map(|i| (i * 7) % 20).collect();
    for &i in &order {
        timers[i].arm_at(ms(5)).unwrap();
    }
    task.pending();
    assert_eq!(taken(&fired), order);
}

#[test]
fn t06_without_a_timer_the_boundary_does_nothing_but_compare() {
    // The manual meter counts what the slow path does: nothing is suspected, posted or handed over, and no wake is made.
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(1));
        let report = manual.tick();
        assert_eq!((report.threads, report.suspects, report.posted), (1, 0, 0));
        false
    });
    for _ in 0..1000 {
        task.pending();
    }
    assert_eq!(task.wakes.count(), 0);
    assert_eq!(task.clock().usage().polls, 1000);
}

#[test]
fn t07_t17_a_pass_is_bounded_and_the_rest_follows_in_order() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task({
        let mut first = true;
        move |manual| {
            if std::mem::take(&mut first) {
                manual.advance(ms(5));
            }
            false
        }
    });
    let clock = task.clock();
    let timers: Vec<_> = (0..100)
        .map(|i| {
            let sink = fired.clone();
            clock.timer().on_expiry(move |_| sink.lock().unwrap().push(i)).arm_at(ms(5)).unwrap()
        })
        .collect();
    let mut seen = Vec::new();
    let mut wakes = 0;
    task.pending();
    loop {
        let now = taken(&fired);
        assert!(now.len() <= 2 * PASS, "{} expiries at one boundary", now.len());
        seen.extend(now);
        if seen.len() == 100 {
            break;
        }
        assert!(task.wakes.count() > wakes, "what is left over wakes the task");
        wakes = task.wakes.count();
        task.pending();
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    drop(timers);
}

#[test]
fn t08_a_handlers_time_is_its_tasks_own() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(5));
    let clock = task.clock();
    let manual = bench.manual.clone();
    let _timer = clock.timer().on_expiry(move |_| manual.advance(ms(7))).arm_at(ms(5)).unwrap();
    task.pending();
    assert_eq!(clock.now(), ms(12));
}

#[test]
fn t11_a_timer_that_expires_while_handlers_run_is_not_lost() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task({
        let mut first = true;
        move |manual| {
            if std::mem::take(&mut first) {
                manual.advance(ms(5));
            }
            false
        }
    });
    let clock = task.clock();
    let manual = bench.manual.clone();
    let _slow = clock.timer().on_expiry(move |_| manual.advance(ms(10))).arm_at(ms(5)).unwrap();
    let sink = fired.clone();
    // Reached only by the handler's own time, and no tick follows.
    let _late = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.used)).arm_at(ms(12)).unwrap();
    task.pending();
    assert_eq!(taken(&fired), [ms(15)]);
}

#[test]
fn t12_a_timer_armed_by_a_handler_in_the_past_fires_in_this_pass() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let clock = task.clock();
    let sink = fired.clone();
    let second = Arc::new(clock.timer().on_expiry(move |_| sink.lock().unwrap().push(())).build().unwrap());
    let armed = second.clone();
    let _first = clock
        .timer()
        .on_expiry(move |_| {
            armed.arm_at(ms(1)).unwrap();
        })
        .arm_at(ms(5))
        .unwrap();
    task.pending();
    assert_eq!(taken(&fired).len(), 1);
}

#[test]
fn t14_a_finishing_task_runs_its_pending_work_first() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task(|manual| {
        manual.advance(ms(5));
        true
    });
    let sink = fired.clone();
    let _timer = task.clock().timer().on_expiry(move |_| sink.lock().unwrap().push(())).arm_at(ms(3)).unwrap();
    task.completed();
    assert_eq!(taken(&fired).len(), 1);
}

#[test]
fn t17_what_a_handler_decides_applies_before_the_next_poll() {
    let bench = Bench::new();
    let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = polls.clone();
    let mut task = bench.task(move |manual| {
        count.fetch_add(1, Ordering::SeqCst);
        manual.advance(ms(5));
        false
    });
    let _timer = task.clock().timer().on_expiry(|_| Action::Cancel).arm_at(ms(5)).unwrap();
    task.cancelled();
    assert_eq!(polls.load(Ordering::SeqCst), 1);
}

#[test]
fn t17_a_handler_may_rearm_its_timer() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(1));
    let sink = fired.clone();
    let _timer = task
        .clock()
        .timer()
        .on_expiry(move |e| {
            sink.lock().unwrap().push(e.used);
            Action::RearmAfter(ms(3))
        })
        .arm_at(ms(2))
        .unwrap();
    for _ in 0..9 {
        task.pending();
    }
    assert_eq!(taken(&fired), [ms(2), ms(5), ms(8)]);
}

#[test]
fn t20_t21_a_timer_dropped_inside_its_own_handler_goes_quietly() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(5));
    let place = Arc::new(std::sync::Mutex::new(None));
    let own = place.clone();
    let dropped = Arc::new(AtomicBool::new(false));
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Flag(dropped.clone());
    let timer = task
        .clock()
        .timer()
        .every(ms(5))
        .on_expiry(move |_| {
            let _keep = &flag;
            drop(own.lock().unwrap().take());
        })
        .arm_at(ms(5))
        .unwrap();
    *place.lock().unwrap() = Some(timer);
    task.pending();
    assert!(dropped.load(Ordering::SeqCst), "the handler is dropped when it returns");
    task.pending();
}

#[test]
fn t23_arming_again_discards_an_expiry_not_delivered_yet() {
    let bench = Bench::new();
    let fired = log();
    let timer = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuTimer>));
    let theirs = timer.clone();
    let mut task = bench.task(move |manual| {
        manual.advance(ms(5));
        manual.tick();
        theirs.lock().unwrap().as_ref().unwrap().arm_at(ms(8)).unwrap();
        false
    });
    let sink = fired.clone();
    *timer.lock().unwrap() =
        Some(task.clock().timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_at(ms(5)).unwrap());
    task.pending();
    assert_eq!(taken(&fired), []);
}

#[test]
fn t28_a_time_in_the_past_fires_at_once_also_on_a_task_that_waits() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task({
        let mut first = true;
        move |manual| {
            if std::mem::take(&mut first) {
                manual.advance(ms(5));
            }
            false
        }
    });
    let clock = task.clock();
    task.pending();
    let sink = fired.clone();
    let _timer = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_at(ms(1)).unwrap();
    assert_eq!(task.wakes.count(), 1, "the task waits, so arming wakes it");
    task.pending();
    assert_eq!(taken(&fired), [ms(1)]);
}

#[test]
fn t29_t37_a_new_timer_is_disarmed_and_arming_with_zero_disarms() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let sink = fired.clone();
    let timer = task.clock().timer().on_expiry(move |_| sink.lock().unwrap().push(())).build().unwrap();
    assert_eq!((timer.remaining(), timer.interval()), (Duration::ZERO, Duration::ZERO));
    timer.arm_every(ms(5), ms(2)).unwrap();
    let before = timer.arm_after(Duration::ZERO).unwrap();
    assert_eq!((before.remaining, before.interval), (ms(5), ms(2)));
    assert_eq!((timer.remaining(), timer.interval()), (Duration::ZERO, Duration::ZERO));
    task.pending();
    assert_eq!(taken(&fired), []);
}

#[test]
fn t30_t31_a_bad_interval_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let task = bench.burner(ms(5));
    let timer = task.clock().timer().on_expiry(|_| ()).build().unwrap();
    timer.arm_every(ms(5), ms(2)).unwrap();
    assert_eq!(timer.arm_every(ms(9), Duration::ZERO), Err(TimerError::ZeroInterval));
    assert!(matches!(timer.arm_every(ms(9), Duration::MAX), Err(TimerError::IntervalTooLong { .. })));
    assert_eq!((timer.remaining(), timer.interval()), (ms(5), ms(2)));
    let refused = task.clock().timer().every(Duration::ZERO).on_expiry(|_| ()).arm_after(ms(1));
    assert_eq!(refused.unwrap_err(), TimerError::ZeroInterval);
}

#[test]
fn t32_the_previous_setting_is_returned() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(3));
    let timer = task.clock().timer().on_expiry(|_| ()).build().unwrap();
    timer.arm_every(ms(10), ms(4)).unwrap();
    task.pending();
    let before = timer.arm_at(ms(100)).unwrap();
    assert_eq!((before.remaining, before.interval), (ms(7), ms(4)));
}

#[test]
fn t33_remaining_is_relative_and_never_zero_while_armed() {
    let bench = Bench::new();
    let timer = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuTimer>));
    let theirs = timer.clone();
    let mut task = bench.task(move |manual| {
        let timer = theirs.lock().unwrap();
        let timer = timer.as_ref().unwrap();
        manual.advance(ms(3));
        assert_eq!(timer.remaining(), ms(7), "relative, the poll in progress included");
        manual.advance(ms(7));
        assert_eq!(timer.remaining(), Duration::from_nanos(1), "reached and not delivered: still armed");
        false
    });
    *timer.lock().unwrap() = Some(task.clock().timer().on_expiry(|_| ()).arm_at(ms(10)).unwrap());
    task.pending();
    assert_eq!(timer.lock().unwrap().as_ref().unwrap().remaining(), Duration::ZERO, "fired");
}

#[test]
fn t34_a_periodic_timer_that_waits_for_delivery_reads_the_time_to_its_next_expiry() {
    let bench = Bench::new();
    let timer = Arc::new(std::sync::Mutex::new(None::<stipend_timers::CpuTimer>));
    let theirs = timer.clone();
    let mut task = bench.task(move |manual| {
        manual.advance(ms(25));
        assert_eq!(theirs.lock().unwrap().as_ref().unwrap().remaining(), ms(5));
        false
    });
    *timer.lock().unwrap() = Some(task.clock().timer().every(ms(10)).on_expiry(|_| ()).arm_after(ms(10)).unwrap());
    task.pending();
}

#[test]
fn t35_a_silent_timer_wakes_nobody_and_rolls_forward() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(25));
    let timer = task.clock().timer().every(ms(10)).arm_after(ms(10)).unwrap();
    task.pending();
    assert_eq!(timer.remaining(), ms(5));
    assert_eq!(task.wakes.count(), 0);
}

#[test]
fn t36_very_large_durations_saturate() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let sink = fired.clone();
    let timer =
        task.clock().timer().on_expiry(move |_| sink.lock().unwrap().push(())).arm_after(Duration::MAX).unwrap();
    task.pending();
    timer.arm_at(Duration::MAX).unwrap();
    task.pending();
    timer.arm_every(Duration::from_nanos(1 << 63), Duration::from_nanos(1 << 63)).unwrap();
    task.pending();
    assert_eq!(taken(&fired), []);
}

#[test]
fn t48_the_clock_of_an_ended_task_still_reads_and_arming_gives_exited() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(5));
        true
    });
    let clock = task.clock();
    let timer = clock.timer().on_expiry(|_| ()).build().unwrap();
    task.completed();
    drop(task);
    assert!(clock.has_ended());
    assert_eq!(clock.now(), ms(5));
    assert_eq!(timer.arm_after(ms(1)), Err(TimerError::Exited));
    assert_eq!(clock.timer().on_expiry(|_| ()).arm_after(ms(1)).unwrap_err(), TimerError::Exited);
    futures::executor::block_on(timer.close());
    assert_eq!(clock.now(), ms(5));
}
