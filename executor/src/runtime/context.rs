//! What a thread knows of the runtime it belongs to.
//!
//! Kept in thread-locals, each with one meaning: the runtime that `spawn` uses, the worker whose queue is at hand, the
//! runtime whose blocking pool it belongs to, and what the thread may not do because of what it is.
//!
//! # Invariant
//! `HERE` is null, or points to what `WORKER` holds: both change in [`set_worker`] and in [`Kept`]'s drop, and nowhere else.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::{mem, ptr};

use super::shared::Shared;
use super::worker::Local;

thread_local! {
    static RUNTIME: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
    static WORKER: RefCell<Kept> = const { RefCell::new(Kept(None)) };
    /// The same, to be had by one load: each push and each spawn asks.
    static HERE: Cell<*const Local> = const { Cell::new(ptr::null()) };
    /// The address of the runtime whose blocking pool this thread belongs to, or 0. Such a thread keeps the runtime, so
    /// no other can have the address meanwhile.
    static POOL_OF: Cell<usize> = const { Cell::new(0) };
    static ROLE: Cell<Role> = const { Cell::new(Role::Foreign) };
}

/// The worker that the thread is.
struct Kept(Option<Rc<Local>>);

impl Drop for Kept {
    fn drop(&mut self) {
        // The thread ends, and what is dropped behind this finds no worker.
        HERE.set(ptr::null());
    }
}

/// Makes the thread another worker, or none, and returns the one before. Not while the thread ends, when there is none.
fn set_worker(worker: Option<Rc<Local>>) -> Option<Rc<Local>> {
    WORKER
        .try_with(|kept| {
            HERE.set(worker.as_ref().map_or(ptr::null(), Rc::as_ptr));
            mem::replace(&mut kept.borrow_mut().0, worker)
        })
        .ok()
        .flatten()
}

/// Calls `f`, which runs no user code, with the worker that the thread is.
#[inline]
fn with_here<R>(f: impl FnOnce(Option<&Local>) -> R) -> R {
    // SAFETY: by the invariant it is null or kept alive, and it stays so meanwhile, as `f` makes the thread no other worker.
    f(unsafe { HERE.get().as_ref() })
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
    with_here(|worker| match worker {
        Some(local) if local.belongs_to(runtime) => Ok(f(local, item)),
        _ => Err(item),
    })
}

/// The [`LocalRuntime`](super::LocalRuntime) that runs its tasks on this thread, and is running: the caller is one of them, or its
/// root future.
pub(crate) fn local_runtime() -> Option<Arc<Shared>> {
    with_here(|worker| worker.map(Local::shared).filter(|shared| shared.is_local()).map(Arc::clone))
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
        let _left = RUNTIME.try_with(|runtime| mem::replace(&mut *runtime.borrow_mut(), before));
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
    AsWorker { before: set_worker(Some(Rc::clone(local))), not_send: PhantomData }
}

impl Drop for AsWorker {
    fn drop(&mut self) {
        drop(set_worker(self.before.take()));
    }
}
