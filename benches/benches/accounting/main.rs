//! Is a task charged what it used? Two unlike tasks take turns on one worker of a real runtime, one with polls of L and one of
//! 3L, beside 0, 2 and 4 busy processes. What each is charged is compared with the truth.
//!
//! # What the truth is
//! The kernel's CPU clock of the worker thread, and nothing that this project computes from a counter. But reading it costs 0.4 us,
//! so it cannot be read at both ends of a short poll. Two ways, by the length of the polls:
//!
//! * **Batches** (polls up to 10 us). A batch is about half a millisecond of turns; its total T is the difference of two readings of the
//!   CPU clock. There are batches of two tasks of kind A, of two of kind B, and mixed ones with one of each:
//!   A, mixed, B, mixed, B, mixed, A, mixed, … so that a machine that gets faster or slower does so for all. The pure batches give the true cost of
//!   a poll of either kind, the executor's overhead included: `a = T_A / polls`, `b = T_B / polls`. In the mixed batches each
//!   kind had the same number of polls, so A's true part of their total is `T_mixed a / (a + b)`. Two tasks are in the queue in
//!   all batches, so the executor takes the same way in all.
//!   What this cannot see, it shows: if mixing itself changed the cost of a poll (caches, branch prediction), a + b would differ
//!   from what a mixed turn costs. That difference is reported as `truth_residual_percent`: no error below about that is
//!   meaningful, ours or a peer's.
//! * **Brackets** (polls from 100 us, and all that block). Each poll reads the CPU clock as it begins and before it ends. What lies
//!   between two brackets, half of either reading and the executor's overhead, is the same for both kinds, as they run the
//!   same code there; it is known in sum (the total of the batch less all brackets) and divided by polls. It is not quite the
//!   same where caches are cold after a preemption, which the longer polls meet more often: beside busy processes this truth is
//!   good to some 0.3 us a poll, which the control shows.
//!
//! What the executor bills to itself, looking at its reactor at every 61st run, is no task's: it is subtracted from the totals,
//! as the meter's books have it. An error in that would fall on all polls alike; the books are checked by their own metric.
//!
//! # What is reported
//! `error_percent`: of the sums over all rounds, the greater of the two tasks' errors. `noise` is how far the truth itself can be
//! trusted: twice the standard error of that figure over the rounds, by jackknife. On a shared machine a hypervisor takes its
//! time from the thread's CPU time, now in one batch, now in another, so truth by batches needs many rounds. The class
//! `thread-clock` reads the kernel's clock at each boundary and is the control: what error it shows is the bench's own.
//! `round` is the median of the rounds' errors and `worst` the worst round's; in neither do signs cancel between rounds.
//! `books_error_percent`: of the CPU time that the kernel counted for the worker, how much nobody was charged.
//!
//! # Peers, in the same polls as the default class
//! * `wall`: at the end of each poll `Instant::now()`, and the task is billed the time since the previous poll's end: the same
//!   division as ours, by a clock that goes on while others run.
//! * `sampling_99hz`: a thread that looks 99 times a second which task runs, with that part of the true total: better than
//!   anything that reads /proc, which would have to guess the total too. Its error is of the whole case, as a round is too short
//!   for it; it shrinks with the root of the time.

mod batch;
mod sampler;
mod truth;

use std::time::Duration;

use stipend::Runtime;
use stipend_benches::args::Args;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_benches::stats::median;
use stipend_benches::{busy, child};
use stipend_timers::{ClockSource, Meter};

use crate::batch::{Ledger, Plan, Work};
use crate::truth::Round;

const BENCH: &str = "accounting";

/// What the polls of a case do.
#[derive(Clone, Copy)]
enum Shape {
    /// Compute: kind A this long, kind B thrice as long.
    Short(Duration),
    /// The same, bracketed.
    Long(Duration),
    /// Kind A computes 30 us and sleeps this long inside the poll; kind B computes 90 us.
    Blocking(Duration),
}

impl Shape {
    fn name(self) -> String {
        match self {
            Self::Short(length) | Self::Long(length) => format!("poll={}", short(length)),
            Self::Blocking(sleep) => format!("blocking={}", short(sleep)),
        }
    }

    fn plan(self) -> Plan {
        match self {
            Self::Short(length) => {
                let polls = (Duration::from_micros(400).as_nanos() / (4 * length.as_nanos())).max(8) as u64;
                Plan { works: [Work::compute(length), Work::compute(length * 3)], polls, times: 5, bracketed: false }
            }
            Self::Long(length) => {
                let polls = (Duration::from_millis(4).as_nanos() / (4 * length.as_nanos())).max(2) as u64;
                Plan { works: [Work::compute(length), Work::compute(length * 3)], polls, times: 2, bracketed: true }
            }
            Self::Blocking(sleep) => {
                let works = [
                    Work::compute_and_sleep(Duration::from_micros(30), sleep),
                    Work::compute(Duration::from_micros(90)),
                ];
                Plan { works, polls: 16, times: 3, bracketed: true }
            }
        }
    }
}

