//! Expiries on a clock that shows more than was used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::os::thread_cpu_ns;
use crate::meter::Meter;

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn compute_for(time: Duration) {
    let end = thread_cpu_ns() + time.as_nanos() as u64;
    while thread_cpu_ns() < end {}
}

/// A poll that computes for so long, and on whose time the hypervisor took so much more. Returns what it used at the most.
fn poll(lease: &crate::thread::Lease, account: &Account, compute: Duration, lost: Duration) -> Duration {
    let before = thread_cpu_ns();
    let mut run = lease.begin(account, lease.stamp());
    assert!(matches!(run.before_poll(), Control::Proceed));
    compute_for(compute);
    run.slot.clock.lose(lost.as_nanos() as u64);
    assert!(matches!(run.after_poll(false), Control::Proceed));
    run.end();
    Duration::from_nanos(thread_cpu_ns() - before)
}

/// What nobody can see until the CPU clock is read brings nothing about.
#[test]
fn t01_time_that_a_hypervisor_took_expires_nothing() {
    let meter = Meter::builder().build().unwrap();
    let lease = meter.attach();
    let account = Account::new();
    let fired = Arc::new(AtomicU64::new(0));
    let (first, second) = (fired.clone(), fired.clone());
    let timer = account.clock().timer().on_expiry(move |_| {
        first.fetch_add(1, Ordering::SeqCst);
        // In a handler's time, too.
        crate::thread::current().unwrap().slot.clock.lose(5_000_000);
    });
    let _timer = timer.arm_at(us(20_000)).unwrap();
    let timer = account.clock().timer().on_expiry(move |_| {
        second.fetch_add(1, Ordering::SeqCst);
    });
    let _timer = timer.arm_at(us(24_000)).unwrap();
    let mut used = Duration::ZERO;
    let mut run = |compute, lost| {
        used += poll(&lease, &account, compute, lost);
        let due = [us(20_000), us(24_000)].iter().filter(|at| used >= **at).count() as u64;
        let fired = fired.load(Ordering::SeqCst);
        assert!(fired <= due, "{fired} fired after {used:?}");
        (fired, used)
    };
    while account.usage().cpu < us(19_000) {
        run(us(200), us(0));
    }
    // In the poll that comes to the time by it, and that is then not billed for it.
    let (_, used) = run(us(1), us(5_000));
    assert!(account.usage().cpu <= used, "billed {:?}, used {used:?}", account.usage().cpu);
    // In polls that do not: they leave a debt behind.
    for _ in 0..10 {
        run(us(1), us(200));
    }
    // Nothing is lost: they come when the time is used.
    while run(us(200), us(0)).0 < 2 {
        assert!(used < us(60_000), "passed over");
    }
}

/// A child that is forked behind a pass is billed nothing for what its parent did before.
#[test]
fn c06_what_is_owed_is_asked_without_giving_out_a_stamp() {
    let meter = Meter::builder().build().unwrap();
    let lease = meter.attach();
    let slot = crate::thread::current().unwrap().slot;
    let at = lease.stamp();
    compute_for(us(50));
    let _ = slot.clock.owed_ns();
    // As the fork's handler does: what was given out last is what the clock goes on reading.
    slot.clock.stop();
    assert_eq!(lease.stamp(), at);
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "a run was used after its end")]
fn a_run_that_has_ended_is_over() {
    let manual = crate::test::Manual::new();
    let (lease, account) = (manual.meter().attach(), Account::new());
    let mut run = lease.begin(&account, lease.stamp());
    run.end();
    let _ = run.after_poll(false);
}
