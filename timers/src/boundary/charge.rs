//! Where time is put down: on the account, and on what it is a part of.
//!
//! # Invariant
//! What is charged changes together with what the slot shows of it: whoever reads both at one moment counts nothing twice.

use super::Run;
use crate::clock::Stamp;
use crate::record::Record;
use crate::scope::members;
use crate::slot::{FRAMES, FrameView, Section};
use crate::sum::{Whole, charge_groups};
use crate::sync::Ordering;

impl Run<'_> {
    /// Takes the run from what the slot shows, together with what `charge` puts down.
    #[inline(always)]
    pub(super) fn leave(&mut self, now: Stamp, charge: impl FnOnce(&Self) -> bool) -> bool {
        self.goes_on();
        let watched = self.slot.shown.pop(self.depth, || charge(self));
        self.shown = false;
        self.at = now;
        watched
    }

    #[inline]
    pub(super) fn restart(&mut self, section: Section, now: Stamp, ns: u64) -> bool {
        self.goes_on();
        self.seq = self.record.next_seq();
        let view = FrameView { target: self.record.target(), seq: self.seq, section, start: now };
        let watched = if self.shown {
            self.slot.shown.restart(self.depth, view, || self.charge(ns))
        } else {
            // The fast path of `after_poll` has left; what follows is billed from there on.
            let mut watched = false;
            self.slot.shown.push(view, || watched = self.charge(ns));
            self.shown = true;
            watched
        };
        self.at = now;
        watched
    }

    /// As [`charge`](Self::charge), of a poll that is over.
    #[inline(always)]
    pub(super) fn charge_poll(&self, ns: u64) -> bool {
        let watched = self.charge(ns);
        self.count_poll(ns);
        watched
    }

    /// Adds to the account and to what it is a part of. Returns whether a clock that others add to as well has to be
    /// [looked](Self::look) at.
    #[inline(always)]
    pub(super) fn charge(&self, ns: u64) -> bool {
        Record::add_own(&self.record.own.used_ns, ns);
        if self.depth > 0 {
            return self.charge_nested(ns);
        }
        let charged = &self.slot.charged_ns;
        charged.store(charged.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
        match self.record.own.charges.load(Ordering::Relaxed) {
            0 => false,
            group => match self.slot.groups.at(group) {
                Some(cell) => cell.charge(ns),
                None => self.charge_more(ns),
            },
        }
    }

    #[cold]
    fn charge_more(&self, ns: u64) -> bool {
        let watched = charge_groups(self.slot, self.record.group(), ns, std::iter::empty);
        members::charge(self.record, ns, std::iter::empty) | watched
    }

    /// The time of a nested account is in the accounts around it too, and in its group, as far as none of theirs has it.
    #[cold]
    fn charge_nested(&self, ns: u64) -> bool {
        if self.depth as usize > FRAMES {
            // What is around, from the last one that is shown on, is not known. It pays for this time too, and its group and its scope
            // may be the same, as mostly they are: so nothing more is charged, lest it be charged twice.
            return false;
        }
        let outer = || crate::current::frames(self.slot).take(self.depth as usize).map(|(record, _)| record);
        if let Some(outer) = outer().last() {
            Record::add_own(&outer.own.nested_ns, ns);
        }
        let watched = charge_groups(self.slot, self.record.group(), ns, outer);
        members::charge(self.record, ns, outer) | watched
    }

    /// Behind a charge of a member that found a watch on: whether something is due on a clock that it adds to.
    #[cold]
    pub(super) fn look(&self) -> bool {
        members::settle(self.record, false);
        let due = Whole::around(self.record).fold(false, |due, whole| whole.look(self.slot) | due);
        due || members::over(self.record).is_some()
    }
}
