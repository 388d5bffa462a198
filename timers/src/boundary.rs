//! The poll boundary: one run of an account on a thread, from `begin` to `end`.
//!
//! ```text
//!   begin ──> before_poll ──> Future::poll ──> after_poll ──┬─> end                      (Pending)
//!   show        apply what      [the tick       stamp       └─> section ─> drop, wake ─> end_now
//!   the slot    is posted        looks]         charge                                   (Ready, Cancel)
//!                                               quick check
//!                                               handlers
//! ```
//! Of a task that has returned `Ready` and that nobody waits for, [`complete`](Run::complete) is `after_poll` and `end_now` in one.
//!
//! The fast path of a poll in which nothing expires: `begin` stores a frame, `before_poll` loads the wake queue word,
//! `after_poll` reads the clock, adds to the account and compares use with the next expiry. A member of a group adds to the group's cell
//! of this thread, too, and compares with that cell's watch. (It is `inline(always)`: as calls, the
//! same instructions took 14.4 ns a poll instead of 11.2, a tenth above the bare counter's.) No lock, no system call beyond the
//! clock's, no write to a line that another thread writes.
//!
//! # When nothing is lost
//! * What is posted on the wake queue word is taken by `before_poll` or `after_poll`, or stays for the next run.
//! * What expires while handlers run is found by the comparison behind [`WakeQueue::finish`](crate::wake_queue::WakeQueue::finish).
//! * A timer that another thread arms *while a poll ends*: the armer stores the expiry, fences and loads the use; the owner stores
//!   the use and loads the expiry, and has no fence in between, which would cost every poll 20 cycles. The owner's executor
//!   leaves its running state with a read-modify-write, so the comparison is repeated behind that one:
//!   [`Watch::recheck`](crate::Watch::recheck). [`Metered`](crate::Metered), whose executor is not ours, fences.
//!
//! # Passes
//! A pass runs at most [`PASS`] expiries. What is over leaves `EXPIRY` posted and wakes the task, so that it runs at the task's
//! next boundary and neighbours get their turn.

use std::any::Any;
use std::marker::PhantomData;

use crate::account::{self, Account};
use crate::clock::{Clock, Stamp};
use crate::error::{CpuLimitExceeded, LimitKind};
use crate::panics;
use crate::poll_timers::{PollReading, PollTimers};
use crate::record::{NEVER, Record};
use crate::scope::members;
use crate::slot::{FRAMES, FrameView, Section};
use crate::sum::horizon::Cells;
use crate::sum::{Whole, charge_groups};
use crate::sync::Ordering;
use crate::thread::ThreadSlot;
use crate::timer_set::{Action, Due, Expiry, Handler, TimerSet};
use crate::total::TotalId;
use crate::wake_queue::Kinds;

/// How many expiries one pass runs at most.
pub const PASS: usize = 32;

/// What the boundary tells whoever polls.
#[derive(Debug)]
#[must_use]
pub enum Control {
    /// Go on.
    Proceed,
    /// Drop the future now, inside the run; the task does nothing more.
    Cancel(CancelReason),
}

/// Why a task is cancelled.
#[derive(Debug)]
#[non_exhaustive]
pub enum CancelReason {
    /// [`Account::cancel`], or a handler that answered [`Action::Cancel`].
    Requested,
    /// A hard limit was reached.
    CpuLimit(CpuLimitExceeded),
    /// A handler panicked; the payload.
    HandlerPanicked(Box<dyn Any + Send>),
}

impl std::fmt::Display for CancelReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CancelReason::Requested => f.write_str("the task was cancelled"),
            CancelReason::CpuLimit(exceeded) => exceeded.fmt(f),
            CancelReason::HandlerPanicked(_) => f.write_str("an expiry handler of the task panicked"),
        }
    }
}

impl std::error::Error for CancelReason {}

/// Whose timers are delivered.
#[derive(Clone, Copy)]
enum Source {
    /// The account's own.
    Own(Own),
    /// Those of a clock that the task is a part of.
    Whole(Whole),
}

