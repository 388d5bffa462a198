//! Medians, and how far they can be trusted.
//!
//! Nothing here assumes a distribution: samples of a shared machine have a long tail on one side. The interval of a median is
//! that of the order statistics. Each sample lies below the true median with probability one half, so the number that does is
//! binomial, and the k-th smallest and the k-th largest of n samples enclose the median with probability
//! `1 - 2 P(Binomial(n, 1/2) < k)`. The largest k that keeps 95 % is taken; for 7 samples that is 1, the smallest and the
//! largest of all.

/// Sorted copy.
fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which this part of the samples lies, interpolated; NaN if there are none.
#[must_use]
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let sorted = sorted(samples);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The middle; NaN if there are no samples.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// A median and where it lies with 95 % confidence.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The median.
    pub median: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// By order statistics. With fewer than 6 samples no such interval has 95 %; then all of them are enclosed.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let sorted = sorted(samples);
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            return Self { median: f64::NAN, low: f64::NAN, high: f64::NAN };
        };
        let median = median(samples);
        match rank(sorted.len()) {
            0 => Self { median, low: *first, high: *last },
            k => Self { median, low: sorted[k - 1], high: sorted[sorted.len() - k] },
        }
    }
}

/// The largest k for which the k-th smallest and the k-th largest enclose the median with 95 %; zero if none does.
fn rank(samples: usize) -> usize {
    // P(Binomial(n, 1/2) = i), from the logarithm, as 2^-n is too small for large n.
    let half = -(samples as f64) * std::f64::consts::LN_2;
    let (mut choose, mut below, mut k) = (0.0_f64, 0.0, 0);
    while k < samples {
        below += (choose + half).exp();
        if 2.0 * below > 0.05 {
            break;
        }
        choose += ((samples - k) as f64).ln() - ((k + 1) as f64).ln();
        k += 1;
    }
    k
}

/// One column over another, round by round: its median and interval.
#[must_use]
pub fn ratio(ours: &[f64], theirs: &[f64]) -> Interval {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    Interval::of(&ratios)
}

/// The geometric mean; NaN if there is nothing.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_ranks_are_those_of_the_tables() {
        // Conover, Practical Nonparametric Statistics, table of the sign test at 5 %, plus one.
        for (samples, k) in [(5, 0), (6, 1), (7, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (25, 8), (100, 40)] {
            assert_eq!(rank(samples), k, "{samples} samples");
        }
        assert!(rank(5000) > 2400);
    }

    #[test]
    fn an_interval_encloses_the_true_median_as_often_as_it_says() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut skewed = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Exponential: its median is ln 2.
            -((state >> 11) as f64 / (1_u64 << 53) as f64).ln()
        };
        for samples in [7, 9, 31] {
            let trials = 4000;
            let hits = (0..trials)
                .filter(|_| {
                    let drawn: Vec<f64> = (0..samples).map(|_| skewed()).collect();
                    let interval = Interval::of(&drawn);
                    interval.low <= std::f64::consts::LN_2 && std::f64::consts::LN_2 <= interval.high
                })
                .count();
            let part = hits as f64 / f64::from(trials);
            assert!(part > 0.94, "{samples}: {part}");
        }
    }

    #[test]
    fn ratios_are_of_pairs_and_not_of_medians() {
        // Both double in the middle: every pair says one half.
        let ratio = ratio(&[1.0, 2.0, 4.0, 2.0, 1.0, 1.0, 1.0], &[2.0, 4.0, 8.0, 4.0, 2.0, 2.0, 2.0]);
        assert_eq!(ratio, Interval { median: 0.5, low: 0.5, high: 0.5 });
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        assert!((geometric_mean(&[0.25, 4.0]) - 1.0).abs() < 1e-12);
    }
}
