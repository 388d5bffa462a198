//! What is known of one source's readiness, and who waits for it.
//!
//! The operating system reports a *change* of readiness once (edge-triggered), so the report is kept until an
//! attempt finds that it no longer holds. Between that attempt and the clearing a newer report may come in, and
//! must survive: each report gives the side a new **epoch**, every attempt remembers the epoch it relied on,
//! and clearing an older epoch does nothing.
//!
//! Reading and writing are two independent *sides*. What is known of a side is one word: an attempt that is worth making begins with a load,
//! and one that finds nothing ends with an exchange. Who waits is kept behind one lock for both sides, as a report is mostly of both. It is
//! held for a few instructions and never while a waker is cloned, woken or dropped. A report takes all waiters of its side; those
//! who find nothing wait again. There are two kinds of them:
//! * *shared*, behind `poll_read` and `poll_write`: one entry a task, left behind until the next report, because
//!   such a caller cannot tell us that it no longer waits;
//! * *owned*, behind a future of ours: taken out when that future is dropped. The two are kept apart, so that
//!   dropping one does not take away the entry that the other relies on.
//!
//! # No report is missed
//!
//! A report changes the word and takes the waiters under the lock. Who is going to wait looks at the word again under the lock: it comes
//! before the report, and is taken by it, or behind, and sees it. Clearing takes no lock. It changes the word only if that has the epoch
//! that the attempt relied on, in one step, so it is before the next report, which makes the side ready again, or does nothing.

use std::io;
use std::mem;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::wakers::Wakers;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

pub(super) fn shut_down_error() -> io::Error {
    io::Error::other("the runtime that this was created on has shut down")
}

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

/// The flags of a side's word, below the epoch.
const READY: usize = 1;
const CLOSED: usize = 1 << 1;
const SHUT_DOWN: usize = 1 << 2;
const EPOCH: usize = 1 << 3;

const fn epoch(word: usize) -> usize {
    word & !(EPOCH - 1)
}

/// The epoch that an attempt relies on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed(usize);

/// The place of an owned waiter. Valid until the next report.
#[derive(Debug)]
pub(super) struct Waiting {
    epoch: usize,
    key: usize,
}

#[derive(Debug)]
pub(super) struct Readiness {
    read: AtomicUsize,
    write: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    read: Side,
    write: Side,
}

impl Waiters {
    fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// Who waits for one side.
#[derive(Debug, Default)]
struct Side {
    shared: Vec<Waker>,
    owned: Slab<Waker>,
}

impl Side {
    fn take(&mut self, wakers: &mut Wakers) {
        wakers.extend(self.shared.drain(..));
        if !self.owned.is_empty() {
            wakers.extend(mem::take(&mut self.owned).into_iter().map(|(_, waker)| waker));
        }
    }

    /// The waker at this place, if it is still of this epoch.
    fn owned(&mut self, waiting: &Waiting, now: usize) -> Option<&mut Waker> {
        if waiting.epoch == now { self.owned.get_mut(waiting.key) } else { None }
    }
}

impl Readiness {
    /// With `assumed`, the first attempt is made without waiting for a report.
    pub(super) fn new(assumed: bool) -> Self {
        let word = || AtomicUsize::new(if assumed { READY } else { 0 });
        Self { read: word(), write: word(), waiters: Mutex::new(Waiters::default()) }
    }

