//! The type-stable record of an account.
//!
//! A record never returns to the allocator: it is recycled under a new generation (the kernel's `SLAB_TYPESAFE_BY_RCU` idea).
//! So the tick may follow a number it read a while ago and at worst finds another account there, which the generation tells
//! it; nothing has to be reclaimed, and no read of a record can be a use after free.
//!
//! # Layout and who writes
//! | line | fields | writer |
//! | --- | --- | --- |
//! | 1 | use, polls, longest poll, nested use, sequence | the thread that runs the account |
//! |   | group | any thread, rarely, under the lock |
//! |   | place in a scope | any thread, rarely, under a scope's lock |
//! | 2 | wake queue, next expiries, limits, offloaded use, references | any thread, rarely |
//! | 3 | timers, waker; what the poll's clock has beside its alarm | any thread, under the lock |
//!
//! # Invariants
//! * `next_expiry_ns` is never later than the earliest armed expiry or hard limit, and `next_remote_ns` never later than the
//!   earliest one that a supervisor waits for: both are stored under the lock that guards what they summarise. `poll_alarm_ns` is
//!   the same for the clock of the poll in progress: its limit and its timers.
//! * A record is recycled when its owner and every clock and timer handle are gone, so whoever holds a handle needs no
//!   generation; only the tick and the service thread, which hold none, compare it.

use std::sync::Arc;
use std::task::Waker;

use crate::group::{Group, GroupId, Held};
use crate::slot::Target;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, fence};
use crate::thread::ThreadSlot;
use crate::timer_set::Timers;
use crate::wake_queue::WakeQueue;

#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod free_set;
/// In a model every record is fresh: loom's types belong to one execution.
#[cfg(loom)]
mod fresh;
#[cfg(loom)]
use self::fresh as arena;

pub(crate) use self::arena::{all, allocated, at, take};

/// There can be so many records, and as many accounts at once.
pub(crate) const LIMIT: usize = 1 << 26;

/// "No expiry", "no limit".
pub(crate) const NEVER: u64 = u64::MAX;

/// What the thread that runs the account writes.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct OwnerLine {
    pub(crate) used_ns: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) longest_poll_ns: AtomicU64,
    /// The part of `used_ns` that nested accounts have too.
    pub(crate) nested_ns: AtomicU64,
    /// Counts sections of every owner of the record; never reset.
    pub(crate) seq: AtomicU32,
    /// What is charged beside the account: the group's number, 0 for none, of which it has a reference; and above
    /// [`GroupId::LIMIT`] whatever makes a charge more than an addition to that group's cell. Written under the lock, or before
    /// anybody else has the account.
    pub(crate) charges: AtomicU32,
    pub(crate) scope: ScopeLinks,
}

/// The account's place among the members of the scope around it, and its members, if it is a scope's: see [`crate::scope`]. Records
/// by their index plus one; zero is none.
#[derive(Debug)]
pub(crate) struct ScopeLinks {
    /// The scope around it. Stored before anybody else sees the account, and kept, with a reference, until it is recycled.
    pub(crate) around: AtomicU32,
    /// Its neighbours among the members, under that scope's lock.
    pub(crate) next: AtomicU32,
    pub(crate) prev: AtomicU32,
    /// The first of its own members, under its own lock.
    pub(crate) head: AtomicU32,
    /// Bits, see [`crate::scope::members`].
    pub(crate) state: AtomicU32,
}

impl ScopeLinks {
    fn new() -> Self {
        let zero = || AtomicU32::new(0);
        Self { around: zero(), next: zero(), prev: zero(), head: zero(), state: zero() }
    }

    fn reset(&self) {
        for link in [&self.around, &self.next, &self.prev, &self.head, &self.state] {
            link.store(0, Ordering::Relaxed);
        }
    }
}

/// What other threads write, rarely.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct SharedLine {
    pub(crate) wake: WakeQueue,
    pub(crate) next_expiry_ns: AtomicU64,
    pub(crate) next_remote_ns: AtomicU64,
    pub(crate) hard_ns: AtomicU64,
    /// The least CPU time of one poll at which something is to be done: its limit, a timer on its clock.
    pub(crate) poll_alarm_ns: AtomicU64,
    /// CPU of blocking jobs.
    pub(crate) offloaded_ns: AtomicU64,
    /// The highest reading given out while a poll was in progress, so that the clock never goes back.
    pub(crate) reported_ns: AtomicU64,
    refs: AtomicU32,
    /// What `cold` holds, as far as the owner must know without taking the lock: the constants `COLD_*`. Written under the lock,
    /// by holders of a reference.
    cold_state: AtomicU32,
}

