//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

const HOUR_MS: u64 = 3_600_000;

/// Runs the scripts that are POSTed to /run/{tenant}, each with a CPU limit that holds.
#[derive(Debug, Parser)]
#[command(name = "functions", version)]
pub(crate) struct Args {
    /// Where to listen; port 0 lets the system choose one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub(crate) workers: Option<usize>,

    /// CPU time that a request may use, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=HOUR_MS))]
    cpu_limit_ms: u64,
}

impl Args {
    pub(crate) fn cpu_limit(&self) -> Duration {
        Duration::from_millis(self.cpu_limit_ms)
    }
}
