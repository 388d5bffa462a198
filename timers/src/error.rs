//! What can be refused, each error saying what was asked, what is allowed and what to do.

use std::fmt;
use std::time::Duration;

use crate::units::Millis;

/// Which limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LimitKind {
    /// The hard limit on the account's whole CPU time ([`CpuLimit`](crate::CpuLimit)).
    Total,
    /// The limit on the CPU time of one poll ([`PollLimit`](crate::PollLimit)).
    Poll,
    /// The limit that a [`Scope`](crate::Scope) sets for all that runs inside it.
    Scope,
}

/// A hard limit was reached: by how much, and how the time was spent.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuLimitExceeded {
    /// Which limit it was.
    pub kind: LimitKind,
    /// CPU time used when the limit was enforced: of the account, for [`LimitKind::Poll`] of that poll, for
    /// [`LimitKind::Scope`] of the whole scope. At least `limit`.
    pub used: Duration,
    /// The limit.
    pub limit: Duration,
    /// Polls until then, of what was ended.
    pub polls: u64,
    /// CPU time of the longest of them.
    pub longest_poll: Duration,
}

impl fmt::Display for CpuLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            LimitKind::Total => "CPU limit",
            LimitKind::Poll => "CPU limit of one poll",
            LimitKind::Scope => "CPU limit of a scope",
        };
        write!(
            f,
            "{what} exceeded: used {} of {} in {} polls, the longest {}",
            Millis(self.used),
            Millis(self.limit),
            self.polls,
            Millis(self.longest_poll)
        )
    }
}

impl std::error::Error for CpuLimitExceeded {}

/// A limit that cannot be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LimitError {
    /// A hard limit of zero: nothing could ever run under it.
    ZeroHard,
    /// The soft limit lies above the hard one, so it could never be reached.
    SoftAboveHard {
        /// The soft limit asked for.
        soft: Duration,
        /// The hard limit asked for, the most that `soft` may be.
        hard: Duration,
    },
    /// A repeat of zero, or one without a soft limit to repeat.
    BadRepeat {
        /// The repeat asked for.
        repeat: Duration,
    },
    /// The account has ended.
    Exited,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::ZeroHard => f.write_str("a hard limit of 0 was asked for; it must be at least 1 ns"),
            LimitError::SoftAboveHard { soft, hard } => {
                write!(f, "a soft limit of {soft:?} was asked for with a hard one of {hard:?}; it may be at most that")
            }
            LimitError::BadRepeat { repeat } => {
                write!(f, "a repeat of {repeat:?} was asked for; it needs a soft limit and must be at least 1 ns")
            }
            LimitError::Exited => f.write_str("the limit of a task that has ended cannot be changed"),
        }
    }
}

impl std::error::Error for LimitError {}

/// A timer that cannot be armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TimerError {
    /// The account that the timer belongs to has ended, or the meter was stopped; the clock can still be read.
    Exited,
    /// An interval of zero where one is needed.
    ZeroInterval,
    /// An interval of more than 2^63 ns (292 years), whose grid could not be kept.
    IntervalTooLong {
        /// The interval asked for.
        interval: Duration,
        /// The longest that is allowed.
        max: Duration,
    },
    /// The clock has as many timers as it may have, armed or not, the sleeps on it among them; drop some first. Only timers are
    /// refused for that, a sleep never is.
    TooMany {
        /// With how many there is no room for another.
        max: usize,
    },
}

impl fmt::Display for TimerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimerError::Exited => f.write_str("the task or meter whose CPU time this timer watches has ended"),
            TimerError::ZeroInterval => f.write_str("an interval of 0 was asked for; it must be at least 1 ns"),
            TimerError::IntervalTooLong { interval, max } => {
                write!(f, "an interval of {interval:?} was asked for; it may be at most {max:?}")
            }
            TimerError::TooMany { max } => {
                write!(
                    f,
                    "one timer more was asked for on a clock that has {max}, the most it may have; drop some first"
                )
            }
        }
    }
}

impl std::error::Error for TimerError {}

/// Why a sleep on a CPU clock ended without its time having come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SleepError {
    /// The task whose clock it was has ended, or the meter was stopped: that time will never come.
    Exited,
    /// The clock is the sleeper's own: it stands still while the sleeper waits, so the sleep could never end.
    OwnClock,
}

impl fmt::Display for SleepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SleepError::Exited => "the task or meter whose CPU time was waited for has ended",
            SleepError::OwnClock => "a task cannot sleep on its own CPU clock, which stands still meanwhile",
        })
    }
}

impl std::error::Error for SleepError {}

/// Why [`checkpoint`](crate::checkpoint) tells the caller to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A hard limit was reached; the task will be cancelled at the end of this poll.
    CpuLimitExceeded(CpuLimitExceeded),
    /// The task was aborted from elsewhere.
    Cancelled,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::CpuLimitExceeded(exceeded) => exceeded.fmt(f),
            CheckpointError::Cancelled => f.write_str("the task was cancelled"),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// The account has ended, so nothing can be queued on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exited;

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task has ended")
    }
}

impl std::error::Error for Exited {}

/// A meter that cannot be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum MeterError {
    /// The tick period lies outside what the tick can keep.
    TickPeriod {
        /// The period asked for.
        asked: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// The clock that was asked for cannot be had.
    Clock(crate::clock::ClockError),
    /// The system refused a thread or a timer.
    Io(std::io::Error),
}

impl fmt::Display for MeterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MeterError::TickPeriod { asked, min, max } => {
                write!(f, "a tick period of {asked:?} was asked for; it must lie between {min:?} and {max:?}")
            }
            MeterError::Clock(error) => error.fmt(f),
            MeterError::Io(error) => write!(f, "the preemption tick could not be started: {error}"),
        }
    }
}

impl std::error::Error for MeterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MeterError::Io(error) => Some(error),
            MeterError::Clock(error) => Some(error),
            MeterError::TickPeriod { .. } => None,
        }
    }
}

impl From<crate::clock::ClockError> for MeterError {
    fn from(error: crate::clock::ClockError) -> Self {
        MeterError::Clock(error)
    }
}

impl From<std::io::Error> for MeterError {
    fn from(error: std::io::Error) -> Self {
        MeterError::Io(error)
    }
}
