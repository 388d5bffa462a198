//! Where rows go: the terminal as they come, a file of JSON lines, plots at the end.

use std::fs::File;
use std::io::{BufWriter, Write};

use crate::args::Args;
use crate::row::Row;
use crate::{plot, table};

/// Collects the rows of one bench.
#[derive(Debug)]
pub struct Report {
    args: Args,
    json: Option<BufWriter<File>>,
    rows: Vec<Row>,
}

impl Report {
    /// Opens what the arguments ask for.
    ///
    /// # Panics
    /// If a file cannot be made.
    #[must_use]
    pub fn new(args: &Args) -> Self {
        let json = args.json.as_ref().map(|path| {
            BufWriter::new(File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        });
        println!(
            "median (quartiles) of each; | the median of the ratios by round [its 95 % interval by order statistics]"
        );
        Self { args: args.clone(), json, rows: Vec::new() }
    }

    /// Takes a row.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn add(&mut self, row: Row) {
        println!("{}", table::line(&row));
        if let Some(json) = &mut self.json {
            let line = serde_json::to_string(&row).expect("a row is plain data");
            writeln!(json, "{line}").and_then(|()| json.flush()).expect("the JSON file can be written");
        }
        self.rows.push(row);
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Draws the plots.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn finish(self) {
        if let Some(folder) = &self.args.plot {
            plot::bars(folder, &self.rows).expect("the plots can be written");
        }
    }
}
