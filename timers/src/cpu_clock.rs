//! The CPU clock of one account, readable and waitable from anywhere.

use std::time::Duration;

use crate::account::{self, Usage};
use crate::error::LimitError;
use crate::host::Host;
use crate::limit::{CpuLimit, PollLimit, limit_ns};
use crate::poll_clock::PollClock;
use crate::record::Record;
use crate::scope::members;
use crate::sleep::CpuSleep;
use crate::slot::Target;
use crate::sync::{Ordering, fence};
use crate::thread::{self, ThreadSlot};
use crate::timer::TimerBuilder;

/// The CPU time of one account: a task's, say. Clones are the same clock.
///
/// It stands still while the task waits, except for its blocking jobs. It can be read after the task has ended.
#[derive(Debug)]
pub struct CpuClock {
    record: &'static Record,
}

impl CpuClock {
    pub(crate) fn of(record: &'static Record) -> Self {
        record.retain();
        Self { record }
    }

    pub(crate) fn record(&self) -> &'static Record {
        self.record
    }

    /// The CPU time used so far, the poll in progress included. Never goes back.
    ///
    /// Costs a few loads for each thread that polls, and a system call where the task is in a poll on another one.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns())
    }

    pub(crate) fn now_ns(&self) -> u64 {
        // The reference keeps the record this account's, so there is always a reading.
        let seen_ns = read(self.record, self.record.target()).unwrap_or(0);
        // What was ever given out stays the least. The clock of a task that waits stands still: then there is nothing to write.
        let reported = &self.record.shared.reported_ns;
        let reported_ns = reported.load(Ordering::Acquire);
        if reported_ns >= seen_ns { reported_ns } else { reported.fetch_max(seen_ns, Ordering::AcqRel).max(seen_ns) }
    }

    /// What was used up to the last boundary, in detail.
    pub fn usage(&self) -> Usage {
        account::usage(self.record)
    }

    /// Whether the task has ended: the clock then stands still for ever.
    pub fn has_ended(&self) -> bool {
        self.record.shared.wake.is_ended()
    }

    /// The smallest step of the clock.
    pub fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    /// A new timer on this clock.
    pub fn timer(&self) -> TimerBuilder {
        TimerBuilder::new(Host::Task(self.clone()))
    }

    /// The clock of the task's poll in progress, for timers that watch over each poll.
    pub fn poll_clock(&self) -> PollClock {
        PollClock::of(self.clone())
    }

    /// Sets or replaces the CPU limit, also while the task runs. A limit below what is used takes effect at the next boundary.
    ///
    /// # Errors
    /// See [`LimitError`]; the limit then stays as it was.
    pub fn set_cpu_limit(&self, limit: CpuLimit) -> Result<(), LimitError> {
        account::set_cpu_limit(self.record, limit)
    }

    /// The hard CPU limit, if there is one.
    pub fn hard_limit(&self) -> Option<Duration> {
        account::hard_limit(self.record)
    }

    /// Sets or replaces the limit of one poll, also while the task runs.
    ///
    /// # Errors
    /// See [`LimitError`]; the limit then stays as it was.
    pub fn set_poll_limit(&self, limit: PollLimit) -> Result<(), LimitError> {
        limit.validate()?;
        if self.has_ended() {
            return Err(LimitError::Exited);
        }
        self.record.set_poll_limit(limit_ns(limit.hard));
        Ok(())
    }

    /// Waits until the task has used this much more CPU time, even if it never returns from its poll: the sleeper is woken by
    /// the service thread. A sleep of zero is over at once.
    ///
    /// # Errors
    /// The future's output is [`SleepError::Exited`](crate::SleepError::Exited) if the task ends first, and [`SleepError::OwnClock`](crate::SleepError::OwnClock) if the sleeper is that
    /// task itself.
    ///
    /// # Cancel safety
    /// Dropping the future releases it; nothing is lost.
    pub fn sleep(&self, duration: Duration) -> CpuSleep {
        CpuSleep::for_the_next(Host::Task(self.clone()), duration)
    }

    /// Waits until the clock reads `at`. A time in the past is over at once. See [`sleep`](Self::sleep).
    ///
    /// # Errors
    /// As for [`sleep`](Self::sleep).
    pub fn sleep_until(&self, at: Duration) -> CpuSleep {
        CpuSleep::until(Host::Task(self.clone()), at)
    }
}

impl Clone for CpuClock {
    fn clone(&self) -> Self {
        Self::of(self.record)
    }
}

impl Drop for CpuClock {
    fn drop(&mut self) {
        self.record.release();
    }
}

/// Reads what `target` has used, the poll in progress included; also for callers that hold no reference. `None`: the record has
/// another owner.
pub(crate) fn read(record: &Record, target: Target) -> Option<u64> {
    // A few tries. Polls so short that one ends under our eyes each time hide little.
    let seen = (0..4).find_map(|_| try_read(record, target)).unwrap_or_else(|| record.total_ns());
    // Behind the loads: a recycled record has moved its generation on before its counters were reset.
    fence(Ordering::Acquire);
    (record.shared.wake.generation() == target.generation).then_some(seen)
}

/// What is charged plus what is in progress. `None`: a boundary fell in between, which would count a poll twice.
fn try_read(record: &Record, target: Target) -> Option<u64> {
    let own = thread::current();
    let mut in_progress_ns = 0u64;
    // A poll, and blocking jobs beside it, which are few: the first is noted without an allocation.
    let mut first: Option<(&ThreadSlot, u32)> = None;
    let mut more: Vec<(&ThreadSlot, u32)> = Vec::new();
    for slot in thread::all_slots() {
        let seen = slot.shown.read(|frames| {
            let frame = frames.iter().find(|frame| frame.target == target || members::is_inside(*frame, record))?;
            Some((frame.start.cpu_ns, frames.version()))
        });
        let Some(Some((start_ns, version))) = seen else {
            continue;
        };
        let now_ns = match own {
            // A task that asks for its own time: by the clock that it is charged by, which takes no system call.
            Some(own) if std::ptr::eq(own.slot, slot) => own.clock.stamp(slot).cpu_ns,
            _ => slot.clock_source().remote_cpu_ns(slot)?,
        };
        in_progress_ns += now_ns.saturating_sub(start_ns);
        match first {
            None => first = Some((slot, version)),
            Some(_) => more.push((slot, version)),
        }
    }
    let total_ns = record.total_ns();
    // None of them has charged anything since it was looked at.
    let still = first.iter().chain(&more).all(|(slot, version)| slot.shown.is_still(*version));
    still.then(|| total_ns.saturating_add(in_progress_ns))
}
