//! The timers of one clock: a slab of timers and two queues ordered by expiry, all under the clock's lock.
//!
//! Timers with a handler wait in one queue, which only the boundary serves, since a handler runs on the account's own thread
//! and time. Timers that a supervisor waits for stand in the other, which the service thread serves as well, since they must be
//! delivered although a poll does not end.
//!
//! No user code runs in here: [`TimerSet::next_due`] hands a handler out, the boundary runs it without the lock, and
//! [`TimerSet::delivered`] puts it back. What is dropped comes out as a value, for the caller to drop outside the lock; wakers
//! are cloned before it is taken.
//!
//! # Invariants
//! * A timer stands in its queue exactly while it is armed. A periodic one that fires is armed again for the next point of its
//!   grid strictly after now *before* its handler runs, by one division and not by a loop over the intervals missed.
//! * Equal expiries leave in the order in which they were armed.
//! * While a handler is out, its timer is `firing`; a timer closed meanwhile goes away in `delivered`, and its handler with it.

use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use self::restarting::Restarting;
use self::timer::Timer;
use crate::heap::{IndexedHeap, growth};
use crate::poll_timers::PollTimers;
use crate::record::NEVER;

mod now;
mod restarting;
mod timer;

pub use self::timer::{Action, Expiry, Setting};
pub(crate) use self::{
    now::Now,
    timer::{Delivery, Handler},
};

/// With how many timers on a clock, armed or not, no further one is made. What is counted is the timers that exist, so that arming one,
/// also by a handler's answer, is never refused for want of room. Sleeps count, but are never refused: with them there may be more.
pub(crate) const MAX_TIMERS: usize = 100_000;

/// The next thing to do in a pass.
pub(crate) enum Due {
    /// Nothing is due.
    Nothing,
    /// Run this handler, then call `delivered`.
    Run { id: u32, stamp: u64, handler: Handler, expiry: Expiry },
    /// Wake this supervisor.
    Wake(Waker),
    /// A timer expired of which nobody needs to hear now.
    Quiet,
}

/// What closing a timer came to.
pub(crate) enum Closed {
    /// It is gone; what it held is to be dropped outside the lock.
    Done(Delivery),
    /// Its handler is out; it goes when that returns.
    Firing { stamp: u64 },
}

/// The order of a queue: expiry, then arming.
type Key = (u64, u64);

#[derive(Default)]
pub(crate) struct TimerSet {
    timers: Slab<Timer>,
    local: IndexedHeap<Key>,
    remote: IndexedHeap<Key>,
    armed: u64,
    /// The soft limit is a timer like any other; its id.
    pub(crate) soft: Option<u32>,
    /// For a clock that starts anew again and again.
    restarting: Option<Box<Restarting>>,
    /// The wakers of those who wait, in `close`, for a handler that is out. There is one for a timer: closing consumes the handle.
    barriers: Vec<(u32, Waker)>,
}

/// The timers on the clocks of one account.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// On that of the task.
    pub(crate) task: TimerSet,
    /// On that of its poll in progress. In a box, as few have any.
    pub(crate) poll: Option<Box<PollTimers>>,
}

impl Timers {
    /// Everyone who waits for one of them: for the end of the account.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waker> {
        let mut waiters = self.task.take_waiters();
        waiters.extend(self.poll.iter_mut().flat_map(|poll| poll.set.take_waiters()));
        waiters
    }
}

impl std::fmt::Debug for TimerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerSet").field("timers", &self.timers.len()).finish_non_exhaustive()
    }
}

