//! Panics of user code end where they happen.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

/// Runs user code and swallows its panic, and that of dropping the panic's payload.
pub(crate) fn contain(user: impl FnOnce()) {
    if let Err(payload) = catch(user) {
        discard(payload);
    }
}

/// Wakes, and gives the waker back. To be called outside of locks, as both may run user code.
pub(crate) fn wake(waker: Arc<Waker>) {
    contain(|| {
        waker.wake_by_ref();
        drop(waker);
    });
}

/// Runs user code and hands out its panic.
pub(crate) fn catch<R>(user: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    // Nothing of ours is borrowed by `user` in a state that an unwind could leave half changed: callers hold no lock.
    catch_unwind(AssertUnwindSafe(user))
}

/// Drops a payload whose destructor may panic as well. The payload of that second panic is leaked: it could go on for ever.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
