//! At the limit, and after the end of the run.

use std::cell::RefCell;
use std::task::Poll;
use std::time::Duration;

use stipend_timers::test::allocated;
use stipend_timers::{Account, CheckpointError, CpuLimit, LimitError, Scope, checkpoint};

use crate::common::ms;
use crate::fixtures::*;

#[test]
fn s02_a_member_that_waits_is_woken_and_ended() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (waits, woken) = request.spawn();
    let (works, _) = request.spawn();
    let (fresh, _) = request.spawn();
    goes_on(bench.burn(&waits, ms(1)));
    goes_on(bench.burn(&works, ms(30)));
    assert_eq!((woken.count(), request.wakes.count()), (0, 0));
    over(bench.burn(&works, ms(30)));
    assert_eq!((woken.count(), request.wakes.count()), (1, 1));
    assert_eq!(waits.cancel(), Ok(true), "an abort that comes later wakes, and changes nothing");
    let exceeded = over(bench.poll(&waits, || panic!("it is not polled again")));
    assert_eq!((exceeded.used, exceeded.limit), (ms(61), ms(50)));
    over(bench.poll(&fresh, || panic!("it is not polled at all")));
    assert!(waits.has_ended() && works.has_ended());
    over_run(request.again());
}

#[test]
fn s02_a_child_spawned_into_a_scope_that_is_over_is_not_polled() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let made = RefCell::new(None);
    over(bench.poll(&child, || {
        bench.manual.advance(ms(60));
        bench.manual.tick();
        *made.borrow_mut() = Some(Account::inherit().0);
    }));
    over(bench.poll(made.borrow().as_ref().unwrap(), || panic!("it is not polled")));
}

#[test]
fn t01_s02_wall_time_alone_ends_nobody() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    goes_on(bench.poll(&child, || {
        bench.manual.advance(ms(49));
        bench.manual.advance_wall(ms(1000));
        let report = bench.manual.tick();
        assert_eq!(report.confirmed, 0);
        assert_eq!(checkpoint(), Ok(()));
    }));
}

#[test]
fn s03_children_are_cancelled_when_the_run_completes_or_is_dropped() {
    for completes in [true, false] {
        let bench = Bench::new();
        let mut request = Request::new(ms(50));
        let (waits, woken) = request.spawn();
        let (ended, _) = request.spawn();
        ended.end();
        let mut inner = Request::new(ms(10));
        let grandchild = RefCell::new(None);
        goes_on(bench.poll(&waits, || *grandchild.borrow_mut() = Some(inner.spawn())));
        let (grandchild, grandchild_woken) = grandchild.take().unwrap();
        if completes {
            assert!(matches!(request.poll(|| true), Poll::Ready(Ok(()))));
        } else {
            drop(request);
        }
        assert_eq!((woken.count(), grandchild_woken.count()), (1, 1));
        requested(bench.poll(&waits, || panic!("it is not polled again")));
        requested(bench.poll(&grandchild, || panic!("it is not polled again")));
    }
}

#[test]
fn s02_after_the_end_of_the_run_nobody_is_over_its_limit() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let (last, _) = request.spawn();
    requested(bench.poll(&child, || {
        bench.manual.advance(ms(40));
        assert!(request.poll(|| true).is_ready());
        bench.manual.advance(ms(40));
        bench.manual.tick();
        assert_eq!(checkpoint(), Err(CheckpointError::Cancelled));
    }));
    requested(bench.poll(&last, || ()));
}

#[test]
fn t54_a_limit_of_zero_is_refused() {
    assert_eq!(Scope::try_with_limit(Duration::ZERO).unwrap_err(), LimitError::ZeroHard);
    let _ = std::panic::catch_unwind(|| Scope::with_limit(Duration::ZERO)).unwrap_err();
}

#[test]
fn t58_a_scope_s_limit_can_be_lowered_while_it_runs() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    goes_on(bench.burn(&child, ms(30)));
    request.run.clock().set_cpu_limit(CpuLimit::hard(ms(25))).unwrap();
    assert_eq!(request.wakes.count(), 1);
    assert_eq!(over_run(request.again()).limit, ms(25));
    over(bench.poll(&child, || ()));
}

#[test]
fn s03_records_of_scopes_are_released() {
    let bench = Bench::new();
    let round = || {
        let mut request = Request::new(ms(50));
        let (child, _) = request.spawn();
        goes_on(bench.burn(&child, ms(1)));
        let clock = child.clock();
        drop(child);
        drop(clock);
    };
    (0..100).for_each(|_| round());
    let before = allocated().accounts;
    for _ in 0..100_000 {
        let scope = Scope::with_limit(ms(50));
        let child = RefCell::new(None);
        let run = scope.run(async { *child.borrow_mut() = Some(Account::inherit().0) });
        assert_eq!(futures::executor::block_on(run), Ok(()));
        requested(bench.poll(&child.take().unwrap(), || ()));
    }
    // Other tests of this process make accounts meanwhile.
    assert!(allocated().accounts <= before + 4096, "{before} before, {} after", allocated().accounts);
}