impl TimerSet {
    /// A new timer, disarmed.
    pub(crate) fn insert(&mut self, delivery: Delivery) -> u32 {
        self.armed += 1;
        let timer = Timer {
            stamp: self.armed,
            at_ns: NEVER,
            interval_ns: 0,
            overrun: 0,
            firing: false,
            closing: false,
            has_fired: false,
            is_news: false,
            delivery,
        };
        if self.timers.len() == self.timers.capacity() {
            // Not doubled: a timer is large.
            self.timers.reserve_exact(growth(self.timers.len()));
        }
        let id = u32::try_from(self.timers.insert(timer)).expect("fewer than 2^32 timers fit into memory");
        if let Some(restarting) = &mut self.restarting {
            // Not what the one before was that had this id.
            restarting.arm(id, NEVER);
        }
        id
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Whether there is no room for another one.
    pub(crate) fn is_full(&self) -> bool {
        self.timers.len() >= MAX_TIMERS
    }

    fn timer(&mut self, id: u32) -> &mut Timer {
        // Ids are handed out by `insert` and given back once, by the handle's close.
        &mut self.timers[id as usize]
    }

    fn queue_of(&mut self, id: u32) -> Option<&mut IndexedHeap<Key>> {
        match self.timers[id as usize].delivery {
            Delivery::Handler(_) => Some(&mut self.local),
            Delivery::Supervisor { .. } | Delivery::Stream(_) => Some(&mut self.remote),
            Delivery::Silent => None,
        }
    }

    /// Arms for `at_ns`, then every `interval_ns` (0: once), and returns the setting before, as of `now`. An expiry that was
    /// not delivered yet is forgotten.
    pub(crate) fn arm<'a>(&mut self, id: u32, at_ns: u64, interval_ns: u64, now: impl Into<Now<'a>>) -> Setting {
        let before = self.setting(id, now);
        // `NEVER` itself means disarmed.
        let at_ns = at_ns.min(NEVER - 1);
        self.armed += 1;
        let stamp = self.armed;
        let key = (at_ns, stamp);
        let timer = self.timer(id);
        timer.stamp = stamp;
        timer.at_ns = at_ns;
        timer.has_fired = false;
        timer.interval_ns = interval_ns;
        timer.overrun = 0;
        timer.forget();
        let timer = &mut self.timers[id as usize];
        let held_back = self.restarting.as_mut().is_some_and(|restarting| {
            restarting.arm(id, at_ns);
            if restarting.held_back {
                restarting.list(id, &timer.delivery);
            }
            restarting.held_back
        });
        if held_back {
            timer.at_ns = NEVER;
            timer.has_fired = true;
        }
        if let Some(queue) = self.queue_of(id) {
            if held_back {
                queue.remove(id);
            } else {
                queue.push(id, key);
            }
        }
        before
    }

