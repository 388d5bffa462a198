//! A priority queue whose entries can be moved and removed by id.
//!
//! Timers are armed, re-armed and cancelled far more often than they expire, so a queue of timers must find an
//! entry without a search, and re-arming one must not allocate. `std::collections::BinaryHeap` can do neither.
//!
//! Ids are small integers that the *caller* hands out, densely (the keys of a `slab::Slab` are ideal): the heap
//! keeps one `u32` for every id up to the largest that was ever in it. Nodes have four children: a level more is
//! cheaper than a cache miss more, and the four keys that are compared lie side by side.
//!
//! Invariants, held between calls:
//! * no node's key is smaller than its parent's;
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
    nodes: Vec<Node<K>>,
    positions: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Node<K> {
    key: K,
    id: u32,
}

impl<K> Default for IndexedHeap<K> {
    fn default() -> Self {
        Self { nodes: Vec::new(), positions: Vec::new() }
    }
}

impl<K: Ord> IndexedHeap<K> {
    /// An empty heap, without memory of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether `id` is in the heap.
    pub fn contains(&self, id: u32) -> bool {
        self.position(id).is_some()
    }

    /// The key of `id`.
    pub fn get(&self, id: u32) -> Option<&K> {
        self.position(id).map(|at| &self.nodes[at].key)
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
            self.positions.resize(wanted, ABSENT);
        }
        let at = self.nodes.len();
        self.nodes.push(Node { key, id });
        self.positions[id as usize] = at as u32;
        self.sift_up(at);
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
        Some(self.remove_at(at).key)
    }

    /// The entry with the smallest key.
    pub fn peek(&self) -> Option<(&K, u32)> {
        self.nodes.first().map(|node| (&node.key, node.id))
    }

    /// Takes out the entry with the smallest key.
    pub fn pop(&mut self) -> Option<(K, u32)> {
        if self.nodes.is_empty() {
            return None;
        }
        let node = self.remove_at(0);
        Some((node.key, node.id))
    }

    /// Takes out every entry and keeps the memory.
    pub fn clear(&mut self) {
        for node in self.nodes.drain(..) {
            self.positions[node.id as usize] = ABSENT;
        }
    }

    /// Makes room so that `entries` entries with ids below `entries` need no further allocation.
    pub fn reserve(&mut self, entries: usize) {
        self.nodes.reserve(entries.saturating_sub(self.nodes.len()));
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
        let previous = std::mem::replace(&mut self.nodes[at].key, key);
        self.restore(at);
        previous
    }

    fn remove_at(&mut self, at: usize) -> Node<K> {
        let node = self.nodes.swap_remove(at);
        self.positions[node.id as usize] = ABSENT;
        if at < self.nodes.len() {
            self.settle(at);
            self.restore(at);
        }
        node
    }

    /// Moves the one node that may be out of order, at `at`, to where it belongs.
    fn restore(&mut self, at: usize) {
        if self.sift_up(at) == at {
            self.sift_down(at);
        }
    }

    fn sift_up(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.nodes[parent].key <= self.nodes[at].key {
                break;
            }
            self.swap(parent, at);
            at = parent;
        }
        at
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let first = at * ARITY + 1;
            let last = (first + ARITY).min(self.nodes.len());
            let Some(least) = (first..last).min_by(|&a, &b| self.nodes[a].key.cmp(&self.nodes[b].key)) else {
                break;
            };
            if self.nodes[at].key <= self.nodes[least].key {
                break;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.nodes.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    /// Records where the node at `at` is now.
    fn settle(&mut self, at: usize) {
        self.positions[self.nodes[at].id as usize] = at as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<K: Ord> IndexedHeap<K> {
        fn assert_invariants(&self) {
            for (at, node) in self.nodes.iter().enumerate() {
                assert_eq!(self.positions[node.id as usize] as usize, at);
                assert!(at == 0 || self.nodes[(at - 1) / ARITY].key <= node.key);
            }
            let present = self.positions.iter().filter(|&&at| at != ABSENT).count();
            assert_eq!(present, self.nodes.len());
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
        let capacities = (heap.nodes.capacity(), heap.positions.capacity());
        for round in 0..10u64 {
            for id in 0..100 {
                heap.push(id, round * 7919 % (u64::from(id) + 1));
            }
            for id in (0..100).step_by(3) {
                heap.remove(id);
            }
        }
        assert_eq!((heap.nodes.capacity(), heap.positions.capacity()), capacities);
    }

    #[test]
    #[should_panic(expected = "reserved")]
    fn the_largest_id_is_refused() {
        IndexedHeap::new().push(u32::MAX, 0);
    }
}
