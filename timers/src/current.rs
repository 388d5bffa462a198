//! What the code inside a poll can learn of its own account: has it budget left, should it stop, which account is it.
//!
//! The tick's posts are final (confirmed before they are made), so nothing here reads a clock. One word of the thread's slot is
//! the fast path; the wake queues behind it are the truth, and are looked at only when it is set.

use crate::account;
use crate::cpu_clock::CpuClock;
use crate::error::{CheckpointError, CpuLimitExceeded, LimitKind};
use crate::record::{self, NEVER, Record};
use crate::scope::members;
use crate::slot::{FRAMES, FrameView, NO_POLL, Section};
use crate::sync::Ordering;
use crate::thread::{self, ThreadSlot};
use crate::wake_queue::Kinds;

/// The accounts on this thread, outermost first, with each one's frame.
pub(crate) fn frames(slot: &'static ThreadSlot) -> impl Iterator<Item = (&'static Record, FrameView)> {
    (0..FRAMES as u32)
        .map_while(|depth| slot.shown.own_frame(depth))
        .filter_map(|frame| record::at(frame.target.index).map(|record| (record, frame)))
        // Only a run that was forgotten leaves a frame whose account is gone.
        .filter(|(record, frame)| record.target() == frame.target)
}

/// What is pending for the section that a frame stands for.
fn pending(slot: &ThreadSlot, record: &Record, frame: FrameView) -> Kinds {
    if frame.section != Section::Offloaded {
        return record.shared.wake.peek(frame.seq);
    }
    // A blocking job has no sequence in the wake queue; the tick names the job in the slot instead.
    let kinds = record.shared.wake.peek(NO_POLL);
    let over = slot.inbox.job_over_limit.load(Ordering::Relaxed) == frame.seq;
    let limited = || record.shared.hard_ns.load(Ordering::Relaxed) != NEVER || members::concerns(record);
    if over && limited() { kinds.or(Kinds::LIMIT) } else { kinds }
}

/// The account of the task that runs on this thread.
pub(crate) fn outermost() -> Option<&'static Record> {
    frames(thread::current()?.slot).next().map(|(record, _)| record)
}

/// Whether the poll on this thread may go on: `false` from the moment at which a tick found its cooperative slice over, a limit
/// or timer expired, or something else waits for the poll's end. Futures that could go on for long then return `Pending` after
/// waking themselves. Always `true` outside metered polls.
///
/// Costs a load; reads no clock.
///
/// ```
/// let mut rows = 0..1_000_000;
/// while stipend_timers::has_budget() {
///     let Some(_row) = rows.next() else { break };
/// }
/// ```
#[inline]
pub fn has_budget() -> bool {
    match thread::current() {
        None => true,
        Some(current) => {
            current.slot.inbox.attention.load(Ordering::Relaxed) == 0 || !is_anything_pending(current.slot)
        }
    }
}

#[cold]
fn is_anything_pending(slot: &'static ThreadSlot) -> bool {
    let pending = frames(slot).any(|(record, frame)| !self::pending(slot, record, frame).is_empty());
    if !pending {
        // It was for a poll that is over. Should a post fall between the look and this store, the next tick repeats the hint.
        slot.inbox.attention.store(0, Ordering::Relaxed);
    }
    pending
}

/// Whether the code on this thread should stop: for long loops inside one poll or one blocking job, which cannot be stopped
/// from outside. Fails from the first tick after a hard limit of an account on this thread was reached, or the task aborted.
///
/// Costs a load while there is nothing to say; reads no clock. Never fails outside metered polls.
///
/// # Errors
/// [`CheckpointError::CpuLimitExceeded`], [`CheckpointError::Cancelled`].
///
/// ```
/// fn sum(values: &[u64]) -> Result<u64, stipend_timers::CheckpointError> {
///     let mut sum = 0;
///     for value in values {
///         stipend_timers::checkpoint()?;
///         sum += value;
///     }
///     Ok(sum)
/// }
/// assert_eq!(sum(&[1, 2, 3]), Ok(6));
/// ```
#[inline]
pub fn checkpoint() -> Result<(), CheckpointError> {
    match thread::current() {
        Some(current) if current.slot.inbox.attention.load(Ordering::Relaxed) != 0 => look_closer(current.slot),
        _ => Ok(()),
    }
}

#[cold]
fn look_closer(slot: &'static ThreadSlot) -> Result<(), CheckpointError> {
    for (record, frame) in frames(slot) {
        let kinds = pending(slot, record, frame);
        // A scope that is over its limit posts an expiry on its members.
        if !kinds.is_empty()
            && let Some(scope) = members::over(record)
        {
            return Err(CheckpointError::CpuLimitExceeded(members::exceeded(record, scope)));
        }
        if kinds.contains(Kinds::CANCEL) {
            return Err(CheckpointError::Cancelled);
        }
        if kinds.contains(Kinds::LIMIT)
            && let Some(exceeded) = exceeded(record, frame)
        {
            return Err(CheckpointError::CpuLimitExceeded(exceeded));
        }
    }
    is_anything_pending(slot);
    Ok(())
}

/// The error for a limit that the tick has confirmed. The clock is read for the figure, and in case the limit was raised since.
fn exceeded(record: &'static Record, frame: FrameView) -> Option<CpuLimitExceeded> {
    let progress_ns = thread::current()
        .map_or(0, |current| current.clock.stamp(current.slot).cpu_ns.saturating_sub(frame.start.cpu_ns));
    let used_ns = record.total_ns().saturating_add(progress_ns);
    let hard_ns = record.shared.hard_ns.load(Ordering::Relaxed);
    let poll_limit_ns = record.poll_hard_ns.load(Ordering::Relaxed);
    let (kind, used_ns, limit_ns) = if used_ns >= hard_ns {
        (members::limit_kind(record), used_ns, hard_ns)
    } else if frame.section == Section::Poll && progress_ns >= poll_limit_ns {
        (LimitKind::Poll, progress_ns, poll_limit_ns)
    } else {
        // A scope's that the tick confirmed, and that was not found by anybody else yet.
        return members::confirmed(record).map(|scope| members::exceeded(record, scope));
    };
    Some(account::exceeded(record, kind, used_ns, limit_ns))
}

/// The clock of the task that runs on this thread: of the outermost account, if there are nested ones. `None` outside metered
/// polls.
pub fn current_clock() -> Option<CpuClock> {
    outermost().map(CpuClock::of)
}