/// Which of an account's own timers, which lie under its lock.
#[derive(Clone, Copy)]
enum Own {
    /// The task's, up to `until_ns`. `seen_ns` is what is known to be used if that is more than what is charged.
    Task { until_ns: u64, seen_ns: u64 },
    /// Those of a poll that is over.
    Poll(PollReading),
}

/// What is known behind a poll.
struct Behind {
    now: Stamp,
    /// Its length, and its sequence.
    ns: u64,
    seq: u32,
    /// Something of the account's own is due or posted.
    due: bool,
}

impl Behind {
    #[inline(always)]
    fn is_quiet(&self) -> bool {
        !self.due
    }
}

/// One run of an account on this thread. Ends when dropped, with a fresh stamp.
#[derive(Debug)]
pub struct Run<'a> {
    slot: &'static ThreadSlot,
    clock: &'a Clock,
    record: &'static Record,
    depth: u32,
    seq: u32,
    /// Up to here the account is charged.
    at: Stamp,
    shown: bool,
    _account: PhantomData<&'a Account>,
    _this_thread: PhantomData<*const ()>,
}

impl<'a> Run<'a> {
    #[inline(always)]
    pub(crate) fn begin(slot: &'static ThreadSlot, clock: &'a Clock, account: &'a Account, at: Stamp) -> Self {
        let record = account.record();
        let seq = record.next_seq();
        let depth =
            slot.shown.push(FrameView { target: record.target(), seq, section: Section::Poll, start: at }, || ());
        Self { slot, clock, record, depth, seq, at, shown: true, _account: PhantomData, _this_thread: PhantomData }
    }

    /// Applies what was posted while the task waited: cancellations, expiries that a pass left over. One load if there is
    /// nothing.
    #[inline(always)]
    pub fn before_poll(&mut self) -> Control {
        if self.record.shared.wake.is_idle() {
            return Control::Proceed;
        }
        self.restart(Section::Aftermath, self.at, 0);
        let control = self.pass(false, None);
        if matches!(control, Control::Proceed) {
            self.restart(Section::Poll, self.at, 0);
        }
        control
    }

    /// The boundary behind a poll: charges it and runs what is due. `completed`: the poll returned `Ready`, so limits that it
    /// crossed no longer cancel.
    #[inline(always)]
    pub fn after_poll(&mut self, completed: bool) -> Control {
        let poll = self.read_poll();
        if poll.is_quiet() {
            let watched = if completed {
                self.restart(Section::Aftermath, poll.now, poll.ns)
            } else {
                self.leave(poll.now, poll.ns)
            };
            return if watched { self.watched(completed) } else { Control::Proceed };
        }
        self.restart(Section::Aftermath, poll.now, poll.ns);
        self.expire(completed, PollReading { seq: poll.seq, ns: poll.ns, until_ns: poll.ns })
    }

    /// The boundary behind a poll that returned `Ready`, and the end of the run with it: for a task of which nothing is left to be
    /// done, as its future and its output were dropped before this, as a part of the poll. One reading of the clock instead of
    /// two. It is too late to cancel.
    #[inline(always)]
    pub fn complete(mut self) -> Stamp {
        let poll = self.read_poll();
        if poll.is_quiet() && !self.leave(poll.now, poll.ns) {
            return self.ended();
        }
        self.complete_slowly(poll)
    }

    #[cold]
    fn complete_slowly(mut self, poll: Behind) -> Stamp {
        let control = if poll.is_quiet() {
            self.watched(true)
        } else {
            self.restart(Section::Aftermath, poll.now, poll.ns);
            self.expire(true, PollReading { seq: poll.seq, ns: poll.ns, until_ns: poll.ns })
        };
        panics::contain(|| drop(control));
        self.end_now()
    }

