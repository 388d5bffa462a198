//! Whether the tick is on: the race between a thread that leaves idleness and a tick that goes to sleep.
//!
//! The tick runs while anything polls and is off when nothing does. It is switched on by the first thread that becomes
//! active and finds it off, and switched off by whoever found every thread idle: the tick itself, or the thread that became idle
//! last. That is a store-load race:
//!
//! ```text
//!   thread:  active = 1            tick, or the last thread:  state = Off
//!            fence                                            fence
//!            read state                                       read active (all of them)
//!            Off -> switch on                                 any -> switch on again
//! ```
//!
//! # Invariant
//! With a full fence on both sides at least one of them sees the other, and the compare-and-swap from Off to On lets exactly
//! one switch it on. So: whenever a thread is active and neither side is between its two steps, the tick is on.
//!
//! Two may switch off at a time. Each stops the timer before it, and looks at the threads behind it; and each switching off is a
//! read-modify-write, so that whoever switches on after the second starts the timer behind the stops of both.
//!
//! The timer may outlast that, and run with the gate closed: of two that switch off, the one that had to switch on again may be held up
//! before it starts the timer, until its thread that was active is idle as well and has switched off. So a tick that finds the gate
//! closed switches off once more.

use crate::sync::{AtomicU32, Ordering, fence};

const OFF: u32 = 0;
const ON: u32 = 1;

/// What the gate switches.
pub(crate) trait Timer {
    fn start(&self);
    /// `false`: it has stopped for good.
    fn stop(&self) -> bool;
}

/// The state of one tick.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(OFF))
    }

    /// For a thread that has just stored that it is active. `true`: this thread has to start the timer.
    #[inline]
    pub(crate) fn open(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) == OFF && self.try_open()
    }

    /// For whoever found every thread idle: stops the timer, and starts it again if that was not right, by a second look.
    pub(crate) fn switch_off(&self, timer: &impl Timer, any_active: impl FnOnce() -> bool) {
        // Stopped before the gate closes: whoever opens it next starts the timer after this. Two that stop it at a time do no harm:
        // each looks again after its own stop.
        if timer.stop() && self.close(any_active) {
            timer.start();
        }
    }

    /// A tick has come. `false`: nobody asked for it, and the timer is stopped.
    pub(crate) fn came(&self, timer: &impl Timer, any_active: impl FnOnce() -> bool) -> bool {
        let is_open = self.is_open();
        if !is_open {
            self.switch_off(timer, any_active);
        }
        is_open
    }

    /// `true`: a thread became active meanwhile, and the caller has to start the timer again.
    fn close(&self, any_active: impl FnOnce() -> bool) -> bool {
        // Release: whoever switches on again does so behind the stop of the timer. Acquire: and behind the stops of those who
        // switched off before.
        self.0.swap(OFF, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        any_active() && self.try_open()
    }

    #[cold]
    fn try_open(&self) -> bool {
        // Acquire: the other half of the release in `close`.
        self.0.compare_exchange(OFF, ON, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the tick is on.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ON
    }
}