/// Beside the number of a group that is nested: the groups around it are charged too. And in an account that is in a
/// scope, or is one's: the scopes around are.
const CHARGES_MORE: u32 = GroupId::LIMIT as u32;

/// What is charged beside an account.
#[derive(Clone, Copy)]
pub(crate) struct Charges(u32);

impl Charges {
    /// Whether there is neither a group nor a scope around.
    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The group's number, if there is nothing around but a group that is not nested.
    #[inline]
    pub(crate) fn flat_number(self) -> Option<u32> {
        (self.0 < CHARGES_MORE).then_some(self.0)
    }

    /// The group's number, or zero.
    #[inline]
    fn number(self) -> u32 {
        self.0 % CHARGES_MORE
    }
}

/// There is, or was, something in [`Cold`].
const COLD_IN_USE: u32 = 1;
/// There is a waker.
const COLD_HAS_WAKER: u32 = 2;
/// There are, or were, timers on the clock of the poll in progress.
const COLD_HAS_POLL_TIMERS: u32 = 4;
/// There is, or was, a limit of one poll; which nobody waits for.
const COLD_HAS_POLL_LIMIT: u32 = 8;

/// What is looked at only when something is armed, woken or ended.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    /// Shared, so that it can be had without running a clone of the user's under the lock.
    pub(crate) waker: Option<Arc<Waker>>,
    pub(crate) timers: Option<Box<Timers>>,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) own: OwnerLine,
    pub(crate) shared: SharedLine,
    pub(crate) cold: Mutex<Cold>,
    /// The limit of one poll.
    pub(crate) poll_hard_ns: AtomicU64,
    /// The least time on the clock of the poll in progress that a supervisor waits for.
    poll_remote_ns: AtomicU64,
    /// The same in the poll `poll_of_seq`, in which earlier ones have been delivered.
    poll_next_remote_ns: AtomicU64,
    poll_of_seq: AtomicU32,
    index: u32,
}

impl Record {
    fn new(index: u32) -> Self {
        let record = Self {
            own: OwnerLine {
                used_ns: AtomicU64::new(0),
                polls: AtomicU64::new(0),
                longest_poll_ns: AtomicU64::new(0),
                nested_ns: AtomicU64::new(0),
                seq: AtomicU32::new(0),
                charges: AtomicU32::new(0),
                scope: ScopeLinks::new(),
            },
            shared: SharedLine {
                wake: WakeQueue::vacant(),
                next_expiry_ns: AtomicU64::new(NEVER),
                next_remote_ns: AtomicU64::new(NEVER),
                hard_ns: AtomicU64::new(NEVER),
                poll_alarm_ns: AtomicU64::new(NEVER),
                offloaded_ns: AtomicU64::new(0),
                reported_ns: AtomicU64::new(0),
                refs: AtomicU32::new(1),
                cold_state: AtomicU32::new(0),
            },
            cold: Mutex::new(Cold::default()),
            poll_hard_ns: AtomicU64::new(NEVER),
            poll_remote_ns: AtomicU64::new(NEVER),
            poll_next_remote_ns: AtomicU64::new(NEVER),
            poll_of_seq: AtomicU32::new(0),
            index,
        };
        record.shared.wake.occupy();
        record
    }

    /// The record's place in the arena.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Where this account is, for those who hold no reference.
    #[inline]
    pub(crate) fn target(&self) -> Target {
        Target { index: self.index, generation: self.shared.wake.generation() }
    }

    /// Use charged so far, blocking jobs included; a poll in progress is not.
    #[inline]
    pub(crate) fn total_ns(&self) -> u64 {
        self.own.used_ns.load(Ordering::Relaxed).saturating_add(self.shared.offloaded_ns.load(Ordering::Relaxed))
    }

