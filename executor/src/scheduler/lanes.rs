//! A worker's run queues, one for each group, and whose turn it is.
//!
//! A *lane* is the queue of one group's tasks on one worker. One lane is *current*: what is pushed for its group and what is taken
//! goes through its queue alone, without a look at the others. Whose group is not the current one goes to a lane that waits. When the
//! turn is over, the current lane's group is charged and the lane whose group has had least goes on, going down the tree of groups
//! level by level.
//!
//! With one group, or none, there is one lane and no order: a push and a pop cost a comparison each beside the queue.
//!
//! The current lane has one more queue, of what lies apart: when to take from it is the worker's business.
//!
//! # Invariants
//! * Whatever is in a lane can be taken by any worker ([`RemoteLanes`]): the current lane's queue is named by `current`, what lies apart
//!   is the current lane's, and each other that may hold something has its bit in `waiting`.
//! * A contender (a group, or a group's own tasks) stands in its level's heap at most once, and does if it has something that waits
//!   and is not on the way from the root to the current lane. Its key is at most its virtual time, which only grows; a key
//!   that is behind is put right when it comes to the top.
//! * A number may come to a group with another parent while it stands in a heap here or is on the way to the current lane. So a
//!   group's level is the one that it had as it became active, and stays until it is not. What is above an active group is active.
//! * What is in the lane of another group than its task's is run all the same, and counted with the task's group: a task goes to a
//!   wrong lane only from an injector that is emptied by batches as the first group appears, or if a thief takes what lies apart
//!   while the turn changes.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use stipend_timers::GroupId;

use super::queue::{Local, Remote};
use super::shares::{Compared, PATH, Shares, VirtualTime};
use super::table::{CurrentOf, Table};

/// The worker's own side.
pub(crate) struct Lanes<T> {
    shares: Arc<Shares>,
    /// By group, and of those the one whose turn it is. What has no group is the top of the tree.
    nodes: CurrentOf<Node<T>>,
    /// Of the current lane, too, and taken from when the worker decides: see [`push_recent`](Self::push_recent).
    recent: Local<T>,
    current: Cell<GroupId>,
    /// Lanes that wait, of those there may be some whose tasks were all stolen.
    listed: Cell<usize>,
    /// Breaks ties: who came first.
    entered: Cell<u64>,
    remote: Arc<RemoteLanes<T>>,
}

/// A group on this worker.
struct Node<T> {
    queue: Local<T>,
    /// The contenders that wait at this level.
    waiting: RefCell<BinaryHeap<Reverse<Entry>>>,
    /// The group's own tasks are in `waiting`.
    own_listed: Cell<bool>,
    /// The group is in its parent's `waiting`.
    listed: Cell<bool>,
    /// The current lane's, or one above it.
    on_the_way: Cell<bool>,
    /// Counted in [`Shares::enter`] for this worker: the group's own tasks, the group. True while they are listed or on the way.
    own_active: Cell<bool>,
    active: Cell<bool>,
    /// The level that it stands in: its parent when it became active.
    level: Cell<GroupId>,
}

/// In order of virtual time, then of arrival.
type Entry = (VirtualTime, u64, GroupId);

impl<T> Node<T> {
    fn new() -> Self {
        Self {
            queue: Local::new(),
            waiting: RefCell::new(BinaryHeap::new()),
            own_listed: Cell::new(false),
            listed: Cell::new(false),
            on_the_way: Cell::new(false),
            own_active: Cell::new(false),
            active: Cell::new(false),
            level: Cell::new(GroupId::NONE),
        }
    }
}

