//! A task and its runtime, of which either may go first, and tasks of two runtimes.

use std::future::pending;

use stipend::spawn;
use stipend::task::TaskState;

use crate::common::{self, wait_until};
use crate::held::{Ends, Holder, runtime};

#[test]
fn a_finished_task_and_its_runtime_go_in_either_order() {
    for runtime_first in [false, true] {
        let (holder, task) = Holder::spawn();
        drop(holder.waker());
        holder.end_poll(Ends::Ready);
        wait_until(|| task.is_finished());
        assert_eq!(holder.counts.outputs_dropped(), 0);
        if runtime_first {
            drop(holder.runtime);
            assert_eq!(holder.counts.outputs_dropped(), 0);
            drop(task);
        } else {
            drop(task);
            assert_eq!(holder.counts.outputs_dropped(), 1);
            drop(holder.runtime);
        }
        assert_eq!((holder.counts.futures_dropped(), holder.counts.outputs_dropped()), (1, 1));
    }
}

#[test]
fn a_forgotten_runtime_goes_on() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    std::mem::forget(runtime);
    let sum = common::block_on(handle.spawn(async {
        let mut sum = 0;
        for n in 0..10 {
            sum += spawn(async move { n }).await.unwrap();
        }
        sum
    }));
    assert_eq!(sum.unwrap(), 45);
}

#[test]
fn tasks_of_two_runtimes_await_each_other_and_one_runtime_outlives_the_other() {
    let (ours, theirs) = (runtime(), runtime());
    let to_theirs = theirs.handle().clone();
    let to_ours = ours.handle().clone();
    let sum = common::block_on(ours.spawn(async move {
        let mut sum = 0;
        for n in 0..100 {
            let to_ours = to_ours.clone();
            let task = to_theirs.spawn(async move { to_ours.spawn(async move { n }).await.unwrap() + 1 });
            sum += task.await.unwrap();
        }
        sum
    }));
    assert_eq!(sum.unwrap(), (1..=100).sum::<i32>());
    let waits = theirs.spawn(pending::<()>());
    let joiner = ours.spawn(waits);
    wait_until(|| ours.handle().tasks().iter().all(|task| task.state == TaskState::Idle));
    drop(theirs);
    assert!(common::block_on(joiner).unwrap().unwrap_err().is_cancelled());
    assert_eq!(common::block_on(ours.spawn(async { 5 })).unwrap(), 5);
}
