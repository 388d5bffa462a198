//! The account of one metered thing: the owner's handle to its record.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::cpu_clock::CpuClock;
use crate::error::{CpuLimitExceeded, Exited, LimitError, LimitKind};
use crate::group::{Group, GroupId};
use crate::limit::{CpuLimit, PollLimit, limit_ns};
use crate::record::{self, NEVER, Record};
use crate::scope::members;
use crate::slot::Target;
use crate::sync::Ordering;
use crate::thread::ThreadSlot;
use crate::timer_set::{Action, Delivery, Expiry, TimerSet};
use crate::units::nanos;
use crate::wake_queue::Kinds;

/// What an account has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in all: polls, handlers, destructors, nested accounts and blocking jobs.
    pub cpu: Duration,
    /// The part of `cpu` that nested accounts (a `cpu_timeout` inside the task, say) were charged too: `cpu - nested` is the
    /// account's own. What is more than five deep is not told apart: it is the fifth's own.
    pub nested: Duration,
    /// The part of `cpu` that blocking jobs used; for the account of a [`Scope`](crate::Scope), what its members used, too.
    pub offloaded: Duration,
    /// Polls that have ended. Their time is in `cpu`, whenever it is read.
    pub polls: u64,
    /// CPU time of the longest poll.
    pub longest_poll: Duration,
}

/// The owner's handle to the account of one task, or of whatever else is polled and metered. One per task; dropped with it.
///
/// An executor makes one for each task, gives it the task's waker, and runs every poll between
/// [`Lease::begin`](crate::Lease::begin) and the end of the [`Run`](crate::Run). For a single future on any executor there is
/// [`Metered`](crate::Metered).
#[derive(Debug)]
pub struct Account {
    record: &'static Record,
}

impl Account {
    /// There can be so many at once. A multiple of 1024.
    pub const LIMIT: usize = record::LIMIT;

    /// A new account, with nothing used, no limit and no group.
    ///
    /// # Panics
    /// If there are [`LIMIT`](Self::LIMIT) accounts.
    pub fn new() -> Self {
        Self { record: record::take() }
    }

    /// A new account in the group of the account that runs on this thread, if it has one, and that group's number, else
    /// [`GroupId::NONE`]. It is a member of the innermost [`Scope`](crate::Scope) that is around.
    ///
    /// # Panics
    /// If there are [`LIMIT`](Self::LIMIT) accounts.
    #[inline]
    pub fn inherit() -> (Self, GroupId) {
        let account = Self::new();
        let group = match crate::thread::current() {
            Some(current) => account.inherit_from(current.slot),
            None => GroupId::NONE,
        };
        (account, group)
    }

    #[inline]
    fn inherit_from(&self, slot: &'static ThreadSlot) -> GroupId {
        match slot.shown.depth() {
            0 => return GroupId::NONE,
            1 => {
                let Target { index, generation } = slot.shown.last_target();
                let Some(outermost) = record::at(index) else { return GroupId::NONE };
                let charges = outermost.charges();
                // A frame that a forgotten run left may show an account that is another one by now.
                if charges.is_none() || outermost.shared.wake.generation() != generation {
                    return GroupId::NONE;
                }
                if let Some(number) = charges.flat_number()
                    && slot.spare_group.take(number)
                {
                    self.record.be_in_flat_group(number);
                    return GroupId::from_index(number);
                }
            }
            _ => {}
        }
        self.inherit_inside(slot)
    }

    #[cold]
    fn inherit_inside(&self, slot: &'static ThreadSlot) -> GroupId {
        if let Some(scope) = members::innermost(slot) {
            members::join(self.record, scope);
        }
        let outermost = crate::current::frames(slot).next();
        let id = outermost.map_or(GroupId::NONE, |(outermost, _)| outermost.share_group_here(slot));
        if id != GroupId::NONE {
            self.record.set_charges(id);
        }
        id
    }

    /// A number below [`LIMIT`](Self::LIMIT) that no other account of the process has while this one lives, for tables. A later account
    /// has it again, so the numbers are about as many as there ever were accounts at once.
    #[inline]
    #[must_use]
    pub fn index(&self) -> u32 {
        self.record.index()
    }

