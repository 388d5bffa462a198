//! What is known of one source's readiness, and who waits for it.
//!
//! The operating system reports a *change* of readiness once (edge-triggered), so the report is kept until an
//! attempt finds that it no longer holds. Between that attempt and the clearing a newer report may come in, and
//! must survive: each report gives the side a new **epoch**, every attempt remembers the epoch it relied on,
//! and clearing an older epoch does nothing.
//!
//! Reading and writing are two independent *sides* behind one lock, as a report is mostly of both. It is held for a few
//! instructions and never while a waker is cloned, woken or dropped. A report takes all waiters of its side; those
//! who find nothing wait again. There are two kinds of them:
//! * *shared*, behind `poll_read` and `poll_write`: one entry a task, left behind until the next report, because
//!   such a caller cannot tell us that it no longer waits;
//! * *owned*, behind a future of ours: taken out when that future is dropped. The two are kept apart, so that
//!   dropping one does not take away the entry that the other relies on.

use std::io;
use std::mem;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::wakers::Wakers;
use crate::sync::lock;

/// One of the two sides of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What one event says about a source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Nothing more will come: reading does not block from now on.
    pub(super) read_closed: bool,
    /// Nothing more can be sent: writing does not block from now on.
    pub(super) write_closed: bool,
}

impl From<&mio::event::Event> for Report {
    fn from(event: &mio::event::Event) -> Self {
        // An error is fetched by whichever operation comes first, so both sides try.
        let error = event.is_error();
        Self {
            readable: event.is_readable() || error,
            writable: event.is_writable() || error,
            read_closed: event.is_read_closed(),
            write_closed: event.is_write_closed(),
        }
    }
}

/// The epoch that an attempt relies on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed(u64);

/// The place of an owned waiter. Valid until the next report.
#[derive(Debug)]
pub(super) struct Waiting {
    epoch: u64,
    key: usize,
}

#[derive(Debug)]
pub(super) struct Readiness(Mutex<Sides>);

#[derive(Debug)]
struct Sides {
    read: Side,
    write: Side,
}

impl Sides {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

#[derive(Debug, Default)]
struct Side {
    ready: bool,
    closed: bool,
    shut_down: bool,
    epoch: u64,
    shared: Vec<Waker>,
    owned: Slab<Waker>,
}

impl Side {
    fn state(&self) -> Poll<io::Result<Observed>> {
        if self.shut_down {
            Poll::Ready(Err(super::shut_down_error()))
        } else if self.ready || self.closed {
            Poll::Ready(Ok(Observed(self.epoch)))
        } else {
            Poll::Pending
        }
    }

    fn report(&mut self, closed: bool, wakers: &mut Wakers) {
        self.ready = true;
        self.closed |= closed;
        self.release(wakers);
    }

    /// Starts a new epoch and takes all waiters.
    fn release(&mut self, wakers: &mut Wakers) {
        self.epoch += 1;
        wakers.extend(self.shared.drain(..));
        if !self.owned.is_empty() {
            wakers.extend(mem::take(&mut self.owned).into_iter().map(|(_, waker)| waker));
        }
    }

    fn owned(&mut self, waiting: &Waiting) -> Option<&mut Waker> {
        if waiting.epoch == self.epoch { self.owned.get_mut(waiting.key) } else { None }
    }
}

impl Readiness {
    /// With `assumed`, the first attempt is made without waiting for a report.
    pub(super) fn new(assumed: bool) -> Self {
        let side = || Side { ready: assumed, ..Side::default() };
        Self(Mutex::new(Sides { read: side(), write: side() }))
    }

