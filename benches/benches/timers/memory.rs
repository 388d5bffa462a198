//! Bytes a timer, each kind in a child of its own.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::child::{Role, Running};
use stipend_benches::os;
use stipend_benches::random::Random;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_timers::{Account, CpuTimer};

use crate::BENCH;
use crate::cpu::far_ns;
use crate::peers::Sleeps;

/// The role of such a child: what to make, of how many tasks, how many timers.
pub(crate) const ROLE: Role = ("memory", child);

fn child(arguments: &[String]) {
    let number = |place: usize| arguments.get(place).and_then(|number| number.parse().ok()).unwrap_or(1);
    let (tasks, timers) = (number(1), number(2));
    let mut random = Random::default();
    let (allocated, resident) = match arguments.first().map(String::as_str) {
        Some("tokio") => grown(timers, || Sleeps::new(&mut random, timers)),
        _ => {
            let accounts: Vec<Account> = (0..tasks).map(|_| Account::new()).collect();
            let mut order: Vec<usize> = (0..timers).map(|timer| timer % tasks).collect();
            random.shuffle(&mut order);
            grown(timers, || {
                let mut all: Vec<CpuTimer> = Vec::with_capacity(timers);
                all.extend(order.iter().map(|&task| {
                    let timer = accounts[task].clock().timer().on_expiry(|_| ());
                    timer.arm_at(Duration::from_nanos(far_ns(&mut random))).expect("its account lives")
                }));
                all
            })
        }
    };
    println!("{allocated} {resident}");
    std::process::exit(0);
}

/// By what the allocator's books and the process grew, by timers.
fn grown<T>(timers: usize, make: impl FnOnce() -> T) -> (f64, f64) {
    let resident = || os::resident_bytes().unwrap_or(0);
    let (allocated_before, resident_before) = (os::allocated_bytes(), resident());
    let made = black_box(make());
    let by_resident = (resident() - resident_before) as f64 / timers as f64;
    let by_allocator = os::allocated_bytes().zip(allocated_before).map(|(after, before)| (after - before) as f64);
    drop(made);
    (by_allocator.map_or(by_resident, |bytes| bytes / timers as f64), by_resident)
}

fn measured(what: &str, tasks: usize, timers: usize) -> Option<(f64, f64)> {
    let mut child = Running::start(ROLE.0, &[what, &tasks.to_string(), &timers.to_string()]);
    let mut line = String::new();
    BufReader::new(child.output()?).read_line(&mut line).ok()?;
    let (allocated, resident) = line.trim().split_once(' ')?;
    Some((allocated.parse().ok()?, resident.parse().ok()?))
}

pub(crate) fn bytes(args: &Args, report: &mut Report) {
    for (tasks, timers) in [(1, 1_000), (1, 100_000), (100_000, 100_000), (100_000, 1_000_000)] {
        let name = format!("default/tasks={tasks}/timers={timers}/bytes");
        if !args.wants(&name) {
            continue;
        }
        let ours = measured("stipend", tasks, timers).expect("the child tells");
        let tokio = measured("tokio", tasks, timers).expect("the child tells");
        let row = Row::new(BENCH, name, "bytes_per_timer", vec![ours.0]).peer("tokio", vec![tokio.0]);
        report.add(row.over_best_peer().extra("resident", ours.1));
    }
}
