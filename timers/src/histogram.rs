//! A distribution of times that its one writer adds to for the price of a few loads and stores.
//!
//! Buckets are sixteen to an octave, so a quantile is right to within 7 % from 1 ns to a minute, in 4 KiB that never grow. The
//! largest value is kept as it is.
//!
//! # Invariant
//! One writer at a time: adding is a load and a store. Readers on other threads see each counter at some moment near to each
//! other's, which is all that a distribution needs. With two writers a value may go uncounted; nothing worse.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Of the value's bits behind the leading one, how many choose the bucket within its octave.
const BITS: u32 = 4;
const STEPS: usize = 1 << BITS;
/// The first value that has no bucket of its own any more: 69 s. What is above is counted in the last bucket.
const END_BITS: u32 = 36;
const BUCKETS: usize = (END_BITS - BITS + 1) as usize * STEPS;

/// Counts times, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Box<[AtomicU64]>,
    max_ns: AtomicU64,
}

/// What a number of times came to.
///
/// The quantiles are good to within 7 %, the largest is exact. All are zero if there was nothing to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Distribution {
    /// How many there were.
    pub count: u64,
    /// Half of them were no longer than this.
    pub p50: Duration,
    /// 99 % of them were no longer than this.
    pub p99: Duration,
    /// 99.9 % of them were no longer than this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

fn bucket(ns: u64) -> usize {
    let octave = ns.max(1).ilog2().saturating_sub(BITS);
    let bucket = ((octave as usize) << BITS) + (ns >> octave) as usize;
    bucket.min(BUCKETS - 1)
}

/// The least value of a bucket, and how many values share it.
fn range(bucket: usize) -> (u64, u64) {
    let octave = (bucket >> BITS).saturating_sub(1);
    (((bucket - (octave << BITS)) as u64) << octave, 1 << octave)
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max_ns: AtomicU64::new(0) }
    }

    /// Counts one. For the one writer.
    pub(crate) fn add(&self, ns: u64) {
        let count = &self.counts[bucket(ns)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(ns, Ordering::Relaxed);
        }
    }

    /// Begins anew. From any thread: what is added meanwhile may count or not.
    pub(crate) fn clear(&self) {
        for counter in self.counts.iter().chain([&self.max_ns]) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// What it came to so far.
    pub(crate) fn distribution(&self) -> Distribution {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        let quantile = |per_mille: u64| {
            // The smallest value that this part of all reach at most.
            let mut rank = (count * per_mille).div_ceil(1000);
            for (bucket, &here) in counts.iter().enumerate() {
                if here > 0 && rank <= here {
                    let (floor, width) = range(bucket);
                    // As if those in a bucket were spread evenly.
                    let within = u128::from(width) * u128::from(2 * rank - 1) / u128::from(2 * here);
                    return Duration::from_nanos((floor + within as u64).min(max_ns));
                }
                rank -= here;
            }
            Duration::ZERO
        };
        if count == 0 {
            return Distribution::default();
        }
        Distribution {
            count,
            p50: quantile(500),
            p99: quantile(990),
            p999: quantile(999),
            max: Duration::from_nanos(max_ns),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_join() {
        for (floor, width) in (0..BUCKETS).map(range) {
            assert_eq!(range(bucket(floor)), (floor, width));
            assert_eq!(range(bucket(floor + width - 1)), (floor, width));
            assert!(width <= 1 || width * 16 <= floor, "{width} from {floor}");
        }
        let joined = (1..BUCKETS).all(|it| range(it - 1).0 + range(it - 1).1 == range(it).0);
        assert!(joined);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let histogram = Histogram::new();
        assert_eq!(histogram.distribution(), Distribution::default());
        (1..=10_000).for_each(|us| histogram.add(us * 1_000));
        let seen = histogram.distribution();
        assert_eq!((seen.count, seen.max), (10_000, Duration::from_millis(10)));
        for (quantile, true_us) in [(seen.p50, 5_000.0), (seen.p99, 9_900.0), (seen.p999, 9_990.0)] {
            let ratio = quantile.as_nanos() as f64 / (true_us * 1e3);
            assert!((0.93..=1.07).contains(&ratio), "{quantile:?} for {true_us} us");
        }
    }

    #[test]
    fn of_a_single_value_every_quantile_is_that_value() {
        let histogram = Histogram::new();
        histogram.add(1_000_003);
        let seen = histogram.distribution();
        for quantile in [seen.p50, seen.p99, seen.p999] {
            assert!(quantile <= seen.max && quantile.as_nanos() > 930_000, "{seen:?}");
        }
        histogram.add(u64::MAX);
        assert_eq!(histogram.distribution().max, Duration::from_nanos(u64::MAX));
        histogram.clear();
        assert_eq!(histogram.distribution(), Distribution::default());
    }
}
