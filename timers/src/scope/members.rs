//! Who is in a scope, what is charged to it, and how its members learn of its end.
//!
//! A scope is an account (that of the future that it runs), and the accounts of the tasks spawned inside it are its
//! *members*, as is the account of a scope inside it. A member's time is added to the scope's `offloaded_ns`, as that of
//! a blocking job is, so the scope's clock, timers and limit are the account's.
//!
//! # Invariants
//! * A member keeps a reference to its scope until its record is recycled, so whoever may look at a member may follow the
//!   chain of scopes around it. Only tick and service thread, which hold no reference, may read a number that is another
//!   account's by now; what they post carries the member's generation, and what they do to a scope is verified on that
//!   scope.
//! * Members are listed from joining to their end, under the scope's lock; who is listed is alive. Locks are taken from
//!   the outer scope to the inner one and to the member, never the other way, and no waker is called under one.
//! * [`OVER`] and [`CLOSED`] are set once, under the lock under which members join: whoever joins later is told at once,
//!   and who was there before is told by whoever set them.
//! * `OVER` is never set on a scope that is `CLOSED`: what its last members still use, ended as they are, changes nothing.

use std::sync::Arc;
use std::task::Waker;

use super::HIDDEN_FROM;
use crate::account;
use crate::cpu_clock;
use crate::error::{CpuLimitExceeded, LimitKind};
use crate::panics;
use crate::record::{self, Cold, NEVER, Record};
use crate::slot::FrameView;
use crate::sync::{Ordering, fence_after_rmw};
use crate::thread::ThreadSlot;
use crate::wake_queue::Kinds;

/// It is a scope's account.
const SCOPE: u32 = 1;
/// It is in the list of the scope around it.
const LISTED: u32 = 1 << 1;
/// The scope's limit was reached: every member ends.
const OVER: u32 = 1 << 2;
/// The scope's run has ended: every member is cancelled.
const CLOSED: u32 = 1 << 3;
/// The scope's run has begun.
const BEGUN: u32 = 1 << 4;

/// How many scopes around an account the tick looks at; those further out are seen to at the boundaries only.
pub(crate) const SEEN: usize = 8;

fn state(record: &Record) -> u32 {
    record.own.scope.state.load(Ordering::Acquire)
}

fn set(record: &Record, bit: u32) {
    // A read-modify-write, as not all bits are under one lock: SCOPE and BEGUN are the owner's, LISTED is under the outer scope's lock,
    // OVER and CLOSED are under its own.
    record.own.scope.state.fetch_or(bit, Ordering::Release);
}

/// The record that a link leads to.
fn at(link: u32) -> Option<&'static Record> {
    record::at(link.checked_sub(1)?)
}

pub(crate) fn link_to(record: &Record) -> u32 {
    record.index() + 1
}

/// The scope around an account.
pub(crate) fn parent(record: &Record) -> Option<&'static Record> {
    at(record.own.scope.around.load(Ordering::Relaxed))
}

/// The scopes around an account, from the innermost on.
fn chain(record: &Record) -> impl Iterator<Item = &'static Record> + use<> {
    std::iter::successors(parent(record), |scope| parent(scope))
}

/// The same, beginning with the account itself if it is a scope's.
pub(crate) fn around(record: &'static Record) -> impl Iterator<Item = &'static Record> {
    is_scope(record).then_some(record).into_iter().chain(chain(record))
}

pub(crate) fn is_scope(record: &Record) -> bool {
    state(record) & SCOPE != 0
}

pub(crate) fn is_over(scope: &Record) -> bool {
    state(scope) & OVER != 0
}

pub(crate) fn is_closed(scope: &Record) -> bool {
    state(scope) & CLOSED != 0
}

/// Whether the account is in a scope, or is one.
#[inline]
pub(crate) fn concerns(record: &Record) -> bool {
    record.own.scope.around.load(Ordering::Relaxed) != 0 || is_scope(record)
}

/// The kind of the account's hard limit.
pub(crate) fn limit_kind(record: &Record) -> LimitKind {
    if is_scope(record) { LimitKind::Scope } else { LimitKind::Total }
}

/// Whether what a frame shows is in `scope`; for whoever reads it inside [`Slot::read`](crate::slot::Slot::read), as it
/// counts only with that.
pub(crate) fn is_inside(frame: FrameView, scope: &Record) -> bool {
    is_scope(scope)
        && record::at(frame.target.index)
            .is_some_and(|record| chain(record).take(SEEN).any(|outer| std::ptr::eq(outer, scope)))
}

/// The innermost scope on this thread, if it is too deep inside to be shown in the slot.
pub(crate) fn hidden(slot: &ThreadSlot) -> Option<&'static Record> {
    at(slot.hidden_scope.load(Ordering::Relaxed))
}

