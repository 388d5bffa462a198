//! Wall time: never early, none lost, nothing left behind.

mod bounded;
mod common;

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bounded::run;
use common::PATIENCE;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use stipend::time::{Sleep, interval, sleep, sleep_until, timeout};
use stipend::{has_budget, yield_now};
use tokio_test::{assert_pending, task};

const MS: Duration = Duration::from_millis(1);

/// Numbers that look random and are the same each time.
fn scrambled(count: u32, below: u32) -> impl Iterator<Item = u32> {
    let mut state = 12345_u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    })
}

/// Sets something up with a sleep of so long that is not over by then, in a poll whose slice is not over either: else the sleep
/// would yield first. The machine may do something else meanwhile: then once more.
async fn in_time<T>(time: Duration, set_up: impl Fn(Sleep) -> T) -> T {
    loop {
        let sleep = sleep(time);
        let deadline = sleep.deadline();
        let done = set_up(sleep);
        if Instant::now() < deadline && has_budget() {
            return done;
        }
        drop(done);
        yield_now().await;
    }
}

/// A sleep that was polled, and the answer.
fn polled(sleep: Sleep) -> (task::Spawn<Sleep>, Poll<()>) {
    let mut sleep = task::spawn(sleep);
    let polled = sleep.poll();
    (sleep, polled)
}

/// Whether it is ready: at the second poll at the latest, as the first one yields if the slice is over.
fn is_over(sleep: &mut task::Spawn<Sleep>) -> bool {
    sleep.poll().is_ready() || sleep.poll().is_ready()
}

#[test]
fn ten_thousand_timers_in_random_order_are_not_early() {
    run(async {
        let sleeps: FuturesUnordered<_> = scrambled(10_000, 200_000)
            .map(|micros| async move {
                let deadline = Instant::now() + Duration::from_micros(micros.into());
                sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
            })
            .collect();
        assert_eq!(sleeps.count().await, 10_000);
    });
}

#[test]
fn timers_of_many_tasks_end() {
    run(async {
        let tasks: Vec<_> = scrambled(1000, 50)
            .map(|ms| {
                stipend::spawn(async move {
                    for round in 0..5 {
                        let wait = MS * ((ms + round * 7) % 20);
                        let start = Instant::now();
                        sleep(wait).await;
                        assert!(start.elapsed() >= wait);
                    }
                })
            })
            .collect();
        for task in join_all(tasks).await {
            task.unwrap();
        }
    });
}

#[test]
fn a_deadline_in_the_past_is_over_at_once() {
    run(async {
        assert!(is_over(&mut task::spawn(sleep_until(Instant::now() - MS))));
        assert!(is_over(&mut task::spawn(sleep(Duration::ZERO))));
    });
}

#[test]
fn an_endless_sleep_does_not_overflow() {
    run(async {
        let (endless, polled) = in_time(Duration::MAX, polled).await;
        assert_pending!(polled);
        assert!(endless.deadline() > Instant::now() + Duration::from_secs(1_000_000));
        assert!(timeout(Duration::MAX, async {}).await.is_ok());
        sleep(MS).await;
        assert!(!endless.is_woken());
    });
}

#[test]
fn a_sleep_can_be_moved_to_an_earlier_time() {
    run(async {
        let (mut moved, polled) = in_time(PATIENCE * 10, polled).await;
        assert_pending!(polled);
        let deadline = Instant::now() + 5 * MS;
        moved.reset(deadline);
        while !moved.is_woken() {
            sleep(MS).await;
        }
        assert!(Instant::now() >= deadline);
        assert!(moved.is_elapsed());
        assert!(is_over(&mut moved));
    });
}

#[test]
fn a_sleep_can_be_moved_to_a_later_time() {
    run(async {
        let (mut moved, polled) = in_time(20 * MS, |sleep| {
            let (mut moved, polled) = polled(sleep);
            moved.reset(Instant::now() + PATIENCE * 10);
            (moved, polled)
        })
        .await;
        assert_pending!(polled);
        sleep(40 * MS).await;
        assert!(!moved.is_woken());
        assert_pending!(moved.poll());
    });
}

#[test]
fn a_sleep_can_be_used_again() {
    run(async {
        let mut again = sleep(MS);
        for _ in 0..10 {
            (&mut again).await;
            (&mut again).await;
            let deadline = Instant::now() + MS;
            again.reset(deadline);
            assert_eq!(again.deadline(), deadline);
        }
        (&mut again).await;
        assert!(again.is_elapsed());
    });
}

#[test]
fn the_task_that_polled_last_is_woken() {
    run(async {
        let (_handed_on, tasks, polled) = in_time(20 * MS, |mut handed_on| {
            let mut tasks = [task::spawn(()), task::spawn(())];
            let polled = tasks.each_mut().map(|task| task.enter(|cx, _| Pin::new(&mut handed_on).poll(cx)));
            (handed_on, tasks, polled)
        })
        .await;
        assert_eq!(polled, [Poll::Pending; 2]);
        while !tasks[1].is_woken() {
            sleep(MS).await;
        }
        assert!(!tasks[0].is_woken());
    });
}

#[test]
fn a_dropped_sleep_wakes_nobody() {
    run(async {
        let (task, polled) = in_time(20 * MS, |mut dropped| {
            let mut task = task::spawn(());
            let polled = task.enter(|cx, _| Pin::new(&mut dropped).poll(cx));
            (task, polled)
        })
        .await;
        assert_pending!(polled);
        sleep(40 * MS).await;
        assert!(!task.is_woken());
    });
}

#[test]
fn a_timeout_gives_up_and_says_so() {
    run(async {
        let start = Instant::now();
        let error = timeout(10 * MS, pending::<()>()).await.unwrap_err();
        assert!(start.elapsed() >= 10 * MS);
        assert_eq!(error.after(), 10 * MS);
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_timeout_lets_a_ready_future_win() {
    run(async {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        assert_eq!(
            timeout(PATIENCE * 10, async {
                sleep(MS).await;
                2
            })
            .await,
            Ok(2)
        );
    });
}

#[test]
fn a_timeout_gives_up_a_future_that_never_rests() {
    run(async {
        let busy = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(timeout(10 * MS, busy).await.is_err());
    });
}

#[test]
fn an_interval_keeps_its_grid() {
    run(async {
        let mut ticks = interval(2 * MS);
        let first = ticks.tick().await;
        let mut last = first;
        for round in 0..10 {
            if round == 5 {
                sleep(7 * MS).await;
            }
            let due = ticks.next().await.unwrap();
            assert!(Instant::now() >= due);
            assert!(due > last);
            assert_eq!((due - first).as_nanos() % (2 * MS).as_nanos(), 0);
            last = due;
        }
        assert!(last - first >= 20 * MS);
    });
}

#[test]
fn t51_a_spurious_wake_does_not_shorten_a_sleep() {
    run(async {
        let mut sleep = sleep(20 * MS);
        let deadline = sleep.deadline();
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls < 100 {
                cx.waker().wake_by_ref();
            }
            Pin::new(&mut sleep).poll(cx)
        })
        .await;
        assert!(Instant::now() >= deadline);
    });
}

#[test]
#[should_panic(expected = "longer than zero")]
fn an_interval_of_zero_is_refused() {
    interval(Duration::ZERO);
}
