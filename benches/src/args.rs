//! The arguments that every bench takes.

use std::path::PathBuf;

/// How to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    /// Fewer and shorter rounds: at most 40 s.
    pub quick: bool,
    /// Where the JSON lines go.
    pub json: Option<PathBuf>,
    /// Where the plots go.
    pub plot: Option<PathBuf>,
    /// Only cases whose name contains this.
    pub only: Option<String>,
}

const USAGE: &str = "\
usage: cargo bench -p stipend-benches --bench NAME -- [--quick] [--json FILE] [--plot DIR] [--only TEXT]
  --quick      fewer and shorter rounds, at most 40 s
  --json FILE  one JSON object a line
  --plot DIR   SVG
  --only TEXT  only cases whose name contains TEXT";

impl Args {
    /// The process's; ends it with 2 if they cannot be understood.
    #[must_use]
    pub fn parse() -> Self {
        Self::from(std::env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("{error}\n{USAGE}");
            std::process::exit(2);
        })
    }

    fn from(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => args.quick = true,
                "--json" => args.json = Some(value()?.into()),
                "--plot" => args.plot = Some(value()?.into()),
                "--only" => args.only = Some(value()?),
                // Cargo's own.
                "--bench" => {}
                unknown => return Err(format!("unknown argument: {unknown}")),
            }
        }
        Ok(args)
    }

    /// Whether a case is to be run.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only))
    }

    /// One of two, by `--quick`.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::from(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_of_them_are_read_and_cargos_is_ignored() {
        let args = parse("--quick --json a.json --plot plots --bench --only yield").unwrap();
        assert!(args.quick);
        assert_eq!(args.json, Some("a.json".into()));
        assert_eq!(args.plot, Some("plots".into()));
        assert!(args.wants("yield_many") && !args.wants("ping_pong"));
    }

    #[test]
    fn what_is_unknown_or_half_is_refused() {
        assert!(parse("--fast").is_err());
        assert!(parse("--json").is_err());
        assert!(parse("yield_many").is_err());
    }
}
