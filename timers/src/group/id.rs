//! What a scheduler must know of a group without a handle to it: a small number, and by it weight and parent.
//!
//! A run queue holds tasks, and a task must not cost a counted handle to its group. So each living group has a number below
//! [`GroupId::LIMIT`] by which schedulers index tables of their own, and what they look up by it lies in a table that is never freed.
//!
//! # Invariants
//! * A number belongs to one group at a time; it is used again after that group has ended, and then its [`serial`](GroupId::serial)
//!   has moved on.
//! * A group lives while its count is not zero: one for each handle, member and child. The count can be tried at any time, by
//!   whoever has the number from somewhere, and then says whether a group has it.
//! * A group's parent lives as long as the group, so while a group lives its chain of parents is true and ends.
//! * Reading by a number that nobody has is harmless: it gives what the last owner left. Whoever does more (has timers delivered, says
//!   what the clock was seen to read) has a reference. The tick has none, as it must not be the one to end a group; it says what it saw if
//!   the number has not changed hands by then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};

use super::{Node, lock};
use crate::sum::Sum;
use crate::thread;

pub(super) const CHUNK: usize = 256;
pub(super) const CHUNKS: usize = 256;

/// The number of a group, or of no group; from [`Group::id`](super::Group::id).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct GroupId(u16);

impl GroupId {
    /// What has no group: as if it were in one of the default weight that has no parent.
    pub const NONE: Self = Self(0);
    /// Numbers are below this.
    pub const LIMIT: usize = CHUNK * CHUNKS;
    /// How deep groups may be nested: no [`depth`](Self::depth) is greater.
    pub const MAX_DEPTH: u32 = 16;

    pub(crate) fn from_index(index: u32) -> Self {
        debug_assert!((index as usize) < Self::LIMIT);
        Self(index as u16)
    }

    /// The number itself, for tables.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// From a number that was an [`index`](Self::index); what is not below [`LIMIT`](Self::LIMIT) is [`NONE`](Self::NONE).
    #[inline]
    pub fn from_number(index: usize) -> Self {
        Self(u16::try_from(index).unwrap_or(0))
    }

    /// The group's weight now.
    pub fn weight(self) -> u32 {
        self.params().map_or(super::DEFAULT_WEIGHT, |params| params.weight.load(Ordering::Relaxed))
    }

    /// The group's parent, or [`NONE`](Self::NONE).
    pub fn parent(self) -> Self {
        self.params().map_or(Self::NONE, |params| Self::from_index(params.parent.load(Ordering::Relaxed)))
    }

    /// How deep the group is nested: 0 for [`NONE`](Self::NONE), 1 for a group without a parent.
    pub fn depth(self) -> u32 {
        self.params().map_or(0, |params| params.depth.load(Ordering::Relaxed))
    }

    /// Tells apart the groups that have this number one after the other.
    pub fn serial(self) -> u64 {
        self.params().map_or(0, |params| params.serial.load(Ordering::Acquire))
    }

    /// The key of the group that has the number now.
    #[must_use]
    pub fn key(self) -> GroupKey {
        GroupKey { id: self, serial: self.serial() }
    }

    /// The group itself and the groups around it, outwards. None for [`NONE`](Self::NONE).
    pub(crate) fn chain(self) -> impl Iterator<Item = GroupId> + Clone + use<> {
        // Numbers that come to other groups under our eyes might lead in a circle.
        std::iter::successors(Some(self), |id| Some(id.parent()))
            .take_while(|&id| id != Self::NONE)
            .take(Self::MAX_DEPTH as usize)
    }

    /// The group's timers.
    pub(crate) fn sum(self) -> &'static Sum {
        &params(self.index()).expect("only the number of a group is asked, and what it had stays").sum
    }

    /// What the number had had when the group was made, by its cells and with the polls then in progress.
    pub(crate) fn base_ns(self) -> u64 {
        self.params().map_or(0, |params| params.base_ns.load(Ordering::Relaxed))
    }

    /// Counts one more for a group that lives. False: no group has the number.
    #[inline]
    pub(crate) fn retain(self) -> bool {
        let Some(params) = self.params() else { return false };
        let mut count = params.count.load(Ordering::Relaxed);
        while count > 0 {
            // Acquire: whoever finds a group under a number that came from elsewhere sees what made the number free before.
            match params.count.compare_exchange_weak(count, count + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// Counts so many more for a group that the caller has a reference to.
    pub(crate) fn retain_many(self, many: u64) {
        if let Some(params) = self.params() {
            params.count.fetch_add(many, Ordering::Relaxed);
        }
    }

    /// Gives back what [`retain`](Self::retain) counted.
    #[inline]
    pub(crate) fn release(self) {
        self.release_many(1);
    }

    /// Gives back so many references.
    pub(crate) fn release_many(self, many: u64) {
        if many > 0
            && let Some(params) = self.params()
            && params.count.fetch_sub(many, Ordering::Release) == many
        {
            fence(Ordering::Acquire);
            // The number is given back with the node, behind the lock.
            let node = lock(&params.node).take();
            drop(node);
        }
    }

    /// What the number had beside what its cells add up to.
    pub(crate) fn settled_ns(self) -> u64 {
        self.params().map_or(0, |params| params.settled_ns.load(Ordering::Relaxed))
    }

    fn params(self) -> Option<&'static Params> {
        if self == Self::NONE { None } else { params(self.index()) }
    }
}

/// A group for good: its number, and its serial, which no other group ever has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct GroupKey {
    id: GroupId,
    serial: u64,
}

