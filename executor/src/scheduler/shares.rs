//! How much each group has had of a runtime's workers, as virtual time: CPU time divided by weight.
//!
//! Who has had least virtual time among those that want to run is the next to run, so shares come out in proportion to the weights
//! (start-time fair queueing). Groups form a tree; at each level of it the *contenders* are a group's children and, like one
//! child more of the default weight, its own tasks. What has no group is the root's own.
//!
//! Virtual time is one number a contender and runtime, which all workers add to, once a turn and not once a poll: see
//! [`lanes`](super::lanes), where the order is kept by each worker for itself.
//!
//! # Who was away
//! A group that had nothing to run must not come back with the virtual time of long ago and keep everybody else waiting until it has
//! made up for it. So each level has a *floor*, the virtual time of whoever was served last, and who comes back is put at most
//! [`AWAY`] behind it.
//!
//! Who has something on one worker and now also on another was not away, and is owed what it is behind (its worker may not have
//! been run by the system for a while), but no more than [`OWED`]: a group with a single runnable task can use one processor at
//! most, however great its weight. It is then always behind and always goes first on one worker, and should it have
//! more tasks some day, it is not owed what it could never have used.
//!
//! # Invariants
//! * Virtual times are compared by their difference, so that they may wrap. Contenders of one level that want to run lie within
//!   [`AHEAD`] of each other: [`Shares::enter`] sees to it.
//! * A number that another group has now begins at its level's floor: [`Shares::admit`].

use std::cmp::Ordering as Order;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use stipend_timers::{DEFAULT_WEIGHT, GroupId, GroupKey};

use super::table::Table;
use crate::sync::lock;

/// What a nanosecond at weight 1 is in virtual time: at the greatest weight, 10,000, it is 0.64, which rounding down to whole
/// numbers spoils by less than a unit a turn.
const UNITS: u64 = 6400;
/// Of a millisecond at the default weight.
const MILLISECOND: u64 = 1_000_000 * UNITS / DEFAULT_WEIGHT as u64;
/// How far behind the floor one may be that was away.
const AWAY: u64 = MILLISECOND;
/// How far behind one may be that comes to one more worker.
const OWED: u64 = 100 * MILLISECOND;
/// No turn counts for more than this: three hours at weight 1. Who is further ahead of the floor is taken for one that
/// was away for so long that time wrapped.
const AHEAD: u64 = 1 << 56;

/// A point of virtual time. The order is that of differences, and holds among points within 2^63 of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct VirtualTime(u64);

impl VirtualTime {
    /// How far this is ahead of another; negative if it is behind.
    fn ahead_of(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// By how many milliseconds of the default weight it is behind another, if it is.
    pub(crate) fn is_behind(self, other: Self, milliseconds: u64) -> bool {
        other.ahead_of(self) > (milliseconds * MILLISECOND) as i64
    }
}

impl Ord for VirtualTime {
    fn cmp(&self, other: &Self) -> Order {
        self.ahead_of(*other).cmp(&0)
    }
}

impl PartialOrd for VirtualTime {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

/// One group's numbers.
#[derive(Default)]
struct Share {
    /// Its virtual time among its siblings.
    used: AtomicU64,
    /// Its own tasks' among its children.
    own: AtomicU64,
    /// Where its children and own tasks are.
    floor: AtomicU64,
    /// On how many workers it has something to run, and its own tasks have.
    active: AtomicUsize,
    own_active: AtomicUsize,
    /// Of the group that these are the numbers of.
    serial: AtomicU64,
}

/// The numbers of all groups in one runtime.
pub(crate) struct Shares {
    table: Table<Share>,
    root: Share,
    /// Whether any task was ever spawned in a group.
    grouped: AtomicBool,
    /// The serial of the group that was admitted last.
    latest: AtomicU64,
    admitting: Mutex<()>,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            root: Share::default(),
            grouped: AtomicBool::new(false),
            latest: AtomicU64::new(0),
            admitting: Mutex::new(()),
        }
    }

