//! What a tick costs, and what it does not depend on.

mod common;

use std::time::{Duration, Instant};

use common::ms;
use stipend_timers::test::Manual;
use stipend_timers::{Account, AccuracyClass, ClockSource, CpuTimer, Lease, Meter};

/// The quickest of many ticks: what else the machine does only adds to one.
fn quickest_tick(manual: &Manual) -> Duration {
    let tick = |_| {
        let before = Instant::now();
        std::hint::black_box(manual.tick());
        before.elapsed()
    };
    (0..2_000).map(tick).min().unwrap()
}

/// Ticks in the middle of a poll of an account.
fn in_a_poll(manual: &Manual, lease: &Lease, account: &Account) -> Duration {
    let mut run = lease.begin(account, lease.stamp());
    let _ = run.before_poll();
    let quickest = quickest_tick(manual);
    let _ = run.after_poll(false);
    run.end();
    quickest
}

#[test]
fn t09_the_ticks_cost_does_not_depend_on_tasks_or_timers() {
    /// A look at each of them, of a nanosecond, would show.
    const MANY: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    const OF_ONE: usize = 100_000;
    let manual = Manual::new();
    let lease = manual.meter().attach();
    let account = Account::new();
    let alone = in_a_poll(&manual, &lease, &account);

    let tasks: Vec<Account> = (0..MANY).map(|_| Account::new()).collect();
    let arm = |account: &Account| {
        let timer = || account.clock().timer().on_expiry(|_| ()).arm_after(ms(1_000)).unwrap();
        (0..OF_ONE).map(|_| timer()).collect::<Vec<CpuTimer>>()
    };
    // The one that is polled among them.
    let timers: Vec<Vec<CpuTimer>> = std::iter::once(&account).chain(&tasks).take(MANY / OF_ONE).map(arm).collect();
    let beside_many = in_a_poll(&manual, &lease, &account);
    assert_eq!(timers.iter().map(Vec::len).sum::<usize>(), MANY);

    println!("a tick takes {alone:?} alone, and {beside_many:?} beside {MANY} tasks and timers");
    assert!(beside_many <= 5 * alone + Duration::from_micros(20), "{alone:?} alone and {beside_many:?} beside many");
}

#[test]
fn t52_resolution_and_accuracy_class_are_told() {
    let manual = Manual::new();
    assert_eq!(manual.meter().accuracy(), AccuracyClass::Manual);
    // The clock moves by no less, and by as little.
    let account = Account::new();
    let clock = account.clock();
    let resolution = clock.resolution();
    assert_eq!(resolution, Duration::from_nanos(1));
    assert_eq!(clock.poll_clock().resolution(), resolution);
    let lease = manual.meter().attach();
    let mut run = lease.begin(&account, lease.stamp());
    manual.advance(resolution);
    assert_eq!((clock.now(), clock.poll_clock().now()), (resolution, resolution));
    run.end_now();

    // What a meter says is what it was asked for, and has a name.
    let meter = Meter::builder().clock(ClockSource::Auto).build().unwrap();
    assert!(!matches!(meter.accuracy(), AccuracyClass::Manual | AccuracyClass::Disabled));
    assert!(!meter.accuracy().as_str().is_empty());
    assert_eq!(meter.accuracy().to_string(), meter.accuracy().as_str());
}

#[test]
fn t47_task_and_poll_clocks_are_independent_and_add_up_in_group_and_runtime() {
    let manual = Manual::new();
    let lease = manual.meter().attach();
    let group = stipend_timers::Group::new("both").unwrap();
    let tasks = [Account::new(), Account::new()];
    for task in &tasks {
        task.set_group(&group);
    }
    let outside = Account::new();
    // Polls of 3 ms and 5 ms in turn, and between them time that is nobody's.
    let mut at = lease.stamp();
    for round in 1..=4u32 {
        for (account, each) in [(&tasks[0], ms(3)), (&tasks[1], ms(5)), (&outside, ms(7))] {
            let mut run = lease.begin(account, at);
            let _ = run.before_poll();
            manual.advance(each);
            // The poll's clock begins anew with each poll; the task's goes on.
            assert_eq!(account.clock().now(), each * round);
            let _ = run.after_poll(false);
            at = run.end();
            manual.advance(ms(1));
            at = lease.charge_runtime(at);
            assert_eq!(account.usage().longest_poll, each);
        }
    }
    assert_eq!(tasks.each_ref().map(|task| task.clock().now()), [ms(12), ms(20)]);
    assert_eq!(group.cpu_time(), ms(32));
    let books = manual.meter().metrics();
    assert_eq!((books.charged, books.runtime, books.threads), (ms(60), ms(12), ms(72)));
    assert_eq!(books.unattributed_nanos(), 0);
}
