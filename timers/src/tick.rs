//! The preemption tick: a quick look at every polling thread, once a period.
//!
//! For each account that a thread shows, it compares an upper bound of the use (what is charged, plus the *wall* time since the
//! last boundary) with the account's next expiry. Wall time never runs behind CPU time, so most polls are dismissed with a few
//! loads. A suspect is confirmed by reading its thread's CPU clock; only then is anything posted, so a post is final and nobody
//! behind it has to read a clock again.
//!
//! # Invariants
//! * No lock, no allocation, no user code, not even a waker: whatever has to happen although the poll does not end is handed to
//!   the service thread.
//! * The cost depends on the number of polling threads, not of tasks or timers.
//! * Every look is level-triggered: what could not be posted or handed over is found again a period later.

use crate::meter::Inner;
use crate::record::{self, Record};
use crate::scope::members;
use crate::slot::{FRAMES, FrameView, NO_POLL, Section};
use crate::sum::Whole;
use crate::sync::Ordering;
use crate::thread::{self, ThreadSlot};
use crate::wake_queue::{Kinds, TickPost};

/// What one tick found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TickReport {
    /// Threads that were looked at.
    pub threads: u32,
    /// Accounts whose bound reached their expiry.
    pub suspects: u32,
    /// Suspects whose CPU clock confirmed it.
    pub confirmed: u32,
    /// Notifications queued.
    pub posted: u32,
    /// Accounts handed to the service thread.
    pub handed_over: u32,
    /// Accounts for which a request waited already.
    pub still_waiting: u32,
}

/// One account of a thread, as read at one moment.
#[derive(Clone, Copy)]
struct Seen {
    frame: FrameView,
    record: &'static Record,
    total_ns: u64,
}

impl Inner {
    /// Looks at every thread of this meter.
    pub(crate) fn tick(&self) -> TickReport {
        let now = self.clock.fast();
        let mut report = TickReport::default();
        for slot in thread::all_slots() {
            if slot.inbox.meter_id.load(Ordering::Acquire) == self.id {
                report.threads += 1;
                self.look_at(slot, now, &mut report);
            }
        }
        self.check_total(now, &mut report);
        self.metrics.add(&report, self.clock.fast_ns_between(now, self.clock.fast()));
        // Also for one that was not taken yet: the thread may have missed the call.
        if report.handed_over + report.still_waiting > 0 {
            self.service.notify();
        }
        report
    }

    /// Whether the clock of all threads has come to its next expiry. If so every poll in progress is told to end, so that the
    /// first boundary delivers.
    fn check_total(&self, now: u64, report: &mut TickReport) {
        let whole = Whole::Meter(self.total.id());
        let next_ns = whole.sum().horizon.next_ns();
        if next_ns == record::NEVER {
            return;
        }
        let outermost = |slot: &ThreadSlot| slot.shown.read(|frames| frames.iter().next()).flatten();
        // Each thread's wall time since its last boundary, which is not shorter than its CPU time.
        let bound_ns =
            |slot: &ThreadSlot| outermost(slot).map_or(0, |frame| self.clock.fast_ns_between(frame.start.fast, now));
        let slots = || thread::all_slots().filter(|slot| slot.inbox.meter_id.load(Ordering::Acquire) == self.id);
        let bounds_ns = slots().map(bound_ns).fold(0, u64::saturating_add);
        if whole.used_ns().saturating_add(bounds_ns) < next_ns {
            return;
        }
        report.suspects += 1;
        if whole.read(|slot| self.clock.remote_cpu_ns(slot)) < next_ns {
            return;
        }
        report.confirmed += 1;
        for slot in slots() {
            if let Some(frame) = outermost(slot)
                && frame.section != Section::Offloaded
                && let Some(record) = record::at(frame.target.index)
            {
                self.post(slot, Seen { frame, record, total_ns: 0 }, Kinds::TICK, report);
            }
        }
        if self.total.id().ask() {
            report.handed_over += 1;
        } else {
            report.still_waiting += 1;
        }
    }

