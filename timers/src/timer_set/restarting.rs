//! Timers on a clock that starts anew again and again: that of a poll.
//!
//! What fires stays armed for the next start. It is noted, so that a start costs what has fired and not what is armed.

use super::{Delivery, TimerSet};
use crate::record::NEVER;

/// What a clock needs beside that starts anew.
pub(super) struct Restarting {
    /// What each timer was armed for, by id.
    armed_ns: Vec<u64>,
    /// The timers that have fired since the clock started, each once, and some perhaps that were armed anew or closed since.
    fired: Vec<u32>,
    /// Who stands in `fired`, by id.
    is_listed: Vec<bool>,
    /// The least that any of them, and any of a supervisor's, was armed for, or less.
    least_ns: (u64, u64),
    /// The clock has stopped, and what is armed now is for when it starts anew.
    pub(super) held_back: bool,
}

impl Default for Restarting {
    fn default() -> Self {
        Self {
            armed_ns: Vec::new(),
            fired: Vec::new(),
            is_listed: Vec::new(),
            least_ns: (NEVER, NEVER),
            held_back: false,
        }
    }
}

impl Restarting {
    pub(super) fn armed_ns(&self, id: u32) -> u64 {
        self.armed_ns.get(id as usize).copied().unwrap_or(NEVER)
    }

    pub(super) fn arm(&mut self, id: u32, at_ns: u64) {
        let id = id as usize;
        if self.armed_ns.len() <= id {
            self.armed_ns.resize(id + 1, NEVER);
            self.is_listed.resize(id + 1, false);
        }
        self.armed_ns[id] = at_ns;
    }

    /// Notes a timer, which has been armed, as one that has fired.
    pub(super) fn list(&mut self, id: u32, delivery: &Delivery) {
        let armed_ns = self.armed_ns(id);
        let (any_ns, remote_ns) = &mut self.least_ns;
        match delivery {
            // Nobody hears of it, so nobody need look for it.
            Delivery::Silent => {}
            Delivery::Handler(_) => *any_ns = armed_ns.min(*any_ns),
            Delivery::Supervisor { .. } | Delivery::Stream(_) => {
                *any_ns = armed_ns.min(*any_ns);
                *remote_ns = armed_ns.min(*remote_ns);
            }
        }
        if !std::mem::replace(&mut self.is_listed[id as usize], true) {
            self.fired.push(id);
        }
    }
}

impl TimerSet {
    /// For a clock that starts anew: see [`restart`](Self::restart).
    pub(crate) fn restarting() -> Self {
        Self { restarting: Some(Box::default()), ..Self::default() }
    }

    /// The clock has stopped, and will start anew: what is armed until then does not fire before.
    pub(crate) fn hold_back(&mut self) {
        if let Some(restarting) = &mut self.restarting {
            restarting.held_back = true;
        }
    }

    pub(super) fn held_back(&self) -> Option<&Restarting> {
        self.restarting.as_deref().filter(|restarting| restarting.held_back)
    }

    /// The clock starts anew: what has fired since it last did is armed again, for what it was armed for.
    pub(crate) fn restart(&mut self) {
        let Some(mut restarting) = self.restarting.take() else { return };
        restarting.held_back = false;
        restarting.least_ns = (NEVER, NEVER);
        let mut fired = std::mem::take(&mut restarting.fired);
        for id in fired.drain(..) {
            restarting.is_listed[id as usize] = false;
            let Some(timer) = self.timers.get_mut(id as usize) else { continue };
            // It may have been armed for something else meanwhile, or the id have come to another timer.
            if !std::mem::take(&mut timer.has_fired) {
                continue;
            }
            timer.at_ns = restarting.armed_ns(id);
            self.armed += 1;
            let key = (timer.at_ns, self.armed);
            if let Some(queue) = self.queue_of(id) {
                queue.push(id, key);
            }
        }
        // With its memory, for the next time.
        restarting.fired = fired;
        self.restarting = Some(restarting);
    }

