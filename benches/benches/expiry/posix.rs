//! The peer: a POSIX timer on the CPU clock of a thread that computes.

use std::time::{Duration, Instant};

use stipend_benches::os::thread_cpu_ns;
use stipend_benches::posix::{Timer, delivered};
use stipend_benches::random::Random;
use stipend_benches::work::Work;
use stipend_timers::DEFAULT_TICK_PERIOD;

use crate::Samples;

/// Expiries on the calling thread, for so long and at least one.
pub(crate) fn measure(budget: Duration, time: Duration, samples: &mut Samples) {
    let timer = Timer::new().expect("a POSIX timer can be had");
    let (work, start) = (Work::lasting(Duration::from_micros(1)), Instant::now());
    let mut random = Random::seeded(start.elapsed().as_nanos() as u64);
    while start.elapsed() < time || samples.overshoot_us.is_empty() {
        // Out of step with the kernel's tick, which brought the latest.
        let end = Instant::now() + DEFAULT_TICK_PERIOD.mul_f64(random.unit());
        while Instant::now() < end {
            work.run();
        }
        let before = delivered().count;
        let at_ns = thread_cpu_ns() + budget.as_nanos() as u64;
        timer.set(at_ns);
        while delivered().count == before {
            work.run();
        }
        let over_ns = delivered().latest_cpu_ns as f64 - at_ns as f64;
        samples.early += u64::from(over_ns < 0.0);
        samples.overshoot_us.push(over_ns / 1e3);
    }
}
