//! CPU timers: ours, and the rounds that they and their peers take part in.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use stipend_benches::args::Args;
use stipend_benches::os::thread_cpu_ns;
use stipend_benches::random::Random;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;
use stipend_timers::{Account, Control, CpuTimer, Lease, Meter};

use crate::BENCH;
use crate::peers::{self, Posix, Sleeps};

/// No clock gets here: an hour, and up to another one on top of it.
pub(crate) fn far_ns(random: &mut Random) -> u64 {
    3_600_000_000_000 + random.below(3_600_000_000_000) as u64
}

/// What is done with one timer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    DisarmArm,
    Rearm,
}

/// A batch of operations: which timer, and when it is to expire next.
pub(crate) struct Batch {
    pub(crate) operation: Operation,
    pub(crate) steps: Vec<(u32, u64)>,
}

impl Batch {
    fn new(random: &mut Random, operation: Operation, timers: usize, same: bool, steps: usize) -> Self {
        let steps = (0..steps).map(|_| (if same { 0 } else { random.below(timers) } as u32, far_ns(random))).collect();
        Self { operation, steps }
    }

    /// The steps, for a peer that has fewer timers.
    pub(crate) fn steps(&self, timers: usize) -> impl Iterator<Item = (usize, u64)> {
        self.steps.iter().map(move |&(which, at)| (which as usize % timers, at))
    }
}

/// CPU nanoseconds of the calling thread.
pub(crate) fn timed<R>(operations: usize, run: impl FnOnce() -> R) -> f64 {
    let before = thread_cpu_ns();
    black_box(run());
    (thread_cpu_ns() - before) as f64 / operations as f64
}

/// Accounts with timers on them, all armed.
struct Ours {
    accounts: Vec<Account>,
    timers: Vec<CpuTimer>,
}

impl Ours {
    fn new(random: &mut Random, tasks: usize, timers: usize) -> Self {
        let accounts: Vec<Account> = (0..tasks).map(|_| Account::new()).collect();
        let mut order: Vec<usize> = (0..timers).map(|timer| timer % tasks).collect();
        random.shuffle(&mut order);
        let timers = order.into_iter().map(|task| {
            let timer = accounts[task].clock().timer().on_expiry(|_| ());
            timer.arm_at(Duration::from_nanos(far_ns(random))).expect("its account lives")
        });
        let timers = timers.collect();
        Self { accounts, timers }
    }

    fn run(&self, batch: &Batch) {
        for &(which, at_ns) in &batch.steps {
            let timer = &self.timers[which as usize];
            if batch.operation == Operation::DisarmArm {
                black_box(timer.disarm());
            }
            black_box(timer.arm_at(Duration::from_nanos(at_ns)).is_ok());
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.end();
        }
    }
}

/// One poll of an account.
fn poll<R>(lease: &Lease, account: &Account, body: impl FnOnce() -> R) -> R {
    let mut run = lease.begin(account, lease.stamp());
    let proceeds = |control: Control| assert!(matches!(control, Control::Proceed), "nobody cancelled");
    proceeds(run.before_poll());
    let result = body();
    proceeds(run.after_poll(false));
    run.end();
    result
}