    /// What is charged beside the account.
    #[inline]
    pub(crate) fn charges(&self) -> Charges {
        Charges(self.own.charges.load(Ordering::Acquire))
    }

    /// The group, if the account has one.
    #[inline]
    pub(crate) fn group(&self) -> GroupId {
        GroupId::from_index(self.charges().number())
    }

    /// Stores what is charged beside the account. Under the lock, or while nobody else has the account.
    pub(crate) fn set_charges(&self, group: GroupId) {
        let more = if group.depth() > 1 || crate::scope::members::concerns(self) { CHARGES_MORE } else { 0 };
        // Release: who sees the number sees that there is a group.
        self.own.charges.store(group.index() as u32 | more, Ordering::Release);
    }

    /// Puts the account into another group; what was charged before stays with the group before.
    pub(crate) fn move_to(&self, group: &Group) {
        group.id().retain_many(1);
        let old = {
            let _cold = self.cold.lock();
            let old = self.group();
            self.set_charges(group.id());
            old
        };
        // Behind the store: see `share_group`.
        old.release();
    }

    /// A reference to the account's group, for somebody else: its number, or [`NONE`](GroupId::NONE).
    pub(crate) fn share_group(&self) -> GroupId {
        loop {
            let id = self.group();
            if id == GroupId::NONE || self.share(id) {
                return id;
            }
        }
    }

    /// A reference to what was the account's group a moment ago, if it still is.
    fn share(&self, id: GroupId) -> bool {
        if !id.retain() {
            return false;
        }
        // If the account left the group meanwhile, the number may be another group's. Whoever gave it up stored the account's new number
        // before, and `retain` acquires that.
        let still = self.group() == id;
        if !still {
            id.release();
        }
        still
    }

    /// The same for an account that runs on this thread, whose slot that is.
    pub(crate) fn share_group_here(&self, slot: &ThreadSlot) -> GroupId {
        let id = self.group();
        // What is in reserve lives; if the account has just left it, it was there a moment ago.
        if id == GroupId::NONE || slot.spare_group.take(id.index() as u32) {
            return id;
        }
        let id = self.share_group();
        if id != GroupId::NONE {
            slot.spare_group.fill(id);
        }
        id
    }

    /// Puts an account that nobody else has yet, and that is in no scope, into a group that is not nested, of which the caller gives it
    /// its reference. As [`set_charges`](Self::set_charges), and the record, which is on another processor perhaps, is not read.
    #[inline]
    pub(crate) fn be_in_flat_group(&self, number: u32) {
        self.own.charges.store(number, Ordering::Release);
    }

    /// The account's group, which lives as long as what is returned.
    pub(crate) fn hold_group(&self) -> Held {
        Held::new(self.share_group())
    }

    /// A handle to the account's group.
    pub(crate) fn group_handle(&self) -> Option<Group> {
        Group::of(self.share_group())
    }

