//! The executors, each by the best that its public interface has.
//!
//! All have the same number of workers, which live as long as the bench and park when there is nothing to do. Stipend's
//! accounting is on. async-executor brings no threads: its workers are threads in `run`, parked by futures-lite; it is its
//! static variant, which is its fastest.

use std::future::Future;
use std::thread;

use async_executor::StaticExecutor;
use stipend::{Group, task};

/// What the cases need.
pub(crate) trait Contestant: Copy + Send + Sync + 'static {
    /// Spawns a task and lets go of its handle. From a task, on this executor.
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F);

    /// The same from a thread that is none of its workers.
    fn spawn_from_outside<F: Future<Output = ()> + Send + 'static>(self, future: F);

    /// Lets others run.
    fn yield_now(self) -> impl Future<Output = ()> + Send;
}

#[derive(Clone, Copy)]
pub(crate) struct Stipend {
    runtime: &'static stipend::Runtime,
    /// What comes from outside is of this group, and whatever it spawns with it.
    group: Option<&'static Group>,
}

impl Stipend {
    pub(crate) fn new(workers: usize) -> Self {
        let runtime = stipend::Runtime::builder().worker_threads(workers).build().expect("a runtime can be built");
        Self { runtime: Box::leak(Box::new(runtime)), group: None }
    }

    /// All of its tasks are in one group.
    pub(crate) fn in_one_group(workers: usize) -> Self {
        let group = Group::builder("all").build().expect("a group can be made");
        Self { group: Some(Box::leak(Box::new(group))), ..Self::new(workers) }
    }
}

impl Contestant for Stipend {
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        drop(stipend::spawn(future));
    }

    fn spawn_from_outside<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        match self.group {
            None => drop(self.runtime.spawn(future)),
            Some(group) => {
                let task = task::Builder::new().group(group).spawn_on(self.runtime.handle(), future);
                drop(task.expect("the runtime lives"));
            }
        }
    }

    fn yield_now(self) -> impl Future<Output = ()> + Send {
        stipend::yield_now()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Tokio(&'static tokio::runtime::Runtime);

impl Tokio {
    pub(crate) fn new(workers: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
        Self(Box::leak(Box::new(runtime.expect("a runtime can be built"))))
    }
}

impl Contestant for Tokio {
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        drop(tokio::spawn(future));
    }

    fn spawn_from_outside<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        drop(self.0.spawn(future));
    }

    fn yield_now(self) -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }
}

#[derive(Clone, Copy)]
pub(crate) struct AsyncExecutor(&'static StaticExecutor);

impl AsyncExecutor {
    pub(crate) fn new(workers: usize) -> Self {
        let executor = async_executor::Executor::new().leak();
        for _ in 0..workers {
            thread::spawn(|| futures_lite::future::block_on(executor.run(futures_lite::future::pending::<()>())));
        }
        Self(executor)
    }
}

impl Contestant for AsyncExecutor {
    fn spawn<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        self.0.spawn(future).detach();
    }

    fn spawn_from_outside<F: Future<Output = ()> + Send + 'static>(self, future: F) {
        self.spawn(future);
    }

    fn yield_now(self) -> impl Future<Output = ()> + Send {
        futures_lite::future::yield_now()
    }
}
