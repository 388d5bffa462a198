//! The same hyper service on Stipend and on tokio, driven by the same client.
//!
//! Each server is a process of its own (this program, run again): a hello in plain text over HTTP/1.1 with keep-alive, a task
//! a connection, hyper's own timeouts on. On Stipend each of those tasks has a CPU limit. Servers keep to all processors but the
//! last and have a worker for each; the client keeps to the last, so that it takes no time from them. Both servers live all
//! the time and take turns; the one that is not measured has nothing to do.
//!
//! * Closed loop: each connection sends its next request when it has its answer. `req_per_s`, and latency by connection.
//! * Open loop: requests fall due at random, the same moments for both servers and half as many as tokio answered in the closed loop with
//!   as many connections, and wait for a free connection if there is none. Latency counts from the moment at which a request fell due.
//!
//! `cpu_us_per_req` is the CPU time of the server's process, kernel included, by its requests.

#[expect(dead_code, reason = "what only the bench idle needs of it")]
mod client;
mod server;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use stipend_benches::args::Args;
use stipend_benches::child::{self, Running};
use stipend_benches::os;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_benches::stats::median;

use crate::client::{Client, Pace};

const SERVERS: [&str; 2] = ["stipend", "tokio"];

fn main() {
    child::serve(&[("stipend", server::stipend), ("tokio", server::tokio)]);
    let args = Args::parse();
    os::raise_file_limit();
    let mut report = Report::new(&args);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = (cpus - 1).max(1);
    let servers = SERVERS.map(|name| Server::start(name, workers));
    if let Err(error) = os::pin([cpus - 1]) {
        println!("the client is not pinned: {error}");
    }
    for connections in [1, 64, 1000] {
        if args.wants(&format!("connections={connections}")) {
            case(&args, &mut report, &servers, connections);
        }
    }
    report.finish();
}

struct Server {
    process: Running,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, workers: usize) -> Self {
        let mut process = Running::start(name, &[&workers.to_string()]);
        let mut address = String::new();
        let output = process.output().expect("its output is a pipe");
        BufReader::new(output).read_line(&mut address).expect("the server says where it is");
        let address = address.trim().parse().expect("the server says where it is");
        Self { process, address }
    }

    fn cpu_ns(&self) -> u64 {
        os::process_cpu_ns(self.process.id()).expect("the server lives")
    }
}

/// What one server's rounds came to.
struct Figures {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
    /// Latency, all rounds together.
    all_ns: Histogram<u64>,
}

impl Figures {
    fn new() -> Self {
        let all_ns = client::latencies();
        Self { per_second: Vec::new(), p50_us: Vec::new(), p99_us: Vec::new(), cpu_us: Vec::new(), all_ns }
    }

    fn measure(&mut self, server: &Server, client: &mut Client, pace: Pace, time: Duration) {
        let before = server.cpu_ns();
        let run = client.run(pace, time);
        let cpu_ns = server.cpu_ns() - before;
        let answered = run.answered as f64;
        self.per_second.push(answered / run.took.as_secs_f64());
        self.p50_us.push(run.latency_ns.value_at_quantile(0.5) as f64 / 1e3);
        self.p99_us.push(run.latency_ns.value_at_quantile(0.99) as f64 / 1e3);
        self.cpu_us.push(cpu_ns as f64 / 1e3 / answered);
        self.all_ns.add(&run.latency_ns).expect("it is of the same kind");
    }
}

fn case(args: &Args, report: &mut Report, servers: &[Server; 2], connections: usize) {
    let mut clients = [0, 1].map(|which| {
        let address = servers[which].address;
        Client::connect(address, connections).unwrap_or_else(|error| panic!("{}: {error}", SERVERS[which]))
    });
    let closed = rounds(args, servers, &mut clients, Pace::Closed);
    let rate = median(&closed[1].per_second) / 2.0;
    add(report, &format!("closed/connections={connections}"), closed, None);
    let open = rounds(args, servers, &mut clients, Pace::Random { per_second: rate });
    add(report, &format!("open/connections={connections}"), open, Some(rate));
}

/// Most rounds are short: a thread of the kernel that takes a processor for a millisecond twice a second, as there are, is in few of them
/// then. (What it does to all of them together is told, too.) In the closed loop with a thousand connections some answers take longer.
///
/// In the open loop all that falls due while a server is held up waits, so it has more rounds, and a rest before each, in which
/// the system sends the acknowledgments that it has put off at the end of the one before.
fn rounds(args: &Args, servers: &[Server; 2], clients: &mut [Client; 2], pace: Pace) -> [Figures; 2] {
    let mut figures = [Figures::new(), Figures::new()];
    let (rounds, time, rest) = match pace {
        Pace::Even { .. } | Pace::Random { .. } => (args.choose(14, 280), 100, 50),
        Pace::Closed if clients[0].connections() <= 100 => (args.choose(21, 210), 100, 0),
        Pace::Closed => (args.choose(7, 35), 300, 0),
    };
    let (time, rest) = (Duration::from_millis(time), Duration::from_millis(rest));
    for which in [0, 1] {
        Figures::new().measure(&servers[which], &mut clients[which], pace, time);
    }
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            std::thread::sleep(rest);
            figures[which].measure(&servers[which], &mut clients[which], pace, time);
        }
    }
    figures
}

fn add(report: &mut Report, case: &str, [ours, tokio]: [Figures; 2], rate: Option<f64>) {
    let [of_all, tokio_of_all] = [&ours, &tokio].map(|figures| figures.all_ns.value_at_quantile(0.99) as f64 / 1e3);
    if let Some(rate) = rate {
        // How many were answered is given; what they cost and how long they took is not.
        let row = Row::new("http", case, "latency_us_p50", ours.p50_us).peer("tokio", tokio.p50_us);
        report.add(row.over_best_peer().extra("offered_per_s", rate));
    } else {
        let row = Row::new("http", case, "req_per_s", ours.per_second).more_is_better();
        report.add(row.peer("tokio", tokio.per_second).over_best_peer());
        report.add(Row::new("http", case, "latency_us_p50", ours.p50_us).peer("tokio", tokio.p50_us).over_best_peer());
    }
    let row = Row::new("http", case, "latency_us_p99", ours.p99_us).peer("tokio", tokio.p99_us).over_best_peer();
    report.add(row.extra("of_all_rounds", of_all).extra("tokio_of_all_rounds", tokio_of_all));
    report.add(Row::new("http", case, "cpu_us_per_req", ours.cpu_us).peer("tokio", tokio.cpu_us).over_best_peer());
}
