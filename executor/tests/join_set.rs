//! Sets of tasks: each result comes once, and no task outlives its set.

mod bounded;
mod common;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bounded::run;
use futures::FutureExt;
use futures::channel::oneshot;
use stipend::task::{self, JoinError, JoinSet};
use stipend::time::sleep;
use stipend::{CpuLimit, yield_now};

/// Waits until nobody else has a share.
async fn alone<T>(shared: &Arc<T>) {
    while Arc::strong_count(shared) > 1 {
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn every_result_comes_once() {
    run(async {
        let mut tasks = JoinSet::new();
        for n in 0..100 {
            tasks.spawn(async move {
                for _ in 0..n % 7 {
                    yield_now().await;
                }
                n
            });
        }
        assert_eq!(tasks.len(), 100);
        let mut results = Vec::new();
        while let Some(result) = tasks.join_next().await {
            results.push(result.unwrap());
        }
        assert!(tasks.is_empty());
        assert_eq!(results.len(), 100);
        assert_eq!(results.into_iter().collect::<BTreeSet<_>>(), (0..100).collect());
    });
}

#[test]
fn who_ends_first_comes_first() {
    run(async {
        let mut tasks = JoinSet::new();
        let (first, second) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        tasks.spawn(async move {
            second.1.await.unwrap();
            2
        });
        tasks.spawn(async move {
            first.1.await.unwrap();
            1
        });
        first.0.send(()).unwrap();
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 1);
        assert_eq!(tasks.len(), 1);
        second.0.send(()).unwrap();
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 2);
        assert!(tasks.join_next().await.is_none());
        tasks.spawn(async { 3 });
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 3, "an empty set can be used again");
    });
}

#[test]
fn a_join_that_is_dropped_loses_no_result() {
    run(async {
        let mut tasks = JoinSet::new();
        let (end, ended) = oneshot::channel::<()>();
        tasks.spawn(async move { ended.await.unwrap() });
        for _ in 0..3 {
            assert!(tasks.join_next().now_or_never().is_none());
        }
        assert_eq!(tasks.len(), 1);
        end.send(()).unwrap();
        assert!(tasks.join_next().await.unwrap().is_ok());
    });
}

#[test]
fn dropping_the_set_ends_its_tasks() {
    run(async {
        let shared = Arc::new(());
        let mut tasks = JoinSet::new();
        for _ in 0..10 {
            let share = shared.clone();
            tasks.spawn(async move {
                let _share = share;
                pending::<()>().await;
            });
        }
        yield_now().await;
        assert_eq!(Arc::strong_count(&shared), 11);
        drop(tasks);
        alone(&shared).await;
    });
}

#[test]
fn shutdown_returns_when_the_last_task_is_gone() {
    run(async {
        let shared = Arc::new(());
        let mut tasks = JoinSet::new();
        for _ in 0..10 {
            let share = shared.clone();
            tasks.spawn(async move {
                let _share = share;
                pending::<()>().await;
            });
        }
        tasks.shutdown().await;
        assert_eq!(Arc::strong_count(&shared), 1);
        assert!(tasks.is_empty());
    });
}

#[test]
fn aborted_tasks_stay_to_be_awaited() {
    run(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(pending::<()>());
        let second = tasks.spawn(pending::<()>());
        tasks.abort_all();
        assert_eq!(tasks.len(), 2);
        for _ in 0..2 {
            assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        }
        assert!(second.is_finished());
    });
}

#[test]
fn one_task_can_be_aborted_or_panic_or_reach_its_limit_alone() {
    run(async {
        let mut tasks = JoinSet::new();
        let aborted = tasks.spawn(pending::<()>());
        aborted.abort();
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());

        tasks.spawn(async { panic!("expected") });
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());

        let limit = CpuLimit::hard(Duration::from_millis(5));
        let greedy = task::Builder::new().cpu_limit(limit).spawn(async {
            loop {
                yield_now().await;
            }
        });
        tasks.insert(greedy.unwrap());
        assert!(matches!(tasks.join_next().await, Some(Err(JoinError::CpuLimitExceeded(_)))));
    });
}

#[test]
fn handles_are_collected_into_a_set() {
    run(async {
        let mut tasks: JoinSet<u32> = (0..4).map(|n| stipend::spawn(async move { n })).collect();
        let mut sum = 0;
        while let Some(result) = tasks.join_next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, 6);
    });
}
