//! Handlers on a group's clock: at whose boundary they run, and what they may do there.

use std::sync::Arc;

use stipend_timers::test::Manual;
use stipend_timers::{Action, CancelReason, CpuLimit, CpuTimer};

use crate::common::{Bench, Wakes, log, ms, taken};
use crate::fixtures::*;

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
