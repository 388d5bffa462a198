//! How many instructions a yield, a spawn and a wake are, ours and tokio's.
//!
//! Time on a shared machine is noise; instructions are not. Callgrind counts those of a child that does one thing N times, for
//! two N: the difference of the counts, divided by the difference of the N, has neither start nor end in it. All threads
//! count, user code only: the kernel's part of a system call does not.
//!
//! * `yield`: 100 tasks that do nothing but give way. One operation is one poll that gives way: taking the task from the queue,
//!   the brackets of the accounting, the poll, the way back.
//! * `spawn`: a task spawns 100 others, lets go of their handles and gives way, again and again. One operation is a task that is
//!   spawned by a task, polled once, and gone, its memory too; and a hundredth of a yield.
//! * `wake`: two tasks wake each other in turn. One operation is a wake of a task that waits, its poll, and the clone of the waker
//!   for the next time. The waker is kept in an `AtomicWaker`, the same code for both runtimes.
//!
//! `one_group` is the same with all tasks in one group.
//!
//! # What time does to it
//!
//! Valgrind runs one thread at a time, some 50 times as slowly, and the clocks run on. What goes by time comes as many times too often
//! for its work: our reading of the CPU clock, each 250 us, and the question to the reactor, each 25 us. It is in our figures and
//! not taken out; `clock_reads` and `reactor_checks` say how many there were in 1000 operations. The tick comes once a second.
//!
//! Valgrind lets no thread register for rseq, and has no perf events: the class is `guard`, which is what `Auto` finds there too. Its
//! reading of the clock is the code of `rseq` to the letter: a load and a comparison with a word that never changes.

mod operations;
mod valgrind;

use stipend_benches::args::Args;
use stipend_benches::child;
use stipend_benches::report::Report;
use stipend_benches::row::Row;
use stipend_benches::stats::median;

use crate::operations::{Counts, IN_ONE_GROUP, ROLE};

const FEW: u64 = 100_000;
const MANY: u64 = 300_000;

fn main() {
    child::serve(&[ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    for operation in operations::NAMES {
        if !args.wants(operation) {
            continue;
        }
        let (mut ours, mut grouped, mut tokio, mut by_time) = (Vec::new(), Vec::new(), Vec::new(), Counts::default());
        for _ in 0..args.choose(1, 5) {
            let (instructions, counts) = each("stipend", operation);
            ours.push(instructions);
            by_time = counts;
            grouped.push(each(IN_ONE_GROUP, operation).0);
            tokio.push(each("tokio", operation).0);
        }
        let row = Row::new("instructions", operation, "instructions_per_op", ours).workers(1);
        let row = row.peer("tokio", tokio).over_best_peer().extra("one_group", median(&grouped));
        report.add(row.extra("clock_reads", by_time.clock_reads).extra("reactor_checks", by_time.reactor_checks));
    }
    report.finish();
}

/// Instructions of one operation, and what came by time in a thousand.
fn each(runtime: &str, operation: &str) -> (f64, Counts) {
    let [few, many] = [FEW, MANY].map(|times| {
        valgrind::instructions(&[runtime, operation, &times.to_string()]).unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(1);
        })
    });
    let of_one = |few: f64, many: f64| (many - few) / (MANY - FEW) as f64;
    let counts = [few.said, many.said].map(|said| Counts::parse(&said));
    let by_time = Counts {
        clock_reads: 1000.0 * of_one(counts[0].clock_reads, counts[1].clock_reads),
        reactor_checks: 1000.0 * of_one(counts[0].reactor_checks, counts[1].reactor_checks),
    };
    (of_one(few.instructions, many.instructions), by_time)
}
