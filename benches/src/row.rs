//! One result: a metric of a case, ours and the peers'.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::rounds::{greatest, least};
use crate::stats::{Interval, median, quantile, ratio};

/// A contestant's values, one a round.
#[derive(Clone, Debug)]
pub struct Column {
    /// Who.
    pub name: String,
    /// What was measured.
    pub samples: Vec<f64>,
}

impl Column {
    /// The median.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// The quartiles: half of the samples lie between them.
    #[must_use]
    pub fn quartiles(&self) -> (f64, f64) {
        (quantile(&self.samples, 0.25), quantile(&self.samples, 0.75))
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The bench.
    pub bench: &'static str,
    /// What is measured, with its parameters.
    pub case: String,
    /// Of how many workers, where that is a parameter.
    pub workers: Option<usize>,
    /// The metric's name, unit included.
    pub metric: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Ours first.
    pub columns: Vec<Column>,
    /// Ours over what it is compared with, by rounds, and what that is.
    pub ratio: Option<(String, Interval)>,
    /// Whatever else there is to say, as numbers.
    pub extra: Vec<(&'static str, f64)>,
}

/// Our column's name.
pub const OURS: &str = "stipend";

impl Row {
    /// A row of ours alone.
    #[must_use]
    pub fn new(bench: &'static str, case: impl Into<String>, metric: &'static str, ours: Vec<f64>) -> Self {
        Self {
            bench,
            case: case.into(),
            workers: None,
            metric,
            more_is_better: false,
            columns: vec![Column { name: OURS.to_owned(), samples: ours }],
            ratio: None,
            extra: Vec::new(),
        }
    }

    /// Of so many workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// More is better.
    #[must_use]
    pub fn more_is_better(mut self) -> Self {
        self.more_is_better = true;
        self
    }

    /// Adds a peer.
    #[must_use]
    pub fn peer(mut self, name: impl Into<String>, samples: Vec<f64>) -> Self {
        self.columns.push(Column { name: name.into(), samples });
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn extra(mut self, name: &'static str, value: f64) -> Self {
        self.extra.push((name, value));
        self
    }

    /// Forms the ratio to a column of the same rounds.
    #[must_use]
    pub fn over(mut self, what: impl Into<String>, samples: &[f64]) -> Self {
        self.ratio = Some((what.into(), ratio(&self.columns[0].samples, samples)));
        self
    }

    /// Forms the ratio to the best peer of each round: not of the one that is best by its median, but of whichever had the
    /// better luck in that round, which is against us.
    #[must_use]
    pub fn over_best_peer(self) -> Self {
        let peers: Vec<&[f64]> = self.columns[1..].iter().map(|column| &column.samples[..]).collect();
        let best = if self.more_is_better { greatest(&peers) } else { least(&peers) };
        self.over("best peer", &best)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bench", self.bench)?;
        map.serialize_entry("case", &self.case)?;
        if let Some(workers) = self.workers {
            map.serialize_entry("workers", &workers)?;
        }
        map.serialize_entry("metric", self.metric)?;
        for column in &self.columns {
            map.serialize_entry(&column.name, &rounded(column.median()))?;
        }
        if self.more_is_better {
            map.serialize_entry("better", "more")?;
        }
        if let Some((over, interval)) = &self.ratio {
            map.serialize_entry("ratio", &rounded(interval.median))?;
            map.serialize_entry("ratio_lo", &rounded(interval.low))?;
            map.serialize_entry("ratio_hi", &rounded(interval.high))?;
            map.serialize_entry("ratio_over", over)?;
        }
        map.serialize_entry("rounds", &self.columns[0].samples.len())?;
        for column in &self.columns {
            let (low, high) = column.quartiles();
            map.serialize_entry(&format!("{}_quartiles", column.name), &[rounded(low), rounded(high)])?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, &rounded(*value))?;
        }
        map.end()
    }
}

/// To six significant digits: what follows is noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_as_the_format_says() {
        let row = Row::new("sched", "yield_many", "ns_per_op", vec![1.0, 2.0, 3.0])
            .workers(2)
            .peer("tokio", vec![2.0, 4.0, 6.0])
            .peer("async-executor", vec![4.0, 3.0, 9.0])
            .over_best_peer();
        let line = serde_json::to_string(&row).unwrap();
        let start =
            r#"{"bench":"sched","case":"yield_many","workers":2,"metric":"ns_per_op","stipend":2.0,"tokio":4.0,"#;
        assert!(line.starts_with(start), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["ratio_lo"].as_f64(), value["ratio_hi"].as_f64()), (Some(0.5), Some(0.666667)));
    }

    #[test]
    fn where_more_is_better_the_best_peer_is_the_greatest() {
        let row = Row::new("http", "hello", "req_per_s", vec![10.0]).more_is_better();
        let row = row.peer("a", vec![5.0]).peer("b", vec![20.0]).over_best_peer();
        assert_eq!(row.ratio.unwrap().1.median, 0.5);
    }
}
