//! Memory for task cells.
//!
//! Tasks come and go by the million, many at once, and often end on another thread than the one that spawned them: with that a general
//! allocator leaves its fast path, and takes locks. Cells are of few sizes and need no more than a list. Each thread has some blocks of
//! each size *at hand*; what is too much goes to a list that all share, and what is missing comes from there, by [`BATCH`].
//!
//! # Invariants
//! * A block is in use, at one thread's hand or in one list. Every block of a class has that class's size and [`ALIGN`].
//! * What is kept is bounded: [`AT_HAND`] blocks a size and thread, [`KEPT`] bytes a size in the list. The rest goes back to the allocator.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes are rounded up to a multiple of this, and half of it: to what glibc rounds up to, and most other allocators do no worse with.
const STEP: usize = 16;
const ALIGN: usize = 16;
const CLASSES: usize = 32;
/// What is larger, or wants to be aligned more, is the allocator's alone.
const LARGEST: usize = Class(CLASSES - 1).size();
const BATCH: usize = 32;
const AT_HAND: usize = 2 * BATCH;
/// Ten thousand of the usual cells.
const KEPT: usize = 2 << 20;

/// A block that nobody uses.
struct Block(NonNull<u8>);

// SAFETY: it is memory that nobody refers to.
unsafe impl Send for Block {}

/// Which list a size belongs to.
struct Class(usize);

impl Class {
    const fn of(layout: Layout) -> Option<Self> {
        let fits = layout.size() > 0 && layout.size() <= LARGEST && layout.align() <= ALIGN;
        if fits { Some(Self((layout.size() + STEP / 2 - 1) / STEP)) } else { None }
    }

    const fn size(&self) -> usize {
        self.0 * STEP + STEP / 2
    }

    const fn layout(&self) -> Layout {
        match Layout::from_size_align(self.size(), ALIGN) {
            Ok(layout) => layout,
            Err(_) => unreachable!(),
        }
    }

    fn make(&self) -> Block {
        let layout = self.layout();
        // SAFETY: its size is not zero.
        let block = unsafe { alloc::alloc(layout) };
        Block(NonNull::new(block).unwrap_or_else(|| alloc::handle_alloc_error(layout)))
    }

    fn give_to_allocator(&self, block: Block) {
        // SAFETY: every block of the class was made by `make`, with this layout, and is used by nobody.
        unsafe { alloc::dealloc(block.0.as_ptr(), self.layout()) }
    }

    fn list(&self) -> MutexGuard<'static, Vec<Block>> {
        LISTS[self.0].blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a batch into a hand, which is empty.
    #[cold]
    fn deal(&self, hand: &mut Vec<Block>) {
        // A guess, without the lock: while there are more tasks than ever before, each spawn comes here and finds nothing.
        if LISTS[self.0].length.load(Ordering::Relaxed) == 0 {
            return;
        }
        hand.reserve_exact(AT_HAND);
        let mut list = self.list();
        let keep = list.len().saturating_sub(BATCH);
        hand.extend(list.drain(keep..));
        LISTS[self.0].length.store(list.len(), Ordering::Relaxed);
    }

    /// Keeps what the list has room for.
    #[cold]
    fn collect(&self, mut blocks: impl Iterator<Item = Block>) {
        let mut list = self.list();
        let room = (KEPT / self.size()).saturating_sub(list.len());
        list.extend(blocks.by_ref().take(room));
        LISTS[self.0].length.store(list.len(), Ordering::Relaxed);
        drop(list);
        blocks.for_each(|block| self.give_to_allocator(block));
    }
}

/// What threads have left for others.
struct List {
    blocks: Mutex<Vec<Block>>,
    /// How many there were when the lock was given up last.
    length: AtomicUsize,
}

static LISTS: [List; CLASSES] =
    [const { List { blocks: Mutex::new(Vec::new()), length: AtomicUsize::new(0) } }; CLASSES];

struct Hands([Vec<Block>; CLASSES]);

impl Drop for Hands {
    fn drop(&mut self) {
        for (class, hand) in self.0.iter_mut().enumerate() {
            Class(class).collect(hand.drain(..));
        }
    }
}

thread_local! {
    static HANDS: RefCell<Hands> = const { RefCell::new(Hands([const { Vec::new() }; CLASSES])) };
}

