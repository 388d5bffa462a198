//! The one door to atomics, locks and cells: the standard library's, or loom's under `--cfg loom`.
//!
//! Every file that loom models takes its synchronization from here, so that a model explores the type that
//! ships and not a copy of it.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{Condvar, Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};
}

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(not(loom))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};
}

#[cfg(not(loom))]
pub(crate) use self::cell::UnsafeCell;

#[cfg(not(loom))]
mod cell {
    /// `std::cell::UnsafeCell` in loom's shape: the pointer lives as long as the closure that uses it.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Shared access: the caller may read through the pointer, nobody may write meanwhile.
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Exclusive access.
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// Locks, whatever a panic left behind.
///
/// The crate's own critical sections run no user code and leave nothing half done, so a poisoned lock carries no
/// information: the panic that poisoned it has been reported where it happened.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits on `condvar`, whatever a panic left behind.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A full fence for a thread that has just done a read-modify-write with `SeqCst`, which on x86-64 is one.
#[cfg(not(loom))]
pub(crate) fn fence_after_rmw() {
    #[cfg(not(target_arch = "x86_64"))]
    atomic::fence(atomic::Ordering::SeqCst);
    #[cfg(target_arch = "x86_64")]
    std::sync::atomic::compiler_fence(atomic::Ordering::SeqCst);
}

/// For who waits for a few instructions of another thread: spins, and lets others run if that one is not.
pub(crate) fn pause(tries: &mut u32) {
    *tries = tries.wrapping_add(1);
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    if tries.is_multiple_of(64) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
