//! A task that is held inside its poll until the test says how that ends, and what counts its drops.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use stipend::runtime::Runtime;
use stipend::task::{JoinError, JoinHandle, TaskState};

use crate::common::wait_until;

pub(crate) fn runtime() -> Runtime {
    Runtime::builder().worker_threads(1).build().unwrap()
}

/// How a poll ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ends {
    Pending,
    Ready,
    Panic,
}

pub(crate) const EVERY_END: [Ends; 3] = [Ends::Pending, Ends::Ready, Ends::Panic];

#[derive(Debug, Default)]
pub(crate) struct Counts {
    polls: AtomicUsize,
    futures_dropped: AtomicUsize,
    outputs_dropped: AtomicUsize,
}

impl Counts {
    pub(crate) fn polls(&self) -> usize {
        self.polls.load(SeqCst)
    }
    pub(crate) fn futures_dropped(&self) -> usize {
        self.futures_dropped.load(SeqCst)
    }
    pub(crate) fn outputs_dropped(&self) -> usize {
        self.outputs_dropped.load(SeqCst)
    }
}

#[derive(Debug)]
pub(crate) struct Output(pub(crate) CountsOf);

pub(crate) type CountsOf = Arc<Counts>;

impl Drop for Output {
    fn drop(&mut self) {
        self.0.outputs_dropped.fetch_add(1, SeqCst);
    }
}

/// Hands its waker out in each poll, and waits there to be told how to end it.
pub(crate) struct Held {
    pub(crate) counts: CountsOf,
    pub(crate) inside: mpsc::Sender<Waker>,
    pub(crate) ends: mpsc::Receiver<Ends>,
}

impl Future for Held {
    type Output = Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        self.counts.polls.fetch_add(1, SeqCst);
        self.inside.send(cx.waker().clone()).unwrap();
        match self.ends.recv().unwrap() {
            Ends::Pending => Poll::Pending,
            Ends::Ready => Poll::Ready(Output(self.counts.clone())),
            Ends::Panic => panic!("as told"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counts.futures_dropped.fetch_add(1, SeqCst);
    }
}

/// The test's side of a held task.
pub(crate) struct Holder {
    pub(crate) counts: CountsOf,
    pub(crate) inside: mpsc::Receiver<Waker>,
    pub(crate) end: mpsc::Sender<Ends>,
    pub(crate) runtime: Runtime,
}

impl Holder {
    pub(crate) fn spawn() -> (Self, JoinHandle<Output>) {
        let (runtime, counts) = (runtime(), CountsOf::default());
        let (tell, inside) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let task = runtime.spawn(Held { counts: counts.clone(), inside: tell, ends });
        (Self { counts, inside, end, runtime }, task)
    }

    /// The task is in a poll now; its waker.
    pub(crate) fn waker(&self) -> Waker {
        self.inside.recv().unwrap()
    }

    pub(crate) fn end_poll(&self, ends: Ends) {
        self.end.send(ends).unwrap();
    }

    /// The poll in progress ends with `Pending`, and the task has gone to sleep.
    pub(crate) fn idle(&self) {
        self.end_poll(Ends::Pending);
        wait_until(|| self.runtime.handle().tasks()[0].state == TaskState::Idle);
    }

    /// Waits until the worker has nothing left to do.
    pub(crate) fn settle(&self) {
        wait_until(|| self.runtime.handle().metrics().tasks == 0);
    }
}

/// A join handle's waker.
#[derive(Default)]
pub(crate) struct Joiner(pub(crate) AtomicUsize);

impl Wake for Joiner {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F, joiner: &Arc<Joiner>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&joiner.clone().into()))
}

pub(crate) fn check(ends: Ends, result: Result<Output, JoinError>) {
    match (ends, result) {
        (Ends::Pending, Err(JoinError::Cancelled))
        | (Ends::Ready, Ok(_))
        | (Ends::Panic, Err(JoinError::Panicked(_))) => {}
        (ends, result) => panic!("{ends:?} and then {result:?}"),
    }
}
