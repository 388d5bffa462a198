//! Scopes through the executor: children wherever they run, blocking jobs, handles. The clock and the tick are moved by hand where
//! time matters.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use futures::channel::oneshot;
use stipend::runtime::{LocalRuntime, Runtime};
use stipend::task::{self, JoinError, JoinHandle};
use stipend::{
    CheckpointError, CpuLimitExceeded, Group, LimitKind, Scope, checkpoint, cpu_timeout, current_clock, has_budget,
    spawn, spawn_blocking, spawn_local, yield_now,
};
use stipend_timers::test::Manual;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn runtime(manual: &Manual) -> Runtime {
    let meter = manual.meter().clone();
    Runtime::builder().worker_threads(2).meter(meter).build().unwrap()
}

/// Uses 10 ms in each poll, for ever.
async fn burn(manual: Manual) {
    loop {
        manual.advance(ms(10));
        yield_now().await;
    }
}

#[track_caller]
fn over<T: std::fmt::Debug>(joined: Result<T, JoinError>) -> CpuLimitExceeded {
    let Err(JoinError::CpuLimitExceeded(exceeded)) = joined else { panic!("{joined:?}") };
    assert_eq!(exceeded.kind, LimitKind::Scope);
    exceeded
}

#[track_caller]
fn cancelled<T: std::fmt::Debug>(joined: Result<T, JoinError>) {
    assert!(matches!(joined, Err(JoinError::Cancelled)), "{joined:?}");
}

/// Where a scope's future leaves handles of what it spawned, to be looked at when it has ended.
type Left<T> = Arc<std::sync::Mutex<Vec<JoinHandle<T>>>>;

fn leave<T>(left: &Left<T>, handle: JoinHandle<T>) {
    left.lock().unwrap().push(handle);
}

fn take<T>(left: &Left<T>) -> Vec<JoinHandle<T>> {
    std::mem::take(&mut left.lock().unwrap())
}

#[test]
fn s01_s02_the_run_children_and_grandchildren_end_with_the_same_error() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let left = Left::<()>::default();
    let handles = left.clone();
    runtime.block_on(async move {
        let scope = Scope::with_limit(ms(100));
        let clock = scope.clock();
        let started = Arc::new(AtomicBool::new(false));
        let request = async {
            leave(&handles, spawn(pending()));
            let (all, at_all, child) = (handles.clone(), started.clone(), manual.clone());
            let grandchild = manual.clone();
            let spawner = async move {
                leave(&all, spawn(burn(grandchild)));
                at_all.store(true, Ordering::SeqCst);
                burn(child).await;
            };
            leave(&handles, spawn(spawner));
            while !started.load(Ordering::SeqCst) {
                yield_now().await;
            }
            pending::<()>().await;
        };
        let exceeded = scope.run(request).await.unwrap_err();
        assert_eq!((exceeded.kind, exceeded.limit), (LimitKind::Scope, ms(100)));
        assert!(exceeded.used >= ms(100) && exceeded.used <= ms(120), "{exceeded:?}");
        let handles = take(&handles);
        assert_eq!(handles.len(), 3);
        let mut sum = Duration::ZERO;
        for handle in handles {
            let task = handle.cpu_clock();
            assert_eq!(over(handle.await).limit, ms(100));
            sum += task.now();
        }
        // The run itself used nothing, on the manual clock.
        assert_eq!(clock.now(), sum);
        assert!(sum >= ms(100) && sum <= ms(120), "{sum:?}");
    });
}

#[test]
fn s01_the_blocking_jobs_of_the_run_and_of_children_count() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    runtime.block_on(async {
        let scope = Scope::with_limit(ms(100));
        let clock = scope.clock();
        let outside = current_clock().unwrap();
        let result = scope
            .run(async {
                let own = manual.clone();
                spawn_blocking(move || own.advance(ms(30))).await.unwrap();
                let job = manual.clone();
                let child = spawn(async move { spawn_blocking(move || job.advance(ms(30))).await });
                let task = child.cpu_clock();
                child.await.unwrap().unwrap();
                assert_eq!((task.now(), clock.now()), (ms(30), ms(60)));
                assert_eq!(outside.now(), ms(30));
                let job = manual.clone();
                let stopped = spawn_blocking(move || {
                    job.advance(ms(50));
                    assert_eq!(checkpoint(), Ok(()));
                    job.tick();
                    checkpoint()
                });
                let Err(CheckpointError::CpuLimitExceeded(e)) = stopped.await.unwrap() else { panic!("not stopped") };
                assert_eq!((e.kind, e.limit), (LimitKind::Scope, ms(100)));
                pending::<()>().await;
            })
            .await;
        assert_eq!(result.unwrap_err().used, ms(110));
    });
}

