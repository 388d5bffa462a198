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
//! of this thread, too, and compares with that cell's watch. (It is `inline(always)`, its slow ways are functions of their own, and its
//! answer is a word. A structure that is written by words and at once copied has to wait for the stores: by such copies a yield took 38 ns
//! instead of 26.) No lock, no system call beyond the
//! clock's, no write to a line that another thread writes.
//!
//! # When nothing is lost
//! * What is posted on the wake queue word is taken by `before_poll` or `after_poll`, or stays for the next run.
//! * What expires while handlers run is found by the comparison behind [`WakeQueue::finish`](crate::wake_queue::WakeQueue::finish).
//! * A timer that another thread arms *while a poll ends*: the armer stores the expiry, fences and loads the use; the owner stores
//!   the use and loads the expiry, and has no fence in between, which would cost every poll 20 cycles. The owner's executor
//!   leaves its running state with a read-modify-write, so the comparison is repeated behind that one:
//!   [`Watch::recheck`](crate::Watch::recheck). [`Metered`](crate::Metered), whose executor is not ours, fences.

use std::marker::PhantomData;

use crate::account::Account;
use crate::clock::{Clock, Stamp};
use crate::panics;
use crate::record::Record;
use crate::slot::{FrameView, Section};
use crate::sum::Whole;
use crate::sync::Ordering;
use crate::thread::ThreadSlot;

mod charge;
mod control;
mod pass;
#[cfg(all(test, not(loom), target_os = "linux", not(stipend_portable)))]
mod tests;

pub use self::control::{CancelReason, Control};
pub use self::pass::PASS;

/// What is known behind a poll.
struct Behind {
    now: Stamp,
    /// Its length.
    ns: u64,
    /// Something of the account's own is due or posted.
    due: bool,
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
    /// It has ended.
    #[cfg(debug_assertions)]
    over: bool,
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
        Self {
            slot,
            clock,
            record,
            depth,
            seq,
            at,
            shown: true,
            #[cfg(debug_assertions)]
            over: false,
            _account: PhantomData,
            _this_thread: PhantomData,
        }
    }

    /// Applies what was posted while the task waited: cancellations, expiries that a pass left over. One load if there is
    /// nothing.
    #[inline(always)]
    pub fn before_poll(&mut self) -> Control {
        self.goes_on();
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
        let before_ns = self.clock.last_cpu_ns(self.slot);
        let poll = self.behind(self.clock.stamp(self.slot));
        if poll.due { self.after_due_poll(completed, before_ns) } else { self.after_plain_poll(completed, poll) }
    }

    /// Before anything expires: once more by the CPU clock itself. If polls before were billed too much, this one is billed nothing until
    /// the clock has caught up, so that it brings nothing about.
    #[cold]
    fn after_due_poll(&mut self, completed: bool, before_ns: u64) -> Control {
        let poll = self.behind(self.clock.restamp(self.slot, before_ns));
        if poll.due { self.expire(completed, poll.now, poll.ns) } else { self.after_plain_poll(completed, poll) }
    }

    #[inline(always)]
    fn after_plain_poll(&mut self, completed: bool, poll: Behind) -> Control {
        let watched = if completed {
            self.restart_behind_poll(poll.now, poll.ns)
        } else {
            self.leave(poll.now, |run| run.charge_poll(poll.ns))
        };
        if watched { self.watched(completed) } else { Control::Proceed }
    }

    /// The boundary behind a poll that returned `Ready`, and the end of the run with it: for a task of which nothing is left to be
    /// done, as its future and its output were dropped before this, as a part of the poll. One reading of the clock instead of
    /// two. It is too late to cancel.
    #[inline(always)]
    pub fn complete(&mut self) -> Stamp {
        let before_ns = self.clock.last_cpu_ns(self.slot);
        let poll = self.behind(self.clock.stamp(self.slot));
        if poll.due {
            return self.complete_slowly(|run| run.after_due_poll(true, before_ns));
        }
        if self.leave(poll.now, |run| run.charge_poll(poll.ns)) {
            return self.complete_slowly(|run| run.watched(true));
        }
        self.ended()
    }

    #[cold]
    fn complete_slowly(&mut self, boundary: impl FnOnce(&mut Self) -> Control) -> Stamp {
        let control = boundary(self);
        panics::contain(|| drop(control));
        self.end_now()
    }

    /// What is known behind a poll that ended now.
    #[inline(always)]
    fn behind(&self, now: Stamp) -> Behind {
        let ns = now.cpu_ns.saturating_sub(self.at.cpu_ns);
        Behind { now, ns, due: self.is_due_behind(ns) }
    }

    /// Starts the section behind a poll, and counts that.
    #[inline(always)]
    pub(super) fn restart_behind_poll(&mut self, now: Stamp, ns: u64) -> bool {
        let watched = self.restart(Section::Aftermath, now, ns);
        self.count_poll(ns);
        watched
    }

    /// Behind the charge of a poll.
    #[inline(always)]
    pub(super) fn count_poll(&self, ns: u64) {
        let own = &self.record.own;
        if ns > own.longest_poll_ns.load(Ordering::Relaxed) {
            own.longest_poll_ns.store(ns, Ordering::Relaxed);
        }
        // Release: who sees that it is over sees its time.
        own.polls.store(own.polls.load(Ordering::Relaxed) + 1, Ordering::Release);
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

    /// Starts a new section for destructors and wakers, on the same account: they can run away too. To be called before the
    /// future is dropped.
    pub fn section(&mut self) {
        let now = self.clock.stamp(self.slot);
        let ns = now.cpu_ns.saturating_sub(self.at.cpu_ns);
        self.restart(Section::Aftermath, now, ns);
    }

    /// Ends the run at the stamp of its last boundary: for a poll that returned `Pending`, with nothing to speak of done since.
    /// The next run on this thread is billed from there on. It is over then, and all that may follow is its drop.
    ///
    /// # Panics
    /// Whatever else follows panics where debug assertions are on. Where they are not it bills time twice.
    #[inline(always)]
    pub fn end(&mut self) -> Stamp {
        if self.shown {
            self.leave(self.at, |run| run.charge(0));
        }
        self.ended()
    }

    /// The same with a fresh stamp: for whatever did more than a poll.
    pub fn end_now(&mut self) -> Stamp {
        self.finish();
        self.ended()
    }

    #[inline(always)]
    fn ended(&mut self) -> Stamp {
        #[cfg(debug_assertions)]
        {
            self.over = true;
        }
        self.at
    }

    /// Fails, with debug assertions, if the run has ended: whoever goes on with it would bill time twice.
    #[inline(always)]
    fn goes_on(&self) {
        #[cfg(debug_assertions)]
        assert!(!self.over, "a run was used after its end");
    }

    /// Ends it at a fresh stamp, which says what was used since the boundary before.
    fn leave_now(&mut self) -> bool {
        let now = self.clock.stamp(self.slot);
        let ns = now.cpu_ns.saturating_sub(self.at.cpu_ns);
        self.leave(now, |run| run.charge(ns))
    }

    fn finish(&mut self) {
        if self.shown && self.leave_now() {
            self.watched_at_end();
        }
    }

    /// Something became due behind the last boundary of this run, which may have been the account's last: others see to it.
    #[cold]
    fn watched_at_end(&mut self) {
        if self.look() {
            self.restart(Section::Aftermath, self.at, 0);
            self.record.hold_group().wholes().for_each(Whole::kick_if_due);
            self.leave_now();
        }
    }
}

impl Drop for Run<'_> {
    #[inline]
    fn drop(&mut self) {
        self.finish();
    }
}
