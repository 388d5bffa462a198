//! Periodic timers and their overruns, on the manual clock.

mod common;

use common::{Bench, log, ms, taken};

#[test]
fn t40_one_poll_of_105_ms_is_one_expiry_with_overrun_9() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.task({
        let mut first = true;
        move |manual| {
            if std::mem::take(&mut first) {
                manual.advance(ms(105));
            }
            false
        }
    });
    let sink = fired.clone();
    let timer = task
        .clock()
        .timer()
        .every(ms(10))
        .on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used, e.overrun)))
        .arm_after(ms(10))
        .unwrap();
    task.pending();
    assert_eq!(taken(&fired), [(ms(10), ms(105), 9)]);
    assert_eq!(timer.overrun(), 9);
    assert_eq!(timer.remaining(), ms(5), "the next point of the grid is 110");
}

#[test]
fn t42_the_overrun_is_zero_before_the_first_delivery_and_after_arming() {
    let bench = Bench::new();
    let mut task = bench.burner(ms(25));
    let timer = task.clock().timer().every(ms(10)).on_expiry(|_| ()).arm_after(ms(10)).unwrap();
    assert_eq!(timer.overrun(), 0);
    task.pending();
    assert_eq!(timer.overrun(), 1);
    timer.arm_every(ms(10), ms(10)).unwrap();
    assert_eq!(timer.overrun(), 0);
}

#[test]
fn t43_t45_t46_deliveries_and_overruns_add_up_to_the_intervals_elapsed() {
    for seed in 0..50u64 {
        let bench = Bench::new();
        let fired = log();
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut task = bench.task(move |manual| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            manual.advance(std::time::Duration::from_micros(state % 37_000));
            false
        });
        let sink = fired.clone();
        let timer = task
            .clock()
            .timer()
            .every(ms(10))
            .on_expiry(move |e| sink.lock().unwrap().push((e.at, e.used, e.overrun)))
            .arm_after(ms(10))
            .unwrap();
        for _ in 0..100 {
            task.pending();
            // Reading in between changes nothing.
            let _ = (timer.remaining(), timer.overrun());
        }
        let deliveries = taken(&fired);
        let total: u128 = deliveries.iter().map(|(_, _, overrun)| 1 + u128::from(*overrun)).sum();
        assert_eq!(total, task.clock().now().as_millis() / 10);
        for (at, used, overrun) in deliveries {
            assert_eq!(at.as_nanos() % ms(10).as_nanos(), 0, "expiries lie on the grid");
            assert!(at <= used && used < at + ms(10) * (overrun + 1));
        }
    }
}

#[test]
fn t44_an_interval_far_below_the_poll_gives_one_expiry_a_boundary() {
    let bench = Bench::new();
    let fired = log();
    let mut task = bench.burner(ms(5));
    let sink = fired.clone();
    let _timer = task
        .clock()
        .timer()
        .every(std::time::Duration::from_nanos(100))
        .on_expiry(move |e| sink.lock().unwrap().push(e.overrun))
        .arm_after(std::time::Duration::from_nanos(100))
        .unwrap();
    for _ in 0..3 {
        task.pending();
    }
    assert_eq!(taken(&fired), [49_999, 49_999, 49_999]);
}