fn short(duration: Duration) -> String {
    if duration < Duration::from_millis(1) || !duration.subsec_micros().is_multiple_of(1000) {
        format!("{}us", duration.as_nanos() as f64 / 1e3)
    } else {
        format!("{}ms", duration.as_millis())
    }
}

fn main() {
    child::serve(&[busy::ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    let detectors = detectors();
    let sampler = sampler::start();
    let us = Duration::from_micros;
    let shapes = [
        Shape::Short(Duration::from_nanos(100)),
        Shape::Short(us(1)),
        Shape::Short(us(10)),
        Shape::Long(us(100)),
        Shape::Long(us(1000)),
        Shape::Blocking(us(20)),
        Shape::Blocking(us(200)),
        Shape::Blocking(us(1000)),
    ];
    for busy in [0, 2, 4] {
        let _busy = busy::processes(busy);
        for shape in shapes {
            if args.wants(&format!("{}/busy={busy}", shape.name())) {
                // All classes beside two processes; otherwise, if it has to be quick, ours and the control.
                let chosen =
                    |name: &str| !args.quick || busy == 2 || name.contains("default") || name == "thread-clock";
                let chosen: Vec<&(String, Runtime)> = detectors.iter().filter(|(name, _)| chosen(name)).collect();
                case(&args, &mut report, &chosen, sampler, shape, busy);
            }
        }
    }
    let errors: Vec<f64> = report
        .rows()
        .iter()
        .filter(|row| row.metric == "error_percent" && row.case.contains("default"))
        .map(|row| row.columns[0].median())
        .collect();
    let worst = errors.iter().copied().fold(0.0, f64::max);
    println!("default class, {} cases: median error {:.4} %, worst {worst:.4} %", errors.len(), median(&errors));
    report.finish();
}

/// The accuracy classes that can be had here, each with a runtime of one worker.
fn detectors() -> Vec<(String, Runtime)> {
    let sources = [
        (ClockSource::Auto, "default"),
        (ClockSource::Rseq, "rseq"),
        (ClockSource::Perf, "perf"),
        (ClockSource::Guard, "guard"),
        (ClockSource::ThreadClock, "thread-clock"),
    ];
    let mut detectors: Vec<(String, Runtime)> = Vec::new();
    let mut default = "";
    for (source, name) in sources {
        let meter = match Meter::builder().clock(source).build() {
            Ok(meter) => meter,
            Err(error) => {
                println!("{name}: not here: {error}");
                continue;
            }
        };
        let class = meter.accuracy().as_str();
        if source == ClockSource::Auto {
            default = class;
        } else if class == default {
            // It has been measured, as the default.
            continue;
        }
        let label = if class == name { name.to_owned() } else { format!("{class}/{name}") };
        let runtime = Runtime::builder().worker_threads(1).meter(meter).build().expect("a runtime can be built");
        detectors.push((label, runtime));
    }
    detectors
}

fn case(
    args: &Args,
    report: &mut Report,
    detectors: &[&(String, Runtime)],
    sampler: &'static sampler::Samples,
    shape: Shape,
    busy: usize,
) {
    let plan = shape.plan();
    let rounds = if plan.bracketed { args.choose(7, 31) } else { args.choose(9, 101) };
    let mut kept: Vec<Vec<Round>> = vec![Vec::new(); detectors.len()];
    let before: Vec<Ledger> = detectors.iter().map(|(_, runtime)| Ledger::of(runtime)).collect();
    sampler.reset();
    for round in 0..rounds {
        for turn in 0..detectors.len() {
            let which = (round + turn) % detectors.len();
            kept[which].push(truth::round(&detectors[which].1, &plan, plan.times));
        }
    }
    for (((name, runtime), rounds), before) in detectors.iter().zip(&kept).zip(before) {
        let case = format!("{}/busy={busy}/detector={name}", shape.name());
        let by_round: Vec<f64> = rounds.iter().map(Round::error_percent).collect();
        let sum = truth::sum(rounds);
        let [bias_a, bias_b] = sum.errors(sum.charged_ns);
        let mut row = Row::new(BENCH, &case, "error_percent", vec![sum.error_percent()])
            .extra("noise", truth::noise_percent(rounds))
            .extra("bias_a", bias_a)
            .extra("bias_b", bias_b)
            .extra("round", median(&by_round))
            .extra("worst", by_round.iter().copied().fold(0.0, f64::max));
        if !plan.bracketed {
            row = row.extra("truth_residual_percent", sum.residual_percent());
        }
        if name.contains("default") {
            row = row.peer("wall", vec![sum.wall_error_percent()]);
            if let Some(error) = sampler.error_percent(&truth::sum(kept.iter().flatten())) {
                row = row.peer("sampling_99hz", vec![error]);
            }
        }
        report.add(row);
        let books = Ledger::of(runtime).error_percent_since(&before);
        report.add(Row::new(BENCH, &case, "books_error_percent", vec![books]));
    }
}
