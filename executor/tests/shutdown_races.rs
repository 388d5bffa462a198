//! A runtime that ends at any moment: amid spawns, sleeps, I/O, blocking jobs and wakes, its own and from outside.
//!
//! Whatever it was doing, every future and every job is dropped exactly once, nothing panics and no thread is left behind.

#![cfg(target_os = "linux")]

mod common;
mod watched;

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::wait_until;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use stipend::runtime::{Handle, Runtime};
use stipend::task::JoinHandle;
use stipend::{net, spawn, spawn_blocking, time, yield_now};
use watched::{Random, watched};

const ROUNDS: u64 = if cfg!(debug_assertions) { 150 } else { 500 };

/// Counts futures and jobs as they are made and dropped, and panics.
#[derive(Clone, Default)]
struct Books(Arc<Totals>);

#[derive(Default)]
struct Totals {
    made: AtomicU64,
    dropped: AtomicU64,
    panics: AtomicU64,
}

impl Books {
    fn entry(&self) -> Entry {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Entry { books: self.clone(), once: Box::new(()) }
    }

    fn balance(&self) -> (u64, u64) {
        (self.0.made.load(Ordering::SeqCst), self.0.dropped.load(Ordering::SeqCst))
    }

    fn are_balanced(&self) -> bool {
        let (made, dropped) = self.balance();
        made == dropped
    }
}

struct Entry {
    books: Books,
    #[expect(dead_code, reason = "to be dropped twice is an error that the allocator notices")]
    once: Box<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if thread::panicking() {
            self.books.0.panics.fetch_add(1, Ordering::SeqCst);
        }
        self.books.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// The wakers of tasks that nobody but a foreign thread wakes.
type Wakers = Arc<Mutex<Vec<Waker>>>;

/// One thing that a task does, for ever or until it is done.
fn work(kind: u64, books: &Books, wakers: &Wakers) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (entry, books, wakers) = (books.entry(), books.clone(), wakers.clone());
    match kind {
        // A tree of tasks, some awaited and some not.
        0 => Box::pin(async move {
            let _entry = entry;
            for kind in 1..7 {
                drop(spawn(work(kind, &books, &wakers)));
                let _ = spawn(work(6, &books, &wakers)).await;
            }
        }),
        1 => Box::pin(async move {
            let _entry = entry;
            loop {
                yield_now().await;
            }
        }),
        2 => Box::pin(async move {
            let _entry = entry;
            for n in 0.. {
                time::sleep(Duration::from_micros(n * 20)).await;
            }
        }),
        3 => Box::pin(async move {
            let _entry = entry;
            let Ok((mut here, mut there)) = net::UnixStream::pair() else { return };
            let echo = books.entry();
            drop(spawn(async move {
                let _entry = echo;
                let mut byte = [0];
                while there.read_exact(&mut byte).await.is_ok() && there.write_all(&byte).await.is_ok() {}
            }));
            let mut byte = [0];
            while here.write_all(&byte).await.is_ok() && here.read_exact(&mut byte).await.is_ok() {}
        }),
        4 => Box::pin(async move {
            let _entry = entry;
            for n in 0..3 {
                let job = books.entry();
                let ended = spawn_blocking(move || {
                    let _entry = job;
                    thread::sleep(Duration::from_micros(n * 50));
                });
                if ended.await.is_err() {
                    return;
                }
            }
        }),
        5 => Box::pin(async move {
            let _entry = entry;
            poll_fn(|cx| {
                let mut wakers = wakers.lock().unwrap();
                if wakers.len() < 64 {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            })
            .await
        }),
        6 => Box::pin(async move {
            let _entry = entry;
            yield_now().await;
        }),
        _ => Box::pin(async move {
            let _entry = entry;
            pending().await
        }),
    }
}

/// Spawns from outside until told to stop, and goes on over the runtime's end.
fn spawner(handle: &Handle, books: &Books, wakers: &Wakers, stop: &AtomicBool) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) || n == 300 {
            break;
        }
        let task = handle.spawn(work(n % 8, books, wakers));
        match n % 3 {
            0 => tasks.push(task),
            1 => drop(task),
            _ => task.abort(),
        }
        if n % 5 == 0 {
            let job = books.entry();
            drop(handle.spawn_blocking(move || drop(job)));
        }
    }
    tasks
}

