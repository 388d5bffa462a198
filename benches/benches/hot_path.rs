//! What accounting adds to a poll, and what the checks inside a poll cost.
//!
//! Each figure is a difference, formed within a round: a loop with the thing minus the same loop without it, over loops of
//! about a millisecond. Loops are timed by the thread's own CPU clock, so a round in which the thread was preempted counts
//! what it ran, not what it waited; what is left of the neighbours (shared caches, the sibling of a core) meets both loops.
//!
//! * `added_ns_per_poll`: `begin`, `before_poll`, `after_poll` and `end` around the poll of an empty future behind `dyn Future`,
//!   as an executor has it, minus that poll alone. The guard's readings of the CPU clock, one each 250 us, are in it. A tick
//!   looks on, as in a runtime. Cases are the accuracy classes.
//! * `tsc_read_ns`: `rdtsc` in a loop, minus the empty loop, in the same rounds: what no accounting by the counter can
//!   undercut. Behind a bar, its price in the poll loop: how much one reading adds to that.
//! * `flag_check_ns`, `checkpoint_ns`: `has_budget()` and `checkpoint()` in a loop inside a metered poll, minus that loop.
//!
//! Peers add to the same poll of the same future: two `Instant::now()`, two readings of the thread's CPU clock, an instrumented
//! future of tokio-metrics. tokio's `consume_budget` is awaited in a loop in a task of its runtime; it gives way at every 128th
//! call, and that is a part of its price.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use stipend_benches::args::Args;
use stipend_benches::os::{thread_cpu_ns, tsc};
use stipend_benches::report::Report;
use stipend_benches::rounds::{difference, interleave};
use stipend_benches::row::Row;
use stipend_timers::{Account, ClockSource, Control, Lease, Meter, checkpoint, has_budget};

const BENCH: &str = "hot_path";

fn main() {
    let args = Args::parse();
    let mut report = Report::new(&args);
    for (source, name) in [
        (ClockSource::Auto, "default"),
        (ClockSource::Rseq, "rseq"),
        (ClockSource::Perf, "perf"),
        (ClockSource::Guard, "guard"),
        (ClockSource::ThreadClock, "thread-clock"),
    ] {
        match Meter::builder().clock(source).build() {
            Ok(meter) => class(&args, &mut report, &meter, name),
            Err(error) => println!("{name}: not here: {error}"),
        }
    }
    peers(&args, &mut report);
    match Meter::builder().build() {
        Ok(meter) => checks(&args, &mut report, &meter),
        Err(error) => println!("checks: not here: {error}"),
    }
    report.finish();
}

/// The thread's CPU time of so many repetitions, per repetition.
fn per<R>(count: u64, run: impl FnOnce() -> R) -> f64 {
    let before = thread_cpu_ns();
    black_box(run());
    (thread_cpu_ns() - before) as f64 / count as f64
}

/// A future that is never ready and does nothing; what polls it does not know.
fn empty() -> Pin<Box<dyn Future<Output = ()>>> {
    black_box(Box::pin(poll_fn(|_| Poll::Pending)))
}

fn plain_polls(future: &mut Pin<Box<dyn Future<Output = ()>>>, count: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..count {
        let _ = black_box(future.as_mut().poll(&mut cx));
    }
}

fn metered_polls(future: &mut Pin<Box<dyn Future<Output = ()>>>, lease: &Lease, account: &Account, count: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut at = lease.stamp();
    for _ in 0..count {
        let mut run = lease.begin(account, at);
        match run.before_poll() {
            Control::Proceed => {}
            Control::Cancel(reason) => panic!("nobody cancelled, yet: {reason}"),
        }
        let ready = black_box(future.as_mut().poll(&mut cx)).is_ready();
        match run.after_poll(ready) {
            Control::Proceed => {}
            Control::Cancel(reason) => panic!("nobody cancelled, yet: {reason}"),
        }
        at = run.end();
    }
}

fn polls_beside<R>(future: &mut Pin<Box<dyn Future<Output = ()>>>, count: u64, mut read: impl FnMut() -> R) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..count {
        black_box(read());
        let _ = black_box(future.as_mut().poll(&mut cx));
    }
}

fn empty_loop(count: u64) {
    for n in 0..count {
        black_box(n);
    }
}

fn tsc_loop(count: u64) {
    for n in 0..count {
        black_box(n);
        black_box(tsc());
    }
}

