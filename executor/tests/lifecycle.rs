//! Spawning, joining, aborting, detaching.

mod common;

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use common::wait_until;
use stipend::runtime::{BuildError, Handle, Runtime};
use stipend::task::{self, TaskState};
use stipend::{spawn, yield_now};

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(2).build().unwrap()
}

/// Counts its drops.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

struct Counted(Drops);

impl Drops {
    fn counted(&self) -> Counted {
        Counted(self.clone())
    }
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_returns_its_value() {
    assert_eq!(runtime().block_on(async { spawn(async { 42 }).await.unwrap() }), 42);
}

#[test]
fn tasks_spawn_tasks() {
    fn tree(depth: u32) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            if depth == 0 {
                return 1;
            }
            let (left, right) = (spawn(tree(depth - 1)), spawn(tree(depth - 1)));
            left.await.unwrap() + right.await.unwrap()
        })
    }
    assert_eq!(runtime().block_on(tree(8)), 256);
}

#[test]
fn foreign_threads_spawn() {
    let runtime = runtime();
    let total = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tasks: Vec<_> = (0..500)
                    .map(|_| {
                        let total = total.clone();
                        runtime.spawn(async move {
                            total.fetch_add(1, Ordering::Relaxed);
                        })
                    })
                    .collect();
                common::block_on(async {
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            });
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 2000);
}

#[test]
fn a_detached_task_runs_on() {
    let (tell, told) = mpsc::channel();
    let runtime = runtime();
    drop(runtime.spawn(async move {
        yield_now().await;
        tell.send(7).unwrap();
    }));
    assert_eq!(told.recv(), Ok(7));
}

#[test]
fn an_output_that_nobody_takes_is_dropped_once() {
    let (runtime, drops) = (runtime(), Drops::default());
    let counted = drops.counted();
    let task = runtime.spawn(async move { counted });
    wait_until(|| task.is_finished());
    assert_eq!(drops.get(), 0);
    drop(task);
    assert_eq!(drops.get(), 1);
}

#[test]
fn a_join_handle_follows_its_awaiter() {
    // Polled by one task, then by another: the last one's waker counts.
    let runtime = runtime();
    let (go, gate) = futures::channel::oneshot::channel::<()>();
    let mut task = runtime.spawn(async move { gate.await.map(|()| 5) });
    let mut noop = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut task).poll(&mut noop).is_pending());
    let joiner = runtime.spawn(task);
    go.send(()).unwrap();
    let joined = common::block_on(joiner).unwrap().unwrap();
    assert_eq!(joined, Ok(5));
}