    /// Whether something has expired by what has been charged: the quick check.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.total_ns() >= self.shared.next_expiry_ns.load(Ordering::Relaxed)
    }

    /// Moves on to the next sequence. For the thread that runs the account.
    #[inline]
    pub(crate) fn next_seq(&self) -> u32 {
        let seq = self.own.seq.load(Ordering::Relaxed).wrapping_add(1);
        self.own.seq.store(seq, Ordering::Relaxed);
        seq
    }

    /// Adds to a counter that only the thread running the account writes.
    #[inline]
    pub(crate) fn add_own(counter: &AtomicU64, ns: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(ns), Ordering::Relaxed);
    }

    /// Whether nobody but the owner has a handle, and nothing was ever put into `cold`: then nobody can come to wait for
    /// anything here but by a new handle, whose making fences (see [`retain`](Self::retain)).
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.shared.refs.load(Ordering::Acquire) == 1 && self.cold_state() & !COLD_HAS_POLL_LIMIT == 0
    }

    #[inline]
    fn cold_state(&self) -> u32 {
        self.shared.cold_state.load(Ordering::Relaxed)
    }

    /// Whether somebody else has a handle, or something is armed, and there is no waker yet to tell the task by.
    #[inline]
    pub(crate) fn wants_waker(&self) -> bool {
        let cold = self.cold_state();
        cold & COLD_HAS_WAKER == 0 && (cold & !COLD_HAS_POLL_LIMIT != 0 || self.shared.refs.load(Ordering::Relaxed) > 1)
    }

    /// Whether there are timers on the clock of the poll in progress.
    pub(crate) fn has_poll_timers(&self) -> bool {
        self.shared.cold_state.load(Ordering::Relaxed) & COLD_HAS_POLL_TIMERS != 0
    }

    /// Notes what `cold` holds after it changed, and stores the caches; call it under the lock.
    pub(crate) fn refresh(&self, cold: &Cold) {
        let has_waker = if cold.waker.is_some() { COLD_HAS_WAKER } else { 0 };
        let of_poll = cold.timers.as_ref().is_some_and(|timers| timers.poll.is_some());
        let of_poll = if of_poll { COLD_HAS_POLL_TIMERS } else { 0 };
        let poll_limit = self.cold_state() & COLD_HAS_POLL_LIMIT;
        self.shared.cold_state.store(COLD_IN_USE | has_waker | of_poll | poll_limit, Ordering::Relaxed);
        let (any, remote) = cold.timers.as_ref().map_or((NEVER, NEVER), |timers| timers.task.next_expiries());
        let any = any.min(self.shared.hard_ns.load(Ordering::Relaxed));
        self.shared.next_remote_ns.store(remote, Ordering::Relaxed);
        self.shared.next_expiry_ns.store(any, Ordering::Release);
        self.refresh_poll(cold);
    }

    /// The same for the clock of the poll in progress, and for nothing else.
    fn refresh_poll(&self, cold: &Cold) {
        let mut alarm_ns = self.poll_hard_ns.load(Ordering::Relaxed);
        if let Some(timers) = cold.timers.as_ref().and_then(|timers| timers.poll.as_ref()) {
            let (any, remote) = timers.least();
            alarm_ns = alarm_ns.min(any);
            self.poll_remote_ns.store(remote, Ordering::Relaxed);
            self.poll_next_remote_ns.store(timers.next_remote(), Ordering::Relaxed);
            self.poll_of_seq.store(timers.of_seq(), Ordering::Release);
        }
        self.shared.poll_alarm_ns.store(alarm_ns, Ordering::Relaxed);
    }

    /// The next time in the poll `seq` that a supervisor waits for. Read without the lock, it may be too early, and never too late
    /// for a poll that goes on.
    pub(crate) fn poll_remote_in(&self, seq: u32) -> u64 {
        // Stored in the other order: whoever sees the sequence sees the time that belongs to it.
        if self.poll_of_seq.load(Ordering::Acquire) == seq {
            self.poll_next_remote_ns.load(Ordering::Relaxed)
        } else {
            self.poll_remote_ns.load(Ordering::Relaxed)
        }
    }

    /// Sets the limit of one poll.
    pub(crate) fn set_poll_limit(&self, hard_ns: u64) {
        {
            let cold = self.cold.lock();
            self.poll_hard_ns.store(hard_ns, Ordering::Relaxed);
            // A task that has no more than this limit stays plain.
            self.shared.cold_state.store(self.cold_state() | COLD_HAS_POLL_LIMIT, Ordering::Relaxed);
            self.refresh_poll(&cold);
        }
        self.shared.wake.retract_limit();
    }

    /// Schedules a pass if what was just armed is due already. For any thread, after [`refresh`](Self::refresh) and outside
    /// the lock.
    ///
    /// The other half of this race is the boundary's comparison behind the poll (see [`crate::boundary`]): armer and owner each
    /// store, fence and load, so one of them sees that expiry and use have met.
    pub(crate) fn kick_if_due(&self) {
        fence(Ordering::SeqCst);
        if self.is_due() {
            self.post_and_wake(crate::wake_queue::Kinds::EXPIRY);
        }
    }

    /// Posts a waking kind and wakes the task if this post is what schedules it. Holds no lock while it calls the waker. Returns
    /// whether `kinds` are posted.
    pub(crate) fn post_and_wake(&self, kinds: crate::wake_queue::Kinds) -> bool {
        self.post_and_wake_target(self.target(), kinds)
    }

    /// The same for a caller that holds no reference: nothing is posted unless `target` still owns the record. (Should it end in
    /// between, its successor may be woken for nothing.)
    pub(crate) fn post_and_wake_target(&self, target: Target, kinds: crate::wake_queue::Kinds) -> bool {
        let posted = self.shared.wake.post_for(target.generation, kinds);
        if posted == Ok(true) {
            let waker = self.cold.lock().waker.clone();
            if let Some(waker) = waker {
                crate::panics::wake(waker);
            }
        }
        posted.is_ok()
    }

    /// One more reference, for a new handle.
    ///
    /// Contains a full fence: a handle that is made while the account ends either sees that it has ended, or is seen by
    /// [`is_plain`](Self::is_plain).
    pub(crate) fn retain(&self) {
        let before = self.shared.refs.fetch_add(1, Ordering::SeqCst);
        crate::sync::fence_after_rmw();
        assert!(before < u32::MAX / 2, "more than {} handles to one account", u32::MAX / 2);
    }

    /// Gives a reference back; the last one recycles the record.
    pub(crate) fn release(&'static self) {
        // If ours is the only one, nobody can make another: no read-modify-write is needed to find out who is last. Acquire:
        // what every other holder did happens before the record is reset.
        if self.shared.refs.load(Ordering::Acquire) == 1 {
            self.recycle();
        } else if self.shared.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.recycle();
        }
    }

    /// Resets what only those accounts have whose `cold_state` says so.
    #[cold]
    fn clear(&self) {
        let old = std::mem::take(&mut *self.cold.lock());
        // Its parts may run user code (handlers, wakers), so they go outside the lock.
        crate::panics::contain(|| drop(old));
        self.shared.cold_state.store(0, Ordering::Relaxed);
        // What is in a scope, or is one, has something in `cold`.
        let scope = crate::scope::members::parent(self);
        self.own.scope.reset();
        if let Some(scope) = scope {
            scope.release();
        }
        let shared = &self.shared;
        for limit in [&shared.next_expiry_ns, &shared.next_remote_ns, &shared.hard_ns, &shared.poll_alarm_ns] {
            limit.store(NEVER, Ordering::Relaxed);
        }
        for limit in [&self.poll_hard_ns, &self.poll_remote_ns, &self.poll_next_remote_ns] {
            limit.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Makes the record ready for its next owner, so that whoever takes it, perhaps on another processor, need not touch it.
    fn recycle(&'static self) {
        self.shared.wake.vacate();
        // Whoever reads a counter as it is reset below sees that the generation has moved on.
        fence(Ordering::Release);
        if self.cold_state() != 0 {
            self.clear();
        }
        for counter in [&self.own.used_ns, &self.own.polls, &self.own.longest_poll_ns, &self.own.nested_ns] {
            counter.store(0, Ordering::Relaxed);
        }
        self.shared.offloaded_ns.store(0, Ordering::Relaxed);
        self.shared.reported_ns.store(0, Ordering::Relaxed);
        let charges = self.charges();
        if !charges.is_none() {
            self.own.charges.store(0, Ordering::Relaxed);
            let number = charges.number();
            if !crate::thread::current().is_some_and(|current| current.slot.spare_group.put(number)) {
                GroupId::from_index(number).release();
            }
        }
        self.shared.refs.store(1, Ordering::Relaxed);
        // Nobody has its new generation yet, so nothing is posted before somebody takes it.
        self.shared.wake.occupy();
        arena::give_back(self);
    }
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    use super::Record;
    use crate::group::Group;

    #[test]
    fn g12_a_group_that_the_account_has_left_is_not_shared_by_its_number() {
        let record = super::take();
        record.move_to(&Group::new("first").unwrap());
        let first = record.group();
        record.move_to(&Group::new("second").unwrap());
        // Until the number is another group's.
        let mut decoys: Vec<Group> = Vec::new();
        while !decoys.iter().any(|decoy| decoy.id() == first) {
            decoys.push(Group::new("decoy").unwrap());
        }
        let serial = first.serial();
        assert!(!record.share(first));
        // No reference is left of it: the number is free once the decoy has gone.
        drop(decoys);
        assert!(!first.retain() || first.serial() != serial);
        record.release();
    }

    #[test]
    fn a_record_is_three_lines() {
        assert_eq!(size_of::<Record>(), 192);
    }
}
