//! What a group's clock counts: members, child groups, nested accounts, blocking jobs.

use std::sync::Arc;

use stipend_timers::{Group, Metered, Offload, Setting};

use crate::common::{Bench, log, ms, taken};
use crate::fixtures::*;

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
