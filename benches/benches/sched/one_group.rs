//! `one_group/...`: ours with all tasks in one group, beside ours without any. One group has nobody to share with, so it should cost
//! nothing.
//!
//! The runtimes are two, as one that has seen a group keeps order from then on. Where the memory of each lies is luck, which lasts as
//! long as they do and makes one of them faster by some per cent. So each process has two that are new, and its median is one value. As
//! the rounds before it are more, these figures are not to be compared with those of the other cases.

use std::io::{BufRead, BufReader};

use stipend_benches::args::Args;
use stipend_benches::child::{Role, Running};
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;
use stipend_benches::stats::median;

use crate::cases;
use crate::contestants::Stipend;

pub(crate) const ROLE: Role = ("one_group", child);

/// Of each process, and so many of them come before what counts: for some dozens of rounds its threads change processors, and two
/// workers on one are half as fast.
const ROUNDS: usize = 61;
const EARLY: usize = 30;

/// In the order in which the child prints them.
const CASES: [&str; 3] = ["spawn_many_local", "yield_many", "ping_pong"];

pub(crate) fn report(args: &Args, report: &mut Report) {
    for workers in [1, 2] {
        let names = CASES.map(|case| format!("one_group/{case}"));
        if !names.iter().any(|name| args.wants(name)) {
            continue;
        }
        let mut columns = CASES.map(|_| [const { Vec::new() }; 2]);
        for process in 0..args.choose(4, 40) {
            let measured = measured(workers, process % 2 == 0).expect("the child tells");
            for (columns, values) in columns.iter_mut().zip(measured) {
                columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            }
        }
        for (name, [grouped, plain]) in names.into_iter().zip(columns).filter(|(name, _)| args.wants(name)) {
            let row = Row::new("sched", name, "ns_per_op", grouped).workers(workers);
            report.add(row.over("no group", &plain).peer("no_group", plain));
        }
    }
}

/// What a new process has for each case: in a group, in none.
fn measured(workers: usize, grouped_first: bool) -> Option<[[f64; 2]; CASES.len()]> {
    let mut child = Running::start(ROLE.0, &[&workers.to_string(), if grouped_first { "grouped" } else { "plain" }]);
    let mut lines = BufReader::new(child.output()?).lines();
    let mut values = [[0.0; 2]; CASES.len()];
    for value in values.as_flattened_mut() {
        *value = lines.next()?.ok()?.parse().ok()?;
    }
    Some(values)
}

/// With so many workers, and the one or the other runtime made first.
fn child(arguments: &[String]) {
    let [workers, first] = arguments else { return eprintln!("how many workers, and which runtime is made first?") };
    let workers = workers.parse().expect("a number of workers");
    let (grouped, plain) = if first == "grouped" {
        let grouped = Stipend::in_one_group(workers);
        (grouped, Stipend::new(workers))
    } else {
        let plain = Stipend::new(workers);
        (Stipend::in_one_group(workers), plain)
    };
    macro_rules! case {
        ($name:ident) => {
            let columns = interleave(ROUNDS, 2, |which| match which {
                0 => cases::$name(grouped),
                _ => cases::$name(plain),
            });
            columns.iter().for_each(|column| println!("{}", median(&column[EARLY..])));
        };
    }
    case!(spawn_many_local);
    case!(yield_many);
    case!(ping_pong);
    std::process::exit(0);
}