/// Memory for a value of this layout.
#[inline]
pub(super) fn allocate(layout: Layout) -> NonNull<u8> {
    let Some(class) = Class::of(layout) else {
        // SAFETY: a layout of size zero is of no class, but a cell has a header.
        let memory = unsafe { alloc::alloc(layout) };
        return NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
    };
    let at_hand = HANDS.try_with(|hands| {
        let hand = &mut hands.borrow_mut().0[class.0];
        if hand.is_empty() {
            class.deal(hand);
        }
        hand.pop()
    });
    // A thread that is ending has no hands any more.
    at_hand.ok().flatten().unwrap_or_else(|| class.make()).0
}

/// Gives memory back.
///
/// # Safety
/// It came from [`allocate`] with the same layout, and nobody refers to it.
#[inline]
pub(super) unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    let Some(class) = Class::of(layout) else {
        // SAFETY: by contract; what is of no class came from the allocator with this layout.
        return unsafe { alloc::dealloc(memory.as_ptr(), layout) };
    };
    let mut block = Some(Block(memory));
    let _gone = HANDS.try_with(|hands| {
        let hand = &mut hands.borrow_mut().0[class.0];
        if hand.len() >= AT_HAND {
            class.collect(hand.drain(..BATCH));
        }
        hand.extend(block.take());
    });
    if let Some(block) = block {
        class.collect(std::iter::once(block));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    fn kept(class: &Class) -> usize {
        class.list().len()
    }

    #[test]
    fn sizes_share_a_class_by_16_bytes_and_large_ones_have_none() {
        let class = |size| Class::of(layout(size)).map(|class| class.layout().size());
        assert_eq!(
            [1, 8, 9, 24, 104, 504, 505].map(class),
            [8, 8, 24, 24, 104, 504, 0].map(|size| (size > 0).then_some(size))
        );
        assert!(Class::of(Layout::from_size_align(64, 32).unwrap()).is_none(), "more than the classes are aligned");
    }

    #[test]
    fn what_was_given_back_last_is_had_first() {
        let first = allocate(layout(400));
        // SAFETY: it was just allocated, and is not used.
        unsafe { free(first, layout(400)) };
        let again = allocate(layout(398));
        assert_eq!(again, first);
        // SAFETY: as above.
        unsafe { free(again, layout(398)) };
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let class = Class::of(layout(344)).unwrap();
        let most = KEPT / 344;
        let blocks: Vec<_> = (0..most + 1000).map(|_| allocate(layout(344))).collect();
        for block in blocks {
            // SAFETY: it was allocated above, and is not used.
            unsafe { free(block, layout(344)) };
        }
        // Other tests may take some of them.
        assert!((most / 2..=most).contains(&kept(&class)), "{} of {most}", kept(&class));
    }

    #[test]
    fn blocks_that_change_threads_are_nobody_elses() {
        const ROUNDS: usize = 20_000;
        let sizes = [24, 112, 120, 500, 700];
        let (to_one, at_one) = channel::<(usize, usize, u8)>();
        let (to_other, at_other) = channel::<(usize, usize, u8)>();
        let run = move |seed: u8, send: std::sync::mpsc::Sender<_>, receive: std::sync::mpsc::Receiver<_>| {
            for round in 0..ROUNDS {
                let size = sizes[(round + usize::from(seed)) % sizes.len()];
                let fill = (round as u8).wrapping_mul(31).wrapping_add(seed);
                let block = allocate(layout(size));
                // SAFETY: the block has that size.
                unsafe { block.as_ptr().write_bytes(fill, size) };
                if send.send((block.as_ptr().expose_provenance(), size, fill)).is_err() {
                    break;
                }
                // Now and then a few at once, so that hands run over and empty.
                let wanted = if round % 200 == 199 { 200 } else { 0 };
                for (block, size, fill) in receive.iter().take(wanted) {
                    let block = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(block)).unwrap();
                    // SAFETY: the other thread has filled it, sent it and forgotten it.
                    let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), size) };
                    assert!(bytes.iter().all(|&byte| byte == fill), "somebody else has written to it");
                    // SAFETY: as above.
                    unsafe { free(block, layout(size)) };
                }
            }
        };
        std::thread::scope(|threads| {
            let run = &run;
            threads.spawn(move || run(1, to_one, at_other));
            threads.spawn(move || run(101, to_other, at_one));
        });
    }
}
