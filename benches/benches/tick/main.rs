//! What the preemption tick costs, and how late it comes.
//!
//! * `check_ns_per_worker`: what one tick takes, measured inside the tick thread by the fast counter and divided by the threads it
//!   looked at; the median of all ticks of a stretch ([`MeterMetrics::look`](stipend::MeterMetrics::look)). Every worker polls
//!   meanwhile, about a million times a second, so the lines that are looked at are hot in other caches, where processors have caches
//!   of their own. `tasks=` wait beside them, and `timers=` are armed on those. Each round has a fresh runtime and four stretches;
//!   the ratio is to the first case with as many workers.
//! * `throughput_on_over_off`: turns a second of a saturated runtime (a worker a processor) with the tick, over turns a second of
//!   another one whose tick has a period of 1 s: it comes after the round is over. `by_cpu` is the same by the CPU time of the whole process
//!   instead of wall time, and so free of what the neighbours take.
//! * `lateness_us_p50` and so on: how late ticks came, each against the moment at which it was due, on a saturated runtime beside
//!   busy processes ([`MeterMetrics::lateness`](stipend::MeterMetrics::lateness)). One value a round. `missed` is the part of the
//!   periods, in percent, that had no tick of their own.
//! * `tick_cpu_percent`: CPU time of the tick thread, by wall time, in percent of one processor. `load=light`: a task that sleeps
//!   for a millisecond at a time, so that the tick is on and processors are free.
//!
//! The sweep over periods is what the default was chosen from. `default` is the default period.

mod load;

use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;
use stipend_benches::{busy, child};
use stipend_timers::DEFAULT_TICK_PERIOD;

use crate::load::{Load, Loaded};

const BENCH: &str = "tick";

/// The tick is off for as long as a round takes.
const OFF: Duration = Duration::from_secs(1);

