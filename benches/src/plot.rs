//! Plots: one SVG for each metric, a group of bars for each case, a bar for each contestant.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::row::Row;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 98, 155),
    RGBColor(230, 132, 28),
    RGBColor(110, 110, 110),
    RGBColor(150, 60, 120),
    RGBColor(70, 140, 70),
    RGBColor(180, 160, 60),
];

/// Draws every metric of the rows into `folder`, as `BENCH-METRIC.svg`.
///
/// # Errors
/// If a file cannot be written.
pub fn bars(folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let mut metrics: Vec<&str> = rows.iter().map(|row| row.metric).collect();
    metrics.sort_unstable();
    metrics.dedup();
    for metric in metrics {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.metric == metric).collect();
        let path = folder.join(format!("{}-{metric}.svg", rows[0].bench));
        draw(&path, metric, &rows)?;
    }
    Ok(())
}

/// Bars lie, so that the cases' names can be read; the axis is logarithmic, as contestants differ by orders of magnitude.
fn draw(path: &Path, metric: &str, rows: &[&Row]) -> Result<(), Box<dyn Error>> {
    let mut names: Vec<&str> = Vec::new();
    for column in rows.iter().flat_map(|row| &row.columns) {
        if !names.contains(&column.name.as_str()) {
            names.push(&column.name);
        }
    }
    let lines: usize = rows.iter().map(|row| row.columns.len() + 1).sum();
    let medians = || rows.iter().flat_map(|row| &row.columns).map(|column| column.median()).filter(|m| *m > 0.0);
    let least = medians().fold(f64::INFINITY, f64::min).min(1e12) / 2.0;
    let greatest = medians().fold(least * 4.0, f64::max) * 1.3;

    let root = SVGBackend::new(path, (1100, 70 + 16 * lines as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}: {metric} (median, quartiles)", rows[0].bench), ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(430)
        .build_cartesian_2d((least..greatest).log_scale(), 0_i32..lines as i32)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().x_labels(6).draw()?;

    let mut at = lines as i32;
    for row in rows {
        let (_, top) = chart.backend_coord(&(least, at));
        let case = row.workers.map_or(row.case.clone(), |workers| format!("{} workers={workers}", row.case));
        root.draw(&Text::new(case, (10, top + 3), ("sans-serif", 13)))?;
        for column in &row.columns {
            let place = names.iter().position(|name| *name == column.name).unwrap_or(0);
            let colour = COLOURS[place % COLOURS.len()];
            let median = column.median().max(least);
            chart.draw_series([Rectangle::new([(least, at - 1), (median, at)], colour.mix(0.8).filled())])?;
            let (low, high) = column.quartiles();
            let (x_low, y) = chart.backend_coord(&(low.max(least), at));
            let (x_high, _) = chart.backend_coord(&(high.max(least), at));
            root.draw(&PathElement::new(vec![(x_low, y + 8), (x_high, y + 8)], BLACK.stroke_width(1)))?;
            root.draw(&Text::new(column.name.clone(), (300, y + 3), ("sans-serif", 12)))?;
            at -= 1;
        }
        at -= 1;
    }
    root.present()?;
    Ok(())
}
