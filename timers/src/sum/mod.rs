//! Clocks that many threads add to: a group's, and a meter's. What they have beyond a task's clock.
//!
//! * [`horizon`]: which thread looks, and when, whether the clock has come to the next expiry.
//! * [`Sum`]: the timers of such a clock, and who delivers them.
//! * [`Whole`]: which cells make up which clock, and what it reads with the polls in progress.
//!
//! # Who delivers
//! *Handlers* run at the boundary of the member that finds them due, on that member's account: the kernel's timers of a process
//! expire in whichever of its threads comes back to user space first. Where the clock comes to its time outside a boundary (a
//! blocking job, a destructor), or is armed for a time that is past, a member is woken for it. *Supervisors* are told by whoever finds
//! out; while no member's poll ends that is the service thread, called by the tick.
//!
//! # Invariants
//! * One thread at a time expires a clock's timers: whoever finds another at it leaves, and the other looks once more when it is
//!   done.
//! * The cached next expiry is stored under the lock that guards the timers.
//! * What was ever given out as the clock's reading, with the polls in progress, stays the least that it reads: so what the tick has
//!   confirmed on one thread is due at every other thread's next boundary, although it is not charged yet.

pub(crate) mod horizon;
#[cfg(all(test, loom))]
mod models;
mod whole;

use std::task::Waker;

use self::horizon::{Cells, Horizon};
use crate::record::NEVER;
use crate::sync::{AtomicU64, Mutex, Ordering, fence};
use crate::timer_set::{Due, TimerSet};

pub(crate) use self::whole::{Whole, charge_groups};

/// The timers of a clock that many threads add to.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) horizon: Horizon,
    next_remote_ns: AtomicU64,
    /// The highest sum that was given out as a reading, with the polls in progress, before the base is taken from it. It goes on
    /// across owners: who saw it last may tell it when the next one is there.
    reported_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    timers: Option<Box<TimerSet>>,
    /// A thread is at the expiries.
    expiring: bool,
    /// The clock has ended: it takes no timers any more.
    ended: bool,
}

impl Sum {
    pub(crate) fn new() -> Self {
        Self {
            horizon: Horizon::new(),
            next_remote_ns: AtomicU64::new(NEVER),
            reported_ns: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    /// For the next clock in this place. The one before has no handle any more, and so no timer, or has ended.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        debug_assert!(state.timers.as_ref().is_none_or(|timers| timers.is_empty()), "a timer outlived its clock");
        state.ended = false;
        self.horizon.set_next(NEVER);
        self.next_remote_ns.store(NEVER, Ordering::Relaxed);
    }

    /// The clock ends. Its timers come out, to be dropped outside of locks, and those who wait for one.
    pub(crate) fn end_clock(&self) -> (Vec<Waker>, Option<Box<TimerSet>>) {
        let mut timers = {
            let mut state = self.state.lock();
            state.ended = true;
            let timers = state.timers.take();
            self.refresh(&state);
            timers
        };
        (timers.as_mut().map_or_else(Vec::new, |timers| timers.take_waiters()), timers)
    }

    /// For the next clock in this place, if nobody can have a reading of the one before: it begins at zero.
    pub(crate) fn begin_at_zero(&self) {
        self.reported_ns.store(0, Ordering::Relaxed);
    }

    pub(crate) fn reported_ns(&self) -> u64 {
        self.reported_ns.load(Ordering::Acquire)
    }

    /// The cells and the polls in progress were seen to add up to this. Returns what they have been seen to add up to at the most.
    pub(crate) fn report(&self, sum_ns: u64) -> u64 {
        self.reported_ns.fetch_max(sum_ns, Ordering::AcqRel).max(sum_ns)
    }

    /// Whether a supervisor's timer is due at this reading.
    pub(crate) fn is_remote_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_remote_ns.load(Ordering::Relaxed)
    }

    /// Stores the caches. Returns whether the next expiry is earlier than it was.
    fn refresh(&self, state: &State) -> bool {
        let (any, remote) = state.timers.as_ref().map_or((NEVER, NEVER), |timers| timers.next_expiries());
        self.next_remote_ns.store(remote, Ordering::Relaxed);
        self.horizon.set_next(any)
    }

    /// Changes the timers under the lock, and has the threads look out for what is due earlier. `None`: the clock has ended.
    pub(crate) fn change<R>(&self, cells: &impl Cells, change: impl FnOnce(&mut TimerSet) -> R) -> Option<R> {
        let (result, earlier) = {
            let mut state = self.state.lock();
            if state.ended {
                return None;
            }
            let result = change(state.timers.get_or_insert_default());
            (result, self.refresh(&state))
        };
        if earlier {
            self.horizon.rearm(cells);
        }
        Some(result)
    }

    /// Starts to expire. `false`: another thread is at it, and will look once more.
    pub(crate) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().expiring, true)
    }

    /// Whether something is due and nobody at it.
    pub(crate) fn waits_for_expiry(&self, cells: &impl Cells) -> bool {
        self.horizon.is_due(cells) && !self.state.lock().expiring
    }

    /// Ends expiring. Returns whether there is more to expire: to be done, or left to a boundary that is sure to come.
    pub(crate) fn end(&self, cells: &impl Cells) -> bool {
        self.state.lock().expiring = false;
        // Whoever found us at it had charged before, and asked under the lock.
        fence(Ordering::SeqCst);
        self.horizon.is_due(cells)
    }

    /// Fires the first timer that is due.
    pub(crate) fn next_due(&self, now_ns: u64) -> Due {
        let mut state = self.state.lock();
        let due = state.timers.as_mut().map_or(Due::Nothing, |timers| timers.next_due(now_ns, now_ns));
        self.refresh(&state);
        due
    }

    /// Fires what supervisors wait for, and tells who is to be woken. Also whether a handler's timer is due that nobody is at.
    pub(crate) fn deliver_remote(&self, now_ns: u64, wakers: &mut Vec<Waker>) -> bool {
        let mut state = self.state.lock();
        let expiring = state.expiring;
        let Some(timers) = state.timers.as_mut() else { return false };
        timers.fire_remote(now_ns, wakers);
        let more = timers.next_expiries().0 <= now_ns;
        self.refresh(&state);
        more && !expiring
    }
}
