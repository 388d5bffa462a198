//! The slow way of a boundary: what is posted is taken, what is due is run.
//!
//! A pass runs at most [`PASS`] expiries. What is over leaves `EXPIRY` posted and wakes the task, so that it runs at the task's
//! next boundary and neighbours get their turn.

use super::{CancelReason, Control, Run};
use crate::account;
use crate::clock::Stamp;
use crate::error::LimitKind;
use crate::panics;
use crate::poll_timers::{PollReading, PollTimers};
use crate::record::{NEVER, Record};
use crate::scope::members;
use crate::sum::Whole;
use crate::sum::horizon::Cells;
use crate::sync::Ordering;
use crate::timer_set::{Action, Due, Expiry, Handler, TimerSet};
use crate::total::TotalId;
use crate::wake_queue::Kinds;

/// How many expiries one pass runs at most.
pub const PASS: usize = 32;

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

impl Run<'_> {
    /// Behind a poll by which something of the account's own is due, or during which something was posted.
    #[cold]
    pub(super) fn expire(&mut self, completed: bool, now: Stamp, poll_ns: u64) -> Control {
        let seq = self.seq;
        self.restart_behind_poll(now, poll_ns);
        let mut poll = PollReading { seq, ns: poll_ns, until_ns: poll_ns };
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
            return CancelReason::CpuLimit(account::exceeded(self.record, LimitKind::Poll, poll_ns, limit_ns)).into();
        }
        control
    }

    /// Runs what is posted and due, at most [`PASS`] expiries. `poll`: the one that has just ended.
    #[cold]
    pub(super) fn pass(&mut self, completed: bool, mut poll: Option<PollReading>) -> Control {
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
                control = CancelReason::Requested.into();
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
                control = CancelReason::CpuLimit(account::exceeded(record, kind, total_ns, hard_ns)).into();
            }
            if matches!(control, Control::Proceed) {
                control = self.deliver_of_wholes(&mut left, completed);
            }
            if matches!(control, Control::Proceed) {
                // What ran meanwhile was charged.
                members::settle(record, false);
                if !completed && let Some(scope) = members::over(record) {
                    control = CancelReason::CpuLimit(members::exceeded(record, scope)).into();
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
                Some(Control::Cancel(reason)) if completed => {
                    if let CancelReason::HandlerPanicked(payload) = *reason {
                        panics::discard(payload);
                    }
                }
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
            Ok(Action::Cancel) => (CancelReason::Requested.into(), Action::Cancel),
            Ok(action) => (Control::Proceed, action),
            Err(payload) => (CancelReason::HandlerPanicked(payload).into(), Action::Cancel),
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