impl<T> Lanes<T> {
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        let root = Node::new();
        root.on_the_way.set(true);
        let recent = Local::new();
        let remote = Arc::new(RemoteLanes::new(root.queue.remote(), recent.remote()));
        Self {
            shares,
            nodes: CurrentOf::new(GroupId::NONE, root),
            recent,
            current: Cell::new(GroupId::NONE),
            listed: Cell::new(0),
            entered: Cell::new(0),
            remote,
        }
    }

    pub(crate) fn remote(&self) -> Arc<RemoteLanes<T>> {
        Arc::clone(&self.remote)
    }

    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Whose turn it is.
    #[inline]
    pub(crate) fn current(&self) -> GroupId {
        self.current.get()
    }

    /// Whether there is nothing, as far as is known: thieves may take some.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.get() == 0 && self.is_current_empty()
    }

    #[inline]
    pub(crate) fn push(&self, group: GroupId, item: T) {
        if group == self.current.get() {
            self.current_queue().push(item);
        } else {
            self.push_waiting(group, item);
        }
    }

    /// Whether more than so many wait in the current lane's queue.
    pub(crate) fn is_crowded(&self, crowd: usize) -> bool {
        self.current_queue().len() > crowd
    }

    /// As [`push`](Self::push); but what belongs to the current lane lies apart from its queue, for [`pop_recent`](Self::pop_recent).
    pub(crate) fn push_recent(&self, group: GroupId, item: T) {
        if group == self.current.get() {
            self.recent.push(item);
        } else {
            self.push_waiting(group, item);
        }
    }

    /// The first of what lies apart.
    pub(crate) fn pop_recent(&self) -> Option<T> {
        self.recent.pop()
    }

    pub(crate) fn has_recent(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Puts what lies apart behind the rest of the current lane.
    pub(crate) fn put_recent_behind(&self) {
        while let Some(item) = self.recent.pop() {
            self.current_queue().push(item);
        }
    }

    /// The first of the queue of the lane whose turn it is.
    #[inline]
    pub(crate) fn pop_current(&self) -> Option<T> {
        self.current_queue().pop()
    }

    /// The queue into which a batch of what belongs to a group goes; then call [`filled`](Self::filled).
    pub(crate) fn queue_to_fill(&self, group: GroupId) -> &Local<T> {
        &self.node(group).queue
    }

    /// Something was put into `queue_to_fill`.
    pub(crate) fn filled(&self, group: GroupId) {
        if group != self.current.get() && !self.node(group).queue.is_empty() {
            self.list(group);
        }
    }

    /// The group whose turn it is has used so much.
    pub(crate) fn charge(&self, used_ns: u64) {
        if self.shares.are_used() {
            let group = self.current.get();
            self.shares.charge(group, used_ns);
            self.serve(group);
        }
    }

    /// Says whose turn is the next: the current one's again if nobody else waits. False: there is nothing.
    pub(crate) fn next_turn(&self) -> bool {
        let group = self.current.get();
        if self.listed.get() == 0 {
            return !self.is_current_empty();
        }
        self.leave(group);
        match self.pick(GroupId::NONE) {
            Some(next) => {
                self.take_turn(next);
                true
            }
            None => {
                self.take_turn(group);
                false
            }
        }
    }

    /// Gives the turn to a group whose task was found elsewhere.
    pub(crate) fn switch_to(&self, group: GroupId) {
        self.leave(self.current.get());
        self.take_turn(group);
    }

    /// The worker has nothing to run: the group whose turn it was goes away from here.
    pub(crate) fn suspend(&self) {
        if self.shares.are_used() {
            self.leave(self.current.get());
        }
    }

    /// The worker looks again, and goes on with the same group as long as it knows of nothing else.
    pub(crate) fn resume(&self) {
        if self.shares.are_used() {
            self.take_turn(self.current.get());
        }
    }

    fn is_current_empty(&self) -> bool {
        self.current_queue().is_empty() && self.recent.is_empty()
    }

    #[inline]
    fn current_queue(&self) -> &Local<T> {
        &self.nodes.current().queue
    }

    fn node(&self, id: GroupId) -> &Node<T> {
        self.nodes.table().get_or_make(id, || {
            let node = Node::new();
            self.remote.add(id, node.queue.remote());
            node
        })
    }

    #[cold]
    fn push_waiting(&self, group: GroupId, item: T) {
        self.node(group).queue.push(item);
        self.list(group);
    }

    /// Has a lane that is not current, and what is above it, stand where it waits.
    fn list(&self, group: GroupId) {
        self.remote.mark(group);
        if self.node(group).own_listed.replace(true) {
            return;
        }
        self.listed.set(self.listed.get() + 1);
        self.activate(group, group);
        self.enlist(group, group);
        self.settle(group);
        let mut id = group;
        while id != GroupId::NONE {
            let node = self.node(id);
            if node.on_the_way.get() || node.listed.replace(true) {
                return;
            }
            let level = node.level.get();
            self.activate(level, id);
            self.enlist(level, id);
            id = level;
        }
    }

    /// Makes what is missing of a group's way up, and notes the levels of what is not active there.
    fn settle(&self, group: GroupId) {
        let mut way = [GroupId::NONE; PATH];
        let (mut length, mut id) = (0, group);
        // The whole way first: should numbers come to other groups under our eyes, it must not lead in a circle.
        while id != GroupId::NONE && length < PATH && !self.node(id).active.get() && !way[..length].contains(&id) {
            way[length] = id;
            length += 1;
            id = id.parent();
        }
        let mut level = if self.node(id).active.get() { id } else { GroupId::NONE };
        for &id in way[..length].iter().rev() {
            self.node(id).level.set(level);
            level = id;
        }
    }

    /// Puts a contender into its level's heap.
    fn enlist(&self, level: GroupId, contender: GroupId) {
        self.entered.set(self.entered.get() + 1);
        let entry = (self.shares.at(level, contender), self.entered.get(), contender);
        self.node(level).waiting.borrow_mut().push(Reverse(entry));
    }

    fn is_active(&self, level: GroupId, contender: GroupId) -> &Cell<bool> {
        let node = self.node(contender);
        if contender == level { &node.own_active } else { &node.active }
    }

    /// A contender has something to run here.
    fn activate(&self, level: GroupId, contender: GroupId) {
        if !self.is_active(level, contender).replace(true) {
            self.shares.enter(level, contender);
        }
    }

    /// It has nothing more.
    fn deactivate(&self, level: GroupId, contender: GroupId) {
        if self.is_active(level, contender).replace(false) {
            self.shares.leave(level, contender);
        }
    }

    /// The current lane is current no more: it and those above it wait, if they have anything.
    fn leave(&self, group: GroupId) {
        self.put_recent_behind();
        let node = self.node(group);
        if !node.own_listed.get() {
            if node.queue.is_empty() {
                self.deactivate(group, group);
            } else {
                node.own_listed.set(true);
                self.listed.set(self.listed.get() + 1);
                self.remote.mark(group);
                self.enlist(group, group);
            }
        }
        let mut id = group;
        while id != GroupId::NONE {
            let node = self.node(id);
            node.on_the_way.set(false);
            let level = node.level.get();
            if !node.listed.get() {
                if node.waiting.borrow().is_empty() {
                    self.deactivate(level, id);
                } else {
                    node.listed.set(true);
                    self.enlist(level, id);
                }
            }
            id = level;
        }
    }

    /// Takes the contender that has had least from a level's heap, and so on down to a lane with something in it.
    fn pick(&self, level: GroupId) -> Option<GroupId> {
        let node = self.node(level);
        loop {
            let (key, order, contender) = node.waiting.borrow_mut().pop()?.0;
            let at = self.shares.at(level, contender);
            let mut waiting = node.waiting.borrow_mut();
            if key < at && waiting.peek().is_some_and(|Reverse((next, ..))| *next < at) {
                // It had more meanwhile, on other workers.
                waiting.push(Reverse((at, order, contender)));
                continue;
            }
            drop(waiting);
            let found = if contender == level {
                node.own_listed.set(false);
                self.listed.set(self.listed.get() - 1);
                self.remote.unmark(level);
                (!node.queue.is_empty()).then_some(level)
            } else {
                self.node(contender).listed.set(false);
                self.pick(contender)
            };
            if found.is_some() {
                self.shares.serve(level, contender);
                return found;
            }
            self.deactivate(level, contender);
        }
    }

    fn take_turn(&self, group: GroupId) {
        self.settle(group);
        self.activate(group, group);
        let mut id = group;
        while id != GroupId::NONE {
            let node = self.node(id);
            let level = node.level.get();
            node.on_the_way.set(true);
            self.activate(level, id);
            id = level;
        }
        self.current.set(group);
        self.nodes.turn_to(group);
        self.remote.serve(group);
    }

    /// Moves the floors on the way to a lane that goes on.
    fn serve(&self, group: GroupId) {
        self.shares.serve(group, group);
        let mut id = group;
        while id != GroupId::NONE {
            let level = id.parent();
            self.shares.serve(level, id);
            id = level;
        }
    }
}