    /// Reads the clock behind a poll, and compares.
    #[inline(always)]
    fn read_poll(&self) -> Behind {
        let before_ns = self.clock.last_cpu_ns(self.slot);
        let now = self.clock.stamp(self.slot);
        let mut poll = Behind { now, ns: now.cpu_ns.saturating_sub(self.at.cpu_ns), seq: self.seq, due: false };
        poll.due = self.is_due_behind(poll.ns);
        if poll.due {
            self.confirm(&mut poll, before_ns);
        }
        let own = &self.record.own;
        own.polls.store(own.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if poll.ns > own.longest_poll_ns.load(Ordering::Relaxed) {
            own.longest_poll_ns.store(poll.ns, Ordering::Relaxed);
        }
        poll
    }

    /// Whether something of the account's own is due or posted behind a poll of this length, which is not charged yet.
    #[inline(always)]
    fn is_due_behind(&self, poll_ns: u64) -> bool {
        let shared = &self.record.shared;
        let total_ns = self.record.total_ns().saturating_add(poll_ns);
        total_ns >= shared.next_expiry_ns.load(Ordering::Relaxed)
            || poll_ns >= shared.poll_alarm_ns.load(Ordering::Relaxed)
            || !shared.wake.is_idle()
    }

    /// Before anything expires: once more by the CPU clock itself. If polls before were billed too much, this one is billed nothing until
    /// the clock has caught up, so that it brings nothing about.
    #[cold]
    fn confirm(&self, poll: &mut Behind, before_ns: u64) {
        poll.now = self.clock.restamp(self.slot, before_ns);
        poll.ns = poll.now.cpu_ns.saturating_sub(self.at.cpu_ns);
        poll.due = self.is_due_behind(poll.ns);
    }

    /// Nothing is due of the account's own, but somebody waits for a clock that it is a part of.
    #[cold]
    fn watched(&mut self, completed: bool) -> Control {
        if !self.look() {
            return Control::Proceed;
        }
        if !self.shown {
            self.restart(Section::Aftermath, self.at, 0);
        }
        self.pass(completed, None)
    }

    #[cold]
    fn expire(&mut self, completed: bool, mut poll: PollReading) -> Control {
        let poll_ns = poll.ns;
        if self.record.shared.wake.peek(poll.seq).contains(Kinds::LIMIT) {
            // It may be a scope's, reached by what others use in polls that go on.
            members::settle(self.record, true);
        }
        let limit_ns = self.record.poll_hard_ns.load(Ordering::Relaxed);
        if !completed {
            // What the task may do no more is not delivered: what lies behind either limit.
            let before_ns = self.record.total_ns().saturating_sub(poll_ns);
            let hard_ns = self.record.shared.hard_ns.load(Ordering::Relaxed);
            poll.until_ns = poll_ns.min(limit_ns).min(hard_ns.saturating_sub(before_ns));
        }
        let control = self.pass(completed, Some(poll));
        if completed {
            let over = self.record.total_ns() >= self.record.shared.hard_ns.load(Ordering::Relaxed);
            if over || poll_ns >= limit_ns {
                Record::add_own(&self.slot.late_completions, 1);
            }
            return Control::Proceed;
        }
        if poll_ns >= limit_ns && matches!(control, Control::Proceed) {
            return Control::Cancel(CancelReason::CpuLimit(account::exceeded(
                self.record,
                LimitKind::Poll,
                poll_ns,
                limit_ns,
            )));
        }
        control
    }

    /// Starts a new section for destructors and wakers, on the same account: they can run away too. To be called before the
    /// future is dropped.
    pub fn section(&mut self) {
        let now = self.clock.stamp(self.slot);
        let ns = now.cpu_ns.saturating_sub(self.at.cpu_ns);
        self.restart(Section::Aftermath, now, ns);
    }

    /// Ends the run at the stamp of its last boundary: for a poll that returned `Pending`, with nothing to speak of done since.
    /// The next run on this thread is billed from there on.
    #[inline(always)]
    pub fn end(mut self) -> Stamp {
        if self.shown {
            self.leave(self.at, 0);
        }
        self.ended()
    }

    /// Ends the run now, with a fresh stamp: for whatever did more than a poll.
    pub fn end_now(mut self) -> Stamp {
        self.finish();
        self.ended()
    }

    /// Nothing is left for the drop, which would have to find that out.
    #[inline(always)]
    fn ended(self) -> Stamp {
        let at = self.at;
        std::mem::forget(self);
        at
    }

    fn finish(&mut self) {
        if self.shown {
            let now = self.clock.stamp(self.slot);
            if self.leave(now, now.cpu_ns.saturating_sub(self.at.cpu_ns)) {
                self.watched_at_end();
            }
        }
    }

    /// Something became due behind the last boundary of this run, which may have been the account's last: others see to it.
    #[cold]
    fn watched_at_end(&mut self) {
        if self.look() {
            self.restart(Section::Aftermath, self.at, 0);
            self.record.hold_group().wholes().for_each(Whole::kick_if_due);
            let now = self.clock.stamp(self.slot);
            self.leave(now, now.cpu_ns.saturating_sub(self.at.cpu_ns));
        }
    }

    #[inline(always)]
    fn leave(&mut self, now: Stamp, ns: u64) -> bool {
        let watched = self.slot.shown.pop(self.depth, || self.charge(ns));
        self.shown = false;
        self.at = now;
        watched
    }

    #[inline]
    fn restart(&mut self, section: Section, now: Stamp, ns: u64) -> bool {
        self.seq = self.record.next_seq();
        let view = FrameView { target: self.record.target(), seq: self.seq, section, start: now };
        let watched = if self.shown {
            self.slot.shown.restart(self.depth, view, || self.charge(ns))
        } else {
            // The fast path of `after_poll` has left; what follows is billed from there on.
            let mut watched = false;
            self.slot.shown.push(view, || watched = self.charge(ns));
            self.shown = true;
            watched
        };
        self.at = now;
        watched
    }

    /// Adds to the account and to what it is a part of. Returns whether a clock that others add to as well has to be
    /// [looked](Self::look) at.
    #[inline(always)]
    fn charge(&self, ns: u64) -> bool {
        Record::add_own(&self.record.own.used_ns, ns);
        if self.depth > 0 {
            return self.charge_nested(ns);
        }
        let charged = &self.slot.charged_ns;
        charged.store(charged.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
        match self.record.own.charges.load(Ordering::Relaxed) {
            0 => false,
            group => match self.slot.groups.at(group) {
                Some(cell) => cell.charge(ns),
                None => self.charge_more(ns),
            },
        }
    }

    #[cold]
    fn charge_more(&self, ns: u64) -> bool {
        let watched = charge_groups(self.slot, self.record.group(), ns, std::iter::empty);
        members::charge(self.record, ns, std::iter::empty) | watched
    }

    /// The time of a nested account is in the accounts around it too, and in its group, as far as none of theirs has it.
    #[cold]
    fn charge_nested(&self, ns: u64) -> bool {
        if self.depth as usize > FRAMES {
            // What is around, from the last one that is shown on, is not known. It pays for this time too, and its group and its scope
            // may be the same, as mostly they are: so nothing more is charged, lest it be charged twice.
            return false;
        }
        let outer = || crate::current::frames(self.slot).take(self.depth as usize).map(|(record, _)| record);
        if let Some(outer) = outer().last() {
            Record::add_own(&outer.own.nested_ns, ns);
        }
        let watched = charge_groups(self.slot, self.record.group(), ns, outer);
        members::charge(self.record, ns, outer) | watched
    }

    /// Behind a charge of a member that found a watch on: whether something is due on a clock that it adds to.
    #[cold]
    fn look(&self) -> bool {
        members::settle(self.record, false);
        let due = Whole::around(self.record).fold(false, |due, whole| whole.look(self.slot) | due);
        due || members::over(self.record).is_some()
    }

    /// Runs what is posted and due, at most [`PASS`] expiries. `poll`: the one that has just ended.
    #[cold]
    fn pass(&mut self, completed: bool, mut poll: Option<PollReading>) -> Control {
        let record = self.record;
        let mut left = PASS;
        loop {
            let mut control = Control::Proceed;
            let kinds = record.shared.wake.begin(self.seq);
            // A blocking job that is still under way may be what made something due.
            let seen_ns = if kinds.contains(Kinds::EXPIRY) {
                crate::cpu_clock::read(record, record.target()).unwrap_or(0)
            } else {
                0
            };
            // What the handlers of this round come to is for the next one, as their sections are stamped as cheaply as polls.
            let owed_ns = self.clock.owed_ns(self.slot);
            let until_ns = record.total_ns().max(seen_ns).saturating_sub(owed_ns);
            // So may a member's poll, of a scope's clock.
            members::settle(record, kinds.contains(Kinds::EXPIRY));
            if kinds.contains(Kinds::CANCEL) && !completed && members::over(record).is_none() {
                control = Control::Cancel(CancelReason::Requested);
            }
            if matches!(control, Control::Proceed) {
                control = self.deliver(Source::Own(Own::Task { until_ns, seen_ns }), &mut left, completed);
            }
            if matches!(control, Control::Proceed) {
                control = self.deliver_of_poll(poll.take(), &mut left, completed);
            }
            let total_ns = record.total_ns().max(seen_ns);
            let hard_ns = record.shared.hard_ns.load(Ordering::Relaxed);
            let is_over = total_ns.saturating_sub(owed_ns) >= hard_ns;
            if matches!(control, Control::Proceed) && !completed && is_over {
                let kind = members::limit_kind(record);
                control = Control::Cancel(CancelReason::CpuLimit(account::exceeded(record, kind, total_ns, hard_ns)));
            }
            if matches!(control, Control::Proceed) {
                control = self.deliver_of_wholes(&mut left, completed);
            }
            if matches!(control, Control::Proceed) {
                // What ran meanwhile was charged.
                members::settle(record, false);
                if !completed && let Some(scope) = members::over(record) {
                    control = Control::Cancel(CancelReason::CpuLimit(members::exceeded(record, scope)));
                }
            }
            let posted = record.shared.wake.finish();
            if matches!(control, Control::Cancel(_)) {
                return control;
            }
            if completed {
                // What was posted meanwhile cannot change a task that has completed; expiries still find their handlers.
                let is_due = record.total_ns().saturating_sub(owed_ns) >= self.next_timer_ns();
                if left == 0 || !(is_due || self.is_any_whole_due()) {
                    return Control::Proceed;
                }
            } else if !posted && !self.is_anything_left(owed_ns) {
                return Control::Proceed;
            } else if left == 0 {
                // Over the bound: the rest at the next boundary, which the wake brings about.
                record.post_and_wake(Kinds::EXPIRY);
                // The wake's time is this account's, not the next one's.
                self.section();
                return Control::Proceed;
            }
            // Another round, and fewer each time: whoever keeps posting cannot hold the thread here.
            left -= 1;
        }
    }

    fn is_anything_left(&self, owed_ns: u64) -> bool {
        self.is_due_but_for(owed_ns)
            || self.of_poll(|timers| timers.is_delivering()).unwrap_or(false)
            || self.is_any_whole_due()
    }

    fn is_due_but_for(&self, owed_ns: u64) -> bool {
        let next_ns = self.record.shared.next_expiry_ns.load(Ordering::Relaxed);
        self.record.total_ns().saturating_sub(owed_ns) >= next_ns
    }

    /// The clocks that the account is a part of, here.
    fn wholes(&self) -> impl Iterator<Item = Whole> + use<> {
        Whole::around(self.record).chain(self.meter())
    }

    /// The clock of the meter that the thread belongs to.
    fn meter(&self) -> Option<Whole> {
        TotalId::of(self.slot).map(Whole::Meter)
    }

    fn is_any_whole_due(&self) -> bool {
        self.wholes().any(|whole| whole.sum().waits_for_expiry(&whole))
    }

    fn next_timer_ns(&self) -> u64 {
        self.record.cold.lock().timers.as_ref().map_or(NEVER, |timers| timers.task.next_expiries().0)
    }

    /// Delivers what is due on a clock, until something is decided against the task or the bound is reached.
    fn deliver(&mut self, source: Source, left: &mut usize, completed: bool) -> Control {
        while *left > 0 {
            match self.deliver_next(source, completed) {
                None => break,
                // A task that has completed cannot be cancelled; the handlers behind this one run all the same.
                Some(Control::Cancel(CancelReason::HandlerPanicked(payload))) if completed => panics::discard(payload),
                Some(Control::Cancel(_)) if completed => {}
                Some(Control::Proceed) => {}
                Some(cancel) => return cancel,
            }
            *left -= 1;
        }
        Control::Proceed
    }

    /// The same for the timers on the clock of `poll`, or of an earlier one that a pass left over.
    fn deliver_of_poll(&mut self, poll: Option<PollReading>, left: &mut usize, completed: bool) -> Control {
        let Some(poll) = self.of_poll(|timers| timers.deliver(poll)).flatten() else {
            return Control::Proceed;
        };
        let control = self.deliver(Source::Own(Own::Poll(poll)), left, completed);
        let over_bound = *left == 0;
        self.of_poll(|timers| timers.delivered(over_bound));
        control
    }

    /// The same for the clocks that the account is a part of.
    fn deliver_of_wholes(&mut self, left: &mut usize, completed: bool) -> Control {
        if !self.is_any_whole_due() {
            return Control::Proceed;
        }
        // Alive as long as this: handlers run on their behalf. (The meter is the thread's.)
        let group = self.record.hold_group();
        for whole in group.wholes().chain(self.meter()) {
            while *left > 0 && whole.sum().horizon.is_due(&whole) && whole.sum().begin() {
                let control = self.deliver(Source::Whole(whole), left, completed);
                let more = whole.sum().end(&whole);
                if matches!(control, Control::Cancel(_)) {
                    // What is left is found at the end of this run, and given to another member.
                    return control;
                }
                if !more {
                    break;
                }
            }
        }
        Control::Proceed
    }

    /// Changes the timers on the polls' clock, if there are any.
    fn of_poll<R>(&self, change: impl FnOnce(&mut PollTimers) -> R) -> Option<R> {
        if !self.record.has_poll_timers() {
            return None;
        }
        let mut cold = self.record.cold.lock();
        let result = change(cold.timers.as_mut()?.poll.as_mut()?);
        self.record.refresh(&cold);
        Some(result)
    }

    /// Delivers the first expiry that is due. What lies behind a hard limit is not: the task does nothing more. `None`: there
    /// is none.
    fn deliver_next(&mut self, source: Source, completed: bool) -> Option<Control> {
        let record = self.record;
        let due = match source {
            Source::Whole(whole) => whole.sum().next_due(whole.charged_ns()),
            Source::Own(own) => {
                let (until_ns, now_ns) = match own {
                    Own::Poll(poll) => (poll.until_ns, poll.ns),
                    Own::Task { until_ns, seen_ns } => {
                        let now_ns = record.total_ns().max(seen_ns);
                        let hard_ns = if completed { NEVER } else { record.shared.hard_ns.load(Ordering::Relaxed) };
                        (until_ns.min(hard_ns), now_ns)
                    }
                };
                self.of_account(own, |timers| timers.next_due(until_ns, now_ns)).unwrap_or(Due::Nothing)
            }
        };
        match due {
            Due::Nothing => None,
            Due::Quiet => Some(Control::Proceed),
            Due::Wake(waker) => {
                panics::contain(|| waker.wake());
                // Waking may be costly, and its time is this account's.
                self.section();
                Some(Control::Proceed)
            }
            Due::Run { id, stamp, handler, expiry } => Some(self.run_handler(source, (id, stamp), handler, expiry)),
        }
    }

    /// Runs one handler, without the lock, as a section of its own on the account's time.
    fn run_handler(&mut self, source: Source, timer: (u32, u64), mut handler: Handler, expiry: Expiry) -> Control {
        let answer = panics::catch(|| handler(expiry));
        self.section();
        let (control, action) = match answer {
            Ok(Action::Cancel) => (Control::Cancel(CancelReason::Requested), Action::Cancel),
            Ok(action) => (Control::Proceed, action),
            Err(payload) => (Control::Cancel(CancelReason::HandlerPanicked(payload)), Action::Cancel),
        };
        let mut handler = Some(handler);
        let mut put_back = |timers: &mut TimerSet, now_ns| {
            handler.take().map(|handler| timers.delivered(timer.0, timer.1, handler, action, now_ns))
        };
        let back = match source {
            Source::Whole(whole) => {
                let now_ns = whole.charged_ns();
                whole.sum().change(&whole, |timers| put_back(timers, now_ns)).flatten()
            }
            Source::Own(own) => {
                let now_ns = match own {
                    Own::Poll(poll) => poll.ns,
                    Own::Task { .. } => self.record.total_ns(),
                };
                self.of_account(own, |timers| put_back(timers, now_ns)).flatten()
            }
        };
        // One whose account its handler has ended has nowhere to be put back into, and goes, as one that was closed meanwhile.
        let (gone, waiting) = back.unwrap_or_default();
        panics::contain(|| drop((gone, handler)));
        for waker in waiting {
            panics::contain(|| waker.wake());
        }
        control
    }

    /// Changes timers of the account under its lock. `None`: they are gone with the account.
    fn of_account<R>(&self, own: Own, change: impl FnOnce(&mut TimerSet) -> R) -> Option<R> {
        let mut cold = self.record.cold.lock();
        let timers = cold.timers.as_deref_mut();
        let timers = match own {
            Own::Poll(_) => timers.and_then(|timers| timers.poll.as_mut()).map(|timers| &mut timers.set),
            Own::Task { .. } => timers.map(|timers| &mut timers.task),
        };
        let result = timers.map(change);
        self.record.refresh(&cold);
        result
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(all(test, not(loom), target_os = "linux", not(stipend_portable)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::clock::os::thread_cpu_ns;
    use crate::meter::Meter;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    fn compute_for(time: Duration) {
        let end = thread_cpu_ns() + time.as_nanos() as u64;
        while thread_cpu_ns() < end {}
    }

    /// A poll that computes for so long, and on whose time the hypervisor took so much more. Returns what it used at the most.
    fn poll(lease: &crate::thread::Lease, account: &Account, compute: Duration, lost: Duration) -> Duration {
        let before = thread_cpu_ns();
        let mut run = lease.begin(account, lease.stamp());
        assert!(matches!(run.before_poll(), Control::Proceed));
        compute_for(compute);
        run.slot.clock.lose(lost.as_nanos() as u64);
        assert!(matches!(run.after_poll(false), Control::Proceed));
        run.end();
        Duration::from_nanos(thread_cpu_ns() - before)
    }

    /// What nobody can see until the CPU clock is read brings nothing about.
    #[test]
    fn t01_time_that_a_hypervisor_took_expires_nothing() {
        let meter = Meter::builder().build().unwrap();
        let lease = meter.attach();
        let account = Account::new();
        let fired = Arc::new(AtomicU64::new(0));
        let (first, second) = (fired.clone(), fired.clone());
        let timer = account.clock().timer().on_expiry(move |_| {
            first.fetch_add(1, Ordering::SeqCst);
            // In a handler's time, too.
            crate::thread::current().unwrap().slot.clock.lose(5_000_000);
        });
        let _timer = timer.arm_at(us(20_000)).unwrap();
        let timer = account.clock().timer().on_expiry(move |_| {
            second.fetch_add(1, Ordering::SeqCst);
        });
        let _timer = timer.arm_at(us(24_000)).unwrap();
        let mut used = Duration::ZERO;
        let mut run = |compute, lost| {
            used += poll(&lease, &account, compute, lost);
            let due = [us(20_000), us(24_000)].iter().filter(|at| used >= **at).count() as u64;
            let fired = fired.load(Ordering::SeqCst);
            assert!(fired <= due, "{fired} fired after {used:?}");
            (fired, used)
        };
        while account.usage().cpu < us(19_000) {
            run(us(200), us(0));
        }
        // In the poll that comes to the time by it, and that is then not billed for it.
        let (_, used) = run(us(1), us(5_000));
        assert!(account.usage().cpu <= used, "billed {:?}, used {used:?}", account.usage().cpu);
        // In polls that do not: they leave a debt behind.
        for _ in 0..10 {
            run(us(1), us(200));
        }
        // Nothing is lost: they come when the time is used.
        while run(us(200), us(0)).0 < 2 {
            assert!(used < us(60_000), "passed over");
        }
    }
}
