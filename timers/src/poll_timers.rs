//! Timers on the clock of the poll in progress, which starts anew with every poll: `RLIMIT_RTTIME`'s clock.
//!
//! A timer is armed for a *reading* of that clock, and stays armed for it: it fires in each poll that comes to the reading. Nothing
//! is done at the beginning of a poll for that. What fires in a poll is noted and, when the next thing happens that belongs to
//! another poll, armed again as it was.
//!
//! The boundary's comparison of the poll's CPU time with the limit of one poll serves these timers too: what it compares with,
//! [`poll_alarm_ns`](crate::record::SharedLine), is the least of both. So they cost a poll nothing that it had not to pay already.
//!
//! # Invariants
//! * The alarm is never above the least reading that a timer is armed for, whether or not that timer has fired in this poll. So
//!   a poll in which anything has fired comes by the lock at its boundary, and whatever that poll was due is delivered there, once.
//! * Between [`PollTimers::enter`] with the poll's sequence, under the lock and while the poll is known to go on, and the poll's
//!   boundary nobody arms anew what has fired. A supervisor's timer, fired by the service thread in the middle of a poll, is so not
//!   fired again at its end.
//! * A pass that was over its bound keeps the reading of that poll until all of it is delivered; polls meanwhile join it.

use crate::record::Record;
use crate::slot::{NO_POLL, Section};
use crate::thread::{self, ThreadSlot};
use crate::timer_set::TimerSet;

/// What a poll that is over has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollReading {
    pub(crate) seq: u32,
    pub(crate) ns: u64,
    /// What is due by then is delivered: less than `ns` if a limit was reached.
    pub(crate) until_ns: u64,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct PollTimers {
    pub(crate) set: TimerSet,
    /// The poll that what has fired belongs to.
    of_seq: u32,
    /// The poll whose expiries a boundary delivers.
    delivering: Option<PollReading>,
}

impl Default for PollTimers {
    fn default() -> Self {
        Self { set: TimerSet::restarting(), of_seq: NO_POLL, delivering: None }
    }
}

impl PollTimers {
    /// The least reading that anything, and anything of a supervisor's, is armed for.
    pub(crate) fn least(&self) -> (u64, u64) {
        self.set.least_armed()
    }

    /// The next reading in the poll [`of_seq`](Self::of_seq) that a supervisor waits for.
    pub(crate) fn next_remote(&self) -> u64 {
        self.set.next_expiries().1
    }

    pub(crate) fn of_seq(&self) -> u32 {
        self.of_seq
    }

    /// What happens now happens in the poll `seq`.
    pub(crate) fn enter(&mut self, seq: u32) {
        if self.of_seq != seq && self.delivering.is_none() {
            self.set.restart();
            self.of_seq = seq;
        }
    }

    /// A boundary delivers what is due in `poll`, or goes on with what a pass has left over. What to deliver up to.
    pub(crate) fn deliver(&mut self, poll: Option<PollReading>) -> Option<PollReading> {
        if let Some(poll) = poll {
            self.enter(poll.seq);
            // What is armed from now on is for the polls to come.
            self.set.hold_back();
            let most = self.delivering.map_or(poll, |left| PollReading {
                ns: left.ns.max(poll.ns),
                until_ns: left.until_ns.max(poll.until_ns),
                ..poll
            });
            self.delivering = Some(most);
        }
        self.delivering
    }

    /// A pass has delivered what it could: all of it, unless it was over its bound. The clock reads zero until the next poll.
    pub(crate) fn delivered(&mut self, over_bound: bool) {
        let Some(poll) = self.delivering else { return };
        if !over_bound || self.set.next_expiries().0 > poll.until_ns {
            self.delivering = None;
            self.set.restart();
            self.of_seq = NO_POLL;
        }
    }

    /// Whether a pass was over its bound.
    pub(crate) fn is_delivering(&self) -> bool {
        self.delivering.is_some()
    }
}

/// A poll in progress, as it was seen at one moment.
#[derive(Clone, Copy)]
pub(crate) struct InProgress {
    pub(crate) seq: u32,
    pub(crate) ns: u64,
    slot: &'static ThreadSlot,
    version: u32,
}

impl InProgress {
    /// Whether it goes on. Asked under the lock: its boundary, which moves the version first, delivers behind that.
    pub(crate) fn goes_on(&self) -> bool {
        self.slot.shown.is_still(self.version)
    }
}

/// The poll of `record`'s account that is in progress. For holders of a reference, and others that compare the generation.
pub(crate) fn in_progress(record: &Record) -> Option<InProgress> {
    let target = record.target();
    // A poll that ends under our eyes is over; the next one has used little.
    thread::all_slots().find_map(|slot| {
        let (frame, version) = slot.shown.read(|frames| {
            let frame = frames.iter().find(|frame| frame.target == target && frame.section == Section::Poll)?;
            Some((frame, frames.version()))
        })??;
        let ns = slot.clock_source().remote_cpu_ns(slot)?.saturating_sub(frame.start.cpu_ns);
        slot.shown.is_still(version).then_some(InProgress { seq: frame.seq, ns, slot, version })
    })
}
