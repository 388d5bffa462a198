//! Whether a worker that has run dry lets others have its processor before it sleeps.
//!
//! A thread that is no worker calls a sleeping worker with the first task that it spawns or wakes. If the system has both on one processor,
//! the worker may come at once, in the caller's place: it finds the few tasks that there are by then and sleeps, the caller goes
//! on, its next task calls again, and so on. Each time takes some microseconds, several times what those tasks do. If the worker lets the
//! caller go on instead (`sched_yield`), it finds hundreds; and while it waits for the processor another one that has nothing to do can
//! take it, as the system moves no sleepers.
//!
//! It is seen by sleeps that a call ends soon, several in a row. That may have other reasons, and whoever has the processor then keeps it
//! for a turn of the system's, some milliseconds, in which the worker may be missed. So it goes by what came of it: if no more than a
//! task for each microsecond was there afterwards, or nobody else wanted the processor, it was in vain. Then what else would be the
//! next 2, 4, ... and at last 1024 times is left out, as with [`linger`](super::linger).

use std::time::Duration;

/// A sleep that a call ends within this is short.
const SHORT: Duration = Duration::from_micros(10);
/// So many short ones in a row make it worth a try.
const IN_A_ROW: u32 = 4;
/// Who has the processor back sooner than this had it all the time.
const ALONE: Duration = Duration::from_micros(2);
/// A task for each of these at least, and to wait was worth it.
const FOR_A_TASK: Duration = Duration::from_micros(1);
/// How often at most it is left out, as a power of two.
const MOST_MISSES: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Short sleeps in a row.
    short: u32,
    /// How often it was in vain, one after the other.
    misses: u32,
    /// So often it is left out.
    skip: u32,
}

impl Aside {
    /// The worker has slept for so long, and was called or was not.
    pub(super) fn slept(&mut self, time: Duration, called: bool) {
        self.short = if called && time < SHORT { self.short.saturating_add(1) } else { 0 };
    }

    /// Whether to try it, now that the worker has run dry.
    pub(super) fn is_due(&mut self) -> bool {
        if self.short < IN_A_ROW {
            return false;
        }
        let left_out = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        !left_out
    }

    /// Others had the processor for so long, and so many tasks have come.
    pub(super) fn stood(&mut self, time: Duration, tasks: usize) {
        let wanted = time.as_nanos() / FOR_A_TASK.as_nanos();
        if time >= ALONE && tasks as u128 > wanted {
            self.misses = 0;
        } else {
            self.misses = (self.misses + 1).min(MOST_MISSES);
            (self.short, self.skip) = (0, 1 << self.misses);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// How often it is tried in so many times of running dry, each after a sleep of so long, if so much comes of it.
    fn tried(aside: &mut Aside, times: usize, sleep: (Duration, bool), outcome: (Duration, usize)) -> usize {
        let mut tried = 0;
        for _ in 0..times {
            if aside.is_due() {
                tried += 1;
                aside.stood(outcome.0, outcome.1);
            } else {
                aside.slept(sleep.0, sleep.1);
            }
        }
        tried
    }

    #[test]
    fn short_sleeps_in_a_row_lead_to_it_and_it_goes_on_while_many_tasks_come() {
        let mut aside = Aside::default();
        assert_eq!(tried(&mut aside, 104, (micros(3), true), (micros(500), 5_000)), 100);
    }

    #[test]
    fn it_is_not_tried_after_long_sleeps_or_those_that_no_call_has_ended() {
        for sleep in [(micros(50), true), (micros(3), false)] {
            let mut aside = Aside::default();
            assert_eq!(tried(&mut aside, 1_000, sleep, (micros(500), 5_000)), 0, "{sleep:?}");
        }
        let mut mixed = Aside::default();
        for _ in 0..1_000 {
            assert_eq!(tried(&mut mixed, 3, (micros(3), true), (micros(500), 5_000)), 0);
            mixed.slept(micros(50), true);
        }
    }

    #[test]
    fn what_is_in_vain_becomes_rare() {
        // Nobody else was there, nothing came, little came in a long time.
        for outcome in [(Duration::ZERO, 3), (micros(3_000), 0), (micros(3_000), 375)] {
            let mut aside = Aside::default();
            let tried = tried(&mut aside, 100_000, (micros(3), true), outcome);
            assert!((90..120).contains(&tried), "{tried} times if {outcome:?}");
        }
    }

    #[test]
    fn it_comes_back_when_it_is_worth_it_again() {
        let mut aside = Aside::default();
        tried(&mut aside, 100_000, (micros(3), true), (micros(3_000), 0));
        let tried = tried(&mut aside, 10_000, (micros(3), true), (micros(500), 5_000));
        assert!(tried > 8_900, "{tried} times");
    }
}