    #[inline]
    pub(crate) fn record(&self) -> &'static Record {
        self.record
    }

    /// Where to wake the task when something is posted while it waits. Replaces the waker before.
    pub fn set_waker(&self, waker: Waker) {
        let waker = Arc::new(waker);
        let mut early = None;
        let old = {
            let mut cold = self.record.cold.lock();
            if self.record.shared.wake.is_ended() {
                Some(waker)
            } else {
                let old = cold.waker.replace(waker.clone());
                self.record.refresh(&cold);
                // Posted before there was a waker: whoever did so looked under the lock, found none, and woke nobody.
                if old.is_none() && self.record.shared.wake.is_waking() {
                    early = Some(waker);
                }
                old
            }
        };
        if let Some(waker) = early {
            crate::panics::wake(waker);
        }
        crate::panics::contain(|| drop(old));
    }

    /// Whether the account should have a waker and has none: somebody else has a handle to its clock, or something is armed on
    /// it. An executor that spares every task the waker asks this behind each poll, before
    /// [`Run::after_poll`](crate::Run::after_poll), and when it gives out a clock.
    #[inline]
    pub fn wants_waker(&self) -> bool {
        self.record.wants_waker()
    }

    /// Posts a cancellation: at its next boundary the run answers [`Control::Cancel`](crate::Control::Cancel). `Ok(true)`: the
    /// caller has to wake the task, so that there is one.
    ///
    /// # Errors
    /// [`Exited`] if the account has ended.
    pub fn cancel(&self) -> Result<bool, Exited> {
        self.record.shared.wake.post(Kinds::CANCEL).map_err(|_| Exited)
    }

    /// The end of the task: nothing can be posted or armed any more, and supervisors that wait on its clock are told.
    /// Idempotent. What is used afterwards (waking the joiner, say) is still charged.
    pub fn end(&self) {
        // A full fence lies between the end and the look at who has handles: see `Record::retain`.
        if !self.record.shared.wake.end() || self.record.is_plain() {
            return;
        }
        let (mut timers, waker) = {
            let mut cold = self.record.cold.lock();
            let timers = cold.timers.take();
            let waker = cold.waker.take();
            // A scope's says why its members end, which may be later.
            if !members::is_scope(self.record) {
                self.record.shared.hard_ns.store(NEVER, Ordering::Relaxed);
            }
            self.record.refresh(&cold);
            (timers, waker)
        };
        members::end(self.record);
        for waiter in timers.as_mut().map(|timers| timers.take_waiters()).unwrap_or_default() {
            crate::panics::contain(|| waiter.wake());
        }
        crate::panics::contain(|| drop(timers));
        crate::panics::contain(|| drop(waker));
    }

    /// Whether nobody can notice the account's end: nothing waits on it, and nobody has a handle to its clock. For a caller that has
    /// the only reference to the account, who may then leave [`end`](Self::end) to its drop.
    #[inline]
    pub fn is_unobserved(&self) -> bool {
        self.record.is_plain()
    }

    /// Whether a thread runs it at this moment.
    pub fn is_running(&self) -> bool {
        let target = self.record.target();
        let shown =
            |slot: &crate::thread::ThreadSlot| slot.shown.read(|frames| frames.iter().any(|f| f.target == target));
        crate::thread::all_slots().any(|slot| shown(slot) == Some(true))
    }

    /// Whether [`end`](Self::end) was called.
    pub fn has_ended(&self) -> bool {
        self.record.shared.wake.is_ended()
    }

    /// The account's clock.
    pub fn clock(&self) -> CpuClock {
        CpuClock::of(self.record)
    }

    /// What was used up to the last boundary.
    pub fn usage(&self) -> Usage {
        usage(self.record)
    }

    /// Sets or replaces the CPU limit; see [`CpuClock::set_cpu_limit`].
    ///
    /// # Errors
    /// See [`LimitError`]; the limit then stays as it was.
    pub fn set_cpu_limit(&self, limit: CpuLimit) -> Result<(), LimitError> {
        set_cpu_limit(self.record, limit)
    }

    /// Sets what runs at the soft limit, on the account's own time. Replaces the handler before. A soft limit without a handler
    /// does nothing.
    ///
    /// # Errors
    /// [`Exited`] if the account has ended.
    pub fn on_soft_limit(&self, handler: impl FnMut(Expiry) -> Action + Send + 'static) -> Result<(), Exited> {
        set_soft_handler(self.record, Box::new(handler))
    }

    /// Sets or replaces the limit of one poll.
    ///
    /// # Errors
    /// See [`LimitError`]; the limit then stays as it was.
    pub fn set_poll_limit(&self, limit: PollLimit) -> Result<(), LimitError> {
        limit.validate()?;
        self.record.set_poll_limit(limit_ns(limit.hard));
        Ok(())
    }

    /// The hard CPU limit, if there is one.
    pub fn hard_limit(&self) -> Option<Duration> {
        hard_limit(self.record)
    }

    /// Makes the account a member of `group`. What it used up to its last boundary stays with the group before; a poll in progress counts
    /// for the new one, as a whole.
    ///
    /// Of accounts nested in one another a group is charged once, for the outermost of its members. What runs with five accounts or
    /// more around it counts for their groups and not for its own.
    pub fn set_group(&self, group: &Group) {
        self.record.move_to(group);
    }

    /// The account's group, if it has one.
    pub fn group(&self) -> Option<Group> {
        self.record.group_handle()
    }

    /// For after the task was made idle, when another thread may run it already: tells whether an expiry was armed while the
    /// poll ended; then use [`Watch::recheck`].
    #[inline]
    pub fn watch(&self) -> Watch {
        Watch { record: self.record, generation: self.record.shared.wake.generation() }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Nobody else has the account any more. If nobody has a handle either, there is nobody to be refused or told.
        if !self.record.is_plain() {
            self.end();
        }
        self.record.release();
    }
}

