//! What a thread knows of the runtime it belongs to.
//!
//! Kept in thread-locals, each with one meaning: the runtime that `spawn` uses, the worker whose queue is at hand, the
//! runtime whose blocking pool it belongs to, and what the thread may not do because of what it is.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::shared::Shared;
use super::worker::Local;

thread_local! {
    static RUNTIME: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
    static WORKER: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
    /// The address of the runtime whose blocking pool this thread belongs to, or 0. Such a thread keeps the runtime, so
    /// no other can have the address meanwhile.
    static POOL_OF: Cell<usize> = const { Cell::new(0) };
    static ROLE: Cell<Role> = const { Cell::new(Role::Foreign) };
}

/// What a thread is to the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing, or a job's thread: it may block.
    Foreign,
    Worker,
    /// It polls a root future.
    Root,
}

/// The runtime entered last.
pub(crate) fn current() -> Option<Arc<Shared>> {
    // `try_with`: the thread may be ending.
    RUNTIME.try_with(|runtime| runtime.borrow().clone()).ok().flatten()
}

/// Calls `f` with the runtime entered last, sparing the count. `f` runs no user code, which might enter another one.
pub(crate) fn with_current<R>(f: impl FnOnce(&Arc<Shared>) -> R) -> Option<R> {
    RUNTIME.try_with(|runtime| runtime.borrow().as_ref().map(f)).ok().flatten()
}

/// Calls `f` with the worker that this thread is, if it is one of the runtime at this address; else hands `item` back. `f` runs no
/// user code.
#[inline]
pub(crate) fn with_worker<T, R>(runtime: *const Shared, item: T, f: impl FnOnce(&Local, T) -> R) -> Result<R, T> {
    let mut item = Some(item);
    let done = WORKER.try_with(|worker| match &*worker.borrow() {
        Some(local) if local.belongs_to(runtime) => item.take().map(|item| f(local, item)),
        _ => None,
    });
    match (done, item) {
        (Ok(Some(result)), _) => Ok(result),
        (_, Some(item)) => Err(item),
        (_, None) => unreachable!("what `f` took, it answered for"),
    }
}

/// The [`LocalRuntime`](super::LocalRuntime) that runs its tasks on this thread, and is running: the caller is one of them, or its
/// root future.
pub(crate) fn local_runtime() -> Option<Arc<Shared>> {
    let of = |worker: &RefCell<Option<Rc<Local>>>| match &*worker.borrow() {
        Some(local) if local.shared().is_local() => Some(Arc::clone(local.shared())),
        _ => None,
    };
    WORKER.try_with(of).ok().flatten()
}

/// Whether the thread can still be told what it is: not while its thread-locals are dropped.
pub(crate) fn is_available() -> bool {
    RUNTIME.try_with(|_| ()).is_ok() && WORKER.try_with(|_| ()).is_ok()
}

pub(crate) fn role() -> Role {
    ROLE.try_with(Cell::get).unwrap_or(Role::Foreign)
}

/// Until it is dropped the thread is in the runtime; then in the one before.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Option<Arc<Shared>>,
    not_send: PhantomData<*const ()>,
}

pub(crate) fn enter(shared: &Arc<Shared>) -> Entered {
    let before = RUNTIME.with(|runtime| runtime.borrow_mut().replace(Arc::clone(shared)));
    Entered { before, not_send: PhantomData }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        // What was current may be the last reference, and is dropped outside the borrow.
        let _left = RUNTIME.try_with(|runtime| std::mem::replace(&mut *runtime.borrow_mut(), before));
    }
}

/// As [`enter`], for a thread of the blocking pool, which is the runtime's own.
pub(crate) fn enter_blocking(shared: &Arc<Shared>) -> Entered {
    POOL_OF.set(Arc::as_ptr(shared) as usize);
    enter(shared)
}

/// Is this one of the runtime's own threads, so that it must not wait for the runtime's end?
pub(crate) fn is_thread_of(shared: &Arc<Shared>) -> bool {
    with_worker(Arc::as_ptr(shared), (), |_, ()| ()).is_ok() || POOL_OF.get() == Arc::as_ptr(shared) as usize
}

/// Until it is dropped the thread has a role.
#[derive(Debug)]
pub(crate) struct InRole {
    before: Role,
    not_send: PhantomData<*const ()>,
}

pub(crate) fn take_role(role: Role) -> InRole {
    InRole { before: ROLE.replace(role), not_send: PhantomData }
}

impl Drop for InRole {
    fn drop(&mut self) {
        let _ = ROLE.try_with(|role| role.set(self.before));
    }
}

/// Until it is dropped the thread is this worker; then what it was before.
pub(crate) struct AsWorker {
    before: Option<Rc<Local>>,
    not_send: PhantomData<*const ()>,
}

pub(crate) fn be_worker(local: &Rc<Local>) -> AsWorker {
    let before = WORKER.with(|worker| worker.borrow_mut().replace(Rc::clone(local)));
    AsWorker { before, not_send: PhantomData }
}

impl Drop for AsWorker {
    fn drop(&mut self) {
        let before = self.before.take();
        let _left = WORKER.try_with(|worker| std::mem::replace(&mut *worker.borrow_mut(), before));
    }
}
