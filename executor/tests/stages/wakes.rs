//! Wakes, beside a poll, beside an abort, from destructors and after the end.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use crate::common::{self, wait_until};
use crate::held::{EVERY_END, Ends, Holder, check, runtime};

#[test]
fn wakes_from_outside_during_a_poll_are_one_more_poll() {
    for ends in EVERY_END {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        let other = waker.clone();
        waker.wake_by_ref();
        waker.wake();
        other.wake();
        holder.end_poll(ends);
        if ends == Ends::Pending {
            drop(holder.waker());
            holder.idle();
            assert_eq!(holder.counts.polls(), 2, "the three wakes are one");
            task.abort();
        }
        check(ends, common::block_on(task));
        assert_eq!(holder.counts.polls(), if ends == Ends::Pending { 2 } else { 1 });
        assert_eq!(holder.counts.futures_dropped(), 1);
        assert_eq!(holder.counts.outputs_dropped(), usize::from(ends == Ends::Ready));
    }
}

#[test]
fn a_wake_of_a_task_that_is_complete_changes_nothing() {
    for ends in [Ends::Ready, Ends::Panic] {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        holder.end_poll(ends);
        wait_until(|| task.is_finished());
        waker.wake_by_ref();
        waker.wake();
        // Had that put it into a queue, it would be run before this one.
        assert_eq!(common::block_on(holder.runtime.spawn(async { 1 })).unwrap(), 1);
        check(ends, common::block_on(task));
        assert_eq!((holder.counts.polls(), holder.counts.futures_dropped()), (1, 1));
    }
}

#[test]
fn an_abort_and_a_wake_during_a_poll_in_either_order() {
    for ends in EVERY_END {
        for wake_first in [false, true] {
            for keep_handle in [false, true] {
                let (holder, task) = Holder::spawn();
                let waker = holder.waker();
                if wake_first {
                    waker.wake_by_ref();
                }
                task.abort();
                let task = keep_handle.then_some(task);
                if !wake_first {
                    waker.wake_by_ref();
                }
                assert_eq!(holder.counts.futures_dropped(), 0, "nothing happens to a task in a poll");
                holder.end_poll(ends);
                if let Some(task) = task {
                    check(ends, common::block_on(task));
                }
                holder.settle();
                waker.wake();
                assert_eq!(holder.counts.polls(), 1, "{ends:?}");
                assert_eq!(holder.counts.futures_dropped(), 1, "{ends:?}");
                drop(holder.runtime);
                assert_eq!(holder.counts.outputs_dropped(), usize::from(ends == Ends::Ready), "{ends:?}");
            }
        }
    }
}

/// Wakes its task as it is dropped, in every way there is.
#[derive(Debug)]
struct WakesInDrop(Arc<Mutex<Option<Waker>>>);

impl Drop for WakesInDrop {
    fn drop(&mut self) {
        let waker = self.0.lock().unwrap().take();
        if let Some(waker) = waker {
            let (elsewhere, another) = (waker.clone(), waker.clone());
            waker.wake_by_ref();
            thread::spawn(move || elsewhere.wake()).join().unwrap();
            waker.wake();
            drop(another);
        }
    }
}

#[test]
fn a_task_woken_by_its_own_destructors_is_not_polled_again() {
    for how in ["completes", "panics", "is aborted", "is left over"] {
        for in_output in [false, true] {
            let runtime = runtime();
            let (polls, place) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
            let (count, kept) = (polls.clone(), place.clone());
            let wakes = WakesInDrop(place);
            let task = runtime.spawn(async move {
                let mut wakes = Some(wakes);
                poll_fn(|cx| {
                    count.fetch_add(1, SeqCst);
                    *kept.lock().unwrap() = Some(cx.waker().clone());
                    match how {
                        "completes" => Poll::Ready(()),
                        "panics" => panic!("as told"),
                        _ => Poll::Pending,
                    }
                })
                .await;
                if in_output { wakes.take() } else { None }
            });
            wait_until(|| polls.load(SeqCst) == 1);
            match how {
                "is aborted" => task.abort(),
                "is left over" => {
                    drop(runtime);
                    assert!(common::block_on(task).unwrap_err().is_cancelled());
                    assert_eq!(polls.load(SeqCst), 1);
                    continue;
                }
                _ => {}
            }
            match common::block_on(task) {
                Ok(output) => assert_eq!((how, output.is_some()), ("completes", in_output)),
                Err(error) => {
                    assert_eq!((error.is_panic(), error.is_cancelled()), (how == "panics", how == "is aborted"))
                }
            }
            drop(runtime);
            assert_eq!(polls.load(SeqCst), 1, "a task that {how}");
        }
    }
}

#[test]
fn wakers_cloned_woken_and_dropped_on_many_threads_free_the_task_once() {
    for round in 0..200 {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        thread::scope(|scope| {
            for n in 0..4 {
                let waker = waker.clone();
                scope.spawn(move || {
                    for _ in 0..n * 3 {
                        drop(waker.clone());
                        waker.wake_by_ref();
                    }
                    if n % 2 == 0 { waker.wake() } else { drop(waker) }
                });
            }
            drop(waker);
            match round % 3 {
                0 => holder.end_poll(Ends::Ready),
                1 => holder.end_poll(Ends::Panic),
                _ => {
                    task.abort();
                    holder.end_poll(Ends::Pending);
                }
            }
            if round % 2 == 0 {
                let _ = common::block_on(task);
            } else {
                drop(task);
            }
        });
        let counts = holder.counts.clone();
        drop(holder);
        assert_eq!(counts.futures_dropped(), 1);
        assert_eq!(counts.outputs_dropped(), usize::from(round % 3 == 0));
    }
}

#[test]
fn wakes_from_other_threads_after_the_end_of_task_and_runtime_are_harmless() {
    for round in 0..100 {
        let (holder, task) = Holder::spawn();
        let waker = holder.waker();
        let counts = holder.counts.clone();
        let begun = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                let (waker, begun) = (waker.clone(), &begun);
                scope.spawn(move || {
                    begun.wait();
                    for _ in 0..200 {
                        waker.wake_by_ref();
                    }
                    let other = waker.clone();
                    other.wake();
                });
            }
            holder.end_poll(if round % 2 == 0 { Ends::Ready } else { Ends::Panic });
            begun.wait();
            drop(holder);
        });
        waker.wake();
        assert_eq!((counts.polls(), counts.futures_dropped()), (1, 1));
        drop(task);
        assert_eq!(counts.outputs_dropped(), usize::from(round % 2 == 0));
    }
}
