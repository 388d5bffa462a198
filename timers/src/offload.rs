//! Blocking jobs: CPU that a task uses on another thread than the one that polls it.
//!
//! The job's thread adds to the account's second counter, `offloaded`, by a read-modify-write, so any number of jobs and the
//! task's own polls lose no update. The account's task is usually parked meanwhile, so an expiry is posted as a waking kind and
//! the task's next boundary, which the wake brings about, runs the handlers.

use std::marker::PhantomData;

use crate::clock::{Clock, Stamp};
use crate::record::Record;
use crate::scope::members;
use crate::slot::{FRAMES, FrameView, Section};
use crate::sum::{Whole, charge_groups};
use crate::sync::{Ordering, fence};
use crate::thread::{self, ThreadSlot};

/// The accounts that a blocking job is charged to: those on the thread that captured it.
#[derive(Debug, Default)]
pub struct Offload {
    /// Outermost first.
    accounts: [Option<&'static Record>; FRAMES],
    /// The innermost scope, if it is too deep inside to be among them.
    scope: Option<&'static Record>,
}

impl Offload {
    /// Captures the accounts that run on this thread: the task's and, inside a `cpu_timeout`, its. None outside tasks.
    pub fn capture() -> Self {
        let mut accounts = [None; FRAMES];
        let mut scope = None;
        if let Some(current) = thread::current() {
            for (place, (record, _)) in accounts.iter_mut().zip(crate::current::frames(current.slot)) {
                record.retain();
                *place = Some(record);
            }
            scope = members::hidden(current.slot);
            if let Some(scope) = scope {
                scope.retain();
            }
        }
        Self { accounts, scope }
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        for record in self.accounts.into_iter().flatten().chain(self.scope) {
            record.release();
        }
    }
}

/// One blocking job under way, made by [`Lease::offload`](crate::Lease::offload). Ends when dropped.
#[derive(Debug)]
pub struct OffloadRun<'a> {
    slot: &'static ThreadSlot,
    clock: Clock,
    offload: &'a Offload,
    depth: u32,
    at: Stamp,
    /// What was in the slot's `hidden_scope`.
    hidden: u32,
    ended: bool,
    _this_thread: PhantomData<*const ()>,
}

impl<'a> OffloadRun<'a> {
    pub(crate) fn begin(slot: &'static ThreadSlot, clock: Clock, offload: &'a Offload, at: Stamp) -> Self {
        // A job may wait for long, and counts as polling meanwhile.
        slot.spare_group.close();
        let depth = slot.shown.depth();
        let jobs = &slot.inbox.jobs;
        let job = jobs.load(Ordering::Relaxed).wrapping_add(1).max(1);
        jobs.store(job, Ordering::Relaxed);
        for record in offload.accounts.iter().flatten() {
            // The record's own sequence belongs to the thread that polls it, so a job has a number of its own, which the wake
            // queue does not know.
            let view = FrameView { target: record.target(), seq: job, section: Section::Offloaded, start: at };
            slot.shown.push(view, || ());
        }
        let hidden = slot.hidden_scope.swap(offload.scope.map_or(0, members::link_to), Ordering::Relaxed);
        Self { slot, clock, offload, depth, at, hidden, ended: false, _this_thread: PhantomData }
    }

    /// Ends the job with a fresh stamp and charges it.
    pub fn end(mut self) -> Stamp {
        self.finish()
    }

    fn finish(&mut self) -> Stamp {
        if self.ended {
            return self.at;
        }
        self.ended = true;
        members::leave(self.slot, self.hidden);
        let now = self.clock.stamp(self.slot);
        let ns = now.cpu_ns.saturating_sub(self.at.cpu_ns);
        self.at = now;
        let accounts = || self.offload.accounts.iter().flatten().copied();
        let watched = self.slot.shown.pop(self.depth, || {
            for record in accounts() {
                record.shared.offloaded_ns.fetch_add(ns, Ordering::Relaxed);
            }
            if accounts().next().is_some() {
                let charged = &self.slot.charged_ns;
                charged.store(charged.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
            } else {
                let runtime = &self.slot.runtime_ns;
                runtime.store(runtime.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
            }
            let charge = |watched, (i, record): (usize, &'static Record)| {
                // Their own scopes' part, each once.
                let _ = members::charge(record, ns, || accounts().take(i));
                charge_groups(self.slot, record.group(), ns, || accounts().take(i)) | watched
            };
            if let Some(scope) = self.offload.scope {
                scope.shared.offloaded_ns.fetch_add(ns, Ordering::Relaxed);
                let _ = members::charge(scope, ns, accounts);
            }
            accounts().enumerate().fold(false, charge)
        });
        // Against an armer that stored its expiry and looked at the use: see `Record::kick_if_due`.
        fence(Ordering::SeqCst);
        for record in accounts() {
            if record.is_due() {
                record.post_and_wake(crate::wake_queue::Kinds::EXPIRY);
            }
        }
        accounts().chain(self.offload.scope).for_each(|record| members::settle(record, false));
        if watched {
            for record in accounts() {
                let look = |whole: &Whole| whole.look(self.slot);
                record.hold_group().wholes().filter(look).for_each(Whole::kick_if_due);
            }
        }
        now
    }
}

impl Drop for OffloadRun<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}
