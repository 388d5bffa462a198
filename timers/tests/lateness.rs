//! What the metrics tell of a real tick: when it comes, how late, and that it rests while nothing polls.

use std::thread::sleep;
use std::time::{Duration, Instant};

use stipend_timers::{Meter, MeterMetrics};

const PERIOD: Duration = Duration::from_millis(1);

/// Waits for what has to come, on a machine that may be busy.
fn until(meter: &Meter, come: impl Fn(&MeterMetrics) -> bool) -> MeterMetrics {
    let start = Instant::now();
    loop {
        let metrics = meter.metrics();
        if come(&metrics) {
            return metrics;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{metrics:?}");
        sleep(PERIOD);
    }
}

#[test]
fn a_tick_is_counted_while_something_polls_and_rests_while_nothing_does() {
    let meter = Meter::builder().tick_period(PERIOD).build().unwrap();
    let fresh = meter.metrics();
    assert_eq!((fresh.since_tick, fresh.overdue, fresh.lateness.count), (None, Duration::ZERO, 0));

    let lease = meter.attach();
    let start = Instant::now();
    lease.set_active();
    let running = until(&meter, |metrics| metrics.lateness.count >= 20);
    let periods = (start.elapsed().as_nanos() / PERIOD.as_nanos()) as u64;
    // Each period has a tick or is missed; one may be due just now.
    let counted = running.lateness.count + running.missed_periods;
    assert!(counted <= periods, "{counted} in {periods} periods");
    assert!(running.lateness.p50 <= running.lateness.p99 && running.lateness.p99 <= running.lateness.max);
    assert!(running.since_tick.is_some());
    // Of each tick that looked at this thread.
    assert!(running.look.count >= 20 && running.look.p50 > Duration::ZERO, "{:?}", running.look);

    // The tick finds nobody, and stops. One that is only late would be overdue.
    lease.set_idle();
    let rests = |metrics: &MeterMetrics| {
        metrics.overdue.is_zero() && metrics.since_tick.is_some_and(|since| since > PERIOD * 20)
    };
    let at_rest = until(&meter, rests);
    sleep(PERIOD * 20);
    let later = meter.metrics();
    assert_eq!((later.overdue, later.lateness), (Duration::ZERO, at_rest.lateness), "nothing is due");

    // The rest is nobody's lateness.
    lease.set_active();
    let again = until(&meter, |metrics| metrics.lateness.count > later.lateness.count);
    assert!(again.since_tick < later.since_tick);
}
