//! Which cells make up which clock, and what it reads while polls are in progress.

use super::Sum;
use super::horizon::{Cells, View};
use crate::group::GroupId;
use crate::panics;
use crate::record::{self, NEVER, Record};
use crate::slot::{FrameView, Section, Target};
use crate::sync::Ordering;
use crate::thread::{self, ThreadSlot};
use crate::total::TotalId;
use crate::wake_queue::Kinds;

/// A clock that many threads add to. Who uses one sees to it that it lives, or that it does no harm if another has its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whole {
    /// A group's.
    Group(GroupId),
    /// That of all a meter's threads.
    Meter(TotalId),
}

impl Whole {
    /// What an account is a part of: its group and the groups around that.
    pub(crate) fn around(record: &Record) -> impl Iterator<Item = Whole> + use<> {
        record.group().chain().map(Whole::Group)
    }

    pub(crate) fn sum(self) -> &'static Sum {
        match self {
            Whole::Group(id) => id.sum(),
            Whole::Meter(id) => id.sum(),
        }
    }

    /// What the clock has of a slot.
    fn used_on(self, slot: &ThreadSlot) -> u64 {
        match self {
            Whole::Group(id) => slot.groups.used_ns(id),
            Whole::Meter(id) if id.has(slot) => {
                slot.charged_ns.load(Ordering::Relaxed) + slot.runtime_ns.load(Ordering::Relaxed)
            }
            Whole::Meter(_) => 0,
        }
    }

    /// The frame on a slot whose time is this clock's: the outermost one, as what is inside it is counted with it.
    fn counts(self, slot: &ThreadSlot, mut frames: impl Iterator<Item = FrameView>) -> Option<FrameView> {
        if let Whole::Meter(id) = self {
            return if id.has(slot) { frames.next() } else { None };
        }
        frames.find(|frame| {
            record::at(frame.target.index).is_some_and(|record| Whole::around(record).any(|whole| whole == self))
        })
    }

    /// What the clock reads, with the polls in progress as far as `cpu_ns` can read their threads' clocks. Never more than is true.
    pub(crate) fn read(self, cpu_ns: impl Fn(&'static ThreadSlot) -> Option<u64>) -> u64 {
        let owner = self.owner();
        let mut sum_ns = self.settled_ns();
        for slot in thread::all_slots() {
            // A few tries. Polls so short that one ends under our eyes each time hide little.
            let used_ns = (0..4).find_map(|_| self.read_slot(slot, &cpu_ns)).unwrap_or_else(|| self.used_on(slot));
            sum_ns = sum_ns.saturating_add(used_ns);
        }
        // Not for whoever has the number by now, if that is another one.
        let most_ns = if self.owner() == owner { self.sum().report(sum_ns) } else { sum_ns };
        self.beyond_base(most_ns)
    }

    /// Tells apart those who have the number one after the other.
    fn owner(self) -> u64 {
        match self {
            Whole::Group(id) => id.serial(),
            Whole::Meter(_) => 0,
        }
    }

    /// `None`: a boundary fell in between.
    fn read_slot(self, slot: &'static ThreadSlot, cpu_ns: impl Fn(&'static ThreadSlot) -> Option<u64>) -> Option<u64> {
        let (used_ns, frame, version) =
            slot.shown.read(|frames| (self.used_on(slot), self.counts(slot, frames.iter()), frames.version()))?;
        let progress_ns = match frame {
            None => 0,
            Some(frame) => cpu_ns(slot).map_or(0, |cpu_ns| cpu_ns.saturating_sub(frame.start.cpu_ns)),
        };
        slot.shown.is_still(version).then_some(used_ns + progress_ns)
    }

    /// What has been charged, and nothing else.
    pub(crate) fn used_ns(self) -> u64 {
        self.beyond_base(self.sum_of_cells())
    }

    fn sum_of_cells(self) -> u64 {
        self.settled_ns() + thread::all_slots().map(|slot| self.used_on(slot)).sum::<u64>()
    }

    /// What a sum comes to without what earlier owners of the cells used.
    fn beyond_base(self, sum_ns: u64) -> u64 {
        match self {
            Whole::Group(id) => sum_ns.saturating_sub(id.base_ns()),
            Whole::Meter(_) => sum_ns,
        }
    }

    /// What is in no slot any more. To be read before the slots are.
    fn settled_ns(self) -> u64 {
        match self {
            Whole::Group(id) => id.settled_ns(),
            Whole::Meter(id) => id.retired_ns(),
        }
    }

    /// [`read`](Self::read) for anybody but the tick.
    pub(crate) fn now_ns(self) -> u64 {
        self.read(|slot| slot.clock_source().remote_cpu_ns(slot))
    }

    /// For the owner of a slot, behind a charge: whether the clock has come to its next expiry.
    pub(crate) fn look(self, slot: &ThreadSlot) -> bool {
        match self {
            Whole::Group(id) => {
                let cell = slot.groups.cell(id);
                cell.watch.is_on() && self.sum().horizon.look(cell.used_ns(), &cell.watch, &self)
            }
            // The tick looks.
            Whole::Meter(_) => false,
        }
    }

    /// The tick's quick check of a slot whose poll has used at most so much since it began: whether the clock may have come to
    /// its next expiry.
    pub(crate) fn is_suspect(self, slot: &ThreadSlot, bound_ns: u64) -> bool {
        self.sum().horizon.next_ns() != NEVER
            && match self {
                Whole::Group(id) => slot
                    .groups
                    .view(id)
                    .is_none_or(|(used_ns, watch)| watch.is_reached(used_ns.saturating_add(bound_ns))),
                Whole::Meter(_) => true,
            }
    }

    /// Every thread's next boundary is to look.
    pub(crate) fn call_all(self) {
        self.each(|cell| cell.watch.call());
    }

    /// Brings it about that what is due is delivered: supervisors are woken here, and for handlers a member is, unless one is at it.
    /// For anybody but the tick and a member's boundary; holds no lock.
    pub(crate) fn kick_if_due(self) {
        self.kick_unless(|| false);
    }

    /// The same for what the tick has posted on every poll in progress.
    pub(crate) fn kick_if_nothing_runs(self) {
        let polls = |frame: FrameView| frame.section != Section::Offloaded;
        self.kick_unless(|| thread::all_slots().any(|slot| self.runs(slot).is_some_and(polls)));
    }

    fn kick_unless(self, is_posted: impl FnOnce() -> bool) {
        let sum = self.sum();
        if sum.horizon.next_ns() == NEVER {
            return;
        }
        let now_ns = self.now_ns();
        if now_ns >= sum.horizon.next_ns() && self.deliver_remote(now_ns) && !is_posted() {
            self.call_all();
            self.wake_member();
        }
    }

    /// What this slot runs of it.
    fn runs(self, slot: &ThreadSlot) -> Option<FrameView> {
        slot.shown.read(|frames| self.counts(slot, frames.iter())).flatten()
    }

    /// Wakes the supervisors whose time has come. Returns whether there is something for a handler, and nobody at it.
    pub(crate) fn deliver_remote(self, now_ns: u64) -> bool {
        let mut wakers = Vec::new();
        let more = self.sum().deliver_remote(now_ns, &mut wakers);
        for waker in wakers {
            panics::contain(|| waker.wake());
        }
        more
    }

    /// Posts on a member that the clock's expiries wait for a boundary: on one that runs, or else on one that waits.
    fn wake_member(self) {
        let post = |target: Target| {
            record::at(target.index).is_some_and(|record| record.post_and_wake_target(target, Kinds::EXPIRY))
        };
        if thread::all_slots().any(|slot| self.runs(slot).is_some_and(|frame| post(frame.target))) {
            return;
        }
        match self {
            // Seldom: something was armed for a time that is past, or a job of a task that has ended used the time up. So members
            // are looked for, and not kept in a list that every spawn would have to change.
            Whole::Group(id) => {
                let is_member = |record: &Record| record.group().chain().any(|around| around == id);
                // The generation first: a post is for whom was seen to be a member, and not for who has the record next, or for
                // nobody, as a record without an owner takes posts.
                let target = |record: &Record| {
                    let target = record.target();
                    crate::sync::fence(Ordering::Acquire);
                    is_member(record).then_some(target)
                };
                let _ = record::all().filter_map(target).any(post);
            }
            Whole::Meter(id) => {
                // Whatever ran there last is of that meter's, if it lives.
                let _ = id.slots().any(|slot| post(slot.shown.last_target()));
            }
        }
    }
}

