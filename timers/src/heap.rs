//! A priority queue whose entries can be moved and removed by id.
//!
//! Timers are armed, re-armed and cancelled far more often than they expire, so a queue of timers must find an
//! entry without a search, and re-arming one must not allocate. `std::collections::BinaryHeap` can do neither.
//!
//! Ids are small integers that the *caller* hands out, densely (the keys of a `slab::Slab` are ideal): the heap
//! keeps one `u32` for every id up to the largest that was ever in it. Nodes have four children: a level more is
//! cheaper than a cache miss more, and the four keys that are compared lie side by side, without the ids between them. A
//! node on its way up or down leaves a hole that the others move into, so that each place is written once.
//!
//! Memory grows by an eighth, not by doubling: a queue of a hundred thousand timers is one among many things that the process
//! has, and one of a single timer is small.
//!
//! Invariants, held between calls:
//! * no node's key is smaller than its parent's;
//! * `keys[at]` and `ids[at]` are of one node;
//! * `positions[id]` is the index of the node with that id, or `ABSENT` if there is none.
//!
//! Equal keys leave in no particular order. A caller that needs one makes it part of the key, for example
//! `(deadline, sequence)`.

/// Children of a node.
const ARITY: usize = 4;

/// The position of an id that is not in the heap.
const ABSENT: u32 = u32::MAX;

/// A 4-ary min-heap of keys, each under an id of the caller's choice.
///
/// `push`, `update`, `remove` and `pop` take `O(log n)` steps; `peek`, `get` and `contains` a constant number.
/// Memory grows with the largest id and the largest number of entries, and is kept for the next ones.
///
/// ```
/// use stipend_timers::heap::IndexedHeap;
///
/// let mut heap = IndexedHeap::new();
/// heap.push(0, 30);
/// heap.push(1, 10);
/// heap.push(2, 20);
///
/// heap.update(0, 5);
/// assert_eq!(heap.remove(1), Some(10));
/// assert_eq!(heap.peek(), Some((&5, 0)));
/// assert_eq!(heap.pop(), Some((5, 0)));
/// assert_eq!(heap.pop(), Some((20, 2)));
/// assert_eq!(heap.pop(), None);
/// ```
#[derive(Clone, Debug)]
pub struct IndexedHeap<K> {
    keys: Vec<K>,
    ids: Vec<u32>,
    positions: Vec<u32>,
}

impl<K> Default for IndexedHeap<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), ids: Vec::new(), positions: Vec::new() }
    }
}

/// Makes room for one more if there is none, by an eighth of what there is: amortized like doubling, with less left over.
pub(crate) fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(growth(vec.len()));
    }
}

/// By how much to grow what holds so many and is full.
pub(crate) fn growth(len: usize) -> usize {
    (len / 8).max(1)
}

impl<K: Ord + Copy> IndexedHeap<K> {
    /// An empty heap, without memory of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether `id` is in the heap.
    pub fn contains(&self, id: u32) -> bool {
        self.position(id).is_some()
    }

    /// The key of `id`.
    pub fn get(&self, id: u32) -> Option<&K> {
        self.position(id).map(|at| &self.keys[at])
    }

    /// Puts `id` in under `key`. If it was in already, it moves, and its previous key is returned.
    ///
    /// Allocates only if `id`, or the number of entries, is larger than ever before.
    ///
    /// # Panics
    ///
    /// If `id` is `u32::MAX`.
    pub fn push(&mut self, id: u32, key: K) -> Option<K> {
        if let Some(at) = self.position(id) {
            return Some(self.rekey(at, key));
        }
        assert!(id != ABSENT, "the id u32::MAX is reserved");
        let wanted = id as usize + 1;
        if self.positions.len() < wanted {
            if self.positions.capacity() < wanted {
                let more = wanted - self.positions.len();
                self.positions.reserve_exact(more.max(growth(self.positions.len())));
            }
            self.positions.resize(wanted, ABSENT);
        }
        let at = self.keys.len();
        grow(&mut self.keys);
        self.keys.push(key);
        grow(&mut self.ids);
        self.ids.push(id);
        self.sift_up(at, key, id);
        None
    }

    /// Gives `id` a new key and returns the previous one. Does nothing if `id` is not in the heap.
    pub fn update(&mut self, id: u32, key: K) -> Option<K> {
        let at = self.position(id)?;
        Some(self.rekey(at, key))
    }

    /// Takes `id` out and returns its key.
    pub fn remove(&mut self, id: u32) -> Option<K> {
        let at = self.position(id)?;
        Some(self.remove_at(at))
    }

    /// The entry with the smallest key.
    pub fn peek(&self) -> Option<(&K, u32)> {
        Some((self.keys.first()?, *self.ids.first()?))
    }

    /// Takes out the entry with the smallest key.
    pub fn pop(&mut self) -> Option<(K, u32)> {
        let id = *self.ids.first()?;
        Some((self.remove_at(0), id))
    }