#[test]
fn s02_a_child_in_a_runaway_poll_is_told_by_the_tick() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let (reached, wait_reached) = channel();
    let (go_on, wait_go_on) = channel::<()>();
    let child = manual.clone();
    let task = runtime.spawn(async move {
        let left = Left::<()>::default();
        let handles = left.clone();
        let ended = Scope::with_limit(ms(50))
            .run(async move {
                let runaway = async move {
                    child.advance(ms(60));
                    assert!(has_budget());
                    reached.send(()).unwrap();
                    wait_go_on.recv().unwrap();
                    assert!(!has_budget());
                    assert!(matches!(checkpoint(), Err(CheckpointError::CpuLimitExceeded(_))));
                    yield_now().await;
                    panic!("it is not polled again");
                };
                leave(&handles, spawn(runaway));
                pending::<()>().await;
            })
            .await;
        (ended, take(&left))
    });
    wait_reached.recv().unwrap();
    manual.tick();
    let (ended, left) = runtime.block_on(task).unwrap();
    assert_eq!(ended.unwrap_err().used, ms(60), "the run ends although the child's poll goes on");
    go_on.send(()).unwrap();
    for handle in left {
        assert_eq!(over(runtime.block_on(handle)).used, ms(60));
    }
}

#[test]
fn s03_what_still_runs_when_the_run_completes_is_cancelled() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (started, wait_started) = oneshot::channel();
        let (done, left) = Scope::with_limit(ms(10_000))
            .run(async {
                let done = spawn(async { 7 });
                let waits = spawn(async {
                    let _inner = spawn(pending::<()>());
                    started.send(()).unwrap();
                    pending::<()>().await;
                });
                wait_started.await.unwrap();
                (done.await, waits)
            })
            .await
            .unwrap();
        assert_eq!(done.unwrap(), 7);
        cancelled(left.await);
    });
}

#[test]
fn s03_dropping_the_run_cancels_the_children() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let left = Left::<()>::default();
        let handles = left.clone();
        let mut run = Box::pin(Scope::with_limit(ms(10_000)).run(async move {
            leave(&handles, spawn(pending()));
            pending::<()>().await;
        }));
        assert!(futures::poll!(&mut run).is_pending());
        drop(run);
        cancelled(take(&left).remove(0).await);
        // And the task that holds it being aborted.
        let handles = left.clone();
        let (started, wait_started) = oneshot::channel();
        let task = spawn(Scope::with_limit(ms(10_000)).run(async move {
            leave(&handles, spawn(pending()));
            started.send(()).unwrap();
            pending::<()>().await;
        }));
        wait_started.await.unwrap();
        task.abort();
        cancelled(task.await);
        cancelled(take(&left).remove(0).await);
        // And one whose future panics.
        let handles = left.clone();
        let task = spawn(Scope::with_limit(ms(10_000)).run(async move {
            leave(&handles, spawn(pending()));
            panic!("out of cheese");
        }));
        assert!(task.await.unwrap_err().is_panic());
        cancelled(take(&left).remove(0).await);
    });
}

#[test]
fn s03_nested_scopes_the_tightest_binds() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    runtime.block_on(async {
        // The inner one's: the outer goes on.
        let outer = Scope::with_limit(ms(1000)).run(async {
            let burner = manual.clone();
            let inner = Scope::with_limit(ms(50)).run(async move {
                let _ = spawn(burn(burner)).await;
                // Or it may complete in a poll that began before the limit was reached.
                pending::<()>().await;
            });
            assert_eq!(inner.await.unwrap_err().limit, ms(50));
            7
        });
        assert_eq!(outer.await, Ok(7));
        // The outer one's: everything ends by it.
        let left = Left::<()>::default();
        let handles = left.clone();
        let burner = manual.clone();
        let outer = Scope::with_limit(ms(50)).run(async move {
            let inner = spawn(async move {
                let inner = Scope::with_limit(ms(1000)).run(async move {
                    leave(&handles, spawn(pending()));
                    leave(&handles, spawn(burn(burner)));
                    pending::<()>().await;
                });
                assert_eq!(inner.await.unwrap_err().limit, ms(50));
            });
            let _ = inner.await;
            pending::<()>().await;
        });
        assert_eq!(outer.await.unwrap_err().limit, ms(50));
        for handle in take(&left) {
            assert_eq!(over(handle.await).limit, ms(50));
        }
    });
}

