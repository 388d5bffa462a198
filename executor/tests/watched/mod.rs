//! A watchdog: turns a hang into a failure that says how far the test has come.
//!
//! It watches progress and not the whole: a busy machine may make a test of a million rounds slow, and no round endless.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any single step takes, on a machine that is not at a standstill.
const PATIENCE: Duration = Duration::from_secs(60);

/// The count of the steps that the test has made.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// One more step is done.
    pub(crate) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `test` on a thread of its own, to its end.
///
/// # Panics
/// If it panics, or makes no step for [`PATIENCE`]: then with `hang` as the reason.
pub(crate) fn watched(hang: &str, test: impl FnOnce(Progress) + Send + 'static) {
    let progress = Progress::default();
    let (ended, end) = mpsc::channel();
    let thread = thread::spawn({
        let progress = progress.clone();
        move || {
            test(progress);
            let _ = ended.send(());
        }
    });
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        match end.recv_timeout(Duration::from_millis(500)) {
            Ok(()) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                std::panic::resume_unwind(thread.join().expect_err("the test has panicked"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let steps = progress.steps();
                if steps != seen {
                    (seen, since) = (steps, Instant::now());
                } else if since.elapsed() > PATIENCE {
                    panic!("{hang}: nothing has happened for {PATIENCE:?} behind step {steps}");
                }
            }
        }
    }
}

/// xorshift: delays and choices that differ from round to round, and are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Does nothing for a while: as often for some nanoseconds as for some microseconds.
    pub(crate) fn dither(&mut self) {
        let longest = 1 << self.below(12);
        for _ in 0..self.below(longest) {
            std::hint::spin_loop();
        }
    }
}