    /// Takes out every entry and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        for id in self.ids.drain(..) {
            self.positions[id as usize] = ABSENT;
        }
    }

    /// Makes room so that `entries` entries with ids below `entries` need no further allocation.
    pub fn reserve(&mut self, entries: usize) {
        self.keys.reserve(entries.saturating_sub(self.keys.len()));
        self.ids.reserve(entries.saturating_sub(self.ids.len()));
        if self.positions.len() < entries {
            self.positions.resize(entries, ABSENT);
        }
    }

    fn position(&self, id: u32) -> Option<usize> {
        match self.positions.get(id as usize) {
            Some(&at) if at != ABSENT => Some(at as usize),
            _ => None,
        }
    }

    fn rekey(&mut self, at: usize, key: K) -> K {
        let previous = self.keys[at];
        self.place(at, key, self.ids[at]);
        previous
    }

    fn remove_at(&mut self, at: usize) -> K {
        let (key, id) = (self.keys[at], self.ids[at]);
        self.positions[id as usize] = ABSENT;
        let last = (self.keys.pop(), self.ids.pop());
        // The last node takes the place of one that was not the last.
        if let (Some(last_key), Some(last_id)) = last
            && at < self.keys.len()
        {
            self.place(at, last_key, last_id);
        }
        key
    }

    /// Puts a node where it belongs, starting at a hole at `at`.
    fn place(&mut self, at: usize, key: K, id: u32) {
        if at > 0 && key < self.keys[(at - 1) / ARITY] {
            self.sift_up(at, key, id);
        } else {
            self.sift_down(at, key, id);
        }
    }

    /// Moves the hole at `at` up until the node fits in.
    fn sift_up(&mut self, mut at: usize, key: K, id: u32) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.keys[parent] <= key {
                break;
            }
            self.settle(at, self.keys[parent], self.ids[parent]);
            at = parent;
        }
        self.settle(at, key, id);
    }

    /// Moves the hole at `at` down until the node fits in.
    fn sift_down(&mut self, mut at: usize, key: K, id: u32) {
        loop {
            let first = at * ARITY + 1;
            let children = self.keys.get(first..).unwrap_or_default();
            let least = match children.first_chunk() {
                Some(all) => least_of(all),
                None => match (0..children.len()).min_by_key(|&child| children[child]) {
                    Some(least) => least,
                    None => break,
                },
            };
            let least = first + least;
            if key <= self.keys[least] {
                break;
            }
            self.settle(at, self.keys[least], self.ids[least]);
            at = least;
        }
        self.settle(at, key, id);
    }

    /// Writes a node to its place.
    fn settle(&mut self, at: usize, key: K, id: u32) {
        self.keys[at] = key;
        self.ids[at] = id;
        self.positions[id as usize] = at as u32;
    }
}

/// Which of a node's children has the smallest key: two comparisons that do not wait for each other, and one that does.
fn least_of<K: Ord>(keys: &[K; ARITY]) -> usize {
    let one = usize::from(keys[1] < keys[0]);
    let other = 2 + usize::from(keys[3] < keys[2]);
    if keys[other] < keys[one] { other } else { one }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<K: Ord + Copy> IndexedHeap<K> {
        fn assert_invariants(&self) {
            assert_eq!(self.keys.len(), self.ids.len());
            for (at, &id) in self.ids.iter().enumerate() {
                assert_eq!(self.positions[id as usize] as usize, at);
                assert!(at == 0 || self.keys[(at - 1) / ARITY] <= self.keys[at]);
            }
            let present = self.positions.iter().filter(|&&at| at != ABSENT).count();
            assert_eq!(present, self.keys.len());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u32, u8),
        Update(u32, u8),
        Remove(u32),
        Pop,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..64u32, any::<u8>()).prop_map(|(id, key)| Step::Push(id, key)),
            4 => (0..64u32, any::<u8>()).prop_map(|(id, key)| Step::Update(id, key)),
            4 => (0..64u32).prop_map(Step::Remove),
            2 => Just(Step::Pop),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 0..400)) {
            let mut heap = IndexedHeap::new();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Push(id, key) => prop_assert_eq!(heap.push(id, key), model.insert(id, key)),
                    Step::Update(id, key) => {
                        let previous = model.get_mut(&id).map(|held| std::mem::replace(held, key));
                        prop_assert_eq!(heap.update(id, key), previous);
                    }
                    Step::Remove(id) => prop_assert_eq!(heap.remove(id), model.remove(&id)),
                    Step::Pop => match heap.pop() {
                        Some((key, id)) => {
                            prop_assert_eq!(model.values().min().copied(), Some(key));
                            prop_assert_eq!(model.remove(&id), Some(key));
                        }
                        None => prop_assert!(model.is_empty()),
                    },
                    Step::Clear => {
                        heap.clear();
                        model.clear();
                    }
                }
                heap.assert_invariants();
                prop_assert_eq!(heap.len(), model.len());
                prop_assert_eq!(heap.peek().map(|(&key, _)| key), model.values().min().copied());
                for id in 0..66 {
                    prop_assert_eq!(heap.get(id), model.get(&id));
                }
            }
        }

        #[test]
        fn pops_in_order(keys in prop::collection::vec(any::<u64>(), 0..500)) {
            let mut heap = IndexedHeap::new();
            for (id, &key) in keys.iter().enumerate() {
                heap.push(id as u32, (key, id));
            }
            let popped: Vec<_> = std::iter::from_fn(|| heap.pop()).map(|(key, _)| key).collect();
            let mut sorted: Vec<_> = keys.into_iter().enumerate().map(|(id, key)| (key, id)).collect();
            sorted.sort();
            prop_assert_eq!(popped, sorted);
        }
    }

    #[test]
    fn rearming_does_not_allocate() {
        let mut heap = IndexedHeap::new();
        heap.reserve(100);
        let capacities =
            |heap: &IndexedHeap<u64>| (heap.keys.capacity(), heap.ids.capacity(), heap.positions.capacity());
        let before = capacities(&heap);
        for round in 0..10u64 {
            for id in 0..100 {
                heap.push(id, round * 7919 % (u64::from(id) + 1));
            }
            for id in (0..100).step_by(3) {
                heap.remove(id);
            }
        }
        assert_eq!(capacities(&heap), before);
    }

    #[test]
    #[should_panic(expected = "reserved")]
    fn the_largest_id_is_refused() {
        IndexedHeap::new().push(u32::MAX, 0);
    }
}