    /// Disarms; the interval then reads zero.
    pub(crate) fn disarm<'a>(&mut self, id: u32, now: impl Into<Now<'a>>) -> Setting {
        let before = self.setting(id, now);
        if let Some(queue) = self.queue_of(id) {
            queue.remove(id);
        }
        self.armed += 1;
        let stamp = self.armed;
        let timer = self.timer(id);
        timer.stamp = stamp;
        timer.at_ns = NEVER;
        timer.has_fired = false;
        timer.interval_ns = 0;
        timer.overrun = 0;
        timer.forget();
        if let Some(restarting) = &mut self.restarting {
            restarting.arm(id, NEVER);
        }
        before
    }

    /// Time left and interval, as of `now`.
    pub(crate) fn setting<'a>(&self, id: u32, now: impl Into<Now<'a>>) -> Setting {
        let timer = &self.timers[id as usize];
        let interval = Duration::from_nanos(timer.interval_ns);
        let at_ns = self.held_back().map_or(timer.at_ns, |restarting| restarting.armed_ns(id));
        if at_ns == NEVER && timer.interval_ns == 0 {
            return Setting::default();
        }
        let now_ns = now.into().ns();
        let remaining_ns = if now_ns < at_ns {
            at_ns - now_ns
        } else if timer.interval_ns > 0 {
            // Expired and not delivered (or silent): what counts is the next point of the grid, strictly after now.
            next_on_grid(at_ns, timer.interval_ns, now_ns).0 - now_ns
        } else if matches!(timer.delivery, Delivery::Silent) {
            0
        } else {
            1
        };
        Setting { remaining: Duration::from_nanos(remaining_ns), interval }
    }

    /// The overrun count of the last delivery.
    pub(crate) fn overrun(&self, id: u32) -> u32 {
        self.timers[id as usize].overrun
    }

    /// The earliest expiry of all, and of those that a supervisor waits for.
    pub(crate) fn next_expiries(&self) -> (u64, u64) {
        let first = |queue: &IndexedHeap<Key>| queue.peek().map_or(NEVER, |((at, _), _)| *at);
        let remote = first(&self.remote);
        (first(&self.local).min(remote), remote)
    }

    /// Fires the first timer of either queue whose expiry is at or before `until_ns`. `now_ns` is the use now.
    pub(crate) fn next_due(&mut self, until_ns: u64, now_ns: u64) -> Due {
        let local = self.local.peek().map(|(key, id)| (*key, id));
        let remote = self.remote.peek().map(|(key, id)| (*key, id));
        let (key, id) = match (local, remote) {
            (Some(local), Some(remote)) => local.min(remote),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Due::Nothing,
        };
        if key.0 > until_ns { Due::Nothing } else { self.fire(id, now_ns) }
    }

    /// The same for supervisors' timers only: what the service thread delivers while a poll goes on.
    fn next_remote_due(&mut self, now_ns: u64) -> Due {
        match self.remote.peek().map(|((at, _), id)| (*at, id)) {
            Some((at, id)) if at <= now_ns => self.fire(id, now_ns),
            _ => Due::Nothing,
        }
    }

    /// The same for all of them, and who is to be woken.
    pub(crate) fn fire_remote(&mut self, now_ns: u64, wakers: &mut Vec<Waker>) {
        loop {
            match self.next_remote_due(now_ns) {
                Due::Nothing => return,
                Due::Wake(waker) => wakers.push(waker),
                Due::Quiet | Due::Run { .. } => {}
            }
        }
    }

    fn fire(&mut self, id: u32, now_ns: u64) -> Due {
        self.armed += 1;
        let order = self.armed;
        let timer = &mut self.timers[id as usize];
        if let Some(restarting) = &mut self.restarting {
            timer.has_fired = true;
            restarting.list(id, &timer.delivery);
        }
        let at_ns = timer.at_ns;
        let missed = if timer.interval_ns > 0 {
            let (next, missed) = next_on_grid(at_ns, timer.interval_ns, now_ns);
            timer.at_ns = next;
            missed
        } else {
            timer.at_ns = NEVER;
            0
        };
        let overrun = u32::try_from(missed).unwrap_or(u32::MAX);
        let next_ns = timer.at_ns;
        let expiry = Expiry { used: Duration::from_nanos(now_ns), at: Duration::from_nanos(at_ns), overrun };
        // A stream's expiry is delivered when it is taken out; the overrun count is the last delivery's until then.
        if !matches!(timer.delivery, Delivery::Stream(_)) {
            timer.overrun = overrun;
        }
        let due = match &mut timer.delivery {
            Delivery::Handler(handler) => match handler.take() {
                Some(handler) => {
                    timer.firing = true;
                    Due::Run { id, stamp: timer.stamp, handler, expiry }
                }
                // A soft limit that nobody set a handler for.
                None => Due::Quiet,
            },
            Delivery::Supervisor { waker } => {
                timer.is_news = true;
                waker.take().map_or(Due::Quiet, Due::Wake)
            }
            Delivery::Stream(ear) => {
                ear.inbox.add(expiry);
                ear.waker.take().map_or(Due::Quiet, Due::Wake)
            }
            Delivery::Silent => Due::Quiet,
        };
        if let Some(queue) = self.queue_of(id) {
            if next_ns == NEVER {
                queue.remove(id);
            } else {
                queue.update(id, (next_ns, order));
            }
        }
        due
    }

    /// Puts a handler back after it ran. Returns it if the timer was closed meanwhile, and who waits for that.
    pub(crate) fn delivered(
        &mut self,
        id: u32,
        stamp: u64,
        back: Handler,
        answer: Action,
        now_ns: u64,
    ) -> (Option<Handler>, Vec<Waker>) {
        let timer = self.timer(id);
        timer.firing = false;
        if timer.closing {
            let _closed = self.timers.remove(id as usize);
            return (Some(back), self.barriers.extract_if(.., |(of, _)| *of == id).map(|(_, waker)| waker).collect());
        }
        let replaced = match &mut timer.delivery {
            // The handler set another one for the next time.
            Delivery::Handler(Some(_)) => Some(back),
            delivery => {
                *delivery = Delivery::Handler(Some(back));
                None
            }
        };
        if let Action::RearmAfter(after) = answer
            && !after.is_zero()
            && timer.stamp == stamp
        {
            let interval_ns = timer.interval_ns;
            self.arm(id, now_ns.saturating_add(crate::units::nanos(after)), interval_ns, now_ns);
        }
        (replaced, Vec::new())
    }

    /// Sets the handler of a timer and returns the one before, to be dropped outside the lock.
    pub(crate) fn set_handler(&mut self, id: u32, handler: Handler) -> Option<Handler> {
        match &mut self.timer(id).delivery {
            Delivery::Handler(slot) => slot.replace(handler),
            Delivery::Supervisor { .. } | Delivery::Stream(_) | Delivery::Silent => Some(handler),
        }
    }

    /// Closes a timer: after this its handler does not start.
    pub(crate) fn close(&mut self, id: u32) -> Closed {
        if let Some(queue) = self.queue_of(id) {
            queue.remove(id);
        }
        let timer = self.timer(id);
        if timer.firing {
            timer.closing = true;
            timer.at_ns = NEVER;
            timer.has_fired = false;
            Closed::Firing { stamp: timer.stamp }
        } else {
            Closed::Done(self.timers.remove(id as usize).delivery)
        }
    }

    /// Whether a closed timer's handler still runs; if so `waker` is woken when it has ended, and the one before comes out in its
    /// place.
    pub(crate) fn wait_closed(&mut self, id: u32, stamp: u64, waker: &mut Option<Waker>) -> bool {
        match self.timers.get_mut(id as usize) {
            Some(timer) if timer.stamp == stamp => {
                let before = self.barriers.iter().position(|(of, _)| *of == id);
                let before = before.map(|place| self.barriers.swap_remove(place).1);
                self.barriers.extend(waker.take().map(|waker| (id, waker)));
                *waker = before;
                true
            }
            _ => false,
        }
    }

    /// Asks a supervisor's timer: `true` if it has fired; otherwise `waker` is woken when it does, and the one before comes out
    /// in its place.
    pub(crate) fn poll_fired(&mut self, id: u32, waker: &mut Option<Waker>) -> bool {
        let timer = self.timer(id);
        if !timer.is_news
            && let Delivery::Supervisor { waker: slot } = &mut timer.delivery
        {
            std::mem::swap(slot, waker);
        }
        timer.is_news
    }

    /// Takes what a stream's timer has fired, also if nobody has found it yet that it is due at `now_ns`. Otherwise `waker` is woken
    /// when it fires, and the one before comes out in its place.
    pub(crate) fn poll_stream(&mut self, id: u32, now_ns: u64, waker: &mut Option<Waker>) -> Option<Expiry> {
        // A periodic one whose grid has run out of numbers is armed for `NEVER`.
        if self.timer(id).at_ns <= now_ns.min(NEVER - 1) {
            // Whose waker this would be is here now; it is dropped outside the lock.
            if let Due::Wake(before) = self.fire(id, now_ns) {
                *waker = Some(before);
            }
        }
        let timer = self.timer(id);
        let Delivery::Stream(ear) = &mut timer.delivery else {
            return None;
        };
        match ear.inbox.take() {
            Some(expiry) => {
                timer.overrun = expiry.overrun;
                Some(expiry)
            }
            None => {
                std::mem::swap(&mut ear.waker, waker);
                None
            }
        }
    }

    /// Everyone who waits for a timer of this set: for the end of the account.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waker> {
        let mut waiters: Vec<Waker> = self.barriers.drain(..).map(|(_, waker)| waker).collect();
        for (_, timer) in &mut self.timers {
            match &mut timer.delivery {
                Delivery::Supervisor { waker } => waiters.extend(waker.take()),
                Delivery::Stream(ear) => waiters.extend(ear.waker.take()),
                Delivery::Handler(_) | Delivery::Silent => {}
            }
        }
        waiters
    }
}

