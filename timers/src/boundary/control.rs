//! What a boundary answers.

use std::any::Any;

use crate::error::CpuLimitExceeded;

/// What the boundary tells whoever polls.
#[derive(Debug)]
#[must_use]
pub enum Control {
    /// Go on.
    Proceed,
    /// Drop the future now, inside the run; the task does nothing more. In a box, so that the answer of each poll is a word.
    Cancel(Box<CancelReason>),
}

impl From<CancelReason> for Control {
    fn from(reason: CancelReason) -> Self {
        Self::Cancel(Box::new(reason))
    }
}

/// Why a task is cancelled.
#[derive(Debug)]
#[non_exhaustive]
pub enum CancelReason {
    /// [`Account::cancel`](crate::Account::cancel), or a handler that answered [`Action::Cancel`](crate::Action::Cancel).
    Requested,
    /// A hard limit was reached.
    CpuLimit(CpuLimitExceeded),
    /// A handler panicked; the payload.
    HandlerPanicked(Box<dyn Any + Send>),
}

impl std::fmt::Display for CancelReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CancelReason::Requested => f.write_str("the task was cancelled"),
            CancelReason::CpuLimit(exceeded) => exceeded.fmt(f),
            CancelReason::HandlerPanicked(_) => f.write_str("an expiry handler of the task panicked"),
        }
    }
}

impl std::error::Error for CancelReason {}
