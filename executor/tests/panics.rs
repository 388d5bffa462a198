//! A panic in user code ends the task it belongs to, and nothing else.

mod common;

use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use stipend::runtime::Runtime;
use stipend::task::JoinError;
use stipend::{spawn, yield_now};

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(2).build().unwrap()
}

/// The runtime's workers all still work: as many tasks as there are workers meet each other.
async fn all_workers_work() {
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            spawn(async move {
                yield_now().await;
                n
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, (0..64).sum());
    // Two tasks that can only both go on if each has a worker.
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let pair: Vec<_> = (0..2)
        .map(|_| {
            let barrier = barrier.clone();
            spawn(async move {
                barrier.wait();
            })
        })
        .collect();
    for task in pair {
        task.await.unwrap();
    }
}

/// Panics when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_any(self.0.to_owned());
        }
    }
}

/// Panics with any payload, and has a type.
fn throw<T: Send + 'static>(payload: T) {
    panic_any(payload);
}

/// Panics, and has a type.
fn bang(message: &str) {
    panic!("{message}");
}

fn message<T: std::fmt::Debug>(result: Result<T, JoinError>) -> String {
    match result.unwrap_err() {
        JoinError::Panicked(panic) => panic.message().unwrap_or("no message").to_owned(),
        other => panic!("not a panic: {other}"),
    }
}

#[test]
fn t59_a_panic_of_the_poll_is_the_tasks_result() {
    runtime().block_on(async {
        assert_eq!(message::<()>(spawn(async { bang("first poll") }).await), "first poll");
        let later = spawn(async {
            yield_now().await;
            bang(&format!("{} poll", "second"));
        });
        assert_eq!(message::<()>(later.await), "second poll");
        all_workers_work().await;
    });
}

#[test]
fn the_payload_comes_out_as_it_went_in() {
    runtime().block_on(async {
        let error = spawn(async { throw(17_u8) }).await.unwrap_err();
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the task panicked");
        assert_eq!(*error.into_panic().unwrap().downcast::<u8>().unwrap(), 17);
    });
}

#[test]
fn t59_a_destructor_that_panics_after_completion_is_the_result() {
    /// Ready at once; panics when dropped.
    struct Ready(#[expect(dead_code, reason = "it is there to be dropped")] Bomb);
    impl Future for Ready {
        type Output = u32;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
            Poll::Ready(1)
        }
    }
    runtime().block_on(async {
        assert_eq!(message(spawn(Ready(Bomb("in drop"))).await), "in drop");
        all_workers_work().await;
    });
}

#[test]
fn t59_a_destructor_that_panics_when_the_task_is_aborted_is_the_result() {
    runtime().block_on(async {
        let bomb = Bomb("aborted");
        let task = spawn(async move {
            let _bomb = bomb;
            pending::<()>().await;
        });
        task.abort();
        assert_eq!(message(task.await), "aborted");
        all_workers_work().await;
    });
}

#[test]
fn t59_an_output_that_panics_when_dropped_hurts_nobody() {
    runtime().block_on(async {
        // Detached before completion: dropped by the worker.
        drop(spawn(async {
            yield_now().await;
            Bomb("output")
        }));
        // Detached after completion: dropped with the handle.
        let task = spawn(async { Bomb("output") });
        while !task.is_finished() {
            yield_now().await;
        }
        drop(task);
        all_workers_work().await;
    });
}

#[test]
fn t59_a_join_waker_that_panics_hurts_nobody() {
    struct Hostile {
        wakes: AtomicUsize,
    }
    impl Wake for Hostile {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.wakes.fetch_add(1, Ordering::SeqCst);
            panic!("join waker");
        }
    }
    impl Drop for Hostile {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("join waker's drop");
            }
        }
    }
    let runtime = runtime();
    let hostile = Arc::new(Hostile { wakes: AtomicUsize::new(0) });
    let (go, gate) = futures::channel::oneshot::channel::<()>();
    let mut task = Box::pin(runtime.spawn(async move { gate.await.unwrap() }));
    let waker = Waker::from(hostile.clone());
    assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    go.send(()).unwrap();
    common::wait_until(|| task.is_finished() && hostile.wakes.load(Ordering::SeqCst) > 0);
    assert_eq!(hostile.wakes.load(Ordering::SeqCst), 1);
    // Its last owner is the cell: its destructor runs, and panics, with the handle's.
    let count = Arc::downgrade(&hostile);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(hostile))).unwrap();
    drop(task);
    runtime.block_on(all_workers_work());
    drop(runtime);
    assert_eq!(count.strong_count(), 0);
}

#[test]
fn t59_a_payload_that_panics_when_dropped_hurts_nobody() {
    runtime().block_on(async {
        // Detached: the worker drops the payload, and the payload of its destructor.
        for _ in 0..4 {
            drop(spawn(async { throw(Bomb("payload")) }));
        }
        let error = spawn(async { throw(Bomb("payload")) }).await.unwrap_err();
        drop(error);
        all_workers_work().await;
    });
}

#[test]
fn a_panic_of_the_root_future_is_the_callers() {
    let runtime = runtime();
    let result = std::panic::catch_unwind(|| runtime.block_on(async { bang("root") }));
    assert_eq!(*result.unwrap_err().downcast::<String>().unwrap(), "root");
    // The thread is no longer in the runtime, and may enter again.
    assert!(stipend::runtime::Handle::try_current().is_none());
    runtime.block_on(all_workers_work());
}

#[test]
fn block_on_in_a_task_is_refused() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let result = runtime.block_on(async { spawn(async move { handle.block_on(async {}) }).await });
    assert!(message(result).contains("block_on"));
}

#[test]
#[should_panic(expected = "JoinHandle was polled after")]
fn a_join_handle_polled_after_its_result_panics() {
    runtime().block_on(async {
        let mut task = pin!(spawn(async {}));
        task.as_mut().await.unwrap();
        let _ = poll_fn(|cx| task.as_mut().poll(cx)).await;
    });
}

#[test]
#[should_panic(expected = "no stipend runtime")]
fn spawning_outside_a_runtime_panics() {
    drop(spawn(async {}));
}
