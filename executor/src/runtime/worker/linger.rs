//! Whether a worker that has run dry looks on for a moment before it sleeps.
//!
//! To sleep in the kernel and be woken costs some microseconds of CPU time, and to be woken takes ten or twenty in a virtual machine. If the
//! next event comes sooner than that, as from a partner on the same machine that answers at once, it is both cheaper and much quicker to
//! ask the reactor a few times more. If it does not come, that was in vain. Nobody knows beforehand, so it goes by what it was like before,
//! in CPU time of this thread, which both are measured in. (A task that another thread spawns or wakes ends it, but does not speak for it:
//! who waits awake for each of them makes their sender slower, by half and more, than who finds some hundreds when it wakes.)
//!
//! * Lingering goes on while it costs, on the average of late, no more than one and a half times what sleeping does. It costs the time
//!   until the event, or the whole [`limit`](Linger::limit) and a sleep on top.
//! * When it costs more the worker sleeps at once, the next 2, 4, ... and at last 1024 times, and then tries again. So one
//!   whose events come far apart spends a thousandth of its sleeps' cost on it, and one that has nothing to do nothing.

use std::time::Duration;

/// The longest that is looked on, whatever sleeping costs.
const LONGEST_NS: u64 = 10_000;
/// How often at most the worker sleeps until lingering is tried again, as a power of two.
const MOST_MISSES: u32 = 10;
/// Having paid so often in a row, it is tried again soon if it does not any more.
const PROVEN: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Linger {
    /// What a sleep costs: goes to the median, in steps of a thirty-second, as an interrupt may be in any. Zero: none was seen.
    sleep_ns: u64,
    /// What lingering has cost, on the average of the last eight or so of this run.
    cost_ns: u64,
    /// How often in a row that was worth it.
    run: u32,
    /// How often it was not, one after the other.
    misses: u32,
    /// So many sleeps to come are not put off.
    skip: u32,
}

impl Linger {
    /// For how long to look on now; zero is not at all.
    pub(super) fn limit(&mut self) -> Duration {
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        Duration::from_nanos(self.limit_ns())
    }

    fn limit_ns(&self) -> u64 {
        self.worth_ns().min(LONGEST_NS)
    }

    fn worth_ns(&self) -> u64 {
        self.sleep_ns + self.sleep_ns / 2
    }

    /// The worker has slept, and that took so much CPU time.
    pub(super) fn slept(&mut self, cpu_ns: u64) {
        // What takes longer is not the sleep: it has woken hundreds of tasks, or it is wall time, or was not seen to be a sleep. And if it
        // were, looking on for so long in vain would always be worth it.
        let cpu_ns = cpu_ns.min(LONGEST_NS);
        let step = (self.sleep_ns / 32).max(1);
        self.sleep_ns = match self.sleep_ns {
            0 => cpu_ns,
            known if cpu_ns > known => known + step,
            known => known - step,
        };
    }

    /// It has looked on for so long, and there was an event of the reactor's or not.
    pub(super) fn lingered(&mut self, cpu_ns: u64, was_event: bool) {
        // In vain it costs all of the limit, also if it was cut short.
        let cost_ns = if was_event { cpu_ns } else { self.limit_ns().max(cpu_ns) + self.sleep_ns };
        self.cost_ns = match self.run {
            0 => cost_ns,
            _ => self.cost_ns - self.cost_ns / 8 + cost_ns / 8,
        };
        if self.cost_ns <= self.worth_ns() {
            self.run = self.run.saturating_add(1);
            if self.run >= PROVEN {
                self.misses = 0;
            }
        } else {
            self.run = 0;
            self.misses = (self.misses + 1).min(MOST_MISSES);
            self.skip = 1 << self.misses;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker whose sleeps cost so much, and whose events come so long after it has run dry: what it spent on that, and how often it
    /// looked on.
    fn run(sleep_ns: u64, events_ns: impl Iterator<Item = u64>) -> (u64, u64) {
        let (mut linger, mut spent_ns, mut lingered) = (Linger::default(), 0, 0);
        for after_ns in events_ns {
            let limit_ns = linger.limit().as_nanos() as u64;
            if limit_ns > 0 {
                lingered += 1;
                spent_ns += after_ns.min(limit_ns);
                linger.lingered(after_ns.min(limit_ns), after_ns <= limit_ns);
                if after_ns <= limit_ns {
                    continue;
                }
            }
            spent_ns += sleep_ns;
            linger.slept(sleep_ns);
        }
        (spent_ns, lingered)
    }

    #[test]
    fn events_that_come_at_once_are_waited_for_awake() {
        let (spent_ns, lingered) = run(5_000, std::iter::repeat_n(3_000, 10_000));
        assert_eq!(
            (spent_ns, lingered),
            (5_000 + 9_999 * 3_000, 9_999),
            "all but the first, which nothing is known before"
        );
    }

    #[test]
    fn where_events_are_far_apart_hardly_any_sleep_is_put_off() {
        for sleep_ns in [1, 700, 5_000, 25_000, 1_000_000] {
            let (spent_ns, lingered) = run(sleep_ns, std::iter::repeat_n(50_000, 100_000));
            assert!(lingered < 120, "{lingered} times");
            assert!(spent_ns <= 100_000 * sleep_ns * 1002 / 1000, "{spent_ns} ns");
        }
    }

    #[test]
    fn it_begins_again_when_events_come_at_once_again_and_ends_when_they_do_not() {
        let phase = |ns| std::iter::repeat_n(ns, 5_000);
        let (_, lingered) = run(5_000, phase(50_000).chain(phase(3_000)).chain(phase(50_000)));
        assert!((3_900..5_200).contains(&lingered), "{lingered} times");
    }

    #[test]
    fn what_ends_it_and_is_no_event_of_the_reactors_does_not_keep_it_up() {
        let (mut linger, mut lingered) = (Linger::default(), 0);
        linger.slept(5_000);
        for _ in 0..10_000 {
            if !linger.limit().is_zero() {
                lingered += 1;
                linger.lingered(1_000, false);
            }
        }
        assert!(lingered < 30, "{lingered} times");
    }

    #[test]
    fn it_never_looks_on_for_longer_than_one_and_a_half_sleeps_nor_than_the_limit() {
        for sleep_ns in [1, 100, 3_000, 8_000, 1_000_000] {
            let mut linger = Linger::default();
            assert!(linger.limit().is_zero(), "it does not know yet what a sleep costs");
            for _ in 0..1_000 {
                linger.slept(sleep_ns);
                let limit_ns = linger.limit().as_nanos() as u64;
                // Its median is right to a step.
                let known_ns = sleep_ns + sleep_ns / 32 + 1;
                assert!(limit_ns <= (known_ns * 3 / 2).min(LONGEST_NS), "{limit_ns} of {sleep_ns}");
            }
        }
    }

    #[test]
    fn whatever_comes_it_costs_at_most_two_and_a_half_times_what_sleeping_does() {
        // Worst for it: an event comes just behind the limit, as often as it is waited for.
        for gain_ns in [1, 1_000, 7_000] {
            for period in 1..100 {
                let events = (0..10_000).map(|n| if n % period == 0 { 7_501 } else { gain_ns });
                let (spent_ns, _) = run(5_000, events);
                assert!(spent_ns <= 10_000 * 5_000 * 5 / 2, "{gain_ns} {period}: {spent_ns}");
            }
        }
    }
}
