//! Interleaving: in every round each contestant is measured once, and who begins changes from round to round.

/// Measures `contestants` things for so many rounds. What is returned has a column for each, with a value for each round; the
/// values of one round belong together. A round before them warms up and does not count.
pub fn interleave(rounds: usize, contestants: usize, mut measure: impl FnMut(usize) -> f64) -> Vec<Vec<f64>> {
    for which in 0..contestants {
        let _warm = measure(which);
    }
    let mut columns = vec![Vec::with_capacity(rounds); contestants];
    for round in 0..rounds {
        for turn in 0..contestants {
            let which = (round + turn) % contestants;
            columns[which].push(measure(which));
        }
    }
    columns
}

/// What one column has more than another, round by round.
#[must_use]
pub fn difference(more: &[f64], less: &[f64]) -> Vec<f64> {
    more.iter().zip(less).map(|(more, less)| more - less).collect()
}

/// The least of each round.
#[must_use]
pub fn least(columns: &[&[f64]]) -> Vec<f64> {
    of_each_round(columns, f64::min)
}

/// The greatest of each round.
#[must_use]
pub fn greatest(columns: &[&[f64]]) -> Vec<f64> {
    of_each_round(columns, f64::max)
}

fn of_each_round(columns: &[&[f64]], choose: fn(f64, f64) -> f64) -> Vec<f64> {
    let rounds = columns.first().map_or(0, |column| column.len());
    (0..rounds).map(|round| columns.iter().map(|column| column[round]).reduce(choose).unwrap_or(f64::NAN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_is_measured_in_every_round_and_begins_in_turn() {
        let mut order = Vec::new();
        let columns = interleave(3, 2, |which| {
            order.push(which);
            order.len() as f64
        });
        assert_eq!(order, [0, 1, 0, 1, 1, 0, 0, 1]);
        assert_eq!(columns, [vec![3.0, 6.0, 7.0], vec![4.0, 5.0, 8.0]]);
    }

    #[test]
    fn the_best_is_chosen_round_by_round() {
        assert_eq!(least(&[&[1.0, 5.0], &[2.0, 3.0]]), [1.0, 3.0]);
        assert_eq!(greatest(&[&[1.0, 5.0], &[2.0, 3.0]]), [2.0, 5.0]);
        assert_eq!(difference(&[3.0, 4.0], &[1.0, 5.0]), [2.0, -1.0]);
    }
}