    /// Whether there was ever a task with a group. While there was none, nothing needs to be counted.
    #[inline]
    pub(crate) fn are_used(&self) -> bool {
        // Relaxed: who sees it late orders a task or two as if they had no group.
        self.grouped.load(Ordering::Relaxed)
    }

    fn share(&self, id: GroupId) -> &Share {
        if id == GroupId::NONE { &self.root } else { self.table.get_or_make(id, Share::default) }
    }

    /// To be called before a task of a living group is scheduled.
    #[inline]
    pub(crate) fn admit(&self, group: GroupKey) {
        if self.latest.load(Ordering::Acquire) != group.serial() {
            self.admit_again(group);
        }
    }

    /// The same for a group that is not the one that was admitted last.
    #[inline(never)]
    fn admit_again(&self, group: GroupKey) {
        // What is above a living group is what it was when the group was admitted, and was admitted before it.
        if self.share(group.id()).serial.load(Ordering::Acquire) != group.serial() {
            self.begin(group);
        }
    }

    #[cold]
    fn begin(&self, group: GroupKey) {
        let _admitting = lock(&self.admitting);
        // From the top, as a child begins at its parent's floor, which is the root's or older than the child.
        let mut path = [GroupId::NONE; PATH];
        for &id in path_to(group.id(), &mut path) {
            let share = self.share(id);
            if id != GroupId::NONE && share.serial.load(Ordering::Relaxed) != id.serial() {
                let floor = self.share(id.parent()).floor.load(Ordering::Relaxed);
                share.used.store(floor, Ordering::Relaxed);
                share.own.store(0, Ordering::Relaxed);
                share.floor.store(0, Ordering::Relaxed);
                share.serial.store(id.serial(), Ordering::Release);
            }
        }
        self.grouped.store(true, Ordering::Relaxed);
        self.latest.store(group.serial(), Ordering::Release);
    }

    /// Where a contender of `level` is: a child, or by the level's own number its own tasks.
    fn time(&self, level: GroupId, contender: GroupId) -> &AtomicU64 {
        if contender == level { &self.share(level).own } else { &self.share(contender).used }
    }

    pub(crate) fn at(&self, level: GroupId, contender: GroupId) -> VirtualTime {
        VirtualTime(self.time(level, contender).load(Ordering::Relaxed))
    }

    fn active(&self, level: GroupId, contender: GroupId) -> &AtomicUsize {
        if contender == level { &self.share(level).own_active } else { &self.share(contender).active }
    }

    /// A contender has something to run on one worker more. Each of these calls is followed by one of [`leave`](Self::leave).
    pub(crate) fn enter(&self, level: GroupId, contender: GroupId) {
        let was_away = self.active(level, contender).fetch_add(1, Ordering::Relaxed) == 0;
        let behind = if was_away { AWAY } else { OWED };
        let time = self.time(level, contender);
        let floor = VirtualTime(self.share(level).floor.load(Ordering::Relaxed));
        let mut now = VirtualTime(time.load(Ordering::Relaxed));
        loop {
            let ahead = now.ahead_of(floor);
            let to = if ahead < -(behind as i64) {
                VirtualTime(floor.0.wrapping_sub(behind))
            } else if ahead > AHEAD as i64 {
                floor
            } else {
                return;
            };
            match time.compare_exchange_weak(now.0, to.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => now = VirtualTime(seen),
            }
        }
    }

    /// A contender has nothing more to run on a worker.
    pub(crate) fn leave(&self, level: GroupId, contender: GroupId) {
        self.active(level, contender).fetch_sub(1, Ordering::Relaxed);
    }

    /// A contender is served: those that come later begin here.
    pub(crate) fn serve(&self, level: GroupId, contender: GroupId) {
        let at = self.at(level, contender);
        let floor = &self.share(level).floor;
        // Two workers may overwrite each other: then it is a little behind until the next turn.
        if VirtualTime(floor.load(Ordering::Relaxed)) < at {
            floor.store(at.0, Ordering::Relaxed);
        }
    }

