//! What a timer is on: which clock it reads, under which lock it lies, and who has to look when it is armed.
//!
//! Timers, sleeps and streams are the same on every clock; what differs is here.

use std::sync::Arc;

use crate::cpu_clock::CpuClock;
use crate::group::Group;
use crate::meter::Inner;
use crate::poll_timers::{self, PollTimers};
use crate::record::{Cold, Record};
use crate::sum::Whole;
use crate::thread;
use crate::timer_set::{Now, TimerSet, Timers};

/// The clock of a timer. Holds it alive.
#[derive(Clone, Debug)]
pub(crate) enum Host {
    /// A task's.
    Task(CpuClock),
    /// That of a task's poll in progress.
    Poll(CpuClock),
    /// A group's.
    Group(Group),
    /// That of all a meter's threads.
    Meter(Arc<Inner>),
}

impl Host {
    /// What the clock reads.
    pub(crate) fn now_ns(&self) -> u64 {
        match self {
            Host::Task(clock) => clock.now_ns(),
            Host::Poll(clock) => poll_timers::in_progress(clock.record()).map_or(0, |poll| poll.ns),
            Host::Group(group) => Whole::Group(group.id()).now_ns(),
            Host::Meter(meter) => Whole::Meter(meter.total.id()).now_ns(),
        }
    }

    /// Whether the clock has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Host::Task(clock) | Host::Poll(clock) => clock.has_ended(),
            // It lives as long as anybody has a handle.
            Host::Group(_) => false,
            Host::Meter(meter) => meter.is_stopped(),
        }
    }

    /// Changes the clock's timers under the lock, with what it reads then, and the caches with them. `None`: it has ended.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut TimerSet, Now<'_>) -> R) -> Option<R> {
        match self {
            Host::Task(clock) => on_record(clock.record(), |timers| change(&mut timers.task, Now::By(clock))),
            Host::Poll(clock) => {
                let record = clock.record();
                let poll = poll_timers::in_progress(record);
                on_record(record, |timers| {
                    let timers = timers.poll.get_or_insert_default();
                    let now_ns = enter(timers, poll);
                    change(&mut timers.set, Now::Is(now_ns))
                })
            }
            Host::Group(group) => {
                let whole = Whole::Group(group.id());
                whole.sum().change(&whole, |timers| change(timers, Now::Of(whole)))
            }
            Host::Meter(meter) => {
                let whole = Whole::Meter(meter.total.id());
                whole.sum().change(&whole, |timers| change(timers, Now::Of(whole)))
            }
        }
    }

    /// The same with a reading for sure, which is so had before the lock, as it may be a system call for each thread that runs.
    pub(crate) fn change_now<R>(&self, change: impl FnOnce(&mut TimerSet, u64) -> R) -> Option<R> {
        match self {
            // It goes by what is under the lock.
            Host::Poll(_) => self.change(|timers, now| change(timers, now.ns())),
            Host::Task(_) | Host::Group(_) | Host::Meter(_) => {
                let now_ns = self.now_ns();
                self.change(|timers, _| change(timers, now_ns))
            }
        }
    }

    /// Brings it about that somebody looks, if what was just armed is due already. To be called behind `change`.
    pub(crate) fn kick_if_due(&self) {
        match self {
            Host::Task(clock) => clock.record().kick_if_due(),
            // A poll that goes on ends; one that is over was not meant.
            Host::Poll(_) => {}
            Host::Group(group) => Whole::Group(group.id()).kick_if_due(),
            Host::Meter(meter) => Whole::Meter(meter.total.id()).kick_if_due(),
        }
    }

    /// Whether the clock cannot go on while the caller waits.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Host::Task(clock) | Host::Poll(clock) => {
                let own = clock.record();
                thread::current().is_some_and(|current| {
                    crate::current::frames(current.slot).any(|(record, _)| std::ptr::eq(record, own))
                })
            }
            // Others may use it up.
            Host::Group(_) | Host::Meter(_) => false,
        }
    }
}

/// What the poll's clock reads, under the lock.
fn enter(timers: &mut PollTimers, poll: Option<poll_timers::InProgress>) -> u64 {
    match poll {
        Some(poll) if poll.goes_on() => {
            timers.enter(poll.seq);
            poll.ns
        }
        _ => 0,
    }
}

/// `None`: the account has ended.
fn on_record<R>(record: &Record, change: impl FnOnce(&mut Timers) -> R) -> Option<R> {
    let mut cold = record.cold.lock();
    // `end` sets the flag before it takes the lock to clean up: seen from here, either it is set or the clean-up follows.
    if record.shared.wake.is_ended() {
        return None;
    }
    let result = change(timers(&mut cold));
    record.refresh(&cold);
    Some(result)
}

fn timers(cold: &mut Cold) -> &mut Timers {
    cold.timers.get_or_insert_default()
}
