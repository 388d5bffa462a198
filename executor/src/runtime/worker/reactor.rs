//! The worker and the reactor: looking at it under load, and sleeping in it.

use std::sync::{MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::cohort::CROWD;
use super::{Turn, Worker};
use crate::reactor::Driver;
use crate::runtime::shared::Shared;
use crate::scheduler::idle::Place;
use crate::task::contain;

impl<'a> Worker<'a> {
    /// Between tasks. It is the runtime's time.
    pub(super) fn look_at_reactor(&mut self) {
        self.turn_without_waiting();
        let before = self.at;
        self.at = self.lease.charge_runtime(before);
        self.turned_at = self.at;
        self.turn.leave_out(before, self.at);
    }

    fn turn_without_waiting(&mut self) {
        // If another holds the driver, it is being turned.
        if let Some(mut driver) = try_driver(self.shared) {
            self.counters().reactor_checks.add_one();
            self.turn(&mut driver, Some(Duration::ZERO));
            drop(driver);
            self.offer_reactor();
        }
    }

    /// This worker has given the reactor up.
    fn offer_reactor(&self) {
        if let Some(sleeper) = self.shared.idle.worker_for_reactor() {
            self.shared.peers[sleeper].parker.notify();
        }
    }

    fn turn(&self, driver: &mut Driver, timeout: Option<Duration>) {
        self.local.turning.set(true);
        self.local.crowded.set(self.local.lanes.is_crowded(CROWD));
        // It wakes, and a waker may be anybody's. An error of the poll itself leaves nothing that a worker could do
        // better than to go on and come back.
        contain(|| driver.turn(timeout));
        self.local.turning.set(false);
    }

    /// Waits until there may be something to do: in the reactor if nobody else does. Not at all if `must_not` says so once the worker
    /// counts as asleep.
    pub(in crate::runtime) fn sleep(&mut self, must_not: impl Fn() -> bool) {
        self.end_turn();
        self.local.lanes.suspend();
        let mut driver = None;
        let ended = self.stand_aside(&must_not).unwrap_or_else(|| {
            driver = try_driver(self.shared);
            self.wait(&mut driver, must_not)
        });
        let offers = driver.is_some();
        drop(driver);
        let since = self.at;
        self.at = self.lease.charge_runtime(since);
        self.turn = Turn::begin(self.at);
        self.local.lanes.resume();
        match ended {
            Ended::Awake => self.turned_at = self.at,
            Ended::Asleep(Place::Reactor) => {
                self.turned_at = self.at;
                self.linger.slept(self.at.nanos_since(since));
            }
            Ended::AtOnce if offers => self.offer_reactor(),
            Ended::AtOnce | Ended::Asleep(Place::Parker) => {}
        }
    }

    /// Lets others have the processor if that is due (see [`aside`](super::aside)), and looks at the reactor afterwards. Does not say how
    /// it ended if there is nothing to do.
    fn stand_aside(&mut self, must_not: impl Fn() -> bool) -> Option<Ended> {
        let mut aside = self.local.aside.get();
        if !aside.is_due(Instant::now) {
            return None;
        }
        let at_once = self.leave_search() || must_not();
        self.offer_reactor();
        if at_once {
            return Some(Ended::AtOnce);
        }
        let began = Instant::now();
        std::thread::yield_now();
        aside.stood(began, Instant::now(), self.shared.injector.len());
        self.local.aside.set(aside);
        self.turn_without_waiting();
        (self.shared.has_work() || must_not()).then_some(Ended::Awake)
    }

    /// Does not count among the searching any more: nobody is called while one searches, and what comes next may take long. True: there
    /// is something to do.
    fn leave_search(&mut self) -> bool {
        let was_last = std::mem::take(&mut self.searching) && self.shared.idle.leave_search();
        was_last && self.shared.has_work()
    }

    fn wait(&mut self, driver: &mut Option<MutexGuard<'a, Driver>>, must_not: impl Fn() -> bool) -> Ended {
        if let Some(driver) = driver
            && !must_not()
        {
            let limit = self.linger.limit();
            if !limit.is_zero() {
                // A turn of the reactor runs wakers.
                if self.leave_search() {
                    return Ended::AtOnce;
                }
                if self.linger(driver, limit, &must_not) {
                    return Ended::Awake;
                }
            }
        }
        self.sleep_with(driver, must_not).map_or(Ended::AtOnce, Ended::Asleep)
    }

    /// Counts itself asleep, and sleeps if there is nothing to do. Says where it has slept.
    fn sleep_with(
        &mut self,
        driver: &mut Option<MutexGuard<'a, Driver>>,
        must_not: impl Fn() -> bool,
    ) -> Option<Place> {
        let place = if driver.is_some() { Place::Reactor } else { Place::Parker };
        let mut woken = false;
        self.shared.idle.sleep(self.local.index, std::mem::take(&mut self.searching), place);
        if driver.is_none() {
            // Whoever had the reactor may have given it up just now: see `Idle::worker_for_reactor`.
            *driver = try_driver(self.shared);
            woken = driver.is_some() && !self.shared.idle.move_to_reactor(self.local.index);
        }
        // The look at every queue that `Idle` asks for. A notification that was sent meanwhile is not waited for: it
        // stays with the parker or the reactor, and makes the next sleep there a short one.
        let mut slept = None;
        if !woken && !self.shared.should_stop() && !must_not() && !self.shared.has_work() {
            self.counters().parks.add_one();
            self.lease.set_idle();
            let began = Instant::now();
            let place = match driver {
                Some(driver) => {
                    self.turn(driver, None);
                    Place::Reactor
                }
                None => {
                    self.peer.parker.park();
                    Place::Parker
                }
            };
            slept = Some((place, began.elapsed()));
            self.lease.set_active();
        }
        // Whoever called us has counted us among the searching.
        self.searching = !self.shared.idle.wake_up(self.local.index);
        let (place, time) = slept?;
        let mut aside = self.local.aside.get();
        aside.slept(time, self.searching);
        self.local.aside.set(aside);
        Some(place)
    }

    /// Looks on for so long (see [`linger`](super::linger)). True: there is something to do.
    fn linger(&mut self, driver: &mut Driver, limit: Duration, must_not: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        // When the last look began: what it finds has come by then, and what it does about that is not waiting.
        let mut waited = Duration::ZERO;
        let (has_event, has_work) = loop {
            self.counters().reactor_checks.add_one();
            self.turn(driver, Some(Duration::ZERO));
            if !self.local.lanes.is_empty() || must_not() {
                break (true, true);
            }
            // What comes from outside is taken, but not waited for: it is better taken by batches, and its sender undisturbed.
            let is_injected = !self.shared.injector.is_empty();
            waited = began.elapsed();
            if is_injected || waited >= limit {
                break (false, is_injected);
            }
            // Not by the reactor's doing.
            if must_not() {
                break (false, true);
            }
        };
        self.at = self.lease.charge_runtime(self.at);
        self.linger.lingered(has_event.then_some(waited));
        has_work
    }
}

/// How a worker's wait has ended.
enum Ended {
    /// There was something to do before it began, or it must not: it need not have looked at the reactor.
    AtOnce,
    /// While it looked on, or when it had stood aside: it has looked at the reactor.
    Awake,
    Asleep(Place),
}

/// The driver, if nobody has it.
fn try_driver(shared: &Shared) -> Option<MutexGuard<'_, Driver>> {
    match shared.driver.try_lock() {
        Ok(driver) => Some(driver),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
