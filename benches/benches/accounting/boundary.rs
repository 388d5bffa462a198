//! Truth at the account's own boundaries: what is charged and what is true span from the same moment to the same moment.
//!
//! One thread and the meter's own calls, as an executor makes them, without the executor. Directly behind `end` the CPU clock is
//! read, and the difference of two such readings is the truth of the task between them. A reading takes 0.4 us, of which
//! what lies behind the moment that it tells falls to the next task, by the account's books and by the truth alike.
//!
//! A poll that is read ends with a reading whose value nobody uses. It is a part of the poll on both sides. Without it, the way to the
//! kernel's clock is cold behind a poll that slept and warm behind one that computed, so that the truth stood some 0.1 us further
//! behind the account's boundary there than elsewhere: 0.2 to 0.5 % of a poll of 35 us, by the control.

use std::hint::black_box;

use stipend_benches::os::thread_cpu_ns;
use stipend_timers::{Account, Control, Lease, Meter, Stamp};

use crate::batch::Work;
use crate::truth;

/// Unlike tasks that take turns.
const TASKS: usize = 3;

/// What a case does in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) works: [Work; TASKS],
    /// Polls of one task in a turn; the CPU clock is read behind the last of them.
    pub(crate) polls: u64,
    /// How often each task has its turn.
    pub(crate) turns: u64,
}

/// What one round charged, and what was true, by task; nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Round {
    charged_ns: [u64; TASKS],
    true_ns: [u64; TASKS],
}

impl Round {
    /// Signed, in percent, of each task.
    pub(crate) fn errors(&self) -> [f64; TASKS] {
        std::array::from_fn(|task| (self.charged_ns[task] as f64 / self.true_ns[task] as f64 - 1.0) * 100.0)
    }

    /// The worst task's.
    pub(crate) fn error_percent(&self) -> f64 {
        self.errors().into_iter().fold(0.0, |worst, error| worst.max(error.abs()))
    }

    /// What was charged to all tasks together, against their true total; signed, in percent.
    pub(crate) fn total_error_percent(&self) -> f64 {
        (self.charged_ns.iter().sum::<u64>() as f64 / self.true_ns.iter().sum::<u64>() as f64 - 1.0) * 100.0
    }
}

/// All rounds as one.
pub(crate) fn sum<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Round {
    let mut sum = Round::default();
    for round in rounds {
        for task in 0..TASKS {
            sum.charged_ns[task] += round.charged_ns[task];
            sum.true_ns[task] += round.true_ns[task];
        }
    }
    sum
}

/// As [`truth::noise_percent`].
pub(crate) fn noise_percent(rounds: &[Round]) -> f64 {
    truth::jackknife(rounds.len(), |left_out| {
        sum(rounds.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, round)| round)).errors()
    })
}

/// Where the account's books and the truth stand.
#[derive(Clone, Copy)]
struct Boundary {
    at: Stamp,
    true_ns: u64,
}

/// One round of a class, on the calling thread.
pub(crate) fn round(meter: &Meter, plan: &Plan) -> Round {
    let lease = meter.attach();
    // The tick looks on, as in a runtime.
    lease.set_active();
    let accounts: [Account; TASKS] = std::array::from_fn(|_| Account::new());
    let at = lease.stamp();
    let mut boundary = Boundary { at, true_ns: thread_cpu_ns() };
    // A turn of each that does not count: the round proper begins behind a boundary like all others.
    for (account, work) in accounts.iter().zip(plan.works) {
        boundary = turn(&lease, account, work, plan.polls, boundary);
    }
    let charged = || accounts.each_ref().map(|account| account.usage().cpu.as_nanos() as u64);
    let before_ns = charged();
    let mut true_ns = [0; TASKS];
    for number in 0..plan.turns {
        for place in 0..TASKS as u64 {
            // Forwards and backwards by turns, so that not always the same task follows the same.
            let task = (if number % 2 == 0 { place } else { TASKS as u64 - 1 - place }) as usize;
            let next = turn(&lease, &accounts[task], plan.works[task], plan.polls, boundary);
            true_ns[task] += next.true_ns - boundary.true_ns;
            boundary = next;
        }
    }
    let after_ns = charged();
    lease.set_idle();
    accounts.iter().for_each(Account::end);
    Round { charged_ns: std::array::from_fn(|task| after_ns[task] - before_ns[task]), true_ns }
}

fn turn(lease: &Lease, account: &Account, work: Work, polls: u64, boundary: Boundary) -> Boundary {
    let mut at = boundary.at;
    for poll in 0..polls {
        let mut run = lease.begin(account, at);
        proceeds(run.before_poll());
        work.run();
        if poll + 1 == polls {
            // A part of the poll, like its work. See the module.
            black_box(thread_cpu_ns());
        }
        proceeds(run.after_poll(false));
        at = run.end();
    }
    Boundary { at, true_ns: thread_cpu_ns() }
}

#[inline]
fn proceeds(control: Control) {
    match control {
        Control::Proceed => {}
        Control::Cancel(reason) => panic!("nobody cancelled, yet: {reason}"),
    }
}