#[test]
fn s01_neither_a_group_nor_limits_of_its_own_nor_another_runtime_are_a_way_out() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let other = self::runtime(&manual);
    let group = Group::builder("tenant").build().unwrap();
    runtime.block_on(async {
        for way in 0..3 {
            let left = Left::<()>::default();
            let run = Scope::with_limit(ms(50)).run(async {
                let burner = burn(manual.clone());
                let child = match way {
                    0 => task::Builder::new().group(&group).spawn(burner).unwrap(),
                    1 => task::Builder::new().cpu_limit(stipend::CpuLimit::hard(ms(1000))).spawn(burner).unwrap(),
                    _ => other.spawn(burner),
                };
                leave(&left, child);
                pending::<()>().await;
            });
            assert_eq!(run.await.unwrap_err().limit, ms(50));
            assert_eq!(over(take(&left).remove(0).await).limit, ms(50));
        }
        assert_eq!(group.cpu_time(), ms(50));
        // A way back to what a task is without one.
        let free = spawn(async { 7 });
        assert_eq!(free.await.unwrap(), 7);
    });
}

#[test]
fn s01_a_scope_inside_a_group_and_a_cpu_timeout_inside_it() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let group = Group::builder("tenant").build().unwrap();
    let burner = manual.clone();
    let request = Scope::with_limit(ms(100)).run(async move {
        assert_eq!(cpu_timeout(ms(20), burn(burner.clone())).await.unwrap_err().kind, LimitKind::Total);
        let child = burner.clone();
        spawn(async move { child.advance(ms(30)) }).await.unwrap();
        current_clock().unwrap().now()
    });
    let clock = request.clock();
    let task = task::Builder::new().group(&group).spawn_on(runtime.handle(), request).unwrap();
    assert_eq!(runtime.block_on(task).unwrap(), Ok(ms(20)));
    assert_eq!((clock.now(), group.cpu_time()), (ms(50), ms(50)));
}

#[test]
fn s01_s02_local_tasks_are_members_too() {
    let manual = Manual::new();
    let runtime = LocalRuntime::builder().meter(manual.meter().clone()).build_local().unwrap();
    runtime.block_on(async {
        let burner = burn(manual.clone());
        let left = std::cell::RefCell::new(None);
        let run = Scope::with_limit(ms(50)).run(async {
            *left.borrow_mut() = Some(spawn_local(burner));
            pending::<()>().await;
        });
        assert_eq!(run.await.unwrap_err().used, ms(50));
        assert_eq!(over(left.take().unwrap().await).used, ms(50));
    });
}

/// On the real clock and with the real tick: requests with children on all workers, each over its limit.
#[test]
fn s02_requests_that_run_away_on_all_workers_are_ended() {
    let runtime = Runtime::builder().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let polls = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..4)
            .map(|_| {
                let polls = polls.clone();
                spawn(async move {
                    let left = Left::<()>::default();
                    let scope = Scope::with_limit(ms(30));
                    let clock = scope.clock();
                    let handles = left.clone();
                    let ended = scope
                        .run(async move {
                            for i in 0..6 {
                                let polls = polls.clone();
                                let child = async move {
                                    loop {
                                        polls.fetch_add(1, Ordering::Relaxed);
                                        // A long poll, which heeds what it is told, or many short ones.
                                        while i % 2 == 0 && checkpoint().is_ok() {}
                                        yield_now().await;
                                    }
                                };
                                leave(&handles, spawn(child));
                            }
                            pending::<()>().await;
                        })
                        .await;
                    let exceeded = ended.unwrap_err();
                    let mut tasks = Vec::new();
                    for handle in take(&left) {
                        tasks.push(handle.cpu_clock());
                        over(handle.await);
                    }
                    (exceeded, tasks, clock)
                })
            })
            .collect();
        for request in requests {
            let (exceeded, tasks, clock) = request.await.unwrap();
            assert!(exceeded.used >= ms(30), "{exceeded:?}");
            let sum = || tasks.iter().map(stipend::CpuClock::now).sum::<Duration>();
            // A task that has woken its joiner is still charged for that, and the scope with it.
            let (before, whole, after) = (sum(), clock.now(), sum());
            assert!(whole >= before, "{whole:?} < {before:?}");
            let own = clock.usage().cpu - clock.usage().offloaded;
            assert!(whole <= after + own, "{whole:?} > {after:?} + {own:?}");
        }
    });
}

#[test]
fn s03_a_hundred_thousand_scopes_leave_no_records_behind() {
    let runtime = Runtime::new().unwrap();
    let round = async |times: u32| {
        for _ in 0..times {
            let run = Scope::with_limit(ms(1000)).run(async {
                drop(spawn(pending::<()>()));
                spawn(async { 7 }).await.unwrap()
            });
            assert_eq!(run.await, Ok(7));
        }
    };
    runtime.block_on(async {
        round(1000).await;
        let before = stipend_timers::test::allocated().accounts;
        round(100_000).await;
        let after = stipend_timers::test::allocated().accounts;
        assert!(after <= before + 8192, "{before} before, {after} after");
    });
}