/// The innermost scope on this thread.
pub(crate) fn innermost(slot: &'static ThreadSlot) -> Option<&'static Record> {
    let shown = || crate::current::frames(slot).filter_map(|(record, _)| around(record).next()).last();
    hidden(slot).or_else(shown)
}

/// Makes an account that nobody else has yet a scope's.
pub(crate) fn make_scope(record: &Record) {
    set(record, SCOPE);
    let cold = record.cold.lock();
    record.set_charges(record.group());
    record.refresh(&cold);
}

/// The beginning of a scope's run on this thread. Returns what to restore by [`leave`] if it is not going to be shown.
pub(crate) fn enter(scope: &'static Record, slot: &'static ThreadSlot) -> Option<u32> {
    if state(scope) & BEGUN == 0 {
        set(scope, BEGUN);
        if let Some(outer) = innermost(slot).filter(|&outer| !std::ptr::eq(outer, scope)) {
            join(scope, outer);
        }
    }
    (slot.shown.depth() >= HIDDEN_FROM).then(|| {
        let before = slot.hidden_scope.load(Ordering::Relaxed);
        slot.hidden_scope.store(link_to(scope), Ordering::Relaxed);
        before
    })
}

pub(crate) fn leave(slot: &ThreadSlot, before: u32) {
    slot.hidden_scope.store(before, Ordering::Relaxed);
}

/// Makes a new account a member of a scope that runs here. If that has ended, so will the account, before its first poll.
pub(crate) fn join(member: &'static Record, scope: &'static Record) {
    scope.retain();
    {
        let cold = member.cold.lock();
        member.own.scope.around.store(link_to(scope), Ordering::Relaxed);
        member.set_charges(member.group());
        // It is not plain any more, and wants a waker.
        member.refresh(&cold);
    }
    let told = {
        let _cold = scope.cold.lock();
        let links = &member.own.scope;
        let next = scope.own.scope.head.load(Ordering::Relaxed);
        links.next.store(next, Ordering::Relaxed);
        if let Some(next) = at(next) {
            next.own.scope.prev.store(link_to(member), Ordering::Relaxed);
        }
        scope.own.scope.head.store(link_to(member), Ordering::Relaxed);
        set(member, LISTED);
        if over(scope).is_some() {
            Kinds::EXPIRY
        } else if is_closed(scope) {
            Kinds::CANCEL
        } else {
            Kinds::NONE
        }
    };
    if told.is_empty() {
        return;
    }
    if is_scope(member) && told == Kinds::CANCEL {
        return close(member);
    }
    // Whoever makes it schedules it.
    let _ = member.shared.wake.post(told);
}

/// The end of an account: it leaves its scope, and if it is a scope's, its members are cancelled.
pub(crate) fn end(record: &'static Record) {
    if is_scope(record) {
        close(record);
    }
    let Some(scope) = parent(record) else { return };
    let _cold = scope.cold.lock();
    let links = &record.own.scope;
    if state(record) & LISTED == 0 {
        return;
    }
    links.state.fetch_and(!LISTED, Ordering::Relaxed);
    let (next, prev) = (links.next.load(Ordering::Relaxed), links.prev.load(Ordering::Relaxed));
    if let Some(next) = at(next) {
        next.own.scope.prev.store(prev, Ordering::Relaxed);
    }
    match at(prev) {
        Some(prev) => prev.own.scope.next.store(next, Ordering::Relaxed),
        None => scope.own.scope.head.store(next, Ordering::Relaxed),
    }
}

/// Adds a member's time to the scopes around it, except those that `outer` accounts on the same thread have charged or
/// will. Returns whether one of them has to be [settled](settle).
pub(crate) fn charge<'a, I: Iterator<Item = &'a Record>>(record: &Record, ns: u64, outer: impl Fn() -> I) -> bool {
    let mut due = false;
    for scope in chain(record) {
        // What is around a scope that is charged already is charged too.
        let has = |outer: &Record| std::ptr::eq(outer, scope) || chain(outer).any(|outer| std::ptr::eq(outer, scope));
        if outer().any(has) {
            break;
        }
        // Against whoever lowers the limit and looks at the use: see `Record::kick_if_due`.
        scope.shared.offloaded_ns.fetch_add(ns, Ordering::SeqCst);
        fence_after_rmw();
        due |= scope.is_due();
    }
    due
}

/// Sees to the scopes around an account, itself included, that have come to an expiry: by what is charged, or, with
/// `read`, by what is in progress as well.
pub(crate) fn settle(record: &'static Record, read: bool) {
    if !concerns(record) {
        return;
    }
    for scope in around(record) {
        if state(scope) & (OVER | CLOSED) != 0 {
            continue;
        }
        let charged_ns = scope.total_ns();
        let now_ns = if read { cpu_clock::read(scope, scope.target()).unwrap_or(charged_ns) } else { charged_ns };
        if now_ns >= scope.shared.hard_ns.load(Ordering::Relaxed) {
            exhaust(scope, scope.target().generation, Some(record));
        } else if !std::ptr::eq(scope, record) && now_ns >= scope.shared.next_expiry_ns.load(Ordering::Relaxed) {
            scope.post_and_wake(Kinds::EXPIRY);
        }
    }
}

/// The scope around an account, itself included, that is over its limit.
#[inline]
pub(crate) fn over(record: &'static Record) -> Option<&'static Record> {
    if concerns(record) { around(record).find(|scope| is_over(scope)) } else { None }
}

/// The same for a caller who knows that the tick has confirmed one, which may not have been told yet.
pub(crate) fn confirmed(record: &'static Record) -> Option<&'static Record> {
    settle(record, true);
    over(record)
}

/// Why `record` ends with `scope`, which is over.
pub(crate) fn exceeded(record: &'static Record, scope: &'static Record) -> CpuLimitExceeded {
    let limit_ns = scope.shared.hard_ns.load(Ordering::Relaxed);
    let used_ns = cpu_clock::read(scope, scope.target()).unwrap_or(0);
    // It may have been raised since, or taken away; it was reached all the same.
    let limit_ns = if limit_ns == NEVER { used_ns } else { limit_ns };
    account::exceeded(record, LimitKind::Scope, used_ns.max(limit_ns), limit_ns)
}

/// Ends a scope at its limit: tells every member. For any thread that holds no lock; one without a reference says whose
/// generation it means. `by` needs no telling.
#[cold]
pub(crate) fn exhaust(scope: &'static Record, generation: u32, by: Option<&Record>) {
    let mut wakers = Vec::new();
    {
        let cold = scope.cold.lock();
        // A record that goes on to another owner waits for this lock before it is made ready.
        if scope.shared.wake.generation() != generation || state(scope) & (OVER | CLOSED) != 0 {
            return;
        }
        set(scope, OVER);
        if !by.is_some_and(|by| std::ptr::eq(by, scope)) {
            post(scope, Kinds::EXPIRY, cold.waker.as_ref(), &mut wakers);
        }
        tell(scope, &cold, Kinds::EXPIRY, by, &mut wakers);
    }
    wakers.into_iter().for_each(panics::wake);
}

/// Ends a scope with its run: cancels every member.
fn close(scope: &'static Record) {
    let mut wakers = Vec::new();
    {
        let cold = scope.cold.lock();
        set(scope, CLOSED);
        // Those of one that is over know.
        if over(scope).is_none() {
            tell(scope, &cold, Kinds::CANCEL, None, &mut wakers);
        }
    }
    wakers.into_iter().for_each(panics::wake);
}

/// Posts on every member; under the scope's lock, of which `_cold` is the proof.
fn tell(scope: &Record, _cold: &Cold, kinds: Kinds, by: Option<&Record>, wakers: &mut Vec<Arc<Waker>>) {
    let mut link = scope.own.scope.head.load(Ordering::Relaxed);
    while let Some(member) = at(link) {
        link = member.own.scope.next.load(Ordering::Relaxed);
        let is_by = by.is_some_and(|by| std::ptr::eq(by, member));
        let cold = member.cold.lock();
        if is_scope(member) {
            if kinds == Kinds::CANCEL {
                // Its own run goes with the member that polls it.
                set(member, CLOSED);
            } else if !is_by {
                post(member, kinds, cold.waker.as_ref(), wakers);
            }
            tell(member, &cold, kinds, by, wakers);
        } else if !is_by {
            post(member, kinds, cold.waker.as_ref(), wakers);
        }
    }
}

fn post(member: &Record, kinds: Kinds, waker: Option<&Arc<Waker>>, wakers: &mut Vec<Arc<Waker>>) {
    if member.shared.wake.post(kinds) == Ok(true) {
        wakers.extend(waker.cloned());
    }
}
