//! However a runtime ends, every future is dropped exactly once, and nobody waits for himself.

mod common;

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use stipend::runtime::Runtime;
use stipend::task::{self, JoinHandle, SpawnError, TaskState};
use stipend::{spawn, spawn_blocking, yield_now};

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(2).build().unwrap()
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Tasks in every state: queued, waiting, yielding for ever, finished.
fn a_hundred_tasks(runtime: &Runtime, drops: &Arc<AtomicUsize>) -> Vec<JoinHandle<()>> {
    (0..100)
        .map(|n| {
            let counted = Counted(drops.clone());
            runtime.spawn(async move {
                let _counted = counted;
                match n % 3 {
                    0 => pending().await,
                    1 => loop {
                        yield_now().await;
                    },
                    _ => {}
                }
            })
        })
        .collect()
}

#[test]
fn dropping_the_runtime_drops_every_future_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let tasks = a_hundred_tasks(&runtime, &drops);
    drop(runtime);
    assert_eq!(drops.load(Ordering::SeqCst), 100);
    for (n, task) in tasks.into_iter().enumerate() {
        match common::block_on(task) {
            Ok(()) => assert_eq!(n % 3, 2),
            Err(error) => assert!(error.is_cancelled()),
        }
    }
    assert_eq!(drops.load(Ordering::SeqCst), 100);
}

#[test]
fn shutdown_in_time_is_ok() {
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let _tasks = a_hundred_tasks(&runtime, &drops);
    runtime.shutdown_timeout(Duration::from_secs(600)).unwrap();
    assert_eq!(drops.load(Ordering::SeqCst), 100);
}

#[test]
fn r07_shutdown_names_the_task_that_is_stuck() {
    let runtime = runtime();
    let (release, hold) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let stuck = task::Builder::new()
        .name("stuck")
        .spawn_on(runtime.handle(), async move {
            tell.send(()).unwrap();
            hold.recv().unwrap();
        })
        .unwrap();
    told.recv().unwrap();
    let error = runtime.shutdown_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.tasks.len(), 1);
    assert_eq!(error.tasks[0].name.as_deref(), Some("stuck"));
    assert_eq!(error.tasks[0].state, TaskState::Running);
    assert!(error.to_string().contains("\"stuck\""));
    // It ends when it can.
    release.send(()).unwrap();
    common::block_on(stuck).unwrap();
}

#[test]
fn shutdown_in_the_background_ends_the_tasks_too() {
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let tasks = a_hundred_tasks(&runtime, &drops);
    runtime.shutdown_background();
    for task in tasks {
        let _ = common::block_on(task);
    }
    assert_eq!(drops.load(Ordering::SeqCst), 100);
}

#[test]
fn what_is_spawned_after_the_end_is_dropped_and_cancelled() {
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let handle = runtime.handle().clone();
    drop(runtime);
    let counted = Counted(drops.clone());
    let task = handle.spawn(async move { drop(counted) });
    assert!(task.is_finished());
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert!(common::block_on(task).unwrap_err().is_cancelled());
    assert!(common::block_on(handle.spawn_blocking(|| ())).unwrap_err().is_cancelled());
    let refused = task::Builder::new().spawn_on(&handle, async {});
    assert!(matches!(refused, Err(SpawnError::ShutDown)));
}

#[test]
fn a_destructor_that_spawns_during_shutdown_is_refused() {
    struct Spawns(mpsc::Sender<JoinHandle<()>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            self.0.send(spawn(pending())).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let runtime = runtime();
    let spawns = Spawns(tell);
    drop(runtime.spawn(async move {
        let _spawns = spawns;
        pending::<()>().await;
    }));
    drop(runtime);
    assert!(common::block_on(told.recv().unwrap()).unwrap_err().is_cancelled());
}

#[test]
fn a_runtime_dropped_on_its_own_worker_does_not_wait_for_itself() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let task = handle.spawn(async move { drop(runtime) });
    // It completes in the poll in which the shutdown began.
    common::block_on(task).unwrap();
}

#[test]
fn a_runtime_dropped_on_its_own_blocking_thread_does_not_wait_for_itself() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    common::block_on(handle.spawn_blocking(move || drop(runtime))).unwrap();
}

#[test]
fn dropping_the_runtime_waits_for_polls_and_jobs_in_progress() {
    let ended = Arc::new(AtomicUsize::new(0));
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let work = |ended: Arc<AtomicUsize>| {
        let tell = tell.clone();
        move || {
            tell.send(()).unwrap();
            thread::sleep(Duration::from_millis(30));
            ended.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (poll, job) = (work(ended.clone()), work(ended.clone()));
    drop(runtime.spawn(async move { poll() }));
    drop(runtime.handle().spawn_blocking(job));
    told.recv().unwrap();
    told.recv().unwrap();
    drop(runtime);
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

#[test]
fn a_hundred_runtimes_come_and_go() {
    for _ in 0..100 {
        let runtime = runtime();
        let sum = runtime.block_on(async {
            let job = spawn_blocking(|| 1);
            spawn(async { 1 }).await.unwrap() + job.await.unwrap()
        });
        assert_eq!(sum, 2);
    }
}

#[test]
fn spawning_races_the_shutdown() {
    for _ in 0..50 {
        let drops = Arc::new(AtomicUsize::new(0));
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let spawner = {
            let drops = drops.clone();
            thread::spawn(move || {
                (0..200)
                    .map(|_| {
                        let counted = Counted(drops.clone());
                        handle.spawn(async move {
                            let _counted = counted;
                            pending::<()>().await;
                        })
                    })
                    .collect::<Vec<_>>()
            })
        };
        thread::yield_now();
        drop(runtime);
        for task in spawner.join().unwrap() {
            assert!(common::block_on(task).unwrap_err().is_cancelled());
        }
        assert_eq!(drops.load(Ordering::SeqCst), 200);
    }
}

#[test]
fn a_timer_on_the_runtimes_clock_that_nobody_can_be_woken_for_swallows_neither_abort_nor_shutdown() {
    let runtime = Runtime::builder().worker_threads(1).build().unwrap();
    let task = runtime.spawn(std::future::pending::<()>());
    let other = runtime.spawn(std::future::pending::<()>());
    // Both have run, and have no waker: nothing waited for their clocks.
    common::wait_until(|| runtime.handle().tasks().iter().all(|task| task.polls > 0));
    let timer = runtime.cpu_clock().timer().on_expiry(|_| stipend::Action::Continue);
    let _timer = timer.arm_at(Duration::from_nanos(1)).unwrap();
    task.abort();
    assert!(futures::executor::block_on(task).unwrap_err().is_cancelled());
    drop(runtime);
    assert!(futures::executor::block_on(other).unwrap_err().is_cancelled());
}
