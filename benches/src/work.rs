//! Computing for about so long.

use std::hint::black_box;
use std::time::Duration;

use crate::os::thread_cpu_ns;

/// So much to compute. That it takes as long as was asked for is not promised: no truth may rest on it.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    steps: u64,
}

impl Work {
    /// About this much CPU time.
    #[must_use]
    pub fn lasting(length: Duration) -> Self {
        Self { steps: (length.as_nanos() as f64 / ns_per_step()).round().max(1.0) as u64 }
    }

    /// Does it.
    pub fn run(self) {
        compute(self.steps);
    }
}

/// A chain in which each step waits for the one before.
fn compute(steps: u64) {
    let mut value = 1_u64;
    for _ in 0..steps {
        value = black_box(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    black_box(value);
}

/// The shortest of a few tries.
fn ns_per_step() -> f64 {
    const STEPS: u64 = 100_000;
    let once = || {
        let before = thread_cpu_ns();
        compute(STEPS);
        thread_cpu_ns() - before
    };
    (0..7).map(|_| once()).min().unwrap_or(STEPS) as f64 / STEPS as f64
}
