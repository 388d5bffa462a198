//! Decides whether waking the driver costs a system call.
//!
//! A wake is needed only while the driver sleeps in the kernel, and only once for each sleep. One atomic word
//! holds what is known:
//!
//! ```text
//!            try_sleep                    notify (must signal)
//!   AWAKE ---------------> SLEEPING ---------------------------+
//!     ^ |                     |                                |
//!     | |  notify             | awake                          v
//!     | +------------------------------------------------> NOTIFIED
//!     |                       |                                |
//!     +-----------------------+---------- awake ---------------+
//! ```
//!
//! Invariant: a `notify` that comes before `try_sleep` makes it fail, and one that comes after it is told to signal
//! or follows one that was. All steps are read-modify-writes of the same word, so there is no third case and
//! no fence is needed beside them. Whatever a thread wrote before `notify` is seen by the driver after the `awake`
//! or the failed `try_sleep` that consumed the notification.

use crate::sync::atomic::{AtomicUsize, Ordering};

const AWAKE: usize = 0;
const SLEEPING: usize = 1;
const NOTIFIED: usize = 2;

#[derive(Debug)]
pub(super) struct Gate(AtomicUsize);

impl Gate {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(AWAKE))
    }

    /// Asks the driver to end its turn. True if it must be signalled as well.
    #[must_use]
    pub(super) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING
    }

    /// The driver is about to sleep. False if it must not, because it was notified.
    #[must_use]
    pub(super) fn try_sleep(&self) -> bool {
        self.0.compare_exchange(AWAKE, SLEEPING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The driver is awake, and consumes a notification if there is one.
    pub(super) fn awake(&self) {
        self.0.swap(AWAKE, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_early_notification_prevents_the_sleep() {
        let gate = Gate::new();
        assert!(!gate.notify());
        assert!(!gate.try_sleep());
        gate.awake();
        assert!(gate.try_sleep());
    }

    #[test]
    fn many_notifications_of_one_sleep_signal_once() {
        let gate = Gate::new();
        assert!(gate.try_sleep());
        let signals = (0..100).filter(|_| gate.notify()).count();
        assert_eq!(signals, 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Producers publish work and notify; the driver sleeps until it is signalled. It never sleeps over work, and
    /// sees all that was published before what woke it.
    fn no_wake_is_lost(producers: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let gate = Arc::new(Gate::new());
            let work = Arc::new(AtomicUsize::new(0));
            let signals = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..producers)
                .map(|_| {
                    let (gate, work, signals) = (gate.clone(), work.clone(), signals.clone());
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Relaxed);
                        if gate.notify() {
                            signals.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let mut seen = 0;
            while seen < producers {
                if gate.try_sleep() {
                    while signals.load(Ordering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                    signals.fetch_sub(1, Ordering::Relaxed);
                }
                gate.awake();
                seen = work.load(Ordering::Relaxed);
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn one_producer() {
        no_wake_is_lost(1);
    }

    #[test]
    fn two_producers() {
        no_wake_is_lost(2);
    }
}
