//! The wall-time timers that wait.
//!
//! One heap under one lock: a timer is put in when a `Sleep` is polled for the first time and taken out when that
//! is dropped, so those that are never polled (most timeouts) cost nothing, and the lock is held for one heap
//! operation. Re-arming allocates nothing.
//!
//! Invariants:
//! * a timer fires when the clock has reached its deadline, never before, and timers with equal deadlines fire in
//!   the order in which they were armed;
//! * while the driver sleeps, `driver_sleeps_until` is not after the earliest deadline, or a wake is on its way:
//!   arming compares against it under the lock that the driver set it under.

use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use stipend_timers::heap::IndexedHeap;

use super::alarm::Alarm;
use super::wakers::Wakers;
use crate::sync::lock;

/// Timers fired under one lock, so that arming one never waits for thousands.
const BATCH: usize = 256;

/// Nanoseconds since the queue was made, saturating: `u64::MAX`, in 584 years, never comes.
pub(super) type Nanos = u64;

/// A timer's place in its queue, valid until it is removed.
#[derive(Debug)]
pub(crate) struct TimerKey(usize);

#[derive(Debug)]
pub(super) struct Timers {
    origin: Instant,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Deadline, and the order of arming among equal ones.
    due: IndexedHeap<(Nanos, u64)>,
    timers: Slab<Timer>,
    armed: u64,
    /// Zero while the driver is awake: it looks at the heap before it sleeps.
    driver_sleeps_until: Nanos,
    closed: bool,
}

#[derive(Debug)]
struct Timer {
    waker: Option<Waker>,
    fired: bool,
}

impl Queue {
    /// True if the driver would sleep past this deadline.
    fn arm(&mut self, key: usize, deadline: Nanos) -> bool {
        self.armed += 1;
        self.due.push(key as u32, (deadline, self.armed));
        deadline < self.driver_sleeps_until
    }
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn nanos(&self, instant: Instant) -> Nanos {
        let since = instant.saturating_duration_since(self.origin);
        Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(super) fn now(&self) -> Nanos {
        self.nanos(Instant::now())
    }

    pub(super) fn len(&self) -> usize {
        self.queue().timers.len()
    }

    /// Arms a new timer. `None` if the queue is closed. True if the driver must be woken.
    pub(super) fn insert(&self, deadline: Instant, waker: &Waker) -> Option<(TimerKey, bool)> {
        let deadline = self.nanos(deadline);
        let waker = waker.clone();
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            return None;
        }
        let key = queue.timers.insert(Timer { waker: Some(waker), fired: false });
        let must_wake = queue.arm(key, deadline);
        Some((TimerKey(key), must_wake))
    }

    /// Whether the timer has fired. If it has not, `waker` is woken when it does.
    pub(super) fn poll(&self, key: &TimerKey, waker: &Waker) -> bool {
        {
            let queue = self.queue();
            let timer = &queue.timers[key.0];
            let known = timer.waker.as_ref().is_some_and(|held| held.will_wake(waker));
            if timer.fired || known {
                return timer.fired;
            }
        }
        // Declared before the guard, so that what it holds in the end is dropped after it.
        let mut waker = Some(waker.clone());
        let mut queue = self.queue();
        let timer = &mut queue.timers[key.0];
        if !timer.fired {
            mem::swap(&mut timer.waker, &mut waker);
        }
        timer.fired
    }

    /// Arms the timer anew. True if the driver must be woken.
    pub(super) fn reset(&self, key: &TimerKey, deadline: Instant) -> bool {
        let deadline = self.nanos(deadline);
        let mut queue = self.queue();
        if queue.closed {
            return false;
        }
        queue.timers[key.0].fired = false;
        queue.arm(key.0, deadline)
    }

    pub(super) fn remove(&self, key: TimerKey) {
        let mut queue = self.queue();
        queue.due.remove(key.0 as u32);
        let timer = queue.timers.remove(key.0);
        drop(queue);
        drop(timer);
    }

    /// How long the driver may sleep: at most `limit`, and not past the earliest deadline, unless the alarm, which this sets if need be,
    /// ends the sleep by then.
    pub(super) fn before_sleep(&self, limit: Option<Duration>, alarm: &mut Alarm) -> Option<Duration> {
        if limit == Some(Duration::ZERO) {
            // It stays awake.
            return limit;
        }
        let mut queue = self.queue();
        let next = queue.due.peek().map_or(Nanos::MAX, |(&(deadline, _), _)| deadline);
        queue.driver_sleeps_until = next.min(alarm.rings_at());
        drop(queue);
        if next >= alarm.rings_at() {
            return limit;
        }
        let until_next = Duration::from_nanos(next.saturating_sub(self.now()));
        if !until_next.is_zero() && alarm.set(next, until_next) {
            return limit;
        }
        Some(limit.map_or(until_next, |limit| limit.min(until_next)))
    }

