//! Task-locals: a value goes with its future, wherever that is polled, and with nothing else.

mod bounded;
mod common;

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use bounded::run;
use futures::FutureExt;
use futures::future::join_all;
use stipend::yield_now;

stipend::task_local! {
    static NUMBER: u32;
    static NAME: String;
    static COUNTER: Cell<u32>
}

fn number() -> Option<u32> {
    NUMBER.try_with(|number| *number).ok()
}

#[test]
fn a_value_goes_with_its_task_from_thread_to_thread() {
    run(async {
        let tasks = (0..100).map(|n| {
            stipend::spawn(NUMBER.scope(n, async move {
                for _ in 0..100 {
                    assert_eq!(NUMBER.get(), n);
                    yield_now().await;
                }
            }))
        });
        for result in join_all(tasks).await {
            result.unwrap();
        }
        assert_eq!(number(), None);
    });
}

#[test]
fn scopes_nest_and_interleave() {
    run(NUMBER.scope(1, async {
        let scopes = [2, 3].map(|n| {
            NUMBER.scope(n, async move {
                for _ in 0..5 {
                    assert_eq!(number(), Some(n));
                    yield_now().await;
                }
            })
        });
        let mut scopes = join_all(scopes);
        poll_fn(|cx| {
            let polled = scopes.poll_unpin(cx);
            assert_eq!(number(), Some(1), "the outer value is back after each poll");
            polled
        })
        .await;
    }));
}

#[test]
fn keys_are_independent_and_values_may_be_mutable() {
    run(COUNTER.scope(Cell::new(0), async {
        NAME.scope("alice".to_owned(), async {
            COUNTER.with(|counter| counter.set(counter.get() + 1));
            assert_eq!(NAME.get(), "alice");
            assert_eq!(number(), None);
        })
        .await;
        assert_eq!(COUNTER.with(Cell::get), 1);
        assert!(NAME.try_with(String::len).is_err());
    }));
}

#[test]
fn a_task_spawned_inside_has_no_value() {
    run(NUMBER.scope(1, async {
        assert_eq!(stipend::spawn(async { number() }).await.unwrap(), None);
    }));
}

#[test]
fn the_slot_is_restored_after_a_panic() {
    let mut scope = Box::pin(NUMBER.scope(1, async { panic!("expected") }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(catch_unwind(AssertUnwindSafe(|| scope.poll_unpin(&mut cx).map(|()| ()))).is_err());
    assert_eq!(number(), None);
}

#[test]
fn the_future_finds_the_value_while_it_is_dropped() {
    struct Tell(mpsc::Sender<Option<u32>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send(number()).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let guard = Tell(tell.clone());
    let mut waits = Box::pin(NUMBER.scope(5, async move {
        let _guard = guard;
        pending::<()>().await;
    }));
    assert!(waits.as_mut().now_or_never().is_none());
    drop(waits);
    assert_eq!(told.recv().unwrap(), Some(5), "in the middle");

    // Held by the future itself, which is dropped as it returns.
    let guard = Tell(tell);
    let returns = poll_fn(move |_| {
        let _ = &guard;
        Poll::Ready(())
    });
    NUMBER.scope(6, returns).now_or_never().unwrap();
    assert_eq!(told.recv().unwrap(), Some(6), "at the end");
    assert_eq!(number(), None);
}

#[test]
fn outside_of_a_scope_there_is_nothing() {
    let error = NUMBER.try_with(|_| ()).unwrap_err();
    assert!(error.to_string().contains("scope"), "{error}");
    assert!(catch_unwind(|| NUMBER.get()).is_err());
}

#[test]
fn a_value_in_use_is_not_replaced() {
    run(NUMBER.scope(1, async {
        let replaced = NUMBER.with(|_| catch_unwind(|| NUMBER.scope(2, async {}).now_or_never()).is_ok());
        assert!(!replaced);
        assert_eq!(number(), Some(1));
    }));
}
