//! Puts a functions server under load and checks what it promises.
//!
//! Clients of the tenant `noisy` send `loop {}` without pause: each must be answered 503, with at least the limit used. Beside
//! them `GET /hello` arrives at a fixed rate, whether or not earlier ones have been answered; its latency counts from the moment
//! at which it was to arrive, so that waiting in a queue is not left out. It is measured without the noise first.
//!
//! ```text
//! cargo run --release --example functions
//! cargo run --release --example loadcheck
//! ```

mod hello;
mod noise;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;
use ureq::Agent;

/// Checks that a functions server keeps its promises under load.
#[derive(Debug, Parser)]
#[command(name = "loadcheck")]
struct Args {
    /// The server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: String,

    /// For how long, without the noise and with it
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Clients that send endless loops
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    noisy: u64,

    /// GET /hello per second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let target = Target { address: args.address, rate: args.rate, duration: Duration::from_secs(args.seconds) };
    println!("{0} s without noise, then {0} s with it", args.seconds);
    let quiet = hello::measure(&target);
    println!("hello without noise: {quiet}");

    let stop = AtomicBool::new(false);
    let (noise, beside) = thread::scope(|scope| {
        let clients: Vec<_> = (0..args.noisy).map(|_| scope.spawn(|| noise::send(&target, &stop))).collect();
        let beside = hello::measure(&target);
        stop.store(true, Relaxed);
        let mut noise = noise::Report::default();
        for client in clients {
            match client.join() {
                Ok(report) => noise.add(report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        (noise, beside)
    });
    println!("hello beside noise:  {beside}");
    println!("noise: {noise}");
    if quiet.is_good() && beside.is_good() && noise.is_good() {
        println!("ok: each request was answered as it should be");
        ExitCode::SUCCESS
    } else {
        println!("FAILED: a request was not answered as it should be");
        ExitCode::FAILURE
    }
}

/// What the measurements share.
struct Target {
    address: String,
    rate: u64,
    duration: Duration,
}

impl Target {
    /// A client with connections of its own.
    fn agent(&self) -> Agent {
        Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build().into()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Microseconds, to three digits, up to an hour: the clients give up long before.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are possible")
}

/// A quantile in milliseconds.
fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}