/// The first point of the grid `at + k * interval` strictly after `now`, and how many points from `at` on it leaves behind,
/// `at` itself not counted. `now` is not before `at`. Saturates to [`NEVER`].
fn next_on_grid(at_ns: u64, interval_ns: u64, now_ns: u64) -> (u64, u64) {
    let missed = (now_ns - at_ns) / interval_ns;
    let next = u128::from(at_ns) + (u128::from(missed) + 1) * u128::from(interval_ns);
    (u64::try_from(next).unwrap_or(NEVER), missed)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_56_bytes_and_an_account_s_first_brings_two_hundred_more() {
        assert_eq!(size_of::<Timer>(), 56);
        assert_eq!(size_of::<Timers>(), 240);
    }

    #[test]
    fn t45_the_grid_is_kept_strictly_after_now_without_a_loop() {
        assert_eq!(next_on_grid(10, 10, 105), (110, 9));
        assert_eq!(next_on_grid(10, 10, 110), (120, 10));
        assert_eq!(next_on_grid(10, 10, 10), (20, 0));
        assert_eq!(next_on_grid(1, 1, u64::MAX - 1), (u64::MAX, u64::MAX - 2));
        assert_eq!(next_on_grid(10, u64::MAX / 2, u64::MAX - 1).0, NEVER);
    }

    #[test]
    fn t41_the_overrun_count_saturates() {
        let mut set = TimerSet::default();
        let id = set.insert(Delivery::Handler(Some(Box::new(|_| Action::Continue))));
        set.arm(id, 1, 1, 0);
        let now = u64::from(u32::MAX) + 10;
        match set.next_due(now, now) {
            Due::Run { expiry, .. } => assert_eq!(expiry.overrun, u32::MAX),
            _ => panic!("the timer was due"),
        }
    }
}