/// Everybody's side of a worker's lanes.
pub(crate) struct RemoteLanes<T> {
    root: Remote<T>,
    /// Of the current lane.
    recent: Remote<T>,
    queues: Table<Remote<T>>,
    /// The current lane's number.
    current: AtomicUsize,
    /// How many turns there were: who looks twice sees whether a lane was served in between.
    turns: AtomicU64,
    /// A bit for each other lane that may hold something. The owner alone writes.
    waiting: Box<[AtomicU64]>,
    /// One more than the highest number ever marked.
    marked: AtomicUsize,
}

impl<T> RemoteLanes<T> {
    fn new(root: Remote<T>, recent: Remote<T>) -> Self {
        Self {
            root,
            recent,
            queues: Table::new(),
            current: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            waiting: (0..GroupId::LIMIT.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            marked: AtomicUsize::new(0),
        }
    }

    /// Whether there is anything to take.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !self.root.is_empty() || !self.recent.is_empty() || self.has_other_work()
    }

    #[inline]
    fn has_other_work(&self) -> bool {
        let current = self.current.load(Ordering::Relaxed);
        let marked = self.marked.load(Ordering::Relaxed);
        (current | marked) != 0 && self.waiting_lanes().next().is_some()
    }

    fn queue(&self, id: GroupId) -> Option<&Remote<T>> {
        if id == GroupId::NONE { Some(&self.root) } else { self.queues.get(id) }
    }

