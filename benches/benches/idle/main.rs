//! What a runtime takes while there is little or nothing to do.
//!
//! * `wakeups_per_s`, `cpu_percent`: context switches and CPU time of all threads of a child, but for the thread that looks. The
//!   child has worked a little before, so that the tick was on. `nothing`: no task lives. `sleeping=10000`: so many tasks sleep for
//!   an hour or longer. All children rest at the same time.
//! * `cpu_us_per_req`: CPU time of a server's process by requests that come at a fixed rate: the hyper service of the bench
//!   `http`, its tasks under a CPU limit; servers and client keep to different processors. Each round has fresh connections.
//!   `tick=off` is a tick with a period of 1 s. The ratio of `tick=on` is to `tick=off`, that of `tick=off` to tokio.

#[path = "../http/client.rs"]
#[expect(dead_code, reason = "what only the bench http needs of it")]
mod client;
mod rest;
#[path = "../http/server.rs"]
mod server;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::child::{self, Running};
use stipend_benches::os;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;

use crate::client::{Client, Pace};

const BENCH: &str = "idle";

/// As few as are needed for requests not to wait for each other.
const CONNECTIONS: usize = 8;

fn main() {
    child::serve(&[rest::ROLE, ("stipend", server::stipend), ("tokio", server::tokio)]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    rest::measure(&args, &mut report);
    requests(&args, &mut report);
    report.finish();
}

struct Server {
    process: Running,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut process = Running::start(name, arguments);
        let mut address = String::new();
        let output = process.output().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut address).expect("the server says where it is");
        let address = address.trim().parse().expect("the server says where it is");
        Self { process, address }
    }

    /// CPU microseconds a request.
    fn measure(&self, per_second: f64, time: Duration) -> f64 {
        let cpu_ns = || os::process_cpu_ns(self.process.id()).expect("the server lives");
        let mut client = Client::connect(self.address, CONNECTIONS).expect("the server listens");
        let before = cpu_ns();
        let run = client.run(Pace::Even { per_second }, time);
        (cpu_ns() - before) as f64 / 1e3 / run.answered as f64
    }
}

fn requests(args: &Args, report: &mut Report) {
    let rates = [10, 100, 1000];
    if !rates.iter().any(|rate| args.wants(&format!("default/rate={rate}/tick=on"))) {
        return;
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = (cpus - 1).max(1).to_string();
    let servers = [
        Server::start("stipend", &[&workers]),
        Server::start("stipend", &[&workers, "1000"]),
        Server::start("tokio", &[&workers]),
    ];
    if let Err(error) = os::pin([cpus - 1]) {
        println!("the client is not pinned: {error}");
    }
    for rate in rates {
        let case = format!("default/rate={rate}/tick=on");
        if !args.wants(&case) {
            continue;
        }
        let ms = match rate {
            10 => args.choose(500, 5000),
            100 => args.choose(250, 2000),
            _ => args.choose(150, 1000),
        };
        let columns = interleave(args.choose(7, 15), servers.len(), |which| {
            servers[which].measure(f64::from(rate), Duration::from_millis(ms))
        });
        let [on, off, tokio]: [Vec<f64>; 3] = columns.try_into().expect("as many as were asked for");
        let row =
            |case: String, ours: Vec<f64>| Row::new(BENCH, case, "cpu_us_per_req", ours).peer("tokio", tokio.clone());
        report.add(row(case, on).over("tick=off", &off));
        report.add(row(format!("rate={rate}/tick=off"), off).over_best_peer());
    }
}
