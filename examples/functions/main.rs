//! A server that runs scripts which strangers send, each with a CPU limit that holds.
//!
//! ```text
//! cargo run --release --example functions
//! curl --data '40 + 2' http://127.0.0.1:8080/run/alice
//! curl --data 'loop {}' http://127.0.0.1:8080/run/mallory
//! ```
//!
//! What a request may take is bounded in each direction: CPU time by its task's limit (`limited`), memory and stack by the
//! `sandbox`, bytes and waiting time by the `server` and the `body`, the number of tenants by `tenants`.

mod answer;
mod args;
mod body;
mod burn;
mod limited;
mod memory;
mod patient;
mod routes;
mod sandbox;
mod server;
mod stats;
mod tenants;

use std::error::Error;
use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stipend::runtime::{Builder, Runtime};

use crate::args::Args;
use crate::routes::App;

/// How long the runtime may take to end when the requests have had their time: for polls in progress.
const SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&format!("functions: {error}"));
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = build(args)?;
    let app = App::new(args.cpu_limit());
    let served = runtime.block_on(server::serve(args.listen, app));
    if let Err(error) = runtime.shutdown_timeout(SHUTDOWN) {
        log(&format!("functions: {error}"));
    }
    served
}

fn build(args: &Args) -> Result<Runtime, Box<dyn Error>> {
    let mut builder = Builder::new().thread_name("functions");
    if let Some(workers) = args.workers {
        builder = builder.worker_threads(workers);
    }
    Ok(builder.build()?)
}

/// A line for the operator. A standard error that nobody reads is no reason to stop serving.
fn log(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