impl GroupKey {
    /// The group's number, which is another group's later.
    #[inline]
    #[must_use]
    pub fn id(self) -> GroupId {
        self.id
    }

    /// Greater than those of all groups made before.
    #[inline]
    #[must_use]
    pub fn serial(self) -> u64 {
        self.serial
    }
}

/// What is known of a group by its number.
pub(super) struct Params {
    pub(super) weight: AtomicU32,
    parent: AtomicU32,
    depth: AtomicU32,
    serial: AtomicU64,
    base_ns: AtomicU64,
    /// What was seen to be used of groups that had the number, in polls that were then charged to others.
    settled_ns: AtomicU64,
    /// References to the group.
    count: AtomicU64,
    /// The group itself, while it has any.
    node: Mutex<Option<Arc<Node>>>,
    sum: Sum,
}

static PARAMS: [OnceLock<Box<[Params; CHUNK]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];

fn params(index: usize) -> Option<&'static Params> {
    PARAMS.get(index / CHUNK)?.get().map(|chunk| &chunk[index % CHUNK])
}

/// The numbers in use. 0 stands for "no group".
struct Numbers {
    next: usize,
    free: Vec<GroupId>,
    serial: u64,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 1, free: Vec::new(), serial: 0 });

/// A number for a new group. `None`: all are taken.
pub(super) fn take(weight: u32, parent: GroupId) -> Option<GroupId> {
    let mut numbers = lock(&NUMBERS);
    let id = match numbers.free.pop() {
        Some(id) => id,
        None if numbers.next < GroupId::LIMIT => {
            numbers.next += 1;
            GroupId((numbers.next - 1) as u16)
        }
        None => return None,
    };
    numbers.serial += 1;
    let vacant = || Params {
        weight: AtomicU32::new(super::DEFAULT_WEIGHT),
        parent: AtomicU32::new(0),
        depth: AtomicU32::new(0),
        serial: AtomicU64::new(0),
        base_ns: AtomicU64::new(0),
        settled_ns: AtomicU64::new(0),
        count: AtomicU64::new(0),
        node: Mutex::new(None),
        sum: Sum::new(),
    };
    let params =
        &PARAMS[id.index() / CHUNK].get_or_init(|| Box::new(std::array::from_fn(|_| vacant())))[id.index() % CHUNK];
    params.weight.store(weight, Ordering::Relaxed);
    params.parent.store(parent.index() as u32, Ordering::Relaxed);
    params.depth.store(parent.depth() + 1, Ordering::Relaxed);
    params.sum.reset();
    // Nobody charges the number while it has no owner, and every earlier charge was seen by whoever gave it back. What was seen to be
    // used in a poll may be more, if its account was moved before the end: the number has had that, too, and this group starts behind it.
    let used_ns: u64 = thread::all_slots().map(|slot| slot.groups.used_ns(id)).sum();
    let base_ns = (used_ns + params.settled_ns.load(Ordering::Relaxed)).max(params.sum.reported_ns());
    params.settled_ns.store(base_ns - used_ns, Ordering::Relaxed);
    params.base_ns.store(base_ns, Ordering::Relaxed);
    params.serial.store(numbers.serial, Ordering::Release);
    Some(id)
}

/// The group that took the number begins, with one reference.
pub(super) fn begin(id: GroupId, node: Arc<Node>) {
    if let Some(params) = id.params() {
        *lock(&params.node) = Some(node);
        params.count.store(1, Ordering::Release);
    }
}

/// The node of a group that the caller has a reference to.
pub(super) fn node(id: GroupId) -> Option<Arc<Node>> {
    lock(&id.params()?.node).clone()
}

/// The group has ended.
pub(super) fn give_back(id: GroupId) {
    lock(&NUMBERS).free.push(id);
}

/// Changes a living group's weight.
pub(super) fn set_weight(id: GroupId, weight: u32) {
    if let Some(params) = params(id.index()) {
        params.weight.store(weight, Ordering::Relaxed);
    }
}
