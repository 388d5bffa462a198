//! What the tests on the machine's own clocks share.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unsafe_code)]

use std::time::Duration;

use stipend_timers::{Account, Control, Lease, Stamp};

/// CPU time of the calling thread, by the kernel.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is valid for the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Computes for that much of the thread's CPU time.
pub(crate) fn burn(time: Duration) {
    let before = thread_cpu();
    while thread_cpu() - before < time {
        for _ in 0..200 {
            std::hint::spin_loop();
        }
    }
}

/// One poll of `account`, charged from `at` on, so that all that the thread does is the account's.
pub(crate) fn poll(lease: &Lease, account: &Account, at: Stamp, body: impl FnOnce()) -> Stamp {
    let mut run = lease.begin(account, at);
    assert!(matches!(run.before_poll(), Control::Proceed));
    body();
    assert!(matches!(run.after_poll(false), Control::Proceed));
    run.end()
}
