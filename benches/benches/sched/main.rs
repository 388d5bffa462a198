//! The scheduler beside tokio's and async-executor's, accounting on.
//!
//! Wall time of a piece of work, divided by its operations. The three executors of one number of workers live side by side, all
//! but the one that is measured parked. The ratio is to the best peer *of each round*.

mod cases;
mod contestants;
mod one_group;

use stipend_benches::args::Args;
use stipend_benches::child;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;
use stipend_benches::stats::geometric_mean;

use crate::contestants::{AsyncExecutor, Stipend, Tokio};

fn main() {
    child::serve(&[one_group::ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    for workers in [1, 2] {
        let (ours, tokio, other) = (Stipend::new(workers), Tokio::new(workers), AsyncExecutor::new(workers));
        macro_rules! case {
            ($name:ident) => {
                if args.wants(stringify!($name)) {
                    let columns = interleave(args.choose(25, 201), 3, |which| match which {
                        0 => cases::$name(ours),
                        1 => cases::$name(tokio),
                        _ => cases::$name(other),
                    });
                    let [ours, tokio, other]: [Vec<f64>; 3] = columns.try_into().expect("as many as were asked for");
                    let row = Row::new("sched", stringify!($name), "ns_per_op", ours).workers(workers);
                    report.add(row.peer("tokio", tokio).peer("async-executor", other).over_best_peer());
                }
            };
        }
        case!(spawn_many_local);
        case!(spawn_many_remote);
        case!(yield_many);
        case!(ping_pong);
        case!(chained_spawn);
    }
    let ratios: Vec<f64> = report.rows().iter().filter_map(|row| Some(row.ratio.as_ref()?.1.median)).collect();
    if !ratios.is_empty() {
        println!("geometric mean of ours over the best peer, {} rows: {:.3}", ratios.len(), geometric_mean(&ratios));
    }
    one_group::report(&args, &mut report);
    report.finish();
}
