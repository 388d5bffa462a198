//! Why a task did not return.

use std::any::Any;
use std::fmt;

use stipend_timers::CpuLimitExceeded;

use super::Panic;

/// Why a task did not return a value.
///
/// ```
/// use stipend::{runtime::Runtime, task::JoinError};
///
/// let runtime = Runtime::new()?;
/// let error = runtime.block_on(async { stipend::spawn(async { panic!("out of cheese") }).await }).unwrap_err();
/// match error {
///     JoinError::Panicked(panic) => assert_eq!(panic.message(), Some("out of cheese")),
///     other => unreachable!("{other}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub enum JoinError {
    /// It was aborted; one of its expiry handlers answered [`Action::Cancel`](crate::Action::Cancel); the run of the
    /// [`Scope`](crate::Scope) that it was spawned in ended; its runtime shut down, or was shut down already and refused it.
    Cancelled,
    /// Its poll, its destructor or one of its expiry handlers panicked.
    Panicked(Panic),
    /// It used up its hard CPU limit, or the [`Scope`](crate::Scope) that it was spawned in used up that one's.
    CpuLimitExceeded(CpuLimitExceeded),
}

impl JoinError {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked(Panic::new(payload))
    }

    /// Is it [`Cancelled`](Self::Cancelled)?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Did the task panic?
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// The payload of the panic, to be passed to [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// The error itself, if it is not a panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self {
            Self::Panicked(panic) => Ok(panic.into_payload()),
            other => Err(other),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::Panicked(panic) => match panic.message() {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
            Self::CpuLimitExceeded(exceeded) => exceeded.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CpuLimitExceeded(exceeded) => Some(exceeded),
            Self::Cancelled | Self::Panicked(_) => None,
        }
    }
}

impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> Self {
        Self::other(error)
    }
}