    /// Ready if an attempt is worth making; otherwise the task waits as a shared waiter.
    pub(super) fn poll(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<Observed>> {
        {
            let mut sides = lock(&self.0);
            let side = sides.side(direction);
            let state = side.state();
            if state.is_ready() || side.shared.iter().any(|waker| waker.will_wake(cx.waker())) {
                return state;
            }
        }
        let waker = cx.waker().clone();
        let mut sides = lock(&self.0);
        let side = sides.side(direction);
        let state = side.state();
        if state.is_pending() {
            side.shared.push(waker);
        }
        state
    }

    /// As [`poll`](Self::poll), as an owned waiter, whose place is kept in `waiting`.
    pub(super) fn poll_owned(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        waiting: &mut Option<Waiting>,
    ) -> Poll<io::Result<Observed>> {
        {
            let mut sides = lock(&self.0);
            let side = sides.side(direction);
            let state = side.state();
            let known = waiting.as_ref().and_then(|waiting| side.owned(waiting));
            if state.is_ready() || known.is_some_and(|waker| waker.will_wake(cx.waker())) {
                return state;
            }
        }
        // Declared before the guard, so that what it holds in the end is dropped after it.
        let mut waker = cx.waker().clone();
        let mut sides = lock(&self.0);
        let side = sides.side(direction);
        let state = side.state();
        if state.is_pending() {
            match waiting.as_ref().and_then(|waiting| side.owned(waiting)) {
                Some(held) => mem::swap(held, &mut waker),
                None => {
                    let key = side.owned.insert(waker);
                    *waiting = Some(Waiting { epoch: side.epoch, key });
                }
            }
        }
        state
    }

    /// The owned waiter no longer waits.
    pub(super) fn forget(&self, direction: Direction, waiting: Waiting) {
        let mut sides = lock(&self.0);
        let side = sides.side(direction);
        let waker = (waiting.epoch == side.epoch).then(|| side.owned.try_remove(waiting.key)).flatten();
        drop(sides);
        drop(waker);
    }

    /// An attempt would have blocked: the side is not ready, unless a newer report says so.
    pub(super) fn clear(&self, direction: Direction, observed: Observed) {
        let mut sides = lock(&self.0);
        let side = sides.side(direction);
        if side.epoch == observed.0 {
            side.ready = false;
            side.closed = false;
        }
    }

    /// An attempt got less than it asked for: the next one would block, unless the side is closed.
    pub(super) fn clear_drained(&self, direction: Direction, observed: Observed) {
        let mut sides = lock(&self.0);
        let side = sides.side(direction);
        if side.epoch == observed.0 {
            side.ready = false;
        }
    }

    pub(super) fn report(&self, report: Report, wakers: &mut Wakers) {
        let mut sides = lock(&self.0);
        if report.readable || report.read_closed {
            sides.read.report(report.read_closed, wakers);
        }
        if report.writable || report.write_closed {
            sides.write.report(report.write_closed, wakers);
        }
    }

    /// Every operation fails from now on.
    pub(super) fn shut_down(&self, wakers: &mut Wakers) {
        let mut sides = lock(&self.0);
        for direction in [Direction::Read, Direction::Write] {
            let side = sides.side(direction);
            side.shut_down = true;
            side.release(wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use tokio_test::{assert_pending, assert_ready_ok, task};

    use super::*;

    const READABLE: Report = Report { readable: true, writable: false, read_closed: false, write_closed: false };

    fn report(readiness: &Readiness, report: Report) {
        let mut wakers = Wakers::default();
        readiness.report(report, &mut wakers);
        wakers.wake_all();
    }

    #[test]
    fn a_clear_does_not_erase_a_newer_report() {
        let readiness = Readiness::new(false);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        report(&readiness, READABLE);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        report(&readiness, READABLE);
        readiness.clear(Direction::Read, observed);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        readiness.clear(Direction::Read, observed);
        assert_pending!(readiness.poll(&mut cx, Direction::Read));
    }

    #[test]
    fn a_closed_side_stays_ready_when_it_is_drained() {
        let readiness = Readiness::new(false);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        report(&readiness, Report { read_closed: true, ..READABLE });
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        readiness.clear_drained(Direction::Read, observed);
        assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        assert_pending!(readiness.poll(&mut cx, Direction::Write));
    }

    #[test]
    fn all_waiters_of_a_side_are_woken_and_none_of_the_other() {
        let readiness = Readiness::new(false);
        let wait = |direction| {
            let readiness = &readiness;
            task::spawn(futures::future::poll_fn(move |cx| readiness.poll(cx, direction)))
        };
        let mut readers = [wait(Direction::Read), wait(Direction::Read)];
        let mut writer = wait(Direction::Write);
        for reader in &mut readers {
            assert_pending!(reader.poll());
            assert_pending!(reader.poll());
        }
        assert_pending!(writer.poll());
        assert_eq!(lock(&readiness.0).read.shared.len(), 2);
        report(&readiness, READABLE);
        assert!(readers.iter().all(|reader| reader.is_woken()));
        assert!(!writer.is_woken());
    }

    #[test]
    fn an_owned_waiter_leaves_nothing_behind() {
        let readiness = Readiness::new(false);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut waiting = None;
        assert_pending!(readiness.poll_owned(&mut cx, Direction::Read, &mut waiting));
        assert_pending!(readiness.poll_owned(&mut cx, Direction::Read, &mut waiting));
        assert_eq!(lock(&readiness.0).read.owned.len(), 1);
        readiness.forget(Direction::Read, waiting.take().unwrap());
        assert!(lock(&readiness.0).read.owned.is_empty());
    }

    #[test]
    fn a_place_from_before_a_report_does_not_reach_the_next_waiter() {
        let readiness = Readiness::new(false);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut old = None;
        assert_pending!(readiness.poll_owned(&mut cx, Direction::Read, &mut old));
        report(&readiness, READABLE);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        readiness.clear(Direction::Read, observed);
        let mut new = None;
        assert_pending!(readiness.poll_owned(&mut cx, Direction::Read, &mut new));
        readiness.forget(Direction::Read, old.take().unwrap());
        assert_eq!(lock(&readiness.0).read.owned.len(), 1);
    }
}
