//! A join handle that is polled, dropped or awaited by another task, at each stage of its own.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};

use stipend::task::{JoinHandle, TaskState};

use crate::common::{self, wait_until};
use crate::held::{CountsOf, Ends, Held, Holder, Joiner, Output, check, poll_once, runtime};

/// Brings a task to each stage in turn and calls `then`; afterwards it is made to complete.
/// Returns the counts of each, and a waker, by which its memory lives on.
fn at_each_stage(then: impl Fn(&Holder, &mut Option<JoinHandle<Output>>, &str)) -> Vec<(CountsOf, Waker)> {
    let mut all = Vec::new();
    // Queued: the only worker is held elsewhere.
    {
        let runtime = runtime();
        let (release, hold) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel();
        drop(runtime.spawn(async move {
            busy.send(()).unwrap();
            hold.recv().unwrap();
        }));
        is_busy.recv().unwrap();
        let counts = CountsOf::default();
        let (tell, inside) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let mut task = Some(runtime.spawn(Held { counts: counts.clone(), inside: tell, ends }));
        let holder = Holder { counts, inside, end, runtime };
        then(&holder, &mut task, "queued");
        release.send(()).unwrap();
        let waker = holder.waker();
        holder.end_poll(Ends::Ready);
        all.push((finish(holder, task), waker));
    }
    for stage in ["running", "idle", "woken", "complete"] {
        let (holder, task) = Holder::spawn();
        let mut task = Some(task);
        let waker = holder.waker();
        match stage {
            "running" => {
                then(&holder, &mut task, stage);
                holder.end_poll(Ends::Ready);
            }
            "idle" => {
                holder.idle();
                then(&holder, &mut task, stage);
                waker.wake_by_ref();
                drop(holder.waker());
                holder.end_poll(Ends::Ready);
            }
            "woken" => {
                waker.wake_by_ref();
                holder.end_poll(Ends::Pending);
                then(&holder, &mut task, stage);
                drop(holder.waker());
                holder.end_poll(Ends::Ready);
            }
            _ => {
                holder.end_poll(Ends::Ready);
                wait_until(|| task.as_ref().is_some_and(JoinHandle::is_finished));
                then(&holder, &mut task, stage);
            }
        }
        all.push((finish(holder, task), waker));
    }
    all
}

fn finish(holder: Holder, task: Option<JoinHandle<Output>>) -> CountsOf {
    if let Some(task) = task {
        check(Ends::Ready, common::block_on(task));
    }
    holder.counts.clone()
}

fn dropped_once(all: &[(CountsOf, Waker)]) {
    for (counts, _) in all {
        assert_eq!((counts.futures_dropped(), counts.outputs_dropped()), (1, 1));
    }
}

#[test]
fn a_handle_dropped_at_any_stage_leaves_the_task_to_complete() {
    let all = at_each_stage(|holder, task, stage| {
        drop(task.take());
        let complete = stage == "complete";
        assert_eq!(holder.counts.outputs_dropped(), usize::from(complete), "{stage}: the output goes with the handle");
    });
    dropped_once(&all);
}

#[test]
fn a_handle_polled_at_any_stage_wakes_its_last_waker_alone_and_keeps_none() {
    let kept = Mutex::new(Vec::new());
    let all = at_each_stage(|_, task, stage| {
        let joiners = [(); 3].map(|()| Arc::<Joiner>::default());
        let handle = task.as_mut().unwrap();
        if stage == "complete" {
            check(Ends::Ready, common::block_on(task.take().unwrap()));
            return;
        }
        for joiner in &joiners {
            // The same waker twice is no change.
            assert!(poll_once(handle, joiner).is_pending());
            assert!(poll_once(handle, joiner).is_pending());
        }
        assert_eq!(joiners.each_ref().map(Arc::strong_count), [1, 1, 2], "{stage}: only the last waker is kept");
        if stage == "idle" {
            // And it goes with the handle.
            drop(task.take());
            assert_eq!(Arc::strong_count(&joiners[2]), 1);
        } else {
            let handle = task.take().unwrap();
            kept.lock().unwrap().push((handle, joiners));
        }
    });
    for (mut handle, joiners) in kept.into_inner().unwrap() {
        wait_until(|| joiners[2].0.load(SeqCst) == 1);
        match poll_once(&mut handle, &joiners[0]) {
            Poll::Ready(result) => check(Ends::Ready, result),
            Poll::Pending => panic!("its waker was woken"),
        }
        drop(handle);
        assert_eq!(joiners.each_ref().map(|joiner| joiner.0.load(SeqCst)), [0, 0, 1]);
        assert_eq!(joiners.each_ref().map(Arc::strong_count), [1, 1, 1]);
    }
    dropped_once(&all);
}

#[test]
fn a_task_that_holds_its_own_handle_ends_with_the_runtime() {
    let runtime = runtime();
    let counts = CountsOf::default();
    let (give, given) = futures::channel::oneshot::channel::<JoinHandle<()>>();
    let output = Output(counts.clone());
    let task = runtime.spawn(async move {
        let _output = output;
        // It waits for itself.
        let _ = given.await.unwrap().await;
    });
    assert!(give.send(task).is_ok());
    wait_until(|| runtime.handle().tasks()[0].polls >= 1);
    drop(runtime);
    assert_eq!(counts.outputs_dropped(), 1);
}

#[test]
fn a_joiner_that_is_aborted_leaves_its_task_alone() {
    let (holder, task) = Holder::spawn();
    let waker = holder.waker();
    let other = runtime();
    let joiner = other.spawn(task);
    wait_until(|| other.handle().tasks()[0].state == TaskState::Idle);
    joiner.abort();
    assert!(common::block_on(joiner).unwrap_err().is_cancelled());
    holder.idle();
    waker.wake();
    drop(holder.waker());
    holder.end_poll(Ends::Ready);
    holder.settle();
    drop(holder.runtime);
    assert_eq!((holder.counts.polls(), holder.counts.outputs_dropped()), (2, 1));
}
