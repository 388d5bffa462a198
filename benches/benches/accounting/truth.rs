//! From batches to a round's truth; [the front page](crate) argues why it is that.

use stipend::Runtime;

use crate::batch::{self, Outcome, Plan};

/// What one round charged, and what was true. Kind A, kind B; nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Round {
    pub(crate) charged_ns: [f64; 2],
    pub(crate) wall_ns: [f64; 2],
    pub(crate) true_ns: [f64; 2],
    /// What the same polls took in pure batches; zero where brackets are the truth.
    pure_ns: f64,
}

impl Round {
    /// The greater of the two errors of what was charged.
    pub(crate) fn error_percent(&self) -> f64 {
        self.greatest_error(self.charged_ns)
    }

    /// The same of what wall time would have billed.
    pub(crate) fn wall_error_percent(&self) -> f64 {
        self.greatest_error(self.wall_ns)
    }

    pub(crate) fn greatest_error(&self, billed_ns: [f64; 2]) -> f64 {
        self.errors(billed_ns).into_iter().fold(0.0, |greatest, error| greatest.max(error.abs()))
    }

    /// Signed, in percent.
    pub(crate) fn errors(&self, billed_ns: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|kind| error(billed_ns[kind], self.true_ns[kind]))
    }

    /// By how much the pure batches' polls differ from the mixed ones'.
    pub(crate) fn residual_percent(&self) -> f64 {
        error(self.pure_ns, self.true_ns.iter().sum()).abs()
    }

    fn add(&mut self, other: &Self) {
        for kind in [0, 1] {
            self.charged_ns[kind] += other.charged_ns[kind];
            self.wall_ns[kind] += other.wall_ns[kind];
            self.true_ns[kind] += other.true_ns[kind];
        }
        self.pure_ns += other.pure_ns;
    }
}

fn error(billed_ns: f64, true_ns: f64) -> f64 {
    (billed_ns / true_ns - 1.0) * 100.0
}

/// All rounds as one.
pub(crate) fn sum<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Round {
    let mut sum = Round::default();
    rounds.into_iter().for_each(|round| sum.add(round));
    sum
}

/// Twice the standard error of the sum's error, of the task for which it is greater: how much it moves when a round is left out.
pub(crate) fn noise_percent(rounds: &[Round]) -> f64 {
    jackknife(rounds.len(), |left_out| {
        let rest = sum(rounds.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, round)| round));
        rest.errors(rest.charged_ns)
    })
}

/// Twice the standard error of the tasks' errors, the greatest of them, from what they are if a round is left out.
pub(crate) fn jackknife<const N: usize>(rounds: usize, without: impl Fn(usize) -> [f64; N]) -> f64 {
    let n = rounds as f64;
    let all: Vec<[f64; N]> = (0..rounds).map(without).collect();
    let noise = |task: usize| {
        let mean = all.iter().map(|errors| errors[task]).sum::<f64>() / n;
        let squares: f64 = all.iter().map(|errors| (errors[task] - mean).powi(2)).sum();
        2.0 * (squares * (n - 1.0) / n).sqrt()
    };
    (0..N).map(noise).fold(0.0, f64::max)
}

fn add(sum: &mut Outcome, batch: Outcome) {
    sum.total_ns += batch.total_ns;
    for which in [0, 1] {
        sum.charged_ns[which] += batch.charged_ns[which];
        sum.bracketed_ns[which] += batch.bracketed_ns[which];
        sum.wall_ns[which] += batch.wall_ns[which];
    }
}

/// One round: so many times each kind of batch.
pub(crate) fn round(runtime: &Runtime, plan: &Plan, times: usize) -> Round {
    let mut mixed = Outcome::default();
    let mut pure = [Outcome::default(); 2];
    // Every other time the other way round: a worker that gets slower is met by all alike.
    let sequence: &[[usize; 2]] = if plan.bracketed {
        &[[0, 1], [1, 0]]
    } else {
        &[[0, 0], [0, 1], [1, 1], [1, 0], [1, 1], [1, 0], [0, 0], [0, 1]]
    };
    let batches: Vec<[usize; 2]> = sequence.iter().copied().cycle().take(sequence.len() * times).collect();
    for (kinds, outcome) in batches.iter().zip(batch::run(runtime, plan, batches.clone())) {
        match kinds {
            [0, 1] => add(&mut mixed, outcome),
            [1, 0] => add(&mut mixed, outcome.swapped()),
            [kind, _] => add(&mut pure[*kind], outcome),
        }
    }
    let both = |values: [u64; 2]| values.map(|value| value as f64);
    let (true_ns, pure_ns) = if plan.bracketed { (by_brackets(&mixed), 0.0) } else { by_batches(&mixed, pure) };
    Round { charged_ns: both(mixed.charged_ns), wall_ns: both(mixed.wall_ns), true_ns, pure_ns }
}

fn by_brackets(mixed: &Outcome) -> [f64; 2] {
    let inside: u64 = mixed.bracketed_ns.iter().sum();
    let between = mixed.total_ns.saturating_sub(inside) as f64;
    mixed.bracketed_ns.map(|inside| inside as f64 + between / 2.0)
}

/// There are as many polls of a kind in its pure batches as in all mixed ones: two tasks in each of the former, one in each of
/// the latter, of which there are twice as many.
fn by_batches(mixed: &Outcome, pure: [Outcome; 2]) -> ([f64; 2], f64) {
    let [a, b] = pure.map(|pure| pure.total_ns as f64);
    let total = mixed.total_ns as f64;
    ([total * a / (a + b), total * b / (a + b)], a + b)
}
