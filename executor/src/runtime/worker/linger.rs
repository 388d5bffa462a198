//! Whether a worker that has run dry looks on for a moment before it sleeps.
//!
//! To sleep in the kernel and be woken costs some microseconds of CPU time, and to be woken takes ten or twenty in a virtual machine. If the
//! next event comes sooner than that, as from a partner on the same machine that answers at once, it is both cheaper and much quicker to
//! ask the reactor a few times more. If it does not come, that was in vain. Nobody knows beforehand, so it goes by what it was like before:
//! by how much CPU time a sleep takes, and how long events were waited for awake. (A task that another thread spawns or wakes ends it, but
//! does not speak for it: who waits awake for each of them makes their sender slower, by half and more, than who finds some hundreds when it
//! wakes.)
//!
//! * For how long it is worth goes by how long the events of late took to come, where that was seen: a limit is chosen that makes what
//!   looking on and sleeping cost together least, where a sleep counts [`SLEEP_COUNTS`] times: CPU time is given for latency. The limit
//!   is one and a half sleeps at the most, so whatever comes, to look on and sleep takes the CPU time of two and a half and one look.
//! * Now and then the longest limit is tried, which shows what a shorter one does not.
//! * When none is worth it the worker sleeps at once, the next 2, 4, ... and at last 1024 times, and then tries again. So one
//!   whose events come far apart spends a thousandth of its sleeps' cost on it, and one that has nothing to do nothing.

use std::time::Duration;

/// The longest that is looked on, whatever sleeping costs.
const LONGEST_NS: u64 = STEPS as u64 * STEP_NS;
/// The limit goes by steps of about what one look takes.
const STEP_NS: u64 = 1_000;
const STEPS: usize = 10;
/// How many times its CPU time a sleep counts. The processor that goes idle and comes back, which is on nobody's bill, and the interrupt that
/// its waker sends cost twice as much again in a virtual machine, and what it waits for comes so much later.
const SLEEP_COUNTS: f64 = 3.0;
/// How often a step is remembered to have begun.
const MEMORY: u16 = 32;
/// One linger of so many has the longest limit.
const PROBE_EVERY: u32 = 16;
/// How often at most the worker sleeps until lingering is tried again, as a power of two.
const MOST_MISSES: u32 = 10;
/// Having been worth it so often in a row, it is tried again soon if it is not any more.
const PROVEN: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Linger {
    /// What a sleep costs: goes to the median, in steps of a thirty-second, as an interrupt may be in any. Zero: none was seen.
    sleep_ns: u64,
    /// What was seen in this run.
    seen: [Step; STEPS],
    /// How many steps are worth looking on for; none in a run's first linger, which is a probe.
    worth: usize,
    /// How often in a row it was worth it.
    run: u32,
    /// How often it was not, one after the other.
    misses: u32,
    /// So many sleeps to come are not put off.
    skip: u32,
}

/// One of the steps of which limits are made.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// How often the worker was still looking on when it began, of late.
    begun: u16,
    /// How often the event came in it.
    ended: u16,
}

impl Step {
    fn count(&mut self, ended: bool) {
        if self.begun == MEMORY {
            self.begun /= 2;
            self.ended /= 2;
        }
        self.begun += 1;
        self.ended += u16::from(ended);
    }

    /// That the event comes in it if it has not come before.
    fn chance(self) -> f64 {
        if self.begun == 0 { 0.0 } else { f64::from(self.ended) / f64::from(self.begun) }
    }
}

impl Linger {
    /// For how long to look on now; zero is not at all.
    pub(super) fn limit(&mut self) -> Duration {
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        Duration::from_nanos(self.steps() as u64 * STEP_NS)
    }

    /// How many steps to look on for.
    fn steps(&self) -> usize {
        if self.run.is_multiple_of(PROBE_EVERY) { self.most() } else { self.worth.min(self.most()) }
    }

    /// The longest limit, as steps: one and a half sleeps.
    fn most(&self) -> usize {
        let most_ns = (self.sleep_ns + self.sleep_ns / 2).min(LONGEST_NS);
        (most_ns / STEP_NS) as usize
    }

    /// The worker has slept, and that took so much CPU time.
    pub(super) fn slept(&mut self, cpu_ns: u64) {
        // What takes longer is not the sleep: it has woken hundreds of tasks, or it is wall time, or was not seen to be a sleep.
        let cpu_ns = cpu_ns.min(LONGEST_NS);
        let step = (self.sleep_ns / 32).max(1);
        self.sleep_ns = match self.sleep_ns {
            0 => cpu_ns,
            known if cpu_ns > known => known + step,
            known => known - step,
        };
    }