fn waker_thread(wakers: &Wakers, stop: &AtomicBool) {
    let mut random = Random::new(7);
    while !stop.load(Ordering::Relaxed) {
        let waker = wakers.lock().unwrap().pop();
        match waker {
            Some(waker) if random.below(2) == 0 => waker.wake(),
            Some(waker) => {
                waker.wake_by_ref();
                waker.wake_by_ref();
            }
            None => thread::yield_now(),
        }
        random.dither();
    }
}

/// The threads of this process whose names begin so.
fn threads(name: &str) -> usize {
    let named = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that ends meanwhile has none.
        std::fs::read_to_string(task.unwrap().path().join("comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| Some(()).filter(|()| named(task))).count()
}

/// Many runtimes, each ended by `end` at some moment of its work. What `end` returns tells whether all is over by then.
fn ends_at_any_moment(name: &'static str, end: impl Fn(Runtime, u64) -> bool + Send + 'static) {
    watched("a runtime does not end", move |progress| {
        let mut random = Random::new(1);
        for round in 0..ROUNDS {
            let (books, wakers, stop) = (Books::default(), Wakers::default(), AtomicBool::new(false));
            let runtime = Runtime::builder().worker_threads(1 + round as usize % 3).thread_name(name).build().unwrap();
            let handle = runtime.handle().clone();
            let left = thread::scope(|scope| {
                let spawning = scope.spawn(|| spawner(&handle, &books, &wakers, &stop));
                scope.spawn(|| waker_thread(&wakers, &stop));
                for _ in 0..random.below(20) {
                    random.dither();
                    if random.below(8) == 0 {
                        thread::sleep(Duration::from_micros(random.below(2_000)));
                    }
                }
                let over = end(runtime, round);
                let left = handle.metrics().tasks;
                stop.store(true, Ordering::Relaxed);
                let tasks = spawning.join().unwrap();
                if over {
                    assert_eq!(left, 0, "round {round}");
                    assert!(books.are_balanced(), "round {round}: {:?} made and dropped", books.balance());
                }
                tasks
            });
            // In the background, or with a timeout, it ends a little later.
            wait_until(|| books.are_balanced());
            for task in left {
                if let Err(error) = common::block_on(task) {
                    assert!(error.is_cancelled(), "round {round}: {error}");
                }
            }
            // Its tasks' wakers outlive it.
            for waker in wakers.lock().unwrap().drain(..) {
                waker.wake();
            }
            // The meter's threads go with the last handle.
            drop(handle);
            wait_until(|| threads(name) == 0);
            assert!(books.are_balanced(), "round {round}: {:?} made and dropped", books.balance());
            assert_eq!(books.0.panics.load(Ordering::SeqCst), 0, "round {round}");
            progress.step();
        }
    });
}

#[test]
fn a_runtime_is_dropped_at_any_moment() {
    ends_at_any_moment("dropped", |runtime, _| {
        drop(runtime);
        true
    });
}

#[test]
fn a_runtime_is_shut_down_with_a_timeout_at_any_moment() {
    ends_at_any_moment("timed", |runtime, round| match round % 2 {
        0 => runtime.shutdown_timeout(Duration::ZERO).is_ok(),
        _ => {
            runtime.shutdown_timeout(Duration::from_secs(600)).unwrap();
            true
        }
    });
}

#[test]
fn a_runtime_is_shut_down_in_the_background_at_any_moment() {
    ends_at_any_moment("background", |runtime, _| {
        runtime.shutdown_background();
        false
    });
}

#[test]
fn a_runtime_is_dropped_inside_one_of_its_tasks_at_any_moment() {
    ends_at_any_moment("inside", |runtime, round| {
        let handle = runtime.handle().clone();
        let dropping = async move {
            for _ in 0..round % 4 {
                yield_now().await;
            }
            drop(runtime);
        };
        common::block_on(handle.spawn(dropping)).unwrap();
        false
    });
}
