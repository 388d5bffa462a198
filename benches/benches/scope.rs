//! What a scope costs: to enter and leave, to make an account in, and a poll of one of its members.
//!
//! Loops of 4,000 operations by the thread's own CPU clock, each in one metered poll unless the case is a poll itself. A figure is
//! an operation's, the loop around it included: fewer than 2 ns. What a thing adds is the difference of two rows.
//!
//! * `scope_ns`: an empty future polled to its end, once: bare (`async block`), in a [`cpu_timeout`], in a scope, in a scope
//!   inside another.
//! * `account_ns`: an account is made and dropped, as for a task that is spawned and never runs: outside of scopes, in one.
//! * `poll_ns`: an empty poll of an account, its stamp included: outside of scopes, by a scope's member.

use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::os::thread_cpu_ns;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;
use stipend_timers::{Account, Control, Lease, Meter, Scope, cpu_timeout};

const BENCH: &str = "scope";
const COUNT: u32 = 4_000;
/// Far above what a loop takes.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let args = Args::parse();
    let mut report = Report::new(&args);
    match Meter::builder().build() {
        Ok(meter) => {
            let lease = meter.attach();
            lease.set_active();
            entering(&args, &mut report, &lease);
            accounts(&args, &mut report, &lease);
            polls(&args, &mut report, &lease);
            lease.set_idle();
        }
        Err(error) => println!("not here: {error}"),
    }
    report.finish();
}

/// The thread's CPU time of an operation.
fn per_operation(mut operation: impl FnMut()) -> f64 {
    let before = thread_cpu_ns();
    (0..COUNT).for_each(|_| operation());
    (thread_cpu_ns() - before) as f64 / f64::from(COUNT)
}

fn proceeds(control: Control) {
    assert!(matches!(control, Control::Proceed), "nobody cancelled, yet: {control:?}");
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Measures inside a poll of a task.
fn in_a_poll(lease: &Lease, measure: impl FnOnce() -> f64) -> f64 {
    let account = Account::new();
    let mut run = lease.begin(&account, lease.stamp());
    proceeds(run.before_poll());
    let ns = measure();
    proceeds(run.after_poll(false));
    run.end();
    account.end();
    ns
}

/// Measures inside the run of a scope, in a poll of a task.
fn in_a_scope(lease: &Lease, measure: impl FnOnce() -> f64) -> f64 {
    in_a_poll(lease, || match poll_once(Scope::with_limit(LIMIT).run(async { measure() })) {
        Poll::Ready(Ok(ns)) => ns,
        other => panic!("the scope did not end with a figure: {other:?}"),
    })
}

/// What stands behind the case `base` is put in relation to it.
fn add(args: &Args, report: &mut Report, metric: &'static str, cases: &[&str], base: usize, columns: &[Vec<f64>]) {
    for (which, (case, column)) in cases.iter().zip(columns).enumerate() {
        if args.wants(case) {
            let row = Row::new(BENCH, *case, metric, column.clone());
            report.add(if which > base { row.over(cases[base], &columns[base]) } else { row });
        }
    }
}

fn entering(args: &Args, report: &mut Report, lease: &Lease) {
    let cases = ["async block", "cpu_timeout", "scope", "scope in scope"];
    if !cases.iter().any(|case| args.wants(case)) {
        return;
    }
    let columns = interleave(args.choose(101, 501), cases.len(), |which| {
        in_a_poll(lease, || match which {
            0 => per_operation(|| assert!(poll_once(black_box(async {})).is_ready())),
            1 => per_operation(|| assert!(poll_once(cpu_timeout(LIMIT, async {})).is_ready())),
            2 => per_operation(|| assert!(poll_once(Scope::with_limit(LIMIT).run(async {})).is_ready())),
            _ => per_operation(|| {
                let inner = async { Scope::with_limit(LIMIT).run(async {}).await };
                assert!(poll_once(Scope::with_limit(LIMIT).run(inner)).is_ready());
            }),
        })
    });
    add(args, report, "scope_ns", &cases, 1, &columns);
}

fn accounts(args: &Args, report: &mut Report, lease: &Lease) {
    let cases = ["account", "account in scope"];
    if !cases.iter().any(|case| args.wants(case)) {
        return;
    }
    let measure = || per_operation(|| drop(black_box(Account::inherit())));
    let columns = interleave(args.choose(101, 501), cases.len(), |which| match which {
        0 => in_a_poll(lease, measure),
        _ => in_a_scope(lease, measure),
    });
    add(args, report, "account_ns", &cases, 0, &columns);
}

fn polls(args: &Args, report: &mut Report, lease: &Lease) {
    let cases = ["poll", "poll in scope"];
    if !cases.iter().any(|case| args.wants(case)) {
        return;
    }
    let outside = Account::new();
    let member = Cell::new(None);
    let mut scope = pin!(Scope::with_limit(LIMIT).run(poll_fn(|_| {
        member.set(Some(Account::inherit().0));
        Poll::<()>::Pending
    })));
    in_a_poll(lease, || {
        assert!(scope.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        0.0
    });
    let member = member.take().expect("the scope's run was polled");
    let columns = interleave(args.choose(101, 501), cases.len(), |which| {
        let account = if which == 0 { &outside } else { &member };
        let mut at = lease.stamp();
        per_operation(|| {
            let mut run = lease.begin(account, at);
            proceeds(run.before_poll());
            proceeds(run.after_poll(false));
            at = run.end();
        })
    });
    outside.end();
    member.end();
    add(args, report, "poll_ns", &cases, 0, &columns);
}
