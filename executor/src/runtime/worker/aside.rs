//! Whether a worker that has run dry lets others have its processor before it sleeps.
//!
//! A thread that is no worker calls a sleeping worker with the first task that it spawns or wakes. If the system has both on one processor,
//! the worker may come at once, in the caller's place: it finds the few tasks that there are by then and sleeps, the caller goes
//! on, its next task calls again, and so on. Each time takes some microseconds, several times what those tasks do. If the worker lets the
//! caller go on instead (`sched_yield`), it finds hundreds, if no other worker is asleep and comes for them; and while it waits for the
//! processor another one that has nothing to do can take it, as the system moves no sleepers.
//!
//! It is seen by sleeps that a call ends soon, several in a row. That may have other reasons, and whoever has the processor then keeps it
//! for a turn of the system's, some milliseconds, in which the worker is missed: nobody asks the reactor if all others are
//! in long polls. So it goes by what came of it. If fewer tasks than one for each microsecond were there afterwards, or nobody else wanted
//! the processor, it was in vain, and is left out for 32 times as long as it took, the next time for twice as many, and so on up to
//! 1024. If it was worth it, it begins anew when those tasks have run: a few short sleeps tell whether the caller has more for it,
//! and cost little beside those tasks.

use std::time::{Duration, Instant};

/// A sleep that a call ends within this is short.
const SHORT: Duration = Duration::from_micros(10);
/// So many short ones in a row make it worth a try.
const IN_A_ROW: u32 = 4;
/// Who has the processor back sooner than this had it all the time.
const ALONE: Duration = Duration::from_micros(2);
/// A task for each of these, and it was worth it.
const FOR_A_TASK: Duration = Duration::from_micros(1);
/// Having been in vain it is left out for so many times as long as it took, doubled for each time before that was in vain, too,
const LEFT_OUT: u32 = 32;
/// as often as this at most.
const DOUBLED: u32 = 5;
/// And no longer than this: the machine may have been stopped meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub(in crate::runtime) struct Aside {
    /// Short sleeps in a row.
    short: u32,
    /// How often it was in vain, one after the other, as far as that counts.
    misses: u32,
    /// It is left out until then.
    not_before: Option<Instant>,
}

impl Aside {
    /// The worker has slept for so long, and was called: by whomever, as a worker that calls is not told from other threads.
    pub(super) fn slept(&mut self, time: Duration, called: bool) {
        self.short = if called && time < SHORT { self.short.saturating_add(1) } else { 0 };
    }

    /// Whether to do it, now that the worker has run dry. The clock is read if that is likely.
    pub(super) fn is_due(&self, now: impl FnOnce() -> Instant) -> bool {
        self.short >= IN_A_ROW && self.not_before.is_none_or(|time| now() >= time)
    }

    /// Others had the processor between the two, and so many tasks have come.
    pub(super) fn stood(&mut self, began: Instant, ended: Instant, tasks: usize) {
        let time = ended.saturating_duration_since(began);
        let wanted = time.as_nanos().div_ceil(FOR_A_TASK.as_nanos());
        self.short = 0;
        if time >= ALONE && tasks as u128 >= wanted {
            self.misses = 0;
        } else {
            self.not_before = Some(ended + time.saturating_mul(LEFT_OUT << self.misses).min(LONGEST));
            self.misses = (self.misses + 1).min(DOUBLED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// A worker that runs dry again and again, and sleeps for so long if it does not stand aside.
    struct Dry {
        aside: Aside,
        now: Instant,
        sleep: (Duration, bool),
    }

    impl Dry {
        fn new(sleep: Duration, called: bool) -> Self {
            Self { aside: Aside::default(), now: Instant::now(), sleep: (sleep, called) }
        }

        /// For how long it stands aside in so much time, and how often it sleeps, if to stand aside takes so long and brings so much.
        fn run(&mut self, time: Duration, outcome: (Duration, usize)) -> (Duration, u32) {
            let (end, mut aside, mut sleeps) = (self.now + time, Duration::ZERO, 0);
            while self.now < end {
                if self.aside.is_due(|| self.now) {
                    self.aside.stood(self.now, self.now + outcome.0, outcome.1);
                    self.now += outcome.0;
                    aside += outcome.0;
                } else {
                    self.aside.slept(self.sleep.0, self.sleep.1);
                    self.now += self.sleep.0;
                    sleeps += 1;
                }
            }
            (aside, sleeps)
        }
    }

    #[test]
    fn a_few_short_sleeps_in_a_row_lead_to_it_each_time_while_many_tasks_come() {
        for outcome in [(micros(500), 5_000), (micros(500), 500), (micros(2), 2)] {
            let (aside, sleeps) = Dry::new(micros(3), true).run(SECOND, outcome);
            let times = (aside.as_nanos() / outcome.0.as_nanos()) as u32;
            assert!(sleeps.abs_diff(IN_A_ROW * times) <= IN_A_ROW, "{times} times, {sleeps} sleeps");
            assert!(times * (outcome.0 + micros(12)) >= SECOND - micros(600), "{times} times");
        }
    }

    #[test]
    fn it_is_not_done_after_long_sleeps_or_those_that_no_call_has_ended() {
        for (sleep, called) in [(micros(10), true), (micros(3), false)] {
            let mut dry = Dry::new(sleep, called);
            assert_eq!(dry.run(SECOND, (micros(500), 5_000)).0, Duration::ZERO);
        }
        let mut mixed = Dry::new(micros(3), true);
        for _ in 0..1_000 {
            assert_eq!(mixed.run(micros(9), (micros(500), 5_000)).0, Duration::ZERO);
            mixed.aside.slept(micros(50), true);
        }
    }

    #[test]
    fn what_is_in_vain_takes_a_thousandth_of_the_time() {
        // Nobody else was there; nothing came; too little did.
        for outcome in [(Duration::from_nanos(1_900), 3), (micros(3_000), 0), (micros(3_000), 2_999)] {
            let (aside, _) = Dry::new(micros(3), true).run(100 * SECOND, outcome);
            assert!(aside <= SECOND / 10 + DOUBLED * outcome.0 && aside > SECOND / 12, "{aside:?} if {outcome:?}");
        }
    }

    #[test]
    fn it_comes_back_when_it_is_worth_it_again() {
        let mut dry = Dry::new(micros(3), true);
        dry.run(SECOND, (micros(3_000), 0));
        let (aside, _) = dry.run(10 * SECOND, (micros(500), 5_000));
        assert!(aside > 6 * SECOND, "{aside:?} of 10 s");
    }

    #[test]
    fn a_machine_that_was_stopped_does_not_leave_it_out_for_ever() {
        let mut dry = Dry::new(micros(3), true);
        dry.run(micros(100), (1_000 * SECOND, 0));
        dry.now += LONGEST;
        assert!(dry.run(micros(100), (micros(500), 5_000)).0 > Duration::ZERO);
    }
}
