//! Is a task charged what it used, beside 0, 2 and 4 busy processes? What unlike tasks are charged that take turns on one thread
//! is compared with the truth: the kernel's CPU clock of that thread, and nothing that this project computes from a counter.
//! There are two ways to it, and they show different things; a case's name says which.
//!
//! | | `truth=bracket` | `truth=boundary` |
//! | --- | --- | --- |
//! | what runs | tasks on one worker of a real runtime | the meter's own calls, as an executor makes them |
//! | shows | that the whole is right: the executor calls the meter where it should, and loses nothing in between | how exact the clock and the books are |
//! | cannot show | errors below its own floor: the control `thread-clock`, exact by construction, shows 0.15 to 0.9 % | anything of the executor: who pays for what lies between two polls is not asked |
//! | the shortest polls | 100 ns | 100 ns, and as many polls of one task between two readings as take 100 us (also at 1 us): what one short poll takes from the next *task* is seen, what it takes from the next poll of the same task is not |
//!
//! The class `thread-clock` reads the kernel's clock at each boundary. It is the control under either truth: what error it shows is
//! the bench's own, and no class can be shown to be better than that.
//!
//! # `truth=boundary`
//! Three tasks take turns, with polls of L, 2L and 3L. Directly behind each end of a run the bench reads the CPU clock, and a task's
//! truth is the difference of the readings behind and before it. So the true spans join without a gap and cover what the
//! account's spans cover; what a reading itself costs falls into the next span on both sides. Nothing is divided, and
//! nothing is assumed. A poll that is read ends with a reading that nobody uses, so that the way to the kernel is warm behind all polls
//! alike. Where blocking is asked about, one task computes 30 us and sleeps inside the poll; the others compute 90
//! and 30 us.
//!
//! What is left is the distance from the account's boundary to the reading behind it: it differs by some 0.1 us between boundaries that
//! were computed from the counter and boundaries that were read, and what differs is one task's loss and the next one's gain.
//! With the control all are read, so most of it goes: its floor is 0.02 % in the median of all cases, some 0.04 % at most where
//! polls compute, and 0.26 % at worst, where they sleep. With the other classes it counts as *their* error: behind a sleep they
//! read and elsewhere they compute, which shows as 0.2 % more of a poll of 35 us, always to the sleeper's favour.
//! What it does not show: that last reading of a poll also warms the way for the meter's own. Without it the control stands at
//! 0.2 to 0.6 % where polls sleep, and can tell nobody from itself there.
//!
//! # `truth=bracket`
//! Two tasks, one with polls of L and one of 3L, on a worker of a runtime. Reading the clock costs 0.4 us, so it cannot be read at
//! both ends of a short poll. Two ways, by the length of the polls:
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
//! `error_percent`: of the sums over all rounds, the greatest of the tasks' errors, each taken for itself. `noise` is how far the
//! figure can be trusted: twice its standard error over the rounds, by jackknife. On a shared machine a hypervisor takes its
//! time from the thread's CPU time, now in one batch, now in another, so truth by batches needs many rounds.
//! `round` is the median of the rounds' errors and `worst` the worst round's; in neither do signs cancel between rounds.
//! `total` (boundary): the signed error of all tasks together.
//! `books_error_percent` (bracket): of the CPU time that the kernel counted for the worker, how much nobody was charged.
//! The last line sums up the default class, and the control, by either truth.
//!
//! # Peers, in the same polls as the default class (bracket)
//! * `wall`: at the end of each poll `Instant::now()`, and the task is billed the time since the previous poll's end: the same
//!   division as ours, by a clock that goes on while others run.
//! * `sampling_99hz`: a thread that looks 99 times a second which task runs, with that part of the true total: better than
//!   anything that reads /proc, which would have to guess the total too. Its error is of the whole case, as a round is too short
//!   for it; it shrinks with the root of the time.

mod batch;
mod boundary;
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

/// How the truth is found, in the names of cases.
const BRACKET: &str = "truth=bracket";
const BOUNDARY: &str = "truth=boundary";

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

    /// For truth by the boundaries.
    fn boundary_plan(self) -> boundary::Plan {
        let us = Duration::from_micros;
        match self {
            Self::Short(length) | Self::Long(length) => {
                let works = [1, 2, 3].map(|times| Work::compute(length * times));
                // A reading each 100 us, if it cannot be each poll.
                let polls = if length < us(10) { (us(100).as_nanos() / length.as_nanos()) as u64 } else { 1 };
                let turn_ns = length.as_nanos() as u64 * polls * 6;
                boundary::Plan { works, polls, turns: (20_000_000 / turn_ns).max(4) }
            }
            Self::Blocking(sleep) => {
                let works = [Work::compute_and_sleep(us(30), sleep), Work::compute(us(90)), Work::compute(us(30))];
                boundary::Plan { works, polls: 1, turns: if sleep < us(1000) { 60 } else { 24 } }
            }
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
    let classes = classes();
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
            if args.wants(&format!("{}/busy={busy}/{BRACKET}", shape.name())) {
                // All classes beside two processes; otherwise, if it has to be quick, ours and the control.
                let chosen: Vec<&Class> =
                    classes.iter().filter(|it| !args.quick || busy == 2 || it.matters()).collect();
                case(&args, &mut report, &chosen, sampler, shape, busy);
            }
            if args.wants(&format!("{}/busy={busy}/{BOUNDARY}", shape.name())) && (!args.quick || busy == 2) {
                let plan = shape.boundary_plan();
                let chosen: Vec<&Class> = classes.iter().filter(|it| !args.quick || it.matters()).collect();
                boundary_case(&args, &mut report, &chosen, &plan, &format!("{}/busy={busy}", shape.name()));
            }
        }
    }
    let summary = [BRACKET, BOUNDARY].map(|truth| {
        let of = |class: &str| {
            let wanted =
                |row: &&Row| row.metric == "error_percent" && row.case.contains(truth) && row.case.contains(class);
            let errors: Vec<f64> = report.rows().iter().filter(wanted).map(|row| row.columns[0].median()).collect();
            let worst = errors.iter().copied().fold(0.0, f64::max);
            (errors.len(), format!("median error {:.4} %, worst {worst:.4} %", median(&errors)))
        };
        match (of("default"), of("detector=thread-clock")) {
            ((0, _), _) => format!("{truth}: not run"),
            ((cases, ours), (_, control)) => format!("{truth}, {cases} cases: {ours} (thread-clock: {control})"),
        }
    });
    report.finish();
    println!("default class; {}", summary.join("; "));
}