    /// The earliest time that any timer, and any that a supervisor waits for, was armed for, fired or not. It may be too early, until the
    /// clock starts anew, where what has fired was armed for something else since.
    pub(crate) fn least_armed(&self) -> (u64, u64) {
        let (any_ns, remote_ns) = self.next_expiries();
        match &self.restarting {
            None => (any_ns, remote_ns),
            Some(restarting) => (any_ns.min(restarting.least_ns.0), remote_ns.min(restarting.least_ns.1)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Action, Due, MAX_TIMERS, Setting};
    use super::*;

    fn heard(timers: &mut TimerSet) -> u32 {
        timers.insert(Delivery::Supervisor { waker: None })
    }

    #[test]
    fn a_timer_that_is_armed_again_and_again_as_it_fires_is_noted_once() {
        let mut set = TimerSet::restarting();
        let id = heard(&mut set);
        for at_ns in 1..=1_000 {
            set.arm(id, at_ns, 0, at_ns);
            assert!(matches!(set.next_due(at_ns, at_ns), Due::Quiet));
        }
        // Nor for others that have its id after it.
        for _ in 0..1_000 {
            set.close(id);
            assert_eq!(heard(&mut set), id);
            set.arm(id, 1, 0, 1);
            assert!(matches!(set.next_due(1, 1), Due::Quiet));
        }
        assert_eq!(set.restarting.as_ref().unwrap().fired.len(), 1);
        set.restart();
        assert_eq!(set.next_expiries(), (1, 1));
        assert!(set.restarting.as_ref().unwrap().fired.is_empty());
    }

    #[test]
    fn t27_what_has_fired_counts_until_it_is_armed_again() {
        let mut set = TimerSet::restarting();
        let (near, far) = (heard(&mut set), set.insert(Delivery::Handler(Some(Box::new(|_| Action::Continue)))));
        set.arm(near, 10, 0, 0);
        set.arm(far, 20, 0, 0);
        assert_eq!(set.least_armed(), (10, 10));
        assert!(matches!(set.next_due(15, 15), Due::Quiet));
        assert_eq!(
            (set.next_expiries(), set.least_armed()),
            ((20, NEVER), (10, 10)),
            "the next start is not passed over"
        );
        set.arm(near, 30, 0, 15);
        let (any_ns, remote_ns) = set.least_armed();
        assert!(any_ns <= 20 && remote_ns <= 30, "it may be too early until the next start");
        set.restart();
        assert_eq!(set.least_armed(), (20, 30));
        set.hold_back();
        set.arm(near, 5, 0, 0);
        assert_eq!((set.next_expiries(), set.least_armed()), ((20, NEVER), (5, 5)));
        set.restart();
        assert_eq!((set.next_expiries(), set.least_armed()), ((5, 5), (5, 5)));
    }

    #[test]
    fn the_earliest_of_many_that_have_fired_is_at_hand() {
        let mut set = TimerSet::restarting();
        for at_ns in 1..=MAX_TIMERS as u64 {
            let id = heard(&mut set);
            set.arm(id, at_ns, 0, 0);
            assert!(matches!(set.next_due(at_ns, at_ns), Due::Quiet));
        }
        // It is not looked for among them all, at each change of any timer: also where they cannot be seen it is known.
        let fired = std::mem::take(&mut set.restarting.as_mut().unwrap().fired);
        assert_eq!((fired.len(), set.least_armed()), (MAX_TIMERS, (1, 1)));
    }

    #[test]
    fn t37_a_new_timer_is_disarmed_whoever_had_its_number() {
        let mut set = TimerSet::restarting();
        let id = heard(&mut set);
        set.arm(id, 10, 0, 0);
        set.hold_back();
        set.close(id);
        assert_eq!(heard(&mut set), id);
        assert_eq!(set.setting(id, 0), Setting::default());
    }
}
