//! The fast counter: monotonic, the same on every thread, cheap.
//!
//! The time stamp counter, if the processor says that it runs at a constant rate in all states *and* the kernel itself trusts
//! it. Else the monotonic clock. Which one it is, and its rate, is found out once in a process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The counter and its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastCounter {
    /// Whether it is the time stamp counter.
    pub(crate) is_tsc: bool,
    /// Nanoseconds of a step, times 2^32.
    ns_per_step_q32: u64,
}

impl FastCounter {
    /// The process's counter. The first call takes a few milliseconds, to find the rate out.
    pub(crate) fn get() -> &'static FastCounter {
        static COUNTER: OnceLock<FastCounter> = OnceLock::new();
        COUNTER.get_or_init(|| {
            let is_tsc = has_tsc();
            let ns_per_step_q32 = if is_tsc { calibrate() } else { 1 << 32 };
            FastCounter { is_tsc, ns_per_step_q32 }
        })
    }

    pub(crate) fn ns_per_step_q32(&self) -> u64 {
        self.ns_per_step_q32
    }

    /// The steps that this many nanoseconds are.
    pub(crate) fn steps(&self, ns: u64) -> u64 {
        ((u128::from(ns) << 32) / u128::from(self.ns_per_step_q32)) as u64
    }

    /// The nanoseconds that this many steps are; saturates.
    pub(crate) fn ns(&self, steps: u64) -> u64 {
        u64::try_from((u128::from(steps) * u128::from(self.ns_per_step_q32)) >> 32).unwrap_or(u64::MAX)
    }

    /// Reads the counter.
    #[inline]
    pub(crate) fn read(&self) -> u64 {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
        if self.is_tsc {
            return super::tsc::read();
        }
        monotonic_ns()
    }
}

fn has_tsc() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
    return super::tsc::is_trusted();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable))))]
    false
}

/// Nanoseconds of the monotonic clock since the first call.
pub(crate) fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Measures the counter against the monotonic clock over a few milliseconds: good to about 10 ppm, far below the guard's 0.2 %.
fn calibrate() -> u64 {
    let counter = FastCounter { is_tsc: true, ns_per_step_q32: 1 << 32 };
    let (from, from_ns) = pair(&counter);
    std::thread::sleep(Duration::from_millis(4));
    let (to, to_ns) = pair(&counter);
    let steps = u128::from((to - from).max(1));
    ((u128::from(to_ns - from_ns) << 32) / steps).max(1) as u64
}

/// Both clocks at one moment: the closest of a few tries.
fn pair(counter: &FastCounter) -> (u64, u64) {
    let (_, at, ns) = (0..16)
        .map(|_| {
            let before = counter.read();
            let ns = monotonic_ns();
            let after = counter.read();
            (after.wrapping_sub(before), before + after.wrapping_sub(before) / 2, ns)
        })
        .min()
        .unwrap_or_default();
    (at, ns)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_each_others_inverse() {
        for q32 in [1 << 32, (1 << 32) / 3, (1 << 32) * 40] {
            let counter = FastCounter { is_tsc: false, ns_per_step_q32: q32 };
            for ns in [0, 1_000, 250_000, 3_600_000_000_000] {
                let back = counter.ns(counter.steps(ns));
                assert!(back <= ns && ns - back <= 41, "{ns} came back as {back}");
            }
            assert!(counter.ns(u64::MAX) >= u64::MAX / 4);
        }
    }

    #[test]
    fn the_counter_agrees_with_the_monotonic_clock() {
        let counter = FastCounter::get();
        let (start, from) = (Instant::now(), counter.read());
        std::thread::sleep(Duration::from_millis(50));
        let to = counter.read();
        let wall = start.elapsed().as_nanos() as f64;
        // The reading of `to` may be delayed by anything, but not by more than `wall` then shows.
        let ratio = counter.ns(to - from) as f64 / wall;
        assert!(ratio > 0.5 && ratio < 1.001, "{ratio}");
    }
}
