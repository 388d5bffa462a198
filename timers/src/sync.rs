//! The atomics and locks that the lock-free parts are built from: std's, or loom's under `cfg(loom)`, so that a model
//! exercises the real type and not a copy of it.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
use loom::sync::{Mutex as Inner, MutexGuard as InnerGuard};
#[cfg(not(loom))]
use std::sync::{Mutex as Inner, MutexGuard as InnerGuard};

/// A mutex that does not poison: user code never runs while one is held, so a panic cannot leave half a change behind.
#[derive(Debug)]
pub(crate) struct Mutex<T>(Inner<T>);

pub(crate) type MutexGuard<'a, T> = InnerGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The same for a mutex that is std's in a model too: one in a static, or in what no model looks at.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A full fence for a thread that has just done a read-modify-write with `SeqCst`.
///
/// On x86-64 every locked read-modify-write drains the store buffer, so the fence would be paid for twice; there only the
/// compiler is held back. Everywhere else, and in a loom model, it is the real fence.
pub(crate) fn fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    fence(Ordering::SeqCst);
}

/// Lets another thread run, for a wait that is short.
pub(crate) fn yield_now() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::thread::yield_now();
}