fn class(args: &Args, report: &mut Report, meter: &Meter, name: &str) {
    let class = meter.accuracy().as_str();
    let case = if name == class { name.to_owned() } else { format!("{name}/{class}") };
    if !args.wants(&case) {
        return;
    }
    let lease = meter.attach();
    lease.set_active();
    let account = Account::new();
    let mut future = empty();
    let (polls, loops) = (if class == "thread-clock" { 4_000 } else { 50_000 }, 50_000);
    let columns = interleave(args.choose(101, 501), 5, |which| match which {
        0 => per(polls, || metered_polls(&mut future, &lease, &account, polls)),
        1 => per(loops, || plain_polls(&mut future, loops)),
        2 => per(loops, || tsc_loop(loops)),
        3 => per(loops, || empty_loop(loops)),
        _ => per(loops, || polls_beside(&mut future, loops, tsc)),
    });
    lease.set_idle();
    account.end();
    let added = difference(&columns[0], &columns[1]);
    let read = difference(&columns[2], &columns[3]);
    let read_beside = difference(&columns[4], &columns[1]);
    let row = Row::new(BENCH, &case, "added_ns_per_poll", added);
    report.add(row.peer("tsc_read", read.clone()).peer("tsc_read_in_poll_loop", read_beside).over("tsc_read", &read));
    if name == "default" {
        report.add(Row::new(BENCH, "rdtsc", "tsc_read_ns", read));
    }
}

fn peers(args: &Args, report: &mut Report) {
    if !args.wants("peers") {
        return;
    }
    let Ok(meter) = Meter::builder().build() else { return };
    let lease = meter.attach();
    lease.set_active();
    let account = Account::new();
    let (mut future, mut same) = (empty(), empty());
    let monitor = tokio_metrics::TaskMonitor::new();
    let mut instrumented: Pin<Box<dyn Future<Output = ()>>> = black_box(Box::pin(monitor.instrument(empty())));
    let count = 10_000;
    let columns = interleave(args.choose(51, 201), 5, |which| match which {
        0 => per(count, || metered_polls(&mut future, &lease, &account, count)),
        1 => per(count, || plain_polls(&mut same, count)),
        2 => per(count, || polls_beside(&mut same, count, || (Instant::now(), Instant::now()))),
        3 => per(count, || polls_beside(&mut same, count, || (thread_cpu_ns(), thread_cpu_ns()))),
        _ => per(count, || plain_polls(&mut instrumented, count)),
    });
    lease.set_idle();
    account.end();
    let added = |which: usize| difference(&columns[which], &columns[1]);
    report.add(
        Row::new(BENCH, "default/peers", "added_ns_per_poll", added(0))
            .peer("two_instants", added(2))
            .peer("two_thread_clocks", added(3))
            .peer("tokio-metrics", added(4))
            .over_best_peer(),
    );
}

fn checks(args: &Args, report: &mut Report, meter: &Meter) {
    if !args.wants("check") {
        return;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let lease = meter.attach();
    lease.set_active();
    let account = Account::new();
    // Well below the slice, so that the answer is "go on" all the time.
    let count = 200_000;
    let in_a_poll = |check: &dyn Fn()| {
        let mut run = lease.begin(&account, lease.stamp());
        let _ = run.before_poll();
        let ns = per(count, check);
        let _ = run.after_poll(false);
        run.end();
        ns
    };
    let columns = interleave(args.choose(51, 301), 5, |which| match which {
        0 => in_a_poll(&|| empty_loop(count)),
        1 => in_a_poll(&|| {
            for n in 0..count {
                black_box(n);
                black_box(has_budget());
            }
        }),
        2 => in_a_poll(&|| {
            for n in 0..count {
                black_box(n);
                // Not the error itself: showing that would put it into memory each time.
                black_box(checkpoint().is_ok());
            }
        }),
        3 => per(count, || runtime.block_on(async { empty_loop(count) })),
        _ => per(count, || {
            runtime.block_on(async {
                for n in 0..count {
                    black_box(n);
                    tokio::task::consume_budget().await;
                }
            });
        }),
    });
    lease.set_idle();
    account.end();
    let tokio = difference(&columns[4], &columns[3]);
    let check = Row::new(BENCH, "has_budget check", "flag_check_ns", difference(&columns[1], &columns[0]));
    report.add(check.peer("tokio", tokio.clone()).over_best_peer());
    let check = Row::new(BENCH, "checkpoint check", "checkpoint_ns", difference(&columns[2], &columns[0]));
    report.add(check.peer("tokio", tokio).over_best_peer());
}