#[test]
fn many_await_one_task() {
    use futures::FutureExt;
    let sum = runtime().block_on(async {
        let task = spawn(async {
            yield_now().await;
            1
        })
        .map(|result| result.unwrap())
        .shared();
        let joiners: Vec<_> = (0..20).map(|_| spawn(task.clone())).collect();
        let mut sum = 0;
        for joiner in joiners {
            sum += joiner.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 20);
}

#[test]
fn t59_abort_of_a_waiting_task_drops_its_future_on_a_worker() {
    let runtime = Runtime::builder().worker_threads(2).thread_name("drops-here").build().unwrap();
    struct Site(mpsc::Sender<Option<String>>);
    impl Drop for Site {
        fn drop(&mut self) {
            self.0.send(thread::current().name().map(str::to_owned)).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let site = Site(tell);
    let task = runtime.spawn(async move {
        let _site = site;
        pending::<()>().await;
    });
    wait_until(|| runtime.handle().tasks()[0].state == TaskState::Idle);
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    assert!(told.recv().unwrap().unwrap().starts_with("drops-here-"));
    assert!(told.recv().is_err(), "dropped twice");
}

#[test]
fn abort_of_a_queued_task_means_that_it_is_never_polled() {
    let runtime = Runtime::builder().worker_threads(1).build().unwrap();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let blocker = runtime.spawn(async move {
        tell.send(()).unwrap();
        hold.recv().unwrap();
    });
    told.recv().unwrap();
    let (polled, drops) = (Arc::new(AtomicBool::new(false)), Drops::default());
    let queued = {
        let (polled, counted) = (polled.clone(), drops.counted());
        runtime.spawn(async move {
            let _counted = counted;
            polled.store(true, Ordering::SeqCst);
        })
    };
    queued.abort();
    assert!(!queued.is_finished());
    release.send(()).unwrap();
    assert!(runtime.block_on(queued).unwrap_err().is_cancelled());
    runtime.block_on(blocker).unwrap();
    assert!(!polled.load(Ordering::SeqCst));
    assert_eq!(drops.get(), 1);
}

#[test]
fn abort_of_a_running_task_takes_effect_at_the_end_of_the_poll() {
    let runtime = runtime();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let task = runtime.spawn(async move {
        tell.send("running").unwrap();
        hold.recv().unwrap();
        yield_now().await;
        tell.send("polled again").unwrap();
    });
    assert_eq!(told.recv(), Ok("running"));
    task.abort();
    release.send(()).unwrap();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    assert!(told.recv().is_err());
}

#[test]
fn t56_abort_of_a_task_that_completes_in_that_poll_leaves_the_value() {
    let runtime = runtime();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let task = runtime.spawn(async move {
        tell.send(()).unwrap();
        hold.recv().unwrap();
        9
    });
    told.recv().unwrap();
    task.abort();
    release.send(()).unwrap();
    assert_eq!(runtime.block_on(task).unwrap(), 9);
}

#[test]
fn abort_of_a_finished_task_changes_nothing() {
    let runtime = runtime();
    let task = runtime.spawn(async { 3 });
    let aborter = task.abort_handle();
    wait_until(|| aborter.is_finished());
    aborter.abort();
    task.abort();
    assert_eq!(runtime.block_on(task).unwrap(), 3);
    aborter.abort();
}

#[test]
fn a_task_aborts_itself() {
    runtime().block_on(async {
        let (send, receive) = futures::channel::oneshot::channel::<task::AbortHandle>();
        let task = spawn(async move {
            receive.await.unwrap().abort();
            pending::<()>().await;
        });
        send.send(task.abort_handle()).unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn aborts_race_wakes_and_completions() {
    let (runtime, drops) = (runtime(), Drops::default());
    let rounds = 2000;
    for round in 0..rounds {
        let counted = drops.counted();
        let task = runtime.spawn(async move {
            let _counted = counted;
            for _ in 0..round % 4 {
                yield_now().await;
            }
        });
        let aborter = task.abort_handle();
        if round % 3 == 0 {
            thread::yield_now();
        }
        aborter.abort();
        let _ = common::block_on(task);
    }
    assert_eq!(drops.get(), rounds);
}

#[test]
fn a_waker_outlives_task_and_runtime() {
    let kept = Arc::new(Mutex::new(None));
    let drops = Drops::default();
    let runtime = runtime();
    let task = {
        let (kept, counted) = (kept.clone(), drops.counted());
        runtime.spawn(async move {
            let _counted = counted;
            poll_fn(|cx| {
                *kept.lock().unwrap() = Some(cx.waker().clone());
                Poll::<()>::Pending
            })
            .await
        })
    };
    wait_until(|| kept.lock().unwrap().is_some());
    drop(runtime);
    assert_eq!(drops.get(), 1, "the waker keeps memory, not the future");
    assert!(common::block_on(task).unwrap_err().is_cancelled());
    let waker = kept.lock().unwrap().take().unwrap();
    waker.wake_by_ref();
    let other = waker.clone();
    assert!(other.will_wake(&waker));
    other.wake();
    drop(waker);
}

#[test]
fn a_wake_during_the_poll_runs_the_task_again() {
    let polls = Arc::new(AtomicUsize::new(0));
    let count = polls.clone();
    runtime().block_on(async move {
        spawn(poll_fn(move |cx| {
            // Two wakes, one more poll.
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            if count.fetch_add(1, Ordering::SeqCst) == 9 { Poll::Ready(()) } else { Poll::Pending }
        }))
        .await
        .unwrap();
    });
    assert_eq!(polls.load(Ordering::SeqCst), 10);
}

#[test]
fn tasks_are_listed_while_they_live() {
    let runtime = runtime();
    let task = task::Builder::new().name("waits").spawn_on(runtime.handle(), pending::<()>()).unwrap();
    wait_until(|| runtime.handle().tasks().iter().all(|task| task.polls == 1 && task.state == TaskState::Idle));
    let tasks = runtime.handle().tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].id, task.id());
    assert_eq!(tasks[0].name.as_deref(), Some("waits"));
    assert!(tasks[0].spawned_at.file().ends_with("lifecycle.rs"));
    assert!(tasks[0].to_string().contains("\"waits\""));
    assert_eq!(runtime.handle().metrics().tasks, 1);
    task.abort();
    let _ = runtime.block_on(task);
    // A task leaves the list before its handle resolves.
    assert!(runtime.handle().tasks().is_empty());
}

#[test]
fn all_workers_take_part() {
    // Each task waits for the other on its thread: one worker alone would never end.
    let runtime = runtime();
    let barrier = Arc::new(Barrier::new(2));
    runtime.block_on(async {
        let parent = spawn(async move {
            let other = {
                let barrier = barrier.clone();
                spawn(async move {
                    barrier.wait();
                })
            };
            barrier.wait();
            other.await.unwrap();
        });
        parent.await.unwrap();
    });
}

#[test]
fn r01_a_task_behind_a_stuck_poll_is_stolen() {
    let runtime = runtime();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let stuck = runtime.spawn(async move {
        for n in 0..50 {
            let tell = tell.clone();
            drop(spawn(async move { tell.send(n).unwrap() }));
        }
        drop(tell);
        hold.recv().unwrap();
    });
    let mut seen: Vec<_> = told.iter().collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..50));
    release.send(()).unwrap();
    runtime.block_on(stuck).unwrap();
}

#[test]
fn tasks_from_outside_run_though_the_workers_are_busy() {
    let runtime = Runtime::builder().worker_threads(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    yield_now().await;
                }
            })
        })
        .collect();
    for n in 0..10 {
        assert_eq!(common::block_on(runtime.spawn(async move { n })).unwrap(), n);
    }
    stop.store(true, Ordering::Relaxed);
    for task in busy {
        common::block_on(task).unwrap();
    }
}

#[test]
fn the_runtime_entered_last_is_current() {
    let (outer, inner) = (runtime(), Runtime::builder().worker_threads(1).build().unwrap());
    let _outer = outer.enter();
    assert_eq!(Handle::current().metrics().workers, 2);
    {
        let _inner = inner.enter();
        assert_eq!(Handle::current().metrics().workers, 1);
    }
    assert_eq!(Handle::current().metrics().workers, 2);
}

#[test]
fn what_cannot_be_built_is_refused() {
    let error = Runtime::builder().worker_threads(0).build().unwrap_err();
    assert!(matches!(error, BuildError::WorkerThreads { asked: 0, .. }), "{error}");
    let error = Runtime::builder().max_blocking_threads(0).build().unwrap_err();
    assert!(matches!(error, BuildError::BlockingThreads), "{error}");
    let error = Runtime::builder().thread_name("a\0b").build().unwrap_err();
    assert!(matches!(error, BuildError::ThreadName { .. }), "{error}");
}
