//! Limits, clocks and charging through the executor, on a clock that is moved by hand: exact on any machine.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use stipend::runtime::Runtime;
use stipend::task::{self, JoinError, SpawnError};
use stipend::{Action, CpuLimit, Group, PollLimit, spawn, spawn_blocking, yield_now};
use stipend_timers::test::Manual;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn runtime(manual: &Manual) -> Runtime {
    let meter = manual.meter().clone();
    Runtime::builder().worker_threads(2).meter(meter).build().unwrap()
}

/// Uses 10 ms in each of `polls` polls.
async fn burn(manual: Manual, polls: u32) -> u32 {
    for _ in 1..polls {
        manual.advance(ms(10));
        yield_now().await;
    }
    manual.advance(ms(10));
    polls
}

/// Uses CPU time when it is dropped.
struct Burns(Manual, Duration);

impl Drop for Burns {
    fn drop(&mut self) {
        self.0.advance(self.1);
    }
}

#[test]
fn t53_a_task_over_its_hard_limit_ends_at_that_boundary() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = task::Builder::new()
        .cpu_limit(CpuLimit::hard(ms(25)))
        .spawn_on(runtime.handle(), burn(manual.clone(), 100))
        .unwrap();
    let clock = task.cpu_clock();
    match runtime.block_on(task) {
        Err(JoinError::CpuLimitExceeded(exceeded)) => {
            assert_eq!((exceeded.used, exceeded.limit), (ms(30), ms(25)));
            assert_eq!((exceeded.polls, exceeded.longest_poll), (3, ms(10)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(clock.now(), ms(30));
}

#[test]
fn t56_a_task_that_completes_over_its_limit_returns_its_value() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = task::Builder::new()
        .cpu_limit(CpuLimit::hard(ms(25)))
        .spawn_on(runtime.handle(), burn(manual.clone(), 3))
        .unwrap();
    assert_eq!(runtime.block_on(task).unwrap(), 3);
}

#[test]
fn t14_t53_a_soft_limit_is_told_before_the_handle_resolves() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let told = Arc::new(AtomicUsize::new(0));
    let task = {
        let told = told.clone();
        task::Builder::new()
            .cpu_limit(CpuLimit::hard(ms(1000)).soft(ms(15)))
            .on_soft_limit(move |_| {
                told.fetch_add(1, Ordering::SeqCst);
                Action::Continue
            })
            // It is crossed in the last poll.
            .spawn_on(runtime.handle(), burn(manual.clone(), 2))
            .unwrap()
    };
    assert_eq!(runtime.block_on(task).unwrap(), 2);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn t17_a_handler_that_cancels_does_so_before_the_next_poll() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = task::Builder::new()
        .cpu_limit(CpuLimit::hard(ms(1000)).soft(ms(15)))
        .on_soft_limit(|_| Action::Cancel)
        .spawn_on(runtime.handle(), burn(manual.clone(), 100))
        .unwrap();
    let clock = task.cpu_clock();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    assert_eq!(clock.usage().polls, 2);
}

#[test]
fn t59_a_handler_that_panics_ends_its_task_alone() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = task::Builder::new()
        .cpu_limit(CpuLimit::hard(ms(1000)).soft(ms(15)))
        .on_soft_limit(|_| panic!("handler"))
        .spawn_on(runtime.handle(), burn(manual.clone(), 100))
        .unwrap();
    match runtime.block_on(task).unwrap_err() {
        JoinError::Panicked(panic) => assert_eq!(panic.message(), Some("handler")),
        other => panic!("{other}"),
    }
    assert_eq!(runtime.block_on(runtime.spawn(burn(manual.clone(), 2))).unwrap(), 2);
}

#[test]
fn t54_limits_that_cannot_be_are_refused() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let refused =
        task::Builder::new().cpu_limit(CpuLimit::hard(ms(10)).soft(ms(20))).spawn_on(runtime.handle(), async {});
    assert!(matches!(refused, Err(SpawnError::Limit(_))));
    assert_eq!(runtime.handle().metrics().tasks, 0);
}

#[test]
fn t55_a_poll_limit_ends_a_task_with_one_long_poll_and_spares_many_short_ones() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let limited = |polls| {
        task::Builder::new()
            .poll_limit(PollLimit::hard(ms(15)))
            .spawn_on(runtime.handle(), burn(manual.clone(), polls))
            .unwrap()
    };
    assert_eq!(runtime.block_on(limited(10)).unwrap(), 10);
    let long = {
        let manual = manual.clone();
        async move {
            manual.advance(ms(20));
            yield_now().await;
        }
    };
    let long = task::Builder::new().poll_limit(PollLimit::hard(ms(15))).spawn_on(runtime.handle(), long).unwrap();
    assert!(matches!(runtime.block_on(long), Err(JoinError::CpuLimitExceeded(_))));
}

