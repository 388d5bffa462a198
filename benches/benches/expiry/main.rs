//! How late a CPU timer or limit is, and that it is never early.
//!
//! One task on a runtime of one worker arms a timer on its own clock and computes until its handler has run, again and again;
//! beside 0, 2 and 4 busy processes.
//!
//! | case | what the task does | what is late |
//! | --- | --- | --- |
//! | `poll=10us`, `poll=100us` | polls of that length | the handler |
//! | `poll=has_budget` | polls that go on until `has_budget()` is false, which it asks each microsecond | the handler |
//! | `poll=checkpoint` | one poll that goes on until `checkpoint()` fails, asked each microsecond; the budget is a hard limit, and each time it is a new task | the failure |
//!
//! * `overshoot_us_p50`, `_p99`: CPU time of the task beyond the budget when its handler began. By the account
//!   ([`Expiry::used`](stipend::Expiry::used)), whose own error the bench `accounting` has; for `checkpoint` by the kernel's clock.
//! * `delay_us_p50`, `_p99`: wall time from the notification to the handler. It is posted at the boundary where it is not found by the
//!   tick, so it is counted from the last thing that the poll did; with `has_budget` from the moment that this turned false.
//! * `early_count`: how many fired before their time: by the account, or by the kernel's clock of the worker thread, which is read before
//!   the timer is armed and as the handler begins. That span has everything of the task's in it, and whatever the runtime did
//!   in between: who is early by it is early by any clock. It may miss one that is early by less than the microsecond of the arming.
//!
//! Quantiles are of all samples of a case; `samples` says how many there were. Ours and the peer take turns, seven times or more; once with `--quick` at a
//! budget of 100 ms.
//!
//! Peer: `posix`, a thread that computes likewise, without polls, with a POSIX timer on its CPU clock and a signal to itself; the
//! handler reads the clock. Its polls have no ends to wait for, so it has no delay to be compared.

mod ours;
mod posix;

use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_benches::stats::quantile;
use stipend_benches::{busy, child};

use crate::ours::{Ours, Style};

const BENCH: &str = "expiry";

fn main() {
    child::serve(&[busy::ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    let ours = Ours::new();
    let us = Duration::from_micros;
    let styles = [Style::Polls(us(10)), Style::Polls(us(100)), Style::HasBudget, Style::Checkpoint];
    for busy in [0, 2, 4] {
        let _busy = busy::processes(busy);
        for style in styles {
            for budget in [us(500), us(1_000), us(5_000), us(10_000), us(100_000)] {
                case(&args, &mut report, &ours, style, budget, busy);
            }
        }
    }
    report.finish();
}

/// What was seen of the expiries of one contestant.
#[derive(Default)]
struct Samples {
    early: u64,
    overshoot_us: Vec<f64>,
    delay_us: Vec<f64>,
}

fn case(args: &Args, report: &mut Report, ours: &Ours, style: Style, budget: Duration, busy: usize) {
    let case = format!("default/poll={}/budget={}ms/busy={busy}", style.name(), budget.as_secs_f64() * 1e3);
    if !args.wants(&case) {
        return;
    }
    let (mut mine, mut theirs) = (Samples::default(), Samples::default());
    // At least one expiry each.
    let time = Duration::from_millis(args.choose(10, 400));
    let rounds = if args.quick && budget >= Duration::from_millis(100) { 1 } else { args.choose(7, 9) };
    for round in 0..rounds {
        for turn in 0..2 {
            match (round + turn) % 2 {
                0 => ours.measure(style, budget, time, &mut mine),
                _ => posix::measure(budget, time, &mut theirs),
            }
        }
    }
    let samples = mine.overshoot_us.len() as f64;
    let row = |metric, value: f64| Row::new(BENCH, &case, metric, vec![value]).extra("samples", samples);
    report.add(row("early_count", mine.early as f64).peer("posix", vec![theirs.early as f64]));
    for (metric, part) in [("overshoot_us_p50", 0.5), ("overshoot_us_p99", 0.99)] {
        let theirs = vec![quantile(&theirs.overshoot_us, part)];
        report.add(row(metric, quantile(&mine.overshoot_us, part)).peer("posix", theirs));
    }
    if !mine.delay_us.is_empty() {
        for (metric, part) in [("delay_us_p50", 0.5), ("delay_us_p99", 0.99)] {
            report.add(row(metric, quantile(&mine.delay_us, part)));
        }
    }
}