    /// Takes the wakers of at most [`BATCH`] timers that are due by now. True if there may be more.
    pub(super) fn fire(&self, now: Nanos, wakers: &mut Wakers) -> bool {
        let mut queue = self.queue();
        queue.driver_sleeps_until = 0;
        for _ in 0..BATCH {
            match queue.due.peek() {
                Some((&(deadline, _), _)) if deadline <= now && deadline != Nanos::MAX => {}
                _ => return false,
            }
            if let Some((_, key)) = queue.due.pop() {
                let timer = &mut queue.timers[key as usize];
                timer.fired = true;
                if let Some(waker) = timer.waker.take() {
                    wakers.push(waker);
                }
            }
        }
        true
    }

    /// Fires every timer, and refuses new ones from now on.
    pub(super) fn close(&self, wakers: &mut Wakers) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.due.clear();
        for (_, timer) in &mut queue.timers {
            timer.fired = true;
            wakers.extend(timer.waker.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use futures::task::noop_waker;

    use super::*;

    #[test]
    fn the_driver_is_woken_only_for_an_earlier_deadline() {
        let timers = Timers::new();
        let waker = noop_waker();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let wakes = |inserted: Option<(TimerKey, bool)>| inserted.unwrap().1;

        assert!(!wakes(timers.insert(at(100), &waker)), "the driver is awake");
        let sleep = timers.before_sleep(None, &mut Alarm::none()).unwrap();
        assert!(sleep <= Duration::from_secs(100) && sleep > Duration::from_secs(50));
        assert!(!wakes(timers.insert(at(200), &waker)));
        assert!(wakes(timers.insert(at(50), &waker)));
        timers.fire(timers.now(), &mut Wakers::default());
        assert!(!wakes(timers.insert(at(10), &waker)), "the driver is awake");
    }

    #[test]
    fn without_timers_any_deadline_wakes_the_driver() {
        let timers = Timers::new();
        assert_eq!(timers.before_sleep(None, &mut Alarm::none()), None);
        let deadline = Instant::now() + Duration::from_secs(1_000_000);
        assert!(timers.insert(deadline, &noop_waker()).unwrap().1);
    }

    #[test]
    fn a_limit_bounds_the_sleep_and_not_the_timers() {
        let timers = Timers::new();
        let limit = Duration::from_secs(1);
        assert_eq!(timers.before_sleep(Some(limit), &mut Alarm::none()), Some(limit));
        timers.insert(Instant::now() + Duration::from_secs(100), &noop_waker());
        assert_eq!(timers.before_sleep(Some(limit), &mut Alarm::none()), Some(limit));
    }

    #[test]
    fn due_timers_fire_in_batches_and_none_is_lost() {
        let timers = Timers::new();
        for _ in 0..2 * BATCH + 1 {
            timers.insert(Instant::now(), &noop_waker());
        }
        let mut wakers = Wakers::default();
        assert!(timers.fire(timers.now(), &mut wakers));
        assert_eq!(wakers.len(), BATCH);
        assert!(timers.fire(timers.now(), &mut wakers));
        assert!(!timers.fire(timers.now(), &mut wakers));
        assert_eq!(wakers.len(), 2 * BATCH + 1);
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_arming() {
        struct Log(u32, Arc<Mutex<Vec<u32>>>);
        impl Wake for Log {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap().push(self.0);
            }
        }
        let timers = Timers::new();
        let log = Arc::default();
        let deadline = Instant::now();
        let mut keys: Vec<_> = (0..50)
            .map(|number| {
                let waker = Waker::from(Arc::new(Log(number, Arc::clone(&log))));
                timers.insert(deadline, &waker).unwrap().0
            })
            .collect();
        timers.reset(&keys[7], deadline);
        timers.remove(keys.remove(3));
        let mut wakers = Wakers::default();
        timers.fire(timers.now(), &mut wakers);
        wakers.wake_all();
        let expected: Vec<_> = (0..50).filter(|n| ![3, 7].contains(n)).chain([7]).collect();
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn closing_fires_what_waits_and_refuses_more() {
        let timers = Timers::new();
        let waker = noop_waker();
        let later = Instant::now() + Duration::from_secs(1000);
        let (key, _) = timers.insert(later, &waker).unwrap();
        assert!(!timers.poll(&key, &waker));
        let mut wakers = Wakers::default();
        timers.close(&mut wakers);
        assert_eq!(wakers.len(), 1);
        assert!(timers.poll(&key, &waker));
        assert!(timers.insert(later, &waker).is_none());
        timers.remove(key);
        assert_eq!(timers.len(), 0);
    }
}
