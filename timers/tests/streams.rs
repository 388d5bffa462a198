//! Timers as streams for supervisors, and how many timers a clock may have, on the manual clock.

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Bench, Wakes, log, ms, taken};
use futures::Stream;
use stipend_timers::test::Manual;
use stipend_timers::{CpuTimerStream, Expiry, TimerError};

/// A supervisor that polls its stream by hand and counts how often it is woken.
struct Supervisor {
    stream: CpuTimerStream,
    wakes: Arc<Wakes>,
}

impl Supervisor {
    fn new(stream: CpuTimerStream) -> Self {
        Self { stream, wakes: Arc::default() }
    }

    fn poll(&mut self) -> Poll<Option<(Duration, Duration, u32)>> {
        let waker = self.wakes.clone().into();
        let polled = Pin::new(&mut self.stream).poll_next(&mut Context::from_waker(&waker));
        polled.map(|next| next.map(|Expiry { at, used, overrun, .. }| (at, used, overrun)))
    }
}

#[test]
fn t50_a_boundary_wakes_the_supervisor_once_and_delivers() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(6));
    let mut supervisor = Supervisor::new(task.clock().timer().stream_after(ms(10)).unwrap());
    assert_eq!(supervisor.poll(), Poll::Pending);
    task.pending();
    assert_eq!((supervisor.wakes.count(), supervisor.poll()), (0, Poll::Pending));
    task.pending();
    assert_eq!(supervisor.wakes.count(), 1);
    assert_eq!(supervisor.poll(), Poll::Ready(Some((ms(10), ms(12), 0))));
    // A one-shot waits until it is armed again.
    task.pending();
    assert_eq!((supervisor.wakes.count(), supervisor.poll()), (1, Poll::Pending));
    supervisor.stream.timer().arm_after(ms(1)).unwrap();
    task.pending();
    assert_eq!(supervisor.poll(), Poll::Ready(Some((ms(19), ms(24), 0))));
    assert_eq!(task.wakes.count(), 0, "the watched task is not disturbed");
}

#[test]
fn t60_a_stream_delivers_while_a_poll_goes_on() {
    let bench = Bench::new();
    let supervisor = Arc::new(std::sync::Mutex::new(None::<Supervisor>));
    let theirs = supervisor.clone();
    let mut task = bench.task(move |manual: &Manual| {
        let mut guard = theirs.lock().unwrap();
        let supervisor = guard.as_mut().unwrap();
        for round in 1..=3 {
            manual.advance(ms(9));
            manual.tick();
            assert_eq!(supervisor.wakes.count(), round - 1, "not before its time");
            manual.advance(ms(1));
            manual.tick();
            assert_eq!(supervisor.wakes.count(), round, "the service thread wakes it");
            let now = ms(10) * u32::try_from(round).unwrap();
            assert_eq!(supervisor.poll(), Poll::Ready(Some((now, now, 0))));
            assert_eq!(supervisor.poll(), Poll::Pending);
        }
        false
    });
    let mut watching = Supervisor::new(task.clock().timer().every(ms(10)).stream_after(ms(10)).unwrap());
    assert_eq!(watching.poll(), Poll::Pending);
    *supervisor.lock().unwrap() = Some(watching);
    task.pending();
}

#[test]
fn t43_what_a_slow_supervisor_takes_adds_up_to_the_intervals_elapsed() {
    for pace in 1..8 {
        let bench = Bench::new();
        let mut step = 0;
        let mut task = bench.task(move |manual| {
            step = (step * 31 + 17) % 29;
            manual.advance(ms(step));
            if step % 3 == 0 {
                manual.tick();
            }
            false
        });
        let mut supervisor = Supervisor::new(task.clock().timer().every(ms(10)).stream_after(ms(10)).unwrap());
        let (mut total, mut last) = (0, Duration::ZERO);
        for poll in 0..200 {
            task.pending();
            let now = task.clock().now();
            let elapsed = now.as_millis() / 10;
            if poll % pace != 0 {
                continue;
            }
            if let Poll::Ready(next) = supervisor.poll() {
                let (at, used, overrun) = next.expect("the task goes on");
                assert_eq!(at, last + ms(10), "no interval is skipped and none comes twice");
                assert!(at <= used && used <= now);
                last = at + ms(10) * overrun;
                total += 1 + u128::from(overrun);
                assert_eq!(supervisor.stream.timer().overrun(), overrun);
            }
            assert_eq!(total, elapsed);
        }
    }
}

#[test]
fn t41_t44_expiries_not_taken_become_one_with_a_wake_for_all() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(5));
    let mut supervisor = Supervisor::new(
        task.clock().timer().every(Duration::from_nanos(1)).stream_at(Duration::from_nanos(1)).unwrap(),
    );
    assert_eq!(supervisor.poll(), Poll::Pending);
    for _ in 0..1000 {
        task.pending();
    }
    assert_eq!(supervisor.wakes.count(), 1);
    let all = Duration::from_nanos(1);
    assert_eq!(supervisor.poll(), Poll::Ready(Some((all, ms(5000), u32::MAX))), "the count saturates");
}

