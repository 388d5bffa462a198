//! What user code throws, and how it is kept from taking anything else down.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code whose result nobody wants; a panic of it, or of dropping what it returns, ends here.
pub(crate) fn contain<R>(f: impl FnOnce() -> R) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(f()))) {
        discard(payload);
    }
}

/// Drops a panic's payload. A payload may have a destructor that panics, with a payload of its own: that one is
/// leaked, for there is no end to this.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(next);
    }
}

/// The payload of a panic in a task.
pub struct Panic(Option<Box<dyn Any + Send>>);

// SAFETY: the payload is not `Sync`, and a shared `Panic` never lends it: `message` compares its type id, which is the
// standard library's code for every type, and reads it only if it is a `String` or a `&'static str`, which are `Sync`.
// Everything else takes the `Panic` by value.
unsafe impl Sync for Panic {}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Some(payload))
    }

    /// What the panic said, if it was raised with a string.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        let payload = self.0.as_deref()?;
        match payload.downcast_ref::<&'static str>() {
            Some(message) => Some(message),
            None => payload.downcast_ref::<String>().map(String::as_str),
        }
    }

    /// The payload, as [`std::panic::resume_unwind`] takes it.
    #[must_use]
    pub fn into_payload(mut self) -> Box<dyn Any + Send> {
        self.0.take().unwrap_or_else(|| Box::new(()))
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.0.take() {
            discard(payload);
        }
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}
