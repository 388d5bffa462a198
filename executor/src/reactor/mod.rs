//! What tasks wait for outside the process: sockets, signals, wall time.
//!
//! The reactor has two halves. [`Reactor`] is shared: sources and timers are registered with it from any thread.
//! [`Driver`] is exclusive: whichever worker has nothing better to do runs a [`turn`](Driver::turn) of it, which
//! sleeps in the kernel until something happens and then wakes the tasks that waited for it.
//!
//! ```text
//!   Io, Sleep ----> Reactor { sources, timers, gate } <---- Driver { mio::Poll, alarm }
//!        \                                                      |
//!         +--- waker, kept with the source or timer ----> woken at the end of a turn
//! ```
//!
//! Invariants:
//! * No wake is lost: whatever [`Reactor::wake`] or an earlier timer has to tell ends the turn in progress, or the
//!   next one (see [`gate`]).
//! * No lock is held while a waker is cloned, woken or dropped, and a waker that panics harms nobody else.
//! * After [`shutdown`](Reactor::shutdown) nothing waits any more: operations fail and timers fire.

mod alarm;
mod gate;
mod io;
mod readiness;
mod sources;
mod timers;
mod wakers;

use std::fmt;
use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Events, Interest, Poll, Registry, Token};

use self::alarm::Alarm;
use self::gate::Gate;
use self::readiness::{Readiness, Report};
use self::sources::Sources;
use self::timers::Timers;
use self::wakers::Wakers;

pub(crate) use self::io::{Initially, Io};
pub(crate) use self::readiness::Direction;
pub(crate) use self::timers::TimerKey;

/// Events fetched by one turn. What is over comes with the next.
const EVENTS: usize = 1024;

/// The shared half: where sources and timers are registered.
pub(crate) struct Reactor {
    registry: Registry,
    waker: mio::Waker,
    gate: Gate,
    sources: Sources,
    timers: Timers,
}

impl Reactor {
    /// A reactor and the driver that turns it.
    pub(crate) fn new() -> Result<(Arc<Self>, Driver)> {
        let poll = Poll::new()?;
        let reactor = Arc::new(Self {
            registry: poll.registry().try_clone()?,
            waker: mio::Waker::new(poll.registry(), sources::WAKE)?,
            gate: Gate::new(),
            sources: Sources::default(),
            timers: Timers::new(),
        });
        let driver = Driver {
            alarm: Alarm::new(poll.registry()),
            poll,
            events: Events::with_capacity(EVENTS),
            wakers: Wakers::default(),
            reactor: reactor.clone(),
        };
        Ok((reactor, driver))
    }

    /// Ends the turn in progress, or the next one. A system call at most once for each time the driver sleeps.
    pub(crate) fn wake(&self) {
        if self.gate.notify() {
            // Writing to an eventfd or a pipe of our own fails only if it is full, and then the driver wakes.
            let _ = self.waker.wake();
        }
    }

    /// Fails all pending and later operations, and fires all timers.
    pub(crate) fn shutdown(&self) {
        let mut wakers = Wakers::default();
        self.sources.close(&mut wakers);
        self.timers.close(&mut wakers);
        wakers.wake_all();
        self.wake();
    }

    fn register(&self, source: &mut impl Source, interest: Interest, readiness: Arc<Readiness>) -> Result<Token> {
        let token = self.sources.insert(readiness)?;
        self.registry.register(source, token, interest).inspect_err(|_| self.sources.remove(token))?;
        Ok(token)
    }

    fn deregister(&self, source: &mut impl Source, token: Token) -> Result<()> {
        let result = self.registry.deregister(source);
        self.sources.remove(token);
        result
    }

    /// Arms a timer. `None` after the shutdown, when there is nothing to wait for.
    pub(crate) fn insert_timer(&self, deadline: Instant, waker: &Waker) -> Option<TimerKey> {
        let (key, must_wake) = self.timers.insert(deadline, waker)?;
        if must_wake {
            self.wake();
        }
        Some(key)
    }

    /// Whether the timer has fired. If it has not, `waker` is woken when it does.
    pub(crate) fn poll_timer(&self, key: &TimerKey, waker: &Waker) -> bool {
        self.timers.poll(key, waker)
    }

    pub(crate) fn reset_timer(&self, key: &TimerKey, deadline: Instant) {
        if self.timers.reset(key, deadline) {
            self.wake();
        }
    }

    pub(crate) fn remove_timer(&self, key: TimerKey) {
        self.timers.remove(key);
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("sources", &self.sources.len())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}

/// The exclusive half: sleeps in the kernel and wakes tasks. Dropping it shuts the reactor down, as nothing would
/// ever wake those who wait.
pub(crate) struct Driver {
    poll: Poll,
    alarm: Alarm,
    events: Events,
    wakers: Wakers,
    reactor: Arc<Reactor>,
}

impl Driver {
    /// Waits for an event, a timer or a [`wake`](Reactor::wake), for `timeout` at most, and wakes the tasks
    /// concerned. May also return without any of these (after a signal, for example). With a timeout of zero
    /// it does not wait.
    ///
    /// # Errors
    ///
    /// What the system call that waits says, other than that it was interrupted. Due timers fire even then.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        let reactor = &*self.reactor;
        let mut timeout = reactor.timers.before_sleep(timeout, &mut self.alarm);
        if timeout != Some(Duration::ZERO) && !reactor.gate.try_sleep() {
            timeout = Some(Duration::ZERO);
        }
        let polled = match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled,
        };
        reactor.gate.awake();

        if polled.is_ok() {
            let events = self.events.iter().filter(|event| !matches!(event.token(), sources::WAKE | sources::ALARM));
            let reports = events.map(|event| (event.token(), Report::from(event)));
            reactor.sources.report(reports, &mut self.wakers);
        }
        let now = reactor.timers.now();
        self.alarm.is_over_by(now);
        while reactor.timers.fire(now, &mut self.wakers) {
            self.wakers.wake_all();
        }
        self.wakers.wake_all();
        polled
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.reactor.shutdown();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
