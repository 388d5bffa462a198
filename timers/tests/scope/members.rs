//! Who is a member, and what of it counts.

use std::cell::RefCell;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use stipend_timers::{Account, CheckpointError, Group, LimitKind, Metered, Offload, Scope, checkpoint};

use crate::common::ms;
use crate::fixtures::*;

#[test]
fn s01_the_limit_binds_the_sum_of_the_run_its_children_and_theirs() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    let (child, _) = request.spawn();
    let mut made = None;
    goes_on(bench.poll(&child, || made = Some(with_waker(Account::inherit().0))));
    let (grandchild, _) = made.unwrap();
    assert!(
        request
            .poll(|| {
                bench.manual.advance(ms(20));
                false
            })
            .is_pending()
    );
    goes_on(bench.burn(&child, ms(20)));
    assert_eq!(clock.now(), ms(40));
    assert_eq!((child.usage().cpu, grandchild.usage().cpu), (ms(20), ms(0)));
    let exceeded = over(bench.burn(&grandchild, ms(15)));
    assert_eq!((exceeded.used, exceeded.limit, exceeded.polls), (ms(55), ms(50), 1));
    let exceeded = over_run(request.again());
    assert_eq!((exceeded.used, exceeded.limit), (ms(55), ms(50)));
    over(bench.poll(&child, || panic!("it is not polled again")));
    assert_eq!(clock.now(), ms(55));
}

#[test]
fn s01_c03_a_blocking_job_of_a_member_is_charged_once_to_each_around() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    let (child, wakes) = request.spawn();
    let mut captured = None;
    goes_on(bench.poll(&child, || captured = Some(Offload::capture())));
    let captured = captured.unwrap();
    let job = bench.lease.offload(&captured, bench.lease.stamp());
    bench.manual.advance(ms(30));
    assert_eq!(clock.now(), ms(30), "a job under way counts");
    drop(job);
    assert_eq!((clock.now(), child.usage().cpu), (ms(30), ms(30)));
    let job = bench.lease.offload(&captured, bench.lease.stamp());
    bench.manual.advance(ms(30));
    assert_eq!(checkpoint(), Ok(()));
    bench.manual.tick();
    assert!(matches!(checkpoint(), Err(CheckpointError::CpuLimitExceeded(e)) if e.kind == LimitKind::Scope));
    drop(job);
    assert_eq!(wakes.count(), 1, "its task is woken");
    assert_eq!(request.wakes.count(), 1, "and the run");
    over(bench.poll(&child, || panic!("it is not polled again")));
    over_run(request.again());
    assert_eq!(clock.now(), ms(60));
}

#[test]
fn s01_c04_a_job_of_the_run_is_charged_to_the_task_and_to_the_scope() {
    let bench = Bench::new();
    let task = Account::new();
    let captured = RefCell::new(None);
    let mut request = Request::new(ms(50));
    let clock = request.run.clock();
    goes_on(bench.poll(&task, || {
        let step = || {
            *captured.borrow_mut() = Some(Offload::capture());
            bench.manual.advance(ms(5));
            false
        };
        assert!(request.poll(step).is_pending());
    }));
    drop(bench.lease.offload(captured.borrow().as_ref().unwrap(), bench.lease.stamp()));
    let job = captured.borrow_mut().take().unwrap();
    let run = bench.lease.offload(&job, bench.lease.stamp());
    bench.manual.advance(ms(10));
    drop(run);
    assert_eq!((task.usage().cpu, task.usage().nested), (ms(15), ms(5)));
    assert_eq!(clock.now(), ms(15), "its own time is not counted twice");
}

#[test]
fn s01_a_scope_inside_a_group_counts_into_both() {
    let bench = Bench::new();
    let group = Group::builder("tenant").build().unwrap();
    let task = Account::new();
    task.set_group(&group);
    let child = RefCell::new(None);
    let mut request = Request::new(ms(50));
    goes_on(bench.poll(&task, || {
        let step = || {
            *child.borrow_mut() = Some(Account::inherit().0);
            bench.manual.advance(ms(10));
            false
        };
        assert!(request.poll(step).is_pending());
    }));
    let child = child.take().unwrap();
    assert_eq!(child.group().map(|group| group.id()), Some(group.id()));
    goes_on(bench.burn(&child, ms(20)));
    let other = Group::builder("other").build().unwrap();
    child.set_group(&other);
    goes_on(bench.burn(&child, ms(5)));
    assert_eq!((group.cpu_time(), other.cpu_time()), (ms(30), ms(5)));
    assert_eq!(request.run.clock().now(), ms(35));
    over(bench.burn(&child, ms(20)));
}

#[test]
fn s01_every_child_of_a_member_of_a_group_counts_into_both() {
    let bench = Bench::new();
    let group = Group::builder("tenant").build().unwrap();
    let task = Account::new();
    task.set_group(&group);
    let children = RefCell::new(Vec::new());
    let mut request = Request::new(ms(100));
    goes_on(bench.poll(&task, || {
        // One outside, so that all are alike in what the thread has at hand.
        let outside = Account::inherit().0;
        assert_eq!(outside.group().as_ref(), Some(&group));
        let step = || {
            children.borrow_mut().extend((0..3).map(|_| Account::inherit().0));
            false
        };
        assert!(request.poll(step).is_pending());
    }));
    let children = children.take();
    for child in &children {
        assert_eq!(child.group().as_ref(), Some(&group));
        goes_on(bench.burn(child, ms(20)));
    }
    assert_eq!((group.cpu_time(), request.run.clock().now()), (ms(60), ms(60)));
    over(bench.burn(&children[2], ms(40)));
}

#[test]
fn s01_a_spawn_in_deeply_nested_runs_does_not_escape() {
    let bench = Bench::new();
    let manual = &bench.manual;
    let child = RefCell::new(None);
    let scope = Scope::with_limit(ms(20));
    let clock = scope.clock();
    let deep = scope.run(async {
        *child.borrow_mut() = Some((Account::inherit().0, Offload::capture()));
        manual.advance(ms(1));
        pending::<()>().await;
    });
    let nested = Metered::new(Metered::new(Metered::new(Metered::new(Metered::new(deep)))));
    let mut nested = pin!(nested);
    assert!(nested.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (child, offload) = child.take().unwrap();
    let job = bench.lease.offload(&offload, bench.lease.stamp());
    manual.advance(ms(4));
    drop(job);
    goes_on(bench.burn(&child, ms(10)));
    assert_eq!(clock.now(), ms(15));
    over(bench.burn(&child, ms(10)));
}

#[test]
fn t50_s01_timers_on_a_scope_s_clock_fire_by_what_its_members_use() {
    let bench = Bench::new();
    let mut request = Request::new(ms(50));
    let (child, _) = request.spawn();
    let fired = Arc::new(AtomicUsize::new(0));
    let count = fired.clone();
    let timer = request.run.clock().timer().on_expiry(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        stipend_timers::Action::Continue
    });
    let _timer = timer.arm_after(ms(20)).unwrap();
    goes_on(bench.burn(&child, ms(30)));
    assert_eq!(request.wakes.count(), 1);
    assert!(request.again().is_pending());
    assert_eq!(fired.load(Ordering::SeqCst), 1);
}