    fn word(&self, direction: Direction) -> &AtomicUsize {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    fn epoch(&self, direction: Direction) -> usize {
        epoch(self.word(direction).load(Ordering::Acquire))
    }

    fn state(&self, direction: Direction) -> Poll<io::Result<Observed>> {
        let word = self.word(direction).load(Ordering::Acquire);
        if word & SHUT_DOWN != 0 {
            Poll::Ready(Err(shut_down_error()))
        } else if word & (READY | CLOSED) != 0 {
            Poll::Ready(Ok(Observed(epoch(word))))
        } else {
            Poll::Pending
        }
    }

    /// Ready if an attempt is worth making; otherwise the task waits as a shared waiter.
    #[inline]
    pub(super) fn poll(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<Observed>> {
        let state = self.state(direction);
        if state.is_ready() { state } else { self.wait(cx, direction) }
    }

    fn wait(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<Observed>> {
        // Cloned outside the lock, and mostly needed: a report has taken the one before. Declared before the guard, so that it is
        // dropped after it if it is not.
        let waker = cx.waker().clone();
        let mut waiters = lock(&self.waiters);
        let state = self.state(direction);
        let side = waiters.side(direction);
        if state.is_pending() && !side.shared.iter().any(|held| held.will_wake(&waker)) {
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
        let state = self.state(direction);
        if state.is_ready() {
            return state;
        }
        // Declared before the guard, so that what it holds in the end is dropped after it.
        let mut waker = cx.waker().clone();
        let mut waiters = lock(&self.waiters);
        let state = self.state(direction);
        if state.is_pending() {
            let (side, now) = (waiters.side(direction), self.epoch(direction));
            match waiting.as_ref().and_then(|waiting| side.owned(waiting, now)) {
                Some(held) => mem::swap(held, &mut waker),
                None => {
                    let key = side.owned.insert(waker);
                    *waiting = Some(Waiting { epoch: now, key });
                }
            }
        }
        state
    }

    /// The owned waiter no longer waits.
    pub(super) fn forget(&self, direction: Direction, waiting: Waiting) {
        let mut waiters = lock(&self.waiters);
        let side = waiters.side(direction);
        let waker = (waiting.epoch == self.epoch(direction)).then(|| side.owned.try_remove(waiting.key)).flatten();
        drop(waiters);
        drop(waker);
    }

    /// An attempt would have blocked: the side is not ready, unless a newer report says so.
    pub(super) fn clear(&self, direction: Direction, observed: Observed) {
        self.unset(READY | CLOSED, direction, observed);
    }

    /// An attempt got less than it asked for: the next one would block, unless the side is closed.
    pub(super) fn clear_drained(&self, direction: Direction, observed: Observed) {
        self.unset(READY, direction, observed);
    }

    fn unset(&self, flags: usize, direction: Direction, observed: Observed) {
        let cleared = |word| (epoch(word) == observed.0 && word & flags != 0).then_some(word & !flags);
        // It has changed or there was nothing to clear; both are well.
        let _ = self.word(direction).fetch_update(Ordering::AcqRel, Ordering::Acquire, cleared);
    }

    pub(super) fn report(&self, report: Report, wakers: &mut Wakers) {
        let mut waiters = lock(&self.waiters);
        if report.readable || report.read_closed {
            self.begin_epoch(Direction::Read, READY | if report.read_closed { CLOSED } else { 0 });
            waiters.read.take(wakers);
        }
        if report.writable || report.write_closed {
            self.begin_epoch(Direction::Write, READY | if report.write_closed { CLOSED } else { 0 });
            waiters.write.take(wakers);
        }
    }

    /// Every operation fails from now on.
    pub(super) fn shut_down(&self, wakers: &mut Wakers) {
        let mut waiters = lock(&self.waiters);
        for direction in [Direction::Read, Direction::Write] {
            self.begin_epoch(direction, SHUT_DOWN);
            waiters.side(direction).take(wakers);
        }
    }

    /// The lock is held.
    fn begin_epoch(&self, direction: Direction, flags: usize) {
        let newer = |word: usize| Some(word.wrapping_add(EPOCH) | flags);
        let _ = self.word(direction).fetch_update(Ordering::AcqRel, Ordering::Acquire, newer);
    }
}

#[cfg(all(test, not(loom)))]
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
    fn a_closed_side_stays_so_when_more_is_reported_until_an_attempt_would_block() {
        let readiness = Readiness::new(false);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        report(&readiness, Report { read_closed: true, ..Report::default() });
        report(&readiness, READABLE);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        readiness.clear_drained(Direction::Read, observed);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        readiness.clear(Direction::Read, observed);
        assert_pending!(readiness.poll(&mut cx, Direction::Read));
    }

    #[test]
    fn what_is_shut_down_stays_so() {
        let readiness = Readiness::new(true);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let observed = assert_ready_ok!(readiness.poll(&mut cx, Direction::Read));
        let mut wakers = Wakers::default();
        readiness.shut_down(&mut wakers);
        readiness.clear(Direction::Read, observed);
        report(&readiness, Report { read_closed: true, ..READABLE });
        for direction in [Direction::Read, Direction::Write] {
            assert!(matches!(readiness.poll(&mut cx, direction), Poll::Ready(Err(_))));
            assert!(matches!(readiness.poll_owned(&mut cx, direction, &mut None), Poll::Ready(Err(_))));
        }
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
        assert_eq!(lock(&readiness.waiters).read.shared.len(), 2);
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
        assert_eq!(lock(&readiness.waiters).read.owned.len(), 1);
        readiness.forget(Direction::Read, waiting.take().unwrap());
        assert!(lock(&readiness.waiters).read.owned.is_empty());
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
        assert_eq!(lock(&readiness.waiters).read.owned.len(), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use loom::sync::atomic::AtomicBool;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    struct Ring(Notify);

    impl Wake for Ring {
        fn wake(self: StdArc<Self>) {
            self.0.notify();
        }
    }

    /// A source as the kernel has it, what is known of it, and who reports.
    #[derive(Debug)]
    struct World {
        /// How many bytes there are.
        bytes: AtomicUsize,
        closed: AtomicBool,
        readiness: Readiness,
    }

    impl World {
        fn new() -> Arc<Self> {
            let (bytes, closed) = (AtomicUsize::new(0), AtomicBool::new(false));
            Arc::new(Self { bytes, closed, readiness: Readiness::new(false) })
        }

        fn report(&self, report: Report) {
            let mut wakers = Wakers::default();
            self.readiness.report(report, &mut wakers);
            wakers.wake_all();
        }

        /// A byte comes, and then the report.
        fn receive(&self) {
            self.bytes.fetch_add(1, Ordering::Relaxed);
            self.report(Report { readable: true, ..Report::default() });
        }

        fn close(&self) {
            self.closed.store(true, Ordering::Relaxed);
            self.report(Report { read_closed: true, ..Report::default() });
        }

        /// Reads until so many bytes were read, or to the end, as a task does. If a report were missed it would wait for ever, which
        /// loom reports as a deadlock. Says how many they were.
        fn read(&self, wanted: usize, owned: bool) -> usize {
            let ring = StdArc::new(Ring(Notify::new()));
            let waker = Waker::from(ring.clone());
            let mut cx = Context::from_waker(&waker);
            let (mut waiting, mut read) = (None, 0);
            while read < wanted {
                let state = if owned {
                    self.readiness.poll_owned(&mut cx, Direction::Read, &mut waiting)
                } else {
                    self.readiness.poll(&mut cx, Direction::Read)
                };
                let Poll::Ready(observed) = state else {
                    ring.0.wait();
                    continue;
                };
                let observed = observed.unwrap();
                let closed = self.closed.load(Ordering::Relaxed);
                match self.bytes.swap(0, Ordering::Relaxed) {
                    0 if closed => break,
                    0 => self.readiness.clear(Direction::Read, observed),
                    some => {
                        read += some;
                        self.readiness.clear_drained(Direction::Read, observed);
                    }
                }
            }
            if let Some(waiting) = waiting {
                self.readiness.forget(Direction::Read, waiting);
            }
            read
        }
    }

    fn model(f: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(f);
    }

    /// Does it on another thread.
    fn beside<R: 'static>(world: &Arc<World>, act: impl FnOnce(&World) -> R + 'static) -> thread::JoinHandle<R> {
        let world = world.clone();
        thread::spawn(move || act(&world))
    }

    fn receive_and_close(world: &World) {
        world.receive();
        world.close();
    }

    fn no_report_is_missed(owned: bool) {
        model(move || {
            let world = World::new();
            let reporter = beside(&world, |world| {
                world.receive();
                world.receive();
            });
            assert_eq!(world.read(2, owned), 2);
            reporter.join().unwrap();
        });
    }

    #[test]
    fn no_report_is_missed_by_one_who_polls() {
        no_report_is_missed(false);
    }

    #[test]
    fn no_report_is_missed_by_a_future() {
        no_report_is_missed(true);
    }

    #[test]
    fn the_end_is_not_missed() {
        model(|| {
            let world = World::new();
            let reporter = beside(&world, receive_and_close);
            assert_eq!(world.read(2, false), 1);
            reporter.join().unwrap();
        });
    }

    /// What one has found nothing in must not be cleared for the other behind a newer report.
    #[test]
    fn of_two_readers_both_are_served() {
        model(|| {
            let world = World::new();
            let reader = beside(&world, |world| world.read(2, false));
            let reporter = beside(&world, receive_and_close);
            let read = world.read(2, true) + reader.join().unwrap();
            assert_eq!(read, 1);
            reporter.join().unwrap();
        });
    }
}