    /// What a lane has, here.
    fn queues_of(&self, id: GroupId) -> impl Iterator<Item = &Remote<T>> {
        self.queue(id).into_iter().chain((self.current() == id).then_some(&self.recent))
    }

    /// The lane whose turn it is.
    pub(crate) fn current(&self) -> GroupId {
        GroupId::from_number(self.current.load(Ordering::Relaxed))
    }

    /// Turns so far.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// The lanes that have something in their queue.
    fn waiting_lanes(&self) -> impl Iterator<Item = GroupId> {
        let words = self.marked.load(Ordering::Relaxed).div_ceil(64);
        let marked = self.waiting[..words].iter().enumerate().flat_map(|(place, word)| {
            bits(word.load(Ordering::Relaxed)).map(move |bit| GroupId::from_number(place * 64 + bit))
        });
        std::iter::once(self.current())
            .chain(std::iter::once(GroupId::NONE))
            .chain(marked)
            .filter(|id| self.queues_of(*id).any(|queue| !queue.is_empty()))
    }

    /// The lane with something to take whose group has had least.
    pub(crate) fn most_lagging(&self, shares: &Shares) -> Option<GroupId> {
        if !shares.are_used() {
            return self.queues_of(GroupId::NONE).any(|queue| !queue.is_empty()).then_some(GroupId::NONE);
        }
        self.waiting_lanes().reduce(|first, other| match shares.compare(other, first) {
            Compared::Apart(other_at, first_at) if other_at < first_at => other,
            Compared::Apart(..) | Compared::Same => first,
        })
    }

    /// Moves about half of a lane to the same lane of `to`, and pops one.
    pub(crate) fn steal_half(&self, id: GroupId, to: &Lanes<T>) -> Option<T> {
        let item = self.queues_of(id).find_map(|queue| queue.steal_half(to.queue_to_fill(id)));
        to.filled(id);
        item
    }

    fn add(&self, id: GroupId, queue: Remote<T>) {
        self.queues.get_or_make(id, || queue);
    }

    fn mark(&self, id: GroupId) {
        let word = &self.waiting[id.index() / 64];
        word.store(word.load(Ordering::Relaxed) | 1 << (id.index() % 64), Ordering::Relaxed);
        if self.marked.load(Ordering::Relaxed) <= id.index() {
            self.marked.store(id.index() + 1, Ordering::Relaxed);
        }
    }

    fn unmark(&self, id: GroupId) {
        let word = &self.waiting[id.index() / 64];
        word.store(word.load(Ordering::Relaxed) & !(1 << (id.index() % 64)), Ordering::Relaxed);
    }

    fn serve(&self, id: GroupId) {
        self.current.store(id.index(), Ordering::Relaxed);
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// The places of the bits of a word, the lowest first.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    let words = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
    words.take_while(|word| *word != 0).map(|word| word.trailing_zeros() as usize)
}
