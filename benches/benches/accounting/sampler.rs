//! The peer that samples: 99 times a second a thread looks who runs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::truth::Round;

/// Which kind runs; 2 is nobody.
static RUNS: AtomicUsize = AtomicUsize::new(NOBODY);
const NOBODY: usize = 2;

/// A task of this kind is polled from now on.
pub(crate) fn runs(kind: usize) {
    RUNS.store(kind, Relaxed);
}

/// The batch is over.
pub(crate) fn nobody_runs() {
    RUNS.store(NOBODY, Relaxed);
}

/// How often each kind was seen.
#[derive(Debug, Default)]
pub(crate) struct Samples([AtomicU64; 3]);

/// Starts the sampler, for as long as the process lives.
pub(crate) fn start() -> &'static Samples {
    let samples: &Samples = Box::leak(Box::default());
    thread::spawn(|| {
        let start = Instant::now();
        for n in 1_u32.. {
            thread::sleep((start + Duration::from_secs(1) / 99 * n).saturating_duration_since(Instant::now()));
            samples.0[RUNS.load(Relaxed)].fetch_add(1, Relaxed);
        }
    });
    samples
}

impl Samples {
    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    /// The greater of the two kinds' errors, if each gets its part of the samples of the true total. `None`: nothing was seen.
    pub(crate) fn error_percent(&self, truth: &Round) -> Option<f64> {
        let [a, b] = [0, 1].map(|kind| self.0[kind].load(Relaxed) as f64);
        let total: f64 = truth.true_ns.iter().sum();
        (a + b > 0.0).then(|| truth.greatest_error([total * a / (a + b), total * b / (a + b)]))
    }
}
