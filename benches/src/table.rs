//! Rows for a terminal.

use crate::row::{Column, Row};

/// A line for a row: what it is, every contestant with its quartiles, and the ratio.
#[must_use]
pub fn line(row: &Row) -> String {
    let case = match row.workers {
        Some(workers) => format!("{} workers={workers}", row.case),
        None => row.case.clone(),
    };
    let columns: Vec<String> = row.columns.iter().map(cell).collect();
    let mut line = format!("{case:<46} {:<20} {}", row.metric, columns.join("  "));
    if let Some((over, interval)) = &row.ratio {
        line += &format!("  | {:.3} [{:.3}, {:.3}] x {over}", interval.median, interval.low, interval.high);
    }
    for (name, value) in &row.extra {
        line += &format!("  {name} {}", number(*value));
    }
    line
}

fn cell(column: &Column) -> String {
    let (low, high) = column.quartiles();
    format!("{} {} ({}..{})", column.name, number(column.median()), number(low), number(high))
}

/// Four significant digits.
fn number(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (3 - magnitude).clamp(0, 5) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown: Vec<String> = [0.0, 0.012_345, 1.234_56, 31.25, 123_456.7].into_iter().map(number).collect();
        assert_eq!(shown, ["0.000", "0.01235", "1.235", "31.25", "123457"]);
    }
}
