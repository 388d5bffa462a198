//! Scopes inside scopes, and beside other limits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use stipend_timers::{Account, LimitKind, Scope, cpu_timeout};

use crate::common::ms;
use crate::fixtures::*;

#[test]
fn s03_the_tightest_of_nested_scopes_binds_the_inner_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(100));
    let (child, _) = outer.spawn();
    let clock = outer.run.clock();
    let mut inner = Request::new(ms(20));
    let inner_clock = inner.run.clock();
    let polled = RefCell::new(None);
    goes_on(bench.poll(&child, || {
        *polled.borrow_mut() = Some(inner.poll(|| {
            bench.manual.advance(ms(25));
            false
        }));
        bench.manual.advance(ms(1));
    }));
    let exceeded = over_run(polled.borrow_mut().take().unwrap());
    assert_eq!((exceeded.used, exceeded.limit), (ms(25), ms(20)));
    assert_eq!((inner_clock.now(), clock.now()), (ms(25), ms(26)), "nothing is counted twice");
    goes_on(bench.burn(&child, ms(1)));
    assert!(outer.poll(|| true).is_ready());
}

#[test]
fn s03_the_tightest_of_nested_scopes_binds_the_outer_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(30));
    let (child, _) = outer.spawn();
    let mut inner = Request::new(ms(1000));
    let grandchild = RefCell::new(None);
    goes_on(bench.poll(&child, || {
        *grandchild.borrow_mut() = Some(inner.spawn());
    }));
    let (grandchild, woken) = grandchild.take().unwrap();
    let (sibling, _) = outer.spawn();
    over(bench.burn(&sibling, ms(40)));
    assert_eq!((woken.count(), inner.wakes.count()), (1, 1), "members of the inner one are told, and its run");
    let exceeded = over(bench.poll(&grandchild, || panic!("it is not polled again")));
    assert_eq!(exceeded.limit, ms(30));
    assert_eq!(over_run(inner.again()).limit, ms(30));
    over(bench.poll(&child, || panic!("it is not polled again")));
    over_run(outer.again());
}

#[test]
fn s03_a_grandchild_in_an_inner_scope_uses_up_the_outer_one() {
    let bench = Bench::new();
    let mut outer = Request::new(ms(30));
    let (child, woken) = outer.spawn();
    let mut inner = Request::new(ms(1000));
    let grandchild = RefCell::new(None);
    goes_on(bench.poll(&child, || *grandchild.borrow_mut() = Some(inner.spawn())));
    let (grandchild, _) = grandchild.take().unwrap();
    assert_eq!(over(bench.burn(&grandchild, ms(40))).limit, ms(30));
    assert_eq!(inner.run.clock().now(), ms(40));
    assert_eq!(outer.run.clock().now(), ms(40));
    assert_eq!(woken.count(), 1);
    over(bench.poll(&child, || ()));
    over_run(outer.again());
}

#[test]
fn s01_t61_a_cpu_timeout_inside_a_scope_and_one_around_it() {
    let bench = Bench::new();
    // Inside: its own limit binds it, the scope's the rest.
    let scope = Scope::with_limit(ms(50));
    let clock = scope.clock();
    let manual = &bench.manual;
    let run = scope.run(async {
        let short = cpu_timeout(
            ms(10),
            poll_fn(|_| {
                manual.advance(ms(15));
                Poll::<()>::Pending
            }),
        )
        .await;
        assert_eq!(short.unwrap_err().kind, LimitKind::Total);
        manual.advance(ms(20));
        7
    });
    assert_eq!(futures::executor::block_on(run), Ok(7));
    assert_eq!(clock.now(), ms(35));
    // Around: the children outlive neither.
    let child = RefCell::new(None);
    let run = cpu_timeout(
        ms(10),
        Scope::with_limit(ms(50)).run(poll_fn(|_| {
            *child.borrow_mut() = Some(Account::inherit().0);
            manual.advance(ms(15));
            Poll::<()>::Pending
        })),
    );
    assert_eq!(futures::executor::block_on(run).unwrap_err().kind, LimitKind::Total);
    requested(bench.poll(child.borrow().as_ref().unwrap(), || ()));
}

#[test]
fn s03_a_scope_outside_of_which_it_was_made_counts_where_it_is_polled() {
    let bench = Bench::new();
    let mut a = Request::new(ms(100));
    let (child, _) = a.spawn();
    // Made in no scope, polled in one.
    let mut inner = Request::new(ms(100));
    goes_on(bench.poll(&child, || assert!(inner.poll(|| false).is_pending())));
    // And then elsewhere: it still counts into the one that it began in.
    assert!(
        inner
            .poll(|| {
                bench.manual.advance(ms(7));
                false
            })
            .is_pending()
    );
    assert_eq!((inner.run.clock().now(), a.run.clock().now(), child.usage().cpu), (ms(7), ms(7), ms(0)));
}