/// A look at an account that the caller may not own any more. Made by [`Account::watch`].
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    record: &'static Record,
    generation: u32,
}

impl Watch {
    /// To be called once behind the read-modify-write (`SeqCst`) by which the task left its running state: if a timer was armed
    /// by another thread just when the poll ended, so that neither saw the other, this posts it and wakes the task.
    #[inline]
    pub fn recheck(self) {
        crate::sync::fence_after_rmw();
        // The record may belong to another task by now, or be run elsewhere: then this is a guess, and a post for the
        // generation that was watched at worst wakes it for nothing.
        if self.record.is_due() {
            self.post();
        }
    }

    #[cold]
    fn post(self) {
        let target = Target { generation: self.generation, ..self.record.target() };
        self.record.post_and_wake_target(target, Kinds::EXPIRY);
    }
}

pub(crate) fn usage(record: &Record) -> Usage {
    let own = &record.own;
    // Acquire, and first: the time of each poll that is counted is in what is read below.
    let polls = own.polls.load(Ordering::Acquire);
    let offloaded_ns = record.shared.offloaded_ns.load(Ordering::Relaxed);
    Usage {
        cpu: Duration::from_nanos(own.used_ns.load(Ordering::Relaxed).saturating_add(offloaded_ns)),
        nested: Duration::from_nanos(own.nested_ns.load(Ordering::Relaxed)),
        offloaded: Duration::from_nanos(offloaded_ns),
        polls,
        longest_poll: Duration::from_nanos(own.longest_poll_ns.load(Ordering::Relaxed)),
    }
}

/// The error that says how `record` came to its end.
pub(crate) fn exceeded(record: &Record, kind: LimitKind, used_ns: u64, limit_ns: u64) -> CpuLimitExceeded {
    let usage = usage(record);
    CpuLimitExceeded {
        kind,
        used: Duration::from_nanos(used_ns),
        limit: Duration::from_nanos(limit_ns),
        polls: usage.polls,
        longest_poll: usage.longest_poll,
    }
}

pub(crate) fn hard_limit(record: &Record) -> Option<Duration> {
    match record.shared.hard_ns.load(Ordering::Relaxed) {
        NEVER => None,
        ns => Some(Duration::from_nanos(ns)),
    }
}

pub(crate) fn set_cpu_limit(record: &Record, limit: CpuLimit) -> Result<(), LimitError> {
    limit.validate()?;
    {
        let mut cold = record.cold.lock();
        // `end` sets the flag before it takes the lock to clean up: seen from here, either it is set or the clean-up follows.
        if record.shared.wake.is_ended() {
            return Err(LimitError::Exited);
        }
        record.shared.hard_ns.store(limit_ns(limit.hard), Ordering::Relaxed);
        if limit.soft.is_some() || cold.timers.is_some() {
            let timers = &mut cold.timers.get_or_insert_default().task;
            let id = soft_timer(timers);
            match limit.soft {
                Some(soft) => timers.arm(id, nanos(soft), limit.repeat.map_or(0, nanos), 0),
                None => timers.disarm(id, 0),
            };
        }
        record.refresh(&cold);
    }
    record.shared.wake.retract_limit();
    record.kick_if_due();
    Ok(())
}

pub(crate) fn set_soft_handler(
    record: &Record,
    handler: Box<dyn FnMut(Expiry) -> Action + Send>,
) -> Result<(), Exited> {
    let old = {
        let mut cold = record.cold.lock();
        if record.shared.wake.is_ended() {
            return Err(Exited);
        }
        let timers = &mut cold.timers.get_or_insert_default().task;
        let id = soft_timer(timers);
        let old = timers.set_handler(id, handler);
        record.refresh(&cold);
        old
    };
    crate::panics::contain(|| drop(old));
    Ok(())
}

/// The timer that stands for the soft limit.
fn soft_timer(timers: &mut TimerSet) -> u32 {
    match timers.soft {
        Some(id) => id,
        None => {
            let id = timers.insert(Delivery::Handler(None));
            timers.soft = Some(id);
            id
        }
    }
}
