//! Sleeps and streams on a group's clock: told at a boundary, or while no poll ends.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::common::{Bench, Wakes, log, ms, taken};
use crate::fixtures::*;

#[test]
fn t50_t51_sleeps_and_streams_are_told_at_the_boundary() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let mut task = burner(&bench, &tenant, ms(6));
    let wakes = Arc::<Wakes>::default();
    let waker = wakes.clone().into();
    let mut cx = Context::from_waker(&waker);
    let mut sleep = Box::pin(clock.sleep(ms(10)));
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    let (mut stream, told) = (clock.timer().every(ms(5)).stream_after(ms(5)).unwrap(), Arc::<Wakes>::default());
    assert_eq!(next(&mut stream, &told), None);
    task.pending();
    assert_eq!((wakes.count(), told.count()), (0, 1));
    assert!(sleep.as_mut().poll(&mut cx).is_pending(), "a spurious wake does not shorten it");
    task.pending();
    assert_eq!((wakes.count(), told.count()), (1, 1), "woken once for what it has not taken");
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    assert_eq!(next(&mut stream, &told), Some((ms(5), ms(12), 1)));
    assert!(Box::pin(clock.sleep_until(ms(3))).as_mut().poll(&mut cx).is_ready(), "past");
    // Dropped before its time: nobody is told.
    let mut dropped = Box::pin(clock.sleep(ms(1)));
    assert!(dropped.as_mut().poll(&mut cx).is_pending());
    drop(dropped);
    task.pending();
    assert_eq!((wakes.count(), task.wakes.count()), (1, 0));
}

#[test]
fn t60_supervisors_are_told_while_no_members_poll_ends() {
    let bench = Bench::new();
    let tenant = group("tenant");
    let inner = child(&tenant);
    let clock = tenant.cpu_clock();
    let (wakes, told) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut stream = clock.timer().every(ms(10)).stream_after(ms(10)).unwrap();
    assert_eq!(next(&mut stream, &told), None);
    let mut sleep = Box::pin(clock.sleep(ms(15)));
    let waker = wakes.clone().into();
    assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let fired = log();
    let _timer = handler(&clock, &fired, ms(12));
    let (theirs, seen, none) = ((wakes.clone(), told.clone()), log(), fired.clone());
    let sink = seen.clone();
    let mut task = member(
        bench.task(move |manual| {
            for step in [9, 1, 4, 1, 6] {
                manual.advance(ms(step));
                manual.tick();
                sink.lock().unwrap().push((theirs.0.count(), theirs.1.count(), stipend_timers::has_budget()));
            }
            assert_eq!(taken(&none), [], "handlers are for a boundary");
            false
        }),
        &inner,
    );
    task.pending();
    let expected = [(0, 0, false), (0, 1, false), (0, 1, false), (1, 1, false), (1, 1, false)];
    assert_eq!(taken(&seen), expected);
    assert_eq!(taken(&fired), [(ms(12), ms(21), 0)]);
    assert_eq!(next(&mut stream, &told), Some((ms(10), ms(21), 1)));
}