    fn look_at(&self, slot: &'static ThreadSlot, now: u64, report: &mut TickReport) {
        let seen = slot.shown.read(|frames| {
            let mut seen = [None; FRAMES];
            for (place, frame) in seen.iter_mut().zip(frames.iter()) {
                *place =
                    record::at(frame.target.index).map(|record| Seen { frame, record, total_ns: record.total_ns() });
            }
            (seen, frames.version())
        });
        // Changing just now: the thread is at a boundary, and checks for itself.
        let Some((seen, version)) = seen else { return };
        for (depth, here) in seen.into_iter().flatten().enumerate() {
            self.check(slot, version, depth, here, now, report);
            // A clock that the account is a part of, and none around it here.
            let outer = || seen[..depth].iter().flatten().flat_map(|seen| Whole::around(seen.record));
            // The same of the scopes around it.
            let shown = || seen[..depth].iter().flatten();
            let is_shown = |scope| {
                shown().any(|seen| {
                    members::around(seen.record).take(members::SEEN).any(|outer| std::ptr::eq(outer, scope))
                })
            };
            for scope in members::around(here.record).take(members::SEEN).take_while(|&scope| !is_shown(scope)) {
                self.check_scope(scope, slot, depth, here, now, report);
            }
            for whole in Whole::around(here.record).filter(|&whole| outer().all(|outer| outer != whole)) {
                self.check_whole(whole, slot, depth, here, now, report);
            }
        }
    }

    /// Whether a clock that many threads add to has come to its next expiry. If so every member's next boundary finds it due, the
    /// poll here is told to end, and what must not wait for that is handed over.
    fn check_whole(
        &self,
        whole: Whole,
        slot: &'static ThreadSlot,
        depth: usize,
        seen: Seen,
        now: u64,
        report: &mut TickReport,
    ) {
        let bound_ns = self.clock.fast_ns_between(seen.frame.start.fast, now);
        if !whole.is_suspect(slot, bound_ns) {
            return;
        }
        report.suspects += 1;
        // Threads of other meters have other clocks, which this tick cannot read: there, what is in progress counts once charged.
        let is_own = |slot: &ThreadSlot| slot.inbox.meter_id.load(Ordering::Acquire) == self.id;
        let now_ns = whole.read(|slot| if is_own(slot) { self.clock.remote_cpu_ns(slot) } else { None });
        if now_ns < whole.sum().horizon.next_ns() {
            return;
        }
        report.confirmed += 1;
        whole.call_all();
        if seen.frame.section == Section::Offloaded {
            // Its task is parked, perhaps for long: somebody has to wake it.
            return self.hand_over(slot, depth, seen, true, report);
        }
        self.post(slot, seen, Kinds::TICK, report);
        if whole.sum().is_remote_due(now_ns) {
            self.hand_over(slot, depth, seen, false, report);
        }
    }

    /// Whether a scope has come to its next expiry, by what its members' polls on all threads of this meter have used. Then the poll
    /// here is told to end, and the service thread tells the members that wait.
    fn check_scope(
        &self,
        scope: &'static Record,
        slot: &'static ThreadSlot,
        depth: usize,
        seen: Seen,
        now: u64,
        report: &mut TickReport,
    ) {
        let is_over = members::is_over(scope);
        if !is_over {
            if members::is_closed(scope) {
                return;
            }
            let next_ns = scope.shared.next_expiry_ns.load(Ordering::Acquire);
            // Before the slots: what is charged meanwhile is counted at the next tick, and nothing twice.
            let total_ns = scope.total_ns();
            let used_by = |progress_ns: &dyn Fn(&'static ThreadSlot, FrameView) -> u64| {
                let slots = thread::all_slots().filter(|slot| slot.inbox.meter_id.load(Ordering::Acquire) == self.id);
                slots.fold(total_ns, |used_ns, slot| {
                    let frame = slot.shown.read(|frames| {
                        let of_scope =
                            |frame: &FrameView| frame.target == scope.target() || members::is_inside(*frame, scope);
                        Some((frames.iter().find(of_scope)?, frames.version()))
                    });
                    match frame {
                        Some(Some((frame, version))) => {
                            let ns = progress_ns(slot, frame);
                            // If that section is over, its boundary has checked.
                            if slot.shown.is_still(version) { used_ns.saturating_add(ns) } else { used_ns }
                        }
                        _ => used_ns,
                    }
                })
            };
            if used_by(&|_, frame| self.clock.fast_ns_between(frame.start.fast, now)) < next_ns {
                return;
            }
            report.suspects += 1;
            let used_ns = used_by(&|slot, frame| {
                self.clock.remote_cpu_ns(slot).map_or(0, |cpu_ns| cpu_ns.saturating_sub(frame.start.cpu_ns))
            });
            if used_ns < next_ns {
                return;
            }
            report.confirmed += 1;
            self.hand_over(slot, depth, seen, false, report);
            if used_ns < scope.shared.hard_ns.load(Ordering::Relaxed) {
                return;
            }
        }
        if seen.frame.section == Section::Offloaded {
            slot.inbox.job_over_limit.store(seen.frame.seq, Ordering::Relaxed);
            slot.inbox.attention.store(1, Ordering::Relaxed);
        } else {
            self.post(slot, seen, Kinds::TICK.or(Kinds::LIMIT), report);
        }
    }

