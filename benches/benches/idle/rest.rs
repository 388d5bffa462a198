//! Runtimes at rest, each in a child of its own.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use stipend_benches::args::Args;
use stipend_benches::child::{Role, Running};
use stipend_benches::random::Random;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_benches::{os, threads};

use crate::BENCH;

/// The role of such a child: which runtime, how many tasks sleep, for how many milliseconds it is looked at.
pub(crate) const ROLE: Role = ("rest", child);

/// Until the tick and whatever else is on after work has come to rest.
const SETTLE: Duration = Duration::from_millis(500);

fn child(arguments: &[String]) {
    let number = |place: usize| arguments.get(place).and_then(|number| number.parse().ok()).unwrap_or(0);
    let (sleeping, time) = (number(1), Duration::from_millis(number(2) as u64));
    match arguments.first().map(String::as_str) {
        Some("tokio") => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be built");
            runtime.block_on(async {
                let work: Vec<_> = (0..50).map(|_| tokio::spawn(busy_for_a_moment())).collect();
                for task in work {
                    task.await.expect("nobody cancels it");
                }
            });
            hours(sleeping).for_each(|time| drop(runtime.spawn(async move { tokio::time::sleep(time).await })));
            look(time);
        }
        _ => {
            let runtime = stipend::Runtime::new().expect("a runtime can be built");
            runtime.block_on(async {
                let work: Vec<_> = (0..50).map(|_| stipend::spawn(busy_for_a_moment())).collect();
                for task in work {
                    task.await.expect("nobody cancels it");
                }
            });
            hours(sleeping).for_each(|time| drop(runtime.spawn(stipend::time::sleep(time))));
            look(time);
        }
    }
    std::process::exit(0);
}

async fn busy_for_a_moment() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1) {}
}

fn hours(count: usize) -> impl Iterator<Item = Duration> {
    let mut random = Random::default();
    (0..count).map(move |_| Duration::from_secs_f64(3600.0 * (1.0 + random.unit())))
}

/// Prints wake-ups a second and CPU percent of all other threads.
fn look(time: Duration) {
    std::thread::sleep(SETTLE);
    let (own, process) = (os::thread_id(), std::process::id());
    let switches = || {
        let all = threads::all().expect("the system tells");
        all.iter().filter(|thread| thread.id != own).map(|thread| thread.switches).sum::<u64>()
    };
    let cpu_ns = || os::process_cpu_ns(process).expect("this process lives") - os::thread_cpu_ns();
    let (start, switches_before, cpu_before) = (Instant::now(), switches(), cpu_ns());
    std::thread::sleep(time);
    // Before the numbers of the kernel are read as text, which is this thread's own time.
    let took = start.elapsed();
    let cpu = cpu_ns().saturating_sub(cpu_before);
    let switches = switches() - switches_before;
    println!("{} {}", switches as f64 / took.as_secs_f64(), 100.0 * cpu as f64 / took.as_nanos() as f64);
}

pub(crate) fn measure(args: &Args, report: &mut Report) {
    let time = Duration::from_millis(args.choose(1_000, 10_000));
    for (sleeping, name) in [(0, "default/nothing"), (10_000, "default/sleeping=10000")] {
        if !args.wants(name) {
            continue;
        }
        let mut columns = [const { Vec::new() }; 4];
        for _ in 0..args.choose(2, 5) {
            let kinds = ["stipend", "tokio"];
            let start = |kind| Running::start(ROLE.0, &[kind, &sleeping.to_string(), &time.as_millis().to_string()]);
            let mut children = kinds.map(start);
            for (which, child) in children.iter_mut().enumerate() {
                let (wakeups, cpu) = read(child).expect("the child tells");
                columns[which].push(wakeups);
                columns[2 + which].push(cpu);
            }
        }
        let [wakeups, tokio_wakeups, cpu, tokio_cpu] = columns;
        report.add(Row::new(BENCH, name, "wakeups_per_s", wakeups).peer("tokio", tokio_wakeups));
        report.add(Row::new(BENCH, name, "cpu_percent", cpu).peer("tokio", tokio_cpu));
    }
}

fn read(child: &mut Running) -> Option<(f64, f64)> {
    let mut line = String::new();
    BufReader::new(child.output()?).read_line(&mut line).ok()?;
    let (wakeups, cpu) = line.trim().split_once(' ')?;
    Some((wakeups.parse().ok()?, cpu.parse().ok()?))
}
