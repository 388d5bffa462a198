//! `spawn_blocking`.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use stipend::runtime::Runtime;
use stipend::{spawn, spawn_blocking};

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(1).build().unwrap()
}

#[test]
fn a_job_returns_its_value() {
    assert_eq!(runtime().block_on(async { spawn_blocking(|| 6 * 7).await }).unwrap(), 42);
}

#[test]
fn a_job_that_panics_tells_its_joiner() {
    let runtime = runtime();
    let error = runtime.block_on(async { spawn_blocking(|| assert_eq!(1, 2)).await }).unwrap_err();
    assert!(error.is_panic());
    assert_eq!(runtime.block_on(async { spawn_blocking(|| 1).await }).unwrap(), 1);
}

#[test]
fn jobs_run_beside_each_other_and_beside_the_worker() {
    // Eight jobs and a task that only end together.
    let barrier = Arc::new(Barrier::new(9));
    runtime().block_on(async {
        let wait = |barrier: Arc<Barrier>| move || barrier.wait().is_leader();
        let jobs: Vec<_> = (0..8).map(|_| spawn_blocking(wait(barrier.clone()))).collect();
        let task = wait(barrier.clone());
        let mut leaders = usize::from(spawn(async move { task() }).await.unwrap());
        for job in jobs {
            leaders += usize::from(job.await.unwrap());
        }
        assert_eq!(leaders, 1);
    });
}

#[test]
fn jobs_beyond_the_cap_wait_their_turn() {
    let runtime = Runtime::builder().worker_threads(1).max_blocking_threads(2).build().unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let sum: usize = runtime.block_on(async {
        let jobs: Vec<_> = (0..200)
            .map(|n| {
                let (now, most) = (now.clone(), most.clone());
                spawn_blocking(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    n
                })
            })
            .collect();
        let mut sum = 0;
        for job in jobs {
            sum += job.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, (0..200).sum());
    assert!(most.load(Ordering::SeqCst) <= 2);
    assert!(runtime.handle().metrics().blocking_threads <= 2);
}

#[test]
fn a_job_is_aborted_before_it_begins_and_not_after() {
    let runtime = Runtime::builder().worker_threads(1).max_blocking_threads(1).build().unwrap();
    let _entered = runtime.enter();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let begun = spawn_blocking(move || {
        tell.send(()).unwrap();
        hold.recv().unwrap();
        1
    });
    told.recv().unwrap();
    let waiting = spawn_blocking(|| 2);
    begun.abort();
    waiting.abort();
    release.send(()).unwrap();
    assert_eq!(runtime.block_on(begun).unwrap(), 1);
    assert!(runtime.block_on(waiting).unwrap_err().is_cancelled());
}

#[test]
fn queued_jobs_are_cancelled_at_shutdown() {
    let runtime = Runtime::builder().worker_threads(1).max_blocking_threads(1).build().unwrap();
    let handle = runtime.handle().clone();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let begun = handle.spawn_blocking(move || {
        tell.send(()).unwrap();
        hold.recv().unwrap();
    });
    told.recv().unwrap();
    let queued: Vec<_> = (0..10).map(|_| handle.spawn_blocking(|| ())).collect();
    runtime.shutdown_background();
    for job in queued {
        assert!(common::block_on(job).unwrap_err().is_cancelled());
    }
    release.send(()).unwrap();
    common::block_on(begun).unwrap();
}

#[test]
fn a_job_may_block_on_the_runtime() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let value = runtime
        .block_on(async { spawn_blocking(move || handle.block_on(async { spawn(async { 8 }).await.unwrap() })).await });
    assert_eq!(value.unwrap(), 8);
}
