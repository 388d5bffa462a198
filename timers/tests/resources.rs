//! What comes and goes leaves nothing behind. Alone in its binary: it counts what the whole process has.

#![cfg(target_os = "linux")]

use std::future::Future;
use std::task::{Context, Poll, Waker};

use stipend_timers::test::{Manual, allocated};
use stipend_timers::{CpuLimit, Metered};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn t13_ten_thousand_threads_and_a_million_accounts_leave_slots_records_and_descriptors_flat() {
    let manual = Manual::new();
    // Four at once, each time.
    let all_there = std::sync::Barrier::new(4);
    let births = |n: usize| {
        for _ in 0..n / 4 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let lease = manual.meter().attach();
                        lease.set_active();
                        all_there.wait();
                        let mut job = Box::pin(Metered::new(std::future::ready(1)));
                        job.account().set_cpu_limit(CpuLimit::hard(std::time::Duration::from_secs(1))).unwrap();
                        let polled = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        assert!(matches!(polled, Poll::Ready(Ok(1))));
                    });
                }
            });
        }
    };
    births(100);
    let (before, fds) = (allocated(), descriptors());
    births(10_000);
    assert_eq!(allocated(), before);
    for _ in 0..1_000_000 {
        let account = stipend_timers::Account::new();
        let clock = account.clock();
        drop(account);
        assert!(clock.has_ended());
    }
    assert_eq!(allocated(), before);
    assert_eq!(descriptors(), fds);

    // Meters too: their threads and timers go with them.
    for _ in 0..20 {
        let meter = stipend_timers::Meter::builder().build().unwrap();
        let lease = meter.attach();
        lease.set_active();
    }
    assert_eq!(descriptors(), fds);
    assert_eq!(allocated(), before);
}
