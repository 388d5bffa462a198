//! A runtime with one worker, and the order in which it polled.
//!
//! On the manual clock: a poll takes as long as it says, else nothing. So the order of polls is the same on every machine,
//! however busy, and a bound that is given in polls or run time can be held to the letter.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;
use stipend::test::Manual;
use stipend::{Group, Runtime, task, yield_now};

/// A task's kind, and which of them.
pub(crate) type Name = (&'static str, usize);

/// Enough for every test here: where something starves, the test ends and says so.
const MOST_POLLS: usize = 50_000;

/// What the tasks of one test share.
#[derive(Clone)]
pub(crate) struct Scene {
    manual: Arc<Manual>,
    polls: Arc<Mutex<Vec<Name>>>,
    /// Rung at so many polls.
    alarm: Bell,
    alarm_at: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

/// Runs a director on the worker, until it ends, and returns who was polled in which order.
pub(crate) fn play<F: Future<Output = ()> + Send + 'static>(direct: impl FnOnce(Scene) -> F) -> Vec<Name> {
    let manual = Arc::new(Manual::new());
    let runtime = Runtime::builder().worker_threads(1).meter(manual.meter().clone()).build().expect("a runtime");
    let scene =
        Scene { manual, polls: Arc::default(), alarm: Bell::default(), alarm_at: Arc::default(), over: Arc::default() };
    let director = runtime.spawn(scene.noted(("director", 0), direct(scene.clone())));
    crate::common::block_on(director).expect("the director ends");
    scene.over.store(true, Ordering::Relaxed);
    drop(runtime);
    let polls = scene.polls.lock().unwrap();
    polls.clone()
}

impl Scene {
    /// A future that notes each of its polls.
    pub(crate) fn noted<F>(&self, name: Name, future: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
    {
        let (scene, mut future) = (self.clone(), Box::pin(future));
        poll_fn(move |cx| {
            scene.note(name);
            future.as_mut().poll(cx)
        })
    }

    /// Writes something between the polls.
    pub(crate) fn note(&self, name: Name) {
        let mut polls = self.polls.lock().unwrap();
        polls.push(name);
        let count = polls.len();
        drop(polls);
        if count == self.alarm_at.load(Ordering::Relaxed) {
            self.alarm.ring();
        }
    }

    /// A task, by a task.
    pub(crate) fn spawn(&self, name: Name, future: impl Future<Output = ()> + Send + 'static) {
        drop(stipend::spawn(self.noted(name, future)));
    }

    /// A task that polls until the end, each poll so long, and gives way in between.
    pub(crate) fn saturate(&self, name: Name, group: Option<&Group>, poll: Duration) {
        let scene = self.clone();
        let mut builder = task::Builder::new();
        if let Some(group) = group {
            builder = builder.group(group);
        }
        let future = self.noted(name, async move {
            while !scene.is_over() {
                scene.advance(poll);
                yield_now().await;
            }
        });
        drop(builder.spawn(future).expect("a task"));
    }

    /// Two tasks that wake each other until the end, once the bell is rung.
    pub(crate) fn pair(&self, number: usize) -> Bell {
        let (ping, pong) = (Bell::default(), Bell::default());
        for (name, hear, ring) in [("ping", &ping, &pong), ("pong", &pong, &ping)] {
            let (scene, hear, ring) = (self.clone(), hear.clone(), ring.clone());
            self.spawn((name, number), async move {
                while !scene.is_over() {
                    hear.heard().await;
                    ring.ring();
                }
            });
        }
        ping
    }

    /// A task that waits for a bell, and is gone.
    pub(crate) fn waits(&self, name: Name) -> Bell {
        let bell = Bell::default();
        let hear = bell.clone();
        self.spawn(name, async move { hear.heard().await });
        bell
    }

    /// The poll in progress takes so long.
    pub(crate) fn advance(&self, time: Duration) {
        if !time.is_zero() {
            self.manual.advance(time);
        }
    }

    /// The director has ended, or there was time enough for it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.polls.lock().unwrap().len() > MOST_POLLS
    }

    /// How often a task was polled so far.
    pub(crate) fn polls_of(&self, name: Name) -> usize {
        self.polls.lock().unwrap().iter().filter(|polled| **polled == name).count()
    }

    /// Waits for so many polls; unlike with [`until`](Self::until) none of them is the caller's.
    pub(crate) async fn polls(&self, count: usize) {
        let so_far = self.polls.lock().unwrap().len();
        self.alarm_at.store(so_far + count, Ordering::Relaxed);
        self.alarm.heard().await;
    }

    /// Gives way until it is so.
    pub(crate) async fn until(&self, mut is_so: impl FnMut() -> bool) {
        while !is_so() && !self.is_over() {
            yield_now().await;
        }
    }
}

/// What a task waits for.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<(AtomicWaker, AtomicBool)>);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.1.store(true, Ordering::Release);
        self.0.0.wake();
    }

    pub(crate) async fn heard(&self) {
        poll_fn(|cx| {
            self.0.0.register(cx.waker());
            if self.0.1.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// What was polled behind the first note of this name, up to the first of that one, both left out; all, if that never came.
pub(crate) fn between(polls: &[Name], from: Name, to: Name) -> &[Name] {
    let start = polls.iter().position(|name| *name == from).expect("it was noted") + 1;
    let behind = &polls[start..];
    &behind[..behind.iter().position(|name| *name == to).unwrap_or(behind.len())]
}