fn main() {
    child::serve(&[busy::ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    checks(&args, &mut report);
    throughput(&args, &mut report);
    cpu(&args, &mut report);
    lateness(&args, &mut report);
    report.finish();
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The periods that are compared, the default first.
fn periods() -> Vec<Duration> {
    let sweep = [1, 2, 5, 10].map(Duration::from_millis);
    let mut all = vec![DEFAULT_TICK_PERIOD];
    all.extend(sweep.into_iter().filter(|period| *period != DEFAULT_TICK_PERIOD));
    all
}

fn period_name(period: Duration) -> String {
    let default = if period == DEFAULT_TICK_PERIOD { "default/" } else { "" };
    format!("{default}period={}ms", period.as_millis())
}

fn checks(args: &Args, report: &mut Report) {
    let small = [(1, 10, 0), (2, 10, 0), (4, 10, 0), (2, 10, 1_000), (2, 1_000, 0), (2, 100_000, 0)];
    let large = [(2, 1_000_000, 0), (2, 1_000_000, 1_000_000)];
    let mut firsts: Vec<(usize, Vec<f64>)> = Vec::new();
    let cases: Vec<(usize, usize, usize)> = small.into_iter().chain(large).collect();
    let name = |(workers, tasks, timers): (usize, usize, usize)| {
        format!("default/workers={workers}/tasks={tasks}/timers={timers}")
    };
    let cases: Vec<_> = cases.into_iter().filter(|case| args.wants(&name(*case))).collect();
    if cases.is_empty() {
        return;
    }
    let time = Duration::from_millis(args.choose(100, 500));
    let mut columns = vec![Vec::new(); cases.len()];
    for round in 0..args.choose(2, 5) {
        for turn in 0..cases.len() {
            let which = (round + turn) % cases.len();
            let (workers, tasks, timers) = cases[which];
            let loaded = Loaded::new(workers, None).with(tasks, timers);
            // A stretch to settle, and four that count.
            loaded.run(Load::Saturated, time / 3);
            columns[which].extend((0..4).map(|_| {
                loaded.run(Load::Saturated, time);
                loaded.metrics().look.p50.as_nanos() as f64
            }));
        }
    }
    for (case, column) in cases.into_iter().zip(columns) {
        let mut row = Row::new(BENCH, name(case), "check_ns_per_worker", column.clone());
        match firsts.iter().find(|(workers, _)| *workers == case.0) {
            Some((_, first)) => row = row.over("few tasks, no timers", first),
            None => firsts.push((case.0, column)),
        }
        report.add(row);
    }
}

fn throughput(args: &Args, report: &mut Report) {
    let time = Duration::from_millis(50);
    for period in args.choose(vec![DEFAULT_TICK_PERIOD], periods()) {
        let case = format!("{}/load=saturated", period_name(period));
        if !args.wants(&case) {
            continue;
        }
        let (on, off) = (Loaded::new(processors(), Some(period)), Loaded::new(processors(), Some(OFF)));
        let mut cpu = [Vec::new(), Vec::new()];
        let columns = interleave(args.choose(41, 401), 2, |which| {
            let stretch = [&on, &off][which].run(Load::Saturated, time);
            cpu[which].push(stretch.cpu_ns_per_turn);
            stretch.turns_per_s
        });
        let ratios = |more: &[f64], less: &[f64]| more.iter().zip(less).map(|(more, less)| more / less).collect();
        let by_wall: Vec<f64> = ratios(&columns[0], &columns[1]);
        // Less CPU a turn is more throughput. The first of each was the warming up.
        let by_cpu: Vec<f64> = ratios(&cpu[1][1..], &cpu[0][1..]);
        let (by_wall_interval, by_cpu_interval) =
            (stipend_benches::stats::Interval::of(&by_wall), stipend_benches::stats::Interval::of(&by_cpu));
        report.add(
            Row::new(BENCH, case, "throughput_on_over_off", by_wall)
                .more_is_better()
                .extra("lo", by_wall_interval.low)
                .extra("hi", by_wall_interval.high)
                .extra("by_cpu", by_cpu_interval.median)
                .extra("by_cpu_lo", by_cpu_interval.low)
                .extra("by_cpu_hi", by_cpu_interval.high),
        );
    }
}

fn cpu(args: &Args, report: &mut Report) {
    let loads = [(Load::Saturated, "saturated"), (Load::Light, "light")];
    let cases: Vec<(String, Duration, Load)> = periods()
        .into_iter()
        .flat_map(|period| loads.map(|(load, name)| (format!("{}/load={name}", period_name(period)), period, load)))
        .filter(|(name, period, load)| {
            args.wants(name) && (!args.quick || *load == Load::Saturated || *period == DEFAULT_TICK_PERIOD)
        })
        .collect();
    let time = Duration::from_millis(args.choose(100, 1000));
    let columns = interleave(args.choose(7, 15), cases.len(), |which| {
        let (_, period, load) = cases[which];
        Loaded::new(processors(), Some(period)).run(load, time).tick_cpu_percent
    });
    for ((name, ..), column) in cases.into_iter().zip(columns) {
        report.add(Row::new(BENCH, name, "tick_cpu_percent", column));
    }
}

fn lateness(args: &Args, report: &mut Report) {
    for busy in [0, 2, 4] {
        // All periods beside two processes; if it has to be quick, nothing else beside the default.
        let periods = if args.quick && busy != 2 { vec![DEFAULT_TICK_PERIOD] } else { periods() };
        let cases: Vec<(String, Duration)> = periods
            .into_iter()
            .map(|period| (format!("{}/busy={busy}", period_name(period)), period))
            .filter(|(name, _)| args.wants(name))
            .collect();
        if cases.is_empty() {
            continue;
        }
        let _busy = busy::processes(busy);
        let mut seen = vec![Vec::new(); cases.len()];
        let mut missed = vec![Vec::new(); cases.len()];
        for round in 0..args.choose(3, 9) {
            for turn in 0..cases.len() {
                let which = (round + turn) % cases.len();
                let period = cases[which].1;
                let loaded = Loaded::new(processors(), Some(period));
                // The default decides, so it gets more.
                let seconds = args.choose(if period == DEFAULT_TICK_PERIOD { 0.8 } else { 0.3 }, 3.0);
                loaded.run(Load::Saturated, Duration::from_secs_f64(seconds));
                let metrics = loaded.metrics();
                seen[which].push(metrics.lateness);
                let periods = metrics.lateness.count + metrics.missed_periods;
                missed[which].push(100.0 * metrics.missed_periods as f64 / periods as f64);
            }
        }
        for ((case, _), (seen, missed)) in cases.into_iter().zip(seen.into_iter().zip(missed)) {
            let us = |of: &dyn Fn(&stipend_timers::Distribution) -> Duration| {
                seen.iter().map(|it| of(it).as_nanos() as f64 / 1e3).collect::<Vec<f64>>()
            };
            let ticks = seen.iter().map(|it| it.count).sum::<u64>() as f64;
            let missed = stipend_benches::stats::median(&missed);
            let add = |metric, samples| Row::new(BENCH, case.clone(), metric, samples).extra("ticks", ticks);
            report.add(add("lateness_us_p50", us(&|it| it.p50)).extra("missed_percent", missed));
            report.add(add("lateness_us_p99", us(&|it| it.p99)));
            report.add(add("lateness_us_p999", us(&|it| it.p999)));
        }
    }
}
