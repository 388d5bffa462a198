//! Values that belong to a future and what it calls, rather than to a thread.
//!
//! A scope keeps its value while its future waits. For each poll, and while the future is dropped, the value changes
//! places with what the thread's slot holds.
//!
//! Invariant: when a poll is over, by a panic too, the slot holds what it held before. So a thread has the values of
//! those scopes only whose futures it polls at this moment, the innermost of each key. (The semantics are those of
//! tokio's `task_local!`.)

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use pin_project::{pin_project, pinned_drop};

/// Declares [task-local](crate::task::LocalKey) keys, as [`std::thread_local!`] does for threads. There is no
/// initial value: it comes with each [`scope`](crate::task::LocalKey::scope).
///
/// ```
/// stipend::task_local! {
///     /// Who asks.
///     pub static TENANT: String;
///     static DEPTH: usize;
/// }
///
/// let runtime = stipend::runtime::Runtime::new()?;
/// let length = runtime.block_on(TENANT.scope("alice".to_owned(), async {
///     DEPTH.scope(1, async { TENANT.with(|tenant| tenant.len()) + DEPTH.get() }).await
/// }));
/// assert_eq!(length, 6);
/// # Ok::<(), std::io::Error>(())
/// ```
#[macro_export]
macro_rules! task_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty);* $(;)?) => {$(
        $(#[$attribute])*
        $visibility static $name: $crate::task::LocalKey<$type> = {
            ::std::thread_local! {
                static SLOT: ::std::cell::RefCell<::std::option::Option<$type>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }
            $crate::task::LocalKey::__new(SLOT)
        };
    )*};
}

/// A key to a value that belongs to a future; made by [`task_local!`](crate::task_local).
///
/// The value is there inside of [`scope`](Self::scope), on whichever thread it is polled. A task spawned in there
/// does not inherit it.
pub struct LocalKey<T: 'static> {
    slot: thread::LocalKey<RefCell<Option<T>>>,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn __new(slot: thread::LocalKey<RefCell<Option<T>>>) -> Self {
        Self { slot }
    }

    /// Runs `future` with `value` in this key. Scopes nest: the inner value is seen until the inner scope ends.
    ///
    /// # Panics
    ///
    /// When polled by what was called by [`with`](Self::with) of the same key: the value is in use.
    ///
    /// # Cancel safety
    ///
    /// That of `future`, which finds the value also while it is dropped.
    ///
    /// ```
    /// stipend::task_local!(static REQUEST: u32);
    ///
    /// let runtime = stipend::runtime::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let task = stipend::spawn(REQUEST.scope(7, async {
    ///         stipend::yield_now().await;
    ///         REQUEST.get()
    ///     }));
    ///     assert_eq!(task.await.unwrap(), 7);
    ///     assert!(REQUEST.try_with(|_| ()).is_err());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> TaskLocalFuture<T, F> {
        TaskLocalFuture { key: self, value: Some(value), future: Some(future) }
    }

    /// Calls `f` with the value.
    ///
    /// # Panics
    ///
    /// Outside of a scope of this key.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`with`](Self::with), if there is a value.
    ///
    /// # Errors
    ///
    /// [`LocalError`] outside of a scope of this key, and while the thread ends.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, LocalError> {
        let found = self.slot.try_with(|slot| {
            // It is borrowed mutably only while two values change places, where nothing is called.
            slot.borrow().as_ref().map(f)
        });
        found.ok().flatten().ok_or(LocalError(()))
    }

    /// A clone of the value.
    ///
    /// # Panics
    ///
    /// Outside of a scope of this key.
    #[must_use]
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// Calls `f` while `value` is in the slot. `None` if the slot is in use, or gone because the thread ends.
    fn exchanged<R>(&'static self, value: &mut Option<T>, f: impl FnOnce() -> R) -> Option<R> {
        /// Changes the values back, after a panic too.
        struct Back<'a, T: 'static> {
            key: &'static LocalKey<T>,
            value: &'a mut Option<T>,
        }
        impl<T> Drop for Back<'_, T> {
            fn drop(&mut self) {
                self.key.exchange(self.value);
            }
        }

        if !self.exchange(value) {
            return None;
        }
        let _back = Back { key: self, value };
        Some(f())
    }

    fn exchange(&'static self, value: &mut Option<T>) -> bool {
        let exchanged = self.slot.try_with(|slot| match slot.try_borrow_mut() {
            Ok(mut slot) => {
                mem::swap(&mut *slot, value);
                true
            }
            Err(_) => false,
        });
        exchanged.unwrap_or(false)
    }
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The future of [`LocalKey::scope`].
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless polled"]
pub struct TaskLocalFuture<T: 'static, F> {
    key: &'static LocalKey<T>,
    /// While the future is polled: what the slot held before.
    value: Option<T>,
    /// `None` once it has returned: it is dropped inside of the scope.
    #[pin]
    future: Option<F>,
}

impl<T, F: Future> Future for TaskLocalFuture<T, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = this.key.exchanged(this.value, || {
            let future = this.future.as_mut().as_pin_mut()?;
            let polled = future.poll(cx);
            if polled.is_ready() {
                this.future.set(None);
            }
            Some(polled)
        });
        match polled {
            Some(Some(polled)) => polled,
            Some(None) => panic!("a task-local scope was polled again after it returned"),
            None => panic!("a task-local scope was entered while `with` of the same key ran on this thread"),
        }
    }
}

#[pinned_drop]
impl<T, F> PinnedDrop for TaskLocalFuture<T, F> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.future.is_some() {
            // Without a slot the future is dropped as a field, outside of the scope.
            let _ = this.key.exchanged(this.value, || this.future.set(None));
        }
    }
}

impl<T, F> fmt::Debug for TaskLocalFuture<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLocalFuture").finish_non_exhaustive()
    }
}

/// There is no value in a [`LocalKey`]: this is not inside of a [`scope`](LocalKey::scope) of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalError(());

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this task-local has no value here: it is set by `LocalKey::scope`, and not inherited by tasks spawned inside",
        )
    }
}

impl Error for LocalError {}