/// An accuracy class that can be had here.
struct Class {
    name: String,
    /// Of one worker.
    runtime: Runtime,
    /// For truth by the boundaries, without a runtime.
    meter: Meter,
}

impl Class {
    fn is_default(&self) -> bool {
        self.name.contains("default")
    }

    /// Ours or the control.
    fn matters(&self) -> bool {
        self.is_default() || self.name == "thread-clock"
    }
}

fn classes() -> Vec<Class> {
    let sources = [
        (ClockSource::Auto, "default"),
        (ClockSource::Rseq, "rseq"),
        (ClockSource::Perf, "perf"),
        (ClockSource::Guard, "guard"),
        (ClockSource::ThreadClock, "thread-clock"),
    ];
    let mut classes: Vec<Class> = Vec::new();
    let mut default = "";
    for (source, name) in sources {
        let build = || Meter::builder().clock(source).build();
        let (meter, runtimes) = match (build(), build()) {
            (Ok(meter), Ok(runtimes)) => (meter, runtimes),
            (Err(error), _) | (_, Err(error)) => {
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
        let name = if class == name { name.to_owned() } else { format!("{class}/{name}") };
        let runtime = Runtime::builder().worker_threads(1).meter(runtimes).build().expect("a runtime can be built");
        classes.push(Class { name, runtime, meter });
    }
    classes
}

fn boundary_case(args: &Args, report: &mut Report, classes: &[&Class], plan: &boundary::Plan, shape: &str) {
    let rounds = args.choose(7, 31);
    let mut kept: Vec<Vec<boundary::Round>> = vec![Vec::new(); classes.len()];
    for round in 0..rounds {
        for turn in 0..classes.len() {
            let which = (round + turn) % classes.len();
            kept[which].push(boundary::round(&classes[which].meter, plan));
        }
    }
    for (class, rounds) in classes.iter().zip(&kept) {
        let by_round: Vec<f64> = rounds.iter().map(boundary::Round::error_percent).collect();
        let sum = boundary::sum(rounds);
        let [bias_a, bias_b, bias_c] = sum.errors();
        let case = format!("{shape}/{BOUNDARY}/detector={}", class.name);
        report.add(
            Row::new(BENCH, &case, "error_percent", vec![sum.error_percent()])
                .extra("noise", boundary::noise_percent(rounds))
                .extra("bias_a", bias_a)
                .extra("bias_b", bias_b)
                .extra("bias_c", bias_c)
                .extra("total", sum.total_error_percent())
                .extra("round", median(&by_round))
                .extra("worst", by_round.iter().copied().fold(0.0, f64::max)),
        );
    }
}

fn case(
    args: &Args,
    report: &mut Report,
    classes: &[&Class],
    sampler: &'static sampler::Samples,
    shape: Shape,
    busy: usize,
) {
    let plan = shape.plan();
    let rounds = if plan.bracketed { args.choose(7, 31) } else { args.choose(9, 101) };
    let mut kept: Vec<Vec<Round>> = vec![Vec::new(); classes.len()];
    let before: Vec<Ledger> = classes.iter().map(|class| Ledger::of(&class.runtime)).collect();
    sampler.reset();
    for round in 0..rounds {
        for turn in 0..classes.len() {
            let which = (round + turn) % classes.len();
            kept[which].push(truth::round(&classes[which].runtime, &plan, plan.times));
        }
    }
    for ((class, rounds), before) in classes.iter().zip(&kept).zip(before) {
        let case = format!("{}/busy={busy}/{BRACKET}/detector={}", shape.name(), class.name);
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
        if class.is_default() {
            row = row.peer("wall", vec![sum.wall_error_percent()]);
            if let Some(error) = sampler.error_percent(&truth::sum(kept.iter().flatten())) {
                row = row.peer("sampling_99hz", vec![error]);
            }
        }
        report.add(row);
        let books = Ledger::of(&class.runtime).error_percent_since(&before);
        report.add(Row::new(BENCH, &case, "books_error_percent", vec![books]));
    }
}