    /// Adds what the tasks of a group itself have used to it and all above it.
    pub(crate) fn charge(&self, group: GroupId, ns: u64) {
        if ns == 0 {
            return;
        }
        let at_weight = |weight: u32| (ns.saturating_mul(UNITS) / u64::from(weight.max(1))).min(AHEAD);
        self.share(group).own.fetch_add(at_weight(DEFAULT_WEIGHT), Ordering::Relaxed);
        let mut id = group;
        while id != GroupId::NONE {
            self.share(id).used.fetch_add(at_weight(id.weight()), Ordering::Relaxed);
            id = id.parent();
        }
    }

    /// Which of two groups' own tasks should go first, and by how much, at the level where their ways part.
    pub(crate) fn compare(&self, a: GroupId, b: GroupId) -> Compared {
        let (mut a_path, mut b_path) = ([GroupId::NONE; PATH], [GroupId::NONE; PATH]);
        let (a_path, b_path) = (path_to(a, &mut a_path), path_to(b, &mut b_path));
        let common = a_path.iter().zip(b_path).take_while(|(a, b)| a == b).count();
        // Both begin at the root.
        let level = a_path[common - 1];
        match (a_path.get(common), b_path.get(common)) {
            (None, None) => Compared::Same,
            (a, b) => {
                let time = |contender: Option<&GroupId>| self.at(level, *contender.unwrap_or(&level));
                Compared::Apart(time(a), time(b))
            }
        }
    }
}

/// What [`Shares::compare`] found.
pub(crate) enum Compared {
    Same,
    Apart(VirtualTime, VirtualTime),
}

/// The root, and as many groups as may be nested.
pub(super) const PATH: usize = GroupId::MAX_DEPTH as usize + 1;