#[test]
fn t23_t42_arming_and_disarming_forget_what_was_not_taken() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(5));
    let mut supervisor = Supervisor::new(task.clock().timer().every(ms(2)).stream_after(ms(2)).unwrap());
    task.pending();
    supervisor.stream.timer().arm_after(ms(7)).unwrap();
    assert_eq!(supervisor.poll(), Poll::Pending);
    task.pending();
    assert_eq!(supervisor.poll(), Poll::Pending);
    task.pending();
    supervisor.stream.timer().disarm();
    assert_eq!(supervisor.poll(), Poll::Pending);
    assert_eq!(supervisor.stream.timer().overrun(), 0);
}

#[test]
fn t28_a_time_in_the_past_is_delivered_at_once() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(5));
    task.pending();
    let mut supervisor = Supervisor::new(task.clock().timer().stream_at(ms(1)).unwrap());
    assert_eq!(supervisor.poll(), Poll::Ready(Some((ms(1), ms(5), 0))), "although the task waits");
    // The same for one that waits already.
    assert_eq!(supervisor.poll(), Poll::Pending);
    supervisor.stream.timer().arm_at(ms(3)).unwrap();
    assert_eq!(task.wakes.count(), 1, "the task's next boundary finds it");
    task.pending();
    assert_eq!(supervisor.wakes.count(), 1);
    assert_eq!(supervisor.poll().map(|next| next.map(|(at, ..)| at)), Poll::Ready(Some(ms(3))));
}

#[test]
fn t48_a_stream_ends_with_its_task_behind_what_had_fired() {
    let bench = Bench::new();
    let mut task = bench.task(|manual| {
        manual.advance(ms(25));
        true
    });
    let clock = task.clock();
    let mut late = Supervisor::new(clock.timer().every(ms(10)).stream_after(ms(10)).unwrap());
    let mut never = Supervisor::new(clock.timer().stream_after(ms(100)).unwrap());
    let mut disarmed = Supervisor::new(clock.timer().stream().unwrap());
    for supervisor in [&mut late, &mut never, &mut disarmed] {
        assert_eq!(supervisor.poll(), Poll::Pending);
    }
    task.completed();
    for supervisor in [&late, &never, &disarmed] {
        assert_eq!(supervisor.wakes.count(), 1);
    }
    assert_eq!(late.poll(), Poll::Ready(Some((ms(10), ms(25), 1))));
    for supervisor in [&mut late, &mut never, &mut disarmed] {
        assert_eq!(supervisor.poll(), Poll::Ready(None));
        assert_eq!(supervisor.stream.timer().arm_after(ms(1)), Err(TimerError::Exited));
    }
    assert_eq!(clock.timer().stream_after(ms(1)).unwrap_err(), TimerError::Exited);
}

#[test]
fn t05_t11_streams_and_handlers_of_one_clock_do_not_shadow_each_other() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let clock = task.clock();
    let mut early = Supervisor::new(clock.timer().stream_after(ms(3)).unwrap());
    let sink = fired.clone();
    let _handler = clock.timer().on_expiry(move |e| sink.lock().unwrap().push(e.at)).arm_after(ms(4)).unwrap();
    let mut late = Supervisor::new(clock.timer().stream_after(ms(6)).unwrap());
    task.pending();
    assert_eq!(taken(&fired), [ms(4)]);
    assert_eq!((early.poll(), late.poll()), (Poll::Ready(Some((ms(3), ms(5), 0))), Poll::Pending));
    task.pending();
    assert_eq!(late.poll(), Poll::Ready(Some((ms(6), ms(10), 0))));
}

#[test]
fn t31_more_timers_than_a_clock_may_have_are_refused_and_change_nothing() {
    let bench = Bench::new();
    let task = bench.burner(ms(1));
    let clock = task.clock();
    let mut timers = Vec::new();
    let refused = loop {
        match clock.timer().on_expiry(|_| ()).arm_after(ms(50)) {
            Ok(timer) => timers.push(timer),
            Err(error) => break error,
        }
    };
    assert_eq!((timers.len(), refused), (100_000, TimerError::TooMany { max: 100_000 }));
    assert!(refused.to_string().contains("has 100000"), "{refused}");
    assert_eq!(clock.timer().stream().unwrap_err(), refused);
    // Those that exist can be armed, and one that goes makes room.
    assert_eq!(timers[0].arm_after(ms(60)).unwrap().remaining, ms(50));
    drop(timers.pop());
    timers.push(clock.timer().on_expiry(|_| ()).build().unwrap());
    // Another clock has its own.
    let other = bench.burner(ms(1));
    assert!(other.clock().timer().stream_after(ms(1)).is_ok());
}