impl Cells for Whole {
    fn each(&self, mut see: impl FnMut(View<'_>)) {
        for slot in thread::all_slots() {
            // Acquire: the charges of a thread that is idle by now are seen.
            let is_active = slot.inbox.active.load(Ordering::Acquire) != 0;
            match *self {
                Whole::Group(id) => {
                    if let Some((used_ns, watch)) = slot.groups.view(id) {
                        see(View { used_ns, watch, is_active });
                    }
                }
                // No poll looks, so nobody watches.
                Whole::Meter(_) => {}
            }
        }
    }

    fn reading(&self, sum_ns: u64) -> u64 {
        self.beyond_base((sum_ns + self.settled_ns()).max(self.sum().reported_ns()))
    }

    fn charged_ns(&self) -> u64 {
        self.beyond_base(self.sum_of_cells().max(self.sum().reported_ns()))
    }
}

/// Charges a slot's cells of a group and the groups around it, except those that `outer` accounts have charged or will. Returns
/// whether anybody has to look.
pub(crate) fn charge_groups<'a, I: Iterator<Item = &'a Record>>(
    slot: &ThreadSlot,
    group: GroupId,
    ns: u64,
    outer: impl Fn() -> I,
) -> bool {
    let mut on = false;
    for id in group.chain() {
        // What is around a group that is counted already is counted too.
        if outer().any(|record| record.group().chain().any(|around| around == id)) {
            break;
        }
        on |= slot.groups.cell(id).charge(ns);
    }
    on
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::group::Group;

    #[test]
    fn t48_a_number_s_next_clock_is_not_told_what_the_one_before_was_seen_to_read() {
        let manual = crate::test::Manual::new();
        let lease = manual.meter().attach();
        let account = crate::account::Account::new();
        let first = Group::new("first").unwrap();
        let id = first.id();
        account.set_group(&first);
        let mut run = lease.begin(&account, lease.stamp());
        manual.advance(Duration::from_secs(3600));
        run.end_now();
        account.set_group(&Group::new("elsewhere").unwrap());
        // What somebody has seen who now is slow to say so.
        let seen_ns = Whole::Group(id).sum_of_cells();
        assert!(seen_ns >= 3_600_000_000_000);
        drop(first);
        let mut heirs = Vec::new();
        let heir = loop {
            let heir = Group::new("heir").unwrap();
            if heir.id() == id {
                break heir;
            }
            heirs.push(heir);
        };
        id.sum().report(seen_ns);
        assert_eq!(heir.cpu_clock().now(), Duration::ZERO);
        assert_eq!(heir.cpu_time(), Duration::ZERO);
    }
}
