//! Limits as values: what may be used in all, and what in one poll.

use std::time::Duration;

use crate::error::LimitError;
use crate::units::nanos;

/// How much CPU time a task may use, like `RLIMIT_CPU`: a *soft* limit notifies, a *hard* one cancels.
///
/// At the hard limit the task is cancelled at the boundary of the poll that reached it: its future is dropped there, and its
/// `JoinHandle` reads [`CpuLimitExceeded`](crate::CpuLimitExceeded). A task that completes in that very poll returns its value.
/// A poll that never returns cannot be cancelled; [`checkpoint`](crate::checkpoint) lets it notice.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::CpuLimit;
///
/// let limit = CpuLimit::hard(Duration::from_millis(50)).soft(Duration::from_millis(30));
/// assert!(limit.validate().is_ok());
/// assert!(CpuLimit::hard(Duration::ZERO).validate().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a limit does nothing until it is set on a task"]
pub struct CpuLimit {
    pub(crate) hard: Option<Duration>,
    pub(crate) soft: Option<Duration>,
    pub(crate) repeat: Option<Duration>,
}

impl CpuLimit {
    /// A hard limit: at least 1 ns.
    pub const fn hard(limit: Duration) -> Self {
        Self { hard: Some(limit), soft: None, repeat: None }
    }

    /// A soft limit without a hard one.
    pub const fn soft_only(limit: Duration) -> Self {
        Self { hard: None, soft: Some(limit), repeat: None }
    }

    /// No limit: takes away what was set.
    pub const fn unlimited() -> Self {
        Self { hard: None, soft: None, repeat: None }
    }

    /// Adds a soft limit, at most the hard one. Zero notifies at the first boundary.
    pub const fn soft(mut self, limit: Duration) -> Self {
        self.soft = Some(limit);
        self
    }

    /// Notifies again after each `every` of CPU time past the soft limit (the kernel: every second past `RLIMIT_CPU`).
    pub const fn repeat(mut self, every: Duration) -> Self {
        self.repeat = Some(every);
        self
    }

    /// The hard limit, if there is one.
    pub const fn hard_limit(&self) -> Option<Duration> {
        self.hard
    }

    /// The soft limit, if there is one.
    pub const fn soft_limit(&self) -> Option<Duration> {
        self.soft
    }

    /// Whether this limit can be kept.
    ///
    /// # Errors
    /// [`LimitError::ZeroHard`], [`LimitError::SoftAboveHard`], [`LimitError::BadRepeat`].
    pub fn validate(&self) -> Result<(), LimitError> {
        if self.hard == Some(Duration::ZERO) {
            return Err(LimitError::ZeroHard);
        }
        if let (Some(soft), Some(hard)) = (self.soft, self.hard)
            && soft > hard
        {
            return Err(LimitError::SoftAboveHard { soft, hard });
        }
        match self.repeat {
            Some(repeat) if repeat.is_zero() || self.soft.is_none() => Err(LimitError::BadRepeat { repeat }),
            _ => Ok(()),
        }
    }
}

/// How much CPU time one poll may use, like `RLIMIT_RTTIME`: returning `Pending` resets it; being preempted by the kernel, or
/// yielding inside the poll, does not.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::PollLimit;
///
/// let limit = PollLimit::hard(Duration::from_millis(5));
/// assert!(limit.validate().is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a limit does nothing until it is set on a task"]
pub struct PollLimit {
    pub(crate) hard: Option<Duration>,
}

impl PollLimit {
    /// A task with a poll that uses this much is cancelled at the end of that poll; at least 1 ns.
    pub const fn hard(limit: Duration) -> Self {
        Self { hard: Some(limit) }
    }

    /// No limit: takes away what was set.
    pub const fn unlimited() -> Self {
        Self { hard: None }
    }

    /// Whether this limit can be kept.
    ///
    /// # Errors
    /// [`LimitError::ZeroHard`].
    pub fn validate(&self) -> Result<(), LimitError> {
        if self.hard == Some(Duration::ZERO) { Err(LimitError::ZeroHard) } else { Ok(()) }
    }
}

/// A limit in nanoseconds, where none is "never".
pub(crate) fn limit_ns(limit: Option<Duration>) -> u64 {
    limit.map_or(crate::record::NEVER, nanos)
}