    fn check(
        &self,
        slot: &'static ThreadSlot,
        version: u32,
        depth: usize,
        seen: Seen,
        now: u64,
        report: &mut TickReport,
    ) {
        let Seen { frame, record, total_ns } = seen;
        let shared = &record.shared;
        let bound_ns = self.clock.fast_ns_between(frame.start.fast, now);
        let poll_alarm_ns = match frame.section {
            Section::Poll => shared.poll_alarm_ns.load(Ordering::Relaxed),
            Section::Aftermath | Section::Offloaded => record::NEVER,
        };
        let next_ns = shared.next_expiry_ns.load(Ordering::Acquire);
        let seq = if frame.section == Section::Offloaded { NO_POLL } else { frame.seq };
        if shared.wake.wants_attention(frame.target.generation, seq) {
            slot.inbox.attention.store(1, Ordering::Relaxed);
        }
        if depth == 0 && frame.section == Section::Poll && bound_ns >= self.slice_ns {
            self.post(slot, seen, Kinds::YIELD, report);
            slot.inbox.overdue.store(1, Ordering::Release);
            report.handed_over += 1;
        }
        if total_ns.saturating_add(bound_ns) < next_ns && bound_ns < poll_alarm_ns {
            return;
        }
        report.suspects += 1;
        let Some(cpu_ns) = self.clock.remote_cpu_ns(slot) else {
            return;
        };
        if !slot.shown.is_still(version) {
            // That section is over; its boundary has checked.
            return;
        }
        let progress_ns = cpu_ns.saturating_sub(frame.start.cpu_ns);
        let used_ns = total_ns.saturating_add(progress_ns);
        let poll_is_due = progress_ns >= poll_alarm_ns;
        if used_ns < next_ns && !poll_is_due {
            return;
        }
        report.confirmed += 1;
        let over_hard = used_ns >= shared.hard_ns.load(Ordering::Relaxed);
        if frame.section == Section::Offloaded {
            if over_hard {
                slot.inbox.job_over_limit.store(frame.seq, Ordering::Relaxed);
                slot.inbox.attention.store(1, Ordering::Relaxed);
            }
            // Its task is parked, perhaps for long: somebody has to wake it.
            self.hand_over(slot, depth, seen, true, report);
            return;
        }
        let over_poll = poll_is_due && progress_ns >= record.poll_hard_ns.load(Ordering::Relaxed);
        let kinds = if over_hard || over_poll { Kinds::TICK.or(Kinds::LIMIT) } else { Kinds::TICK };
        self.post(slot, seen, kinds, report);
        if used_ns >= shared.next_remote_ns.load(Ordering::Relaxed)
            || (poll_is_due && progress_ns >= record.poll_remote_in(frame.seq))
        {
            self.hand_over(slot, depth, seen, false, report);
        }
    }

    fn post(&self, slot: &ThreadSlot, seen: Seen, kinds: Kinds, report: &mut TickReport) {
        match seen.record.shared.wake.post_tick(seen.frame.target.generation, seen.frame.seq, kinds) {
            TickPost::Posted => {
                report.posted += 1;
                slot.inbox.attention.store(1, Ordering::Release);
            }
            TickPost::Already => slot.inbox.attention.store(1, Ordering::Release),
            TickPost::Running | TickPost::Gone => {}
        }
    }

    fn hand_over(&self, slot: &ThreadSlot, depth: usize, seen: Seen, wake_task: bool, report: &mut TickReport) {
        let request = crate::service::Request { target: seen.frame.target, wake_task }.pack();
        // One that was not taken yet stays: this one is found again at the next tick.
        match slot.inbox.requests[depth].compare_exchange(0, request, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => report.handed_over += 1,
            Err(_) => report.still_waiting += 1,
        }
    }
}