/// The groups from the root down to this one. What is nested more deeply than can be (a number read as it changes hands) is cut off.
fn path_to(group: GroupId, path: &mut [GroupId; PATH]) -> &[GroupId] {
    let mut length = 1;
    path[0] = group;
    let mut id = group;
    while id != GroupId::NONE && length < PATH {
        id = id.parent();
        path[length] = id;
        length += 1;
    }
    path[length - 1] = GroupId::NONE;
    path[..length].reverse();
    &path[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use stipend_timers::Group;

    fn group(weight: u32) -> Group {
        Group::builder("g").weight(weight).build().unwrap()
    }

    #[test]
    fn g15_virtual_time_is_cpu_time_by_weight_also_in_the_smallest_turns() {
        let (light, heavy) = (group(1), group(10_000));
        let shares = Shares::new();
        for group in [&light, &heavy] {
            shares.admit(group.id().key());
        }
        for _ in 0..1000 {
            shares.charge(light.id(), 1);
            shares.charge(heavy.id(), 10_000);
        }
        let (light, heavy) = (shares.at(GroupId::NONE, light.id()), shares.at(GroupId::NONE, heavy.id()));
        assert_eq!(light, heavy);
    }

    #[test]
    fn who_was_away_comes_back_close_to_the_floor_and_no_further_ahead_than_it_was() {
        let (away, busy) = (group(100), group(100));
        let shares = Shares::new();
        for group in [&away, &busy] {
            shares.admit(group.id().key());
        }
        shares.charge(busy.id(), 1_000_000_000);
        shares.serve(GroupId::NONE, busy.id());
        let floor = shares.at(GroupId::NONE, busy.id());
        shares.enter(GroupId::NONE, away.id());
        let back = shares.at(GroupId::NONE, away.id());
        assert!(back < floor && !back.is_behind(floor, 1));
        shares.leave(GroupId::NONE, away.id());

        shares.charge(away.id(), 1_000_000_000);
        let ahead = shares.at(GroupId::NONE, away.id());
        shares.enter(GroupId::NONE, away.id());
        assert_eq!(shares.at(GroupId::NONE, away.id()), ahead, "what it has had more than others is not forgiven");
    }

    #[test]
    fn who_was_there_is_owed_a_little_of_what_it_is_behind() {
        let (slow, busy) = (group(100), group(100));
        let shares = Shares::new();
        for group in [&slow, &busy] {
            shares.admit(group.id().key());
        }
        shares.enter(GroupId::NONE, slow.id());
        shares.charge(busy.id(), 50_000_000);
        shares.serve(GroupId::NONE, busy.id());
        shares.enter(GroupId::NONE, slow.id());
        assert_eq!(shares.at(GroupId::NONE, slow.id()), VirtualTime::default());

        shares.charge(busy.id(), 1_000_000_000);
        shares.serve(GroupId::NONE, busy.id());
        shares.enter(GroupId::NONE, slow.id());
        let (slow, floor) = (shares.at(GroupId::NONE, slow.id()), shares.at(GroupId::NONE, busy.id()));
        assert!(slow.is_behind(floor, 99) && !slow.is_behind(floor, 100));
    }

    #[test]
    fn the_order_survives_the_wrapping_of_virtual_time() {
        let (a, b) = (group(1), group(1));
        let shares = Shares::new();
        for group in [&a, &b] {
            shares.admit(group.id().key());
        }
        // Turn after turn, past 2^64.
        for _ in 0..6000 {
            for group in [&a, &b] {
                shares.charge(group.id(), 1 << 40);
                shares.serve(GroupId::NONE, group.id());
                shares.enter(GroupId::NONE, group.id());
                shares.leave(GroupId::NONE, group.id());
            }
            assert_eq!(shares.at(GroupId::NONE, a.id()), shares.at(GroupId::NONE, b.id()));
        }
        shares.charge(a.id(), 1);
        assert!(shares.at(GroupId::NONE, b.id()) < shares.at(GroupId::NONE, a.id()));
    }

    #[test]
    fn the_longest_turn_does_not_bring_its_group_out_of_order() {
        let light = group(1);
        let shares = Shares::new();
        shares.admit(light.id().key());
        let at = || shares.at(GroupId::NONE, light.id());
        for ns in [4 * 3600 * 1_000_000_000, u64::MAX] {
            let before = at();
            shares.charge(light.id(), ns);
            assert_eq!(at().ahead_of(before), AHEAD as i64);
            // And none of it is forgiven.
            shares.enter(GroupId::NONE, light.id());
            assert_eq!(at().ahead_of(before), AHEAD as i64);
            shares.leave(GroupId::NONE, light.id());
            shares.serve(GroupId::NONE, light.id());
        }
    }

    #[test]
    fn a_number_that_is_used_again_begins_anew() {
        let shares = Shares::new();
        let heir = (0..1_000).find_map(|_| {
            let first = group(100);
            let id = first.id();
            shares.admit(id.key());
            shares.charge(id, 1_000_000_000);
            drop(first);
            // Numbers are handed out last in, first out, but another test may be faster.
            Some(group(100)).filter(|heir| heir.id() == id)
        });
        let heir = heir.expect("a group that has the number of the one before");
        shares.admit(heir.id().key());
        assert_eq!(shares.at(GroupId::NONE, heir.id()), VirtualTime::default());
    }

    #[test]
    fn g17_groups_are_compared_where_their_ways_part() {
        let shares = Shares::new();
        let (left, right) = (group(100), group(100));
        let child = Group::builder("child").parent(&left).build().unwrap();
        for group in [&child, &right] {
            shares.admit(group.id().key());
        }
        shares.charge(child.id(), 1_000);
        match shares.compare(child.id(), right.id()) {
            Compared::Apart(child, right) => assert!(right < child),
            Compared::Same => panic!("they are not the same"),
        }
        // Against its parent's own tasks it stands as a child.
        match shares.compare(child.id(), left.id()) {
            Compared::Apart(child, own) => assert!(own < child),
            Compared::Same => panic!("they are not the same"),
        }
        assert!(matches!(shares.compare(child.id(), child.id()), Compared::Same));
    }
}