    /// It has looked on, and the reactor's first event came after so long, or none did.
    pub(super) fn lingered(&mut self, event: Option<Duration>) {
        // Of none all was in vain, also if it was cut short. An event that the last look found may have come behind the limit.
        let steps = self.steps();
        let ended_in = event.map(|after| {
            let step = after.as_nanos().saturating_sub(1) / u128::from(STEP_NS);
            (step as usize).min(steps.saturating_sub(1))
        });
        let looked = ended_in.map_or(steps, |step| step + 1);
        for (index, step) in self.seen[..looked].iter_mut().enumerate() {
            step.count(ended_in == Some(index));
        }
        self.worth = self.worth();
        if self.worth > 0 {
            self.run = self.run.wrapping_add(1);
            if self.run >= PROVEN {
                self.misses = 0;
            }
        } else {
            let misses = (self.misses + 1).min(MOST_MISSES);
            *self = Self { sleep_ns: self.sleep_ns, misses, skip: 1 << misses, ..Self::default() };
        }
    }

    /// The number of steps with which looking on and sleeping cost least, by what was seen; the greatest if there are several.
    fn worth(&self) -> usize {
        let sleep_ns = SLEEP_COUNTS * self.sleep_ns as f64;
        let (mut best, mut least_ns) = (0, sleep_ns);
        let (mut waits, mut looked_ns) = (1.0, 0.0);
        // What was seen of more than may be looked on for now would never be seen again.
        for (before, step) in self.seen[..self.most()].iter().enumerate() {
            // An event that comes in it comes in the middle of it.
            looked_ns += waits * (1.0 - step.chance() / 2.0) * STEP_NS as f64;
            waits *= 1.0 - step.chance();
            let cost_ns = looked_ns + waits * sleep_ns;
            if cost_ns <= least_ns {
                (best, least_ns) = (before + 1, cost_ns);
            }
        }
        best
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
                linger.lingered((after_ns <= limit_ns).then_some(Duration::from_nanos(after_ns)));
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
    fn where_some_events_come_at_once_it_looks_on_for_as_long_as_those_take() {
        let some = |quick_ns| move |n| if n % 5 < 3 { quick_ns } else { 50_000 };
        for quick_ns in [700, 1_500, 2_900] {
            let (spent_ns, lingered) = run(5_000, (0..10_000).map(some(quick_ns)));
            assert!(lingered > 9_900, "{lingered} times");
            let limit_ns = quick_ns.next_multiple_of(STEP_NS);
            let best_ns = 6_000 * quick_ns + 4_000 * (limit_ns + 5_000);
            assert!(spent_ns <= best_ns + best_ns / 10, "{spent_ns} ns, {best_ns} at the best");
        }
        // Also when those come to take longer, which only the longest limit shows.
        let (_, quick) = run(5_000, (0..10_000).map(some(700)));
        let (_, both) = run(5_000, (0..10_000).map(some(700)).chain((0..10_000).map(some(2_900))));
        assert!(both - quick > 9_000, "{} times", both - quick);
    }

    #[test]
    fn an_event_just_behind_any_limit_ends_it() {
        let mut linger = Linger::default();
        linger.slept(5_000);
        for _ in 0..1_000 {
            linger.lingered(Some(Duration::from_nanos(700)));
        }
        let vain = in_vain(&mut linger);
        assert!(vain < 100, "{vain} times");
    }

    #[test]
    fn one_that_was_seen_late_does_not_keep_it_up() {
        for late_ns in 700..=20_000 {
            for cheaper_ns in [5_000, 3_000, 1_000] {
                let mut linger = Linger::default();
                linger.slept(5_000);
                linger.lingered(Some(Duration::from_nanos(700)));
                linger.lingered(Some(Duration::from_nanos(late_ns)));
                while linger.sleep_ns > cheaper_ns {
                    linger.slept(cheaper_ns);
                }
                let vain = in_vain(&mut linger);
                assert!(vain < 100, "{vain} times behind {late_ns} ns, at {cheaper_ns}");
            }
        }
    }

    /// How often it looks on before a thousand sleeps, in vain.
    fn in_vain(linger: &mut Linger) -> usize {
        let looks_on = |linger: &mut Linger| {
            let looks_on = !linger.limit().is_zero();
            if looks_on {
                linger.lingered(None);
            }
            looks_on
        };
        (0..1_000).filter(|_| looks_on(linger)).count()
    }

    #[test]
    fn what_ends_it_and_is_no_event_of_the_reactors_does_not_keep_it_up() {
        let (mut linger, mut lingered) = (Linger::default(), 0);
        linger.slept(5_000);
        for _ in 0..10_000 {
            if !linger.limit().is_zero() {
                lingered += 1;
                linger.lingered(None);
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