pub(crate) fn arming(args: &Args, report: &mut Report) {
    let meter = Meter::builder().build().expect("a meter can be had");
    let lease = meter.attach();
    lease.set_active();
    let quick = [(1, 1), (1, 1_000), (1, 100_000), (100_000, 1_000_000)];
    let full = [(1, 1), (1, 1_000), (1, 100_000), (10, 1_000_000), (100_000, 100_000), (100_000, 1_000_000)];
    for &(tasks, timers) in args.choose(&quick[..], &full[..]) {
        let place = format!("tasks={tasks}/timers={timers}");
        let cases: Vec<(String, Operation, bool, bool)> = [
            ("order=random/by=supervisor", Operation::DisarmArm, false, false),
            ("order=same/by=supervisor", Operation::DisarmArm, true, false),
            ("order=random/by=task", Operation::DisarmArm, false, true),
            ("order=same/by=task", Operation::DisarmArm, true, true),
            ("order=random/by=supervisor", Operation::Rearm, false, false),
        ]
        .into_iter()
        // One timer has no order, and of many tasks one runs.
        .filter(|case| (timers > 1 || case.2) && (tasks == 1 || !case.3))
        .map(|(name, operation, same, by_task)| (format!("default/{place}/{name}"), operation, same, by_task))
        .filter(|(name, ..)| args.wants(name))
        .collect();
        if cases.is_empty() {
            continue;
        }
        let mut random = Random::default();
        let ours = Ours::new(&mut random, tasks, timers);
        let posix = Posix::new(&mut random, timers.min(args.choose(20_000, usize::MAX)));
        let mut sleeps = Sleeps::new(&mut random, timers);
        for (name, operation, same, by_task) in cases {
            let steps = args.choose(10_000, 50_000);
            let rounds = args.choose(9, 31);
            // Another one each round, so that nothing learns it.
            let batches: Vec<Batch> =
                (0..=rounds).map(|_| Batch::new(&mut random, operation, timers, same, steps)).collect();
            let mut turn = [0; 3];
            let columns = interleave(rounds, 3, |which| {
                let batch = &batches[turn[which] % batches.len()];
                turn[which] += 1;
                match which {
                    0 if by_task => timed(steps, || poll(&lease, &ours.accounts[0], || ours.run(batch))),
                    0 => timed(steps, || ours.run(batch)),
                    1 => posix.run(batch),
                    _ => sleeps.run(batch),
                }
            });
            let [ours, settime, tokio]: [Vec<f64>; 3] = columns.try_into().expect("as many as were asked for");
            let metric = if operation == Operation::DisarmArm { "arm_disarm_ns" } else { "rearm_ns" };
            let row = Row::new(BENCH, name, metric, ours).peer("timer_settime", settime).peer("tokio", tokio);
            report.add(row.over_best_peer().extra("posix_timers", posix.len() as f64));
        }
    }
    lease.set_idle();
}

pub(crate) fn firing(args: &Args, report: &mut Report) {
    for timers in [1_000, 50_000] {
        let name = format!("default/tasks=1/timers={timers}");
        if !args.wants(&name) {
            continue;
        }
        let meter = Meter::builder().build().expect("a meter can be had");
        let lease = meter.attach();
        lease.set_active();
        let mut random = Random::default();
        let columns = interleave(args.choose(7, 21), 2, |which| match which {
            0 => fire(&lease, &mut random, timers),
            _ => peers::fire_tokio(&mut random, timers),
        });
        let [ours, tokio]: [Vec<f64>; 2] = columns.try_into().expect("as many as were asked for");
        report.add(Row::new(BENCH, name, "fire_ns", ours).peer("tokio", tokio).over_best_peer());
        lease.set_idle();
    }
}

thread_local! {
    /// How many handlers have run on this thread.
    static FIRED: Cell<usize> = const { Cell::new(0) };
}

fn fire(lease: &Lease, random: &mut Random, timers: usize) -> f64 {
    let account = Account::new();
    let now = account.clock().now();
    let armed: Vec<CpuTimer> = (0..timers)
        .map(|_| {
            let timer = account.clock().timer().on_expiry(|_| FIRED.set(FIRED.get() + 1));
            timer.arm_at(now + Duration::from_nanos(1 + random.below(1_000) as u64)).expect("its account lives")
        })
        .collect();
    FIRED.set(0);
    let ns = timed(timers, || {
        // The first poll uses up the microsecond.
        poll(lease, &account, || {
            let until = thread_cpu_ns() + 1_000;
            while thread_cpu_ns() < until {}
        });
        while FIRED.get() < timers {
            poll(lease, &account, || ());
        }
    });
    drop(armed);
    account.end();
    ns
}