#[test]
fn t16_a_child_inherits_the_group_and_no_limit() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let group = Group::new("tenant").unwrap();
    let parent = {
        let manual = manual.clone();
        async move { spawn(burn(manual, 10)).await.unwrap() }
    };
    let parent = task::Builder::new()
        .group(&group)
        .cpu_limit(CpuLimit::hard(ms(25)))
        .spawn_on(runtime.handle(), parent)
        .unwrap();
    assert_eq!(runtime.block_on(parent).unwrap(), 10);
    assert_eq!(group.cpu_time(), ms(100));
}

#[test]
fn c03_t59_the_destructor_of_a_cancelled_task_is_charged_to_it() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let waits = |burns: Burns| async move {
        let _burns = burns;
        pending::<()>().await;
    };
    let aborted = runtime.spawn(waits(Burns(manual.clone(), ms(7))));
    let clock = aborted.cpu_clock();
    aborted.abort();
    assert!(runtime.block_on(aborted).unwrap_err().is_cancelled());
    assert_eq!(clock.now(), ms(7));

    let left = runtime.spawn(waits(Burns(manual.clone(), ms(9))));
    let clock = left.cpu_clock();
    drop(runtime);
    assert_eq!(clock.now(), ms(9));
}

#[test]
fn c03_an_output_that_nobody_wants_is_dropped_on_the_tasks_account() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let (go, gate) = futures::channel::oneshot::channel::<()>();
    let burns = Burns(manual.clone(), ms(4));
    let task = runtime.spawn(async move {
        gate.await.unwrap();
        burns
    });
    let clock = task.cpu_clock();
    drop(task);
    go.send(()).unwrap();
    // The drop waits until the task has ended.
    drop(runtime);
    assert_eq!(clock.now(), ms(4));
}

#[test]
fn c03_a_blocking_job_is_charged_to_the_task_that_spawned_it() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = {
        let manual = manual.clone();
        runtime.spawn(async move {
            manual.advance(ms(1));
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    let manual = manual.clone();
                    spawn_blocking(move || manual.advance(ms(10)))
                })
                .collect();
            for job in jobs {
                job.await.unwrap();
            }
        })
    };
    let clock = task.cpu_clock();
    runtime.block_on(task).unwrap();
    assert_eq!(clock.now(), ms(41));
    assert_eq!(clock.usage().offloaded, ms(40));
}

#[test]
fn c03_a_blocking_job_can_reach_its_tasks_hard_limit() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = {
        let manual = manual.clone();
        async move {
            spawn_blocking(move || manual.advance(ms(30))).await.unwrap();
            pending::<()>().await;
        }
    };
    let task = task::Builder::new().cpu_limit(CpuLimit::hard(ms(25))).spawn_on(runtime.handle(), task).unwrap();
    assert!(matches!(runtime.block_on(task), Err(JoinError::CpuLimitExceeded(_))));
}

#[test]
fn t48_the_clock_of_a_task_that_has_ended_keeps_its_value() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let task = runtime.spawn(burn(manual.clone(), 3));
    let clock = task.cpu_clock();
    runtime.block_on(task).unwrap();
    // Others may use its storage by now.
    for _ in 0..100 {
        runtime.block_on(runtime.spawn(burn(manual.clone(), 2))).unwrap();
    }
    drop(runtime);
    assert_eq!(clock.now(), ms(30));
}

#[test]
fn snapshots_tell_use_and_limit() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let group = Group::new("tenant").unwrap();
    let task = {
        let manual = manual.clone();
        async move {
            burn(manual, 2).await;
            pending::<()>().await;
        }
    };
    let task =
        task::Builder::new().group(&group).cpu_limit(CpuLimit::hard(ms(25))).spawn_on(runtime.handle(), task).unwrap();
    let seen = loop {
        let seen = runtime.handle().tasks().remove(0);
        if seen.polls == 2 {
            break seen;
        }
        std::thread::yield_now();
    };
    assert_eq!((seen.id, seen.cpu, seen.longest_poll), (task.id(), ms(20), ms(10)));
    assert_eq!(seen.limit, Some(ms(25)));
    assert_eq!(seen.group.as_deref(), Some("tenant"));
}

#[test]
fn a_snapshot_has_the_time_of_each_poll_that_it_counts() {
    let manual = Manual::new();
    let runtime = runtime(&manual);
    let stop = Arc::new(AtomicBool::new(false));
    let (burns, stops) = (manual.clone(), stop.clone());
    let task = runtime.spawn(async move {
        while !stops.load(Ordering::Relaxed) {
            burn(burns.clone(), 1).await;
            yield_now().await;
        }
    });
    let mut polls = 0;
    while polls < 50_000 {
        let seen = runtime.handle().tasks().remove(0);
        assert!(seen.cpu >= ms(10) * seen.polls as u32 && seen.longest_poll <= ms(10), "{seen}");
        polls = seen.polls;
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(task).unwrap();
}
