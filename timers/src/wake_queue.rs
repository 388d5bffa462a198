//! The wake queue of one account: a single word that says what waits for the account's next poll boundary.
//!
//! Linux queues a `task_work` item when a POSIX CPU timer of a task has run out and handles it on the way back to user
//! space. Here the item is a bit in this word, and the way back is the poll boundary. The word packs
//!
//! ```text
//!   63        42 41                              10 9        0
//!  | generation | sequence of the poll a TICK saw  |  kinds   |
//! ```
//!
//! and goes round `Idle -> Scheduled -> Running -> Idle`:
//!
//! ```text
//!              post (1)                begin (2)
//!    Idle ----------------> Scheduled ----------> Running
//!     ^  kinds == 0          kinds != 0            RUNNING set
//!     |                                              |
//!     +----------------------------------------------+
//!                        finish (3)
//! ```
//!
//! 1. [`post_tick`](WakeQueue::post_tick), [`post`](WakeQueue::post): any thread, by compare-and-swap.
//! 2. [`begin`](WakeQueue::begin): only the thread that runs the account; it takes every kind at once.
//! 3. [`finish`](WakeQueue::finish): the same thread. A kind posted meanwhile stays and takes it back to Scheduled. A tick
//!    that met Running posted nothing at all, so the owner must compare use with expiry once more *after* this step, behind
//!    the full fence that `finish` contains: the kernel's re-check on PREEMPT_RT.
//!
//! # Invariants
//! * **A post never reaches another owner of the record.** A producer that does not hold a reference compares the
//!   generation in the same compare-and-swap that posts.
//! * **A tick's post never reaches another poll.** It carries the sequence of the poll that the tick saw; the consumer
//!   compares it with its own. Sequences belong to the record and go on across owners, so the pair (generation, sequence)
//!   returns only after 2^32 polls of one record.
//! * **A TICK never suppresses a wake.** `post` reports that a wake is needed unless another *waking* kind is already
//!   there; whoever put that one there has woken, or is about to wake, the task. A CANCEL takes only another CANCEL's word for it:
//!   an expiry may have been posted on a task that had no waker.
//! * **The owner pays one load** while nothing is posted.

use crate::sync::{AtomicU64, Ordering, fence};

/// What can be pending. The tick's kinds hold for the poll with the word's sequence only; the others hold until taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kinds(u64);

impl Kinds {
    pub(crate) const NONE: Kinds = Kinds(0);
    /// A confirmed expiry: use has reached the next expiry.
    pub(crate) const TICK: Kinds = Kinds(1);
    /// A confirmed hard limit (task or poll); always posted together with `TICK`.
    pub(crate) const LIMIT: Kinds = Kinds(1 << 1);
    /// The end of the cooperative slice; needs no confirmation and no pass.
    pub(crate) const YIELD: Kinds = Kinds(1 << 2);
    /// Expiries wait for a pass although no poll may be running: armed in the past, offloaded CPU, or left by a bounded pass.
    pub(crate) const EXPIRY: Kinds = Kinds(1 << 3);
    /// The account's future is to be dropped at the boundary.
    pub(crate) const CANCEL: Kinds = Kinds(1 << 4);
    /// A pass is under way on the owner's thread.
    const RUNNING: Kinds = Kinds(1 << 8);
    /// The account has ended; nothing can be posted any more.
    const ENDED: Kinds = Kinds(1 << 9);

    const MASK: u64 = (1 << KIND_BITS) - 1;
    const OF_ONE_POLL: Kinds = Kinds(Self::TICK.0 | Self::LIMIT.0 | Self::YIELD.0);
    const WAKING: Kinds = Kinds(Self::EXPIRY.0 | Self::CANCEL.0);

    pub(crate) const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }
    pub(crate) const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
    const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }
    pub(crate) const fn contains(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const KIND_BITS: u32 = 10;
const SEQ_SHIFT: u32 = KIND_BITS;
const GEN_SHIFT: u32 = KIND_BITS + 32;
/// Generations live in 22 bits.
pub(crate) const GENERATION_MASK: u32 = (1 << 22) - 1;

#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn generation(self) -> u32 {
        (self.0 >> GEN_SHIFT) as u32
    }
    fn seq(self) -> u32 {
        (self.0 >> SEQ_SHIFT) as u32
    }
    fn kinds(self) -> Kinds {
        Kinds(self.0 & Kinds::MASK)
    }
    fn with_kinds(self, kinds: Kinds) -> Word {
        Word((self.0 & !Kinds::MASK) | kinds.0)
    }
    fn with_seq(self, seq: u32) -> Word {
        Word((self.0 & !(u64::from(u32::MAX) << SEQ_SHIFT)) | (u64::from(seq) << SEQ_SHIFT))
    }
    /// The kinds that count for a thread in the poll `seq`.
    fn kinds_for(self, seq: u32) -> Kinds {
        if self.seq() == seq { self.kinds() } else { self.kinds().without(Kinds::OF_ONE_POLL) }
    }
}

/// What became of a tick's post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TickPost {
    /// The kinds were added.
    Posted,
    /// They were there already for this poll.
    Already,
    /// A pass is under way; its owner looks once more when it ends.
    Running,
    /// The record has another owner by now, or its account has ended.
    Gone,
}

/// The account has ended: nothing can be queued on it any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended;

/// The word. See the module's documentation.
#[derive(Debug)]
pub(crate) struct WakeQueue(AtomicU64);

impl WakeQueue {
    /// A record without an owner: every post answers [`Ended`] or [`TickPost::Gone`].
    pub(crate) fn vacant() -> Self {
        Self(AtomicU64::new(Kinds::ENDED.0))
    }

    fn load(&self, order: Ordering) -> Word {
        Word(self.0.load(order))
    }

    fn swap_if(&self, old: Word, new: Word) -> Result<(), Word> {
        // SeqCst on success: the producers' half of the re-check (module docs, step 3) and the release of what was
        // written before posting. A failure only reloads.
        self.0.compare_exchange_weak(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed).map(drop).map_err(Word)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.load(Ordering::Relaxed).generation()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.load(Ordering::Acquire).kinds().contains(Kinds::ENDED)
    }

    /// Opens a vacant record for its next owner; the generation was already moved on by [`vacate`](Self::vacate).
    pub(crate) fn occupy(&self) {
        let word = self.load(Ordering::Relaxed);
        debug_assert!(word.kinds() == Kinds::ENDED, "only a vacant record is occupied");
        self.0.store(word.with_kinds(Kinds::NONE).0, Ordering::Release);
    }

    /// Ends the account: what is pending is dropped, later posts are refused. Only the owner calls this. Returns whether it was
    /// this call that did it. Contains a full fence.
    pub(crate) fn end(&self) -> bool {
        let word = self.load(Ordering::Relaxed);
        if word.kinds().contains(Kinds::ENDED) {
            return false;
        }
        // The generation is the owner's, so it cannot have changed; what others add to the kinds meanwhile goes, like the rest.
        self.0.swap(word.with_kinds(Kinds::ENDED).0, Ordering::SeqCst);
        crate::sync::fence_after_rmw();
        true
    }

    /// Ends the account, if it was not, and moves the record to its next generation. Only the thread that recycles the record
    /// calls this, when nobody has a handle. A plain store: a tick that still posts compares the whole word, so its post either
    /// came before or does not happen.
    pub(crate) fn vacate(&self) {
        let word = self.load(Ordering::Relaxed);
        let generation = word.generation().wrapping_add(1) & GENERATION_MASK;
        self.0.store(u64::from(generation) << GEN_SHIFT | Kinds::ENDED.0, Ordering::Release);
    }

    /// The tick's post: `kinds` for the poll `seq` of the owner `generation`.
    pub(crate) fn post_tick(&self, generation: u32, seq: u32, kinds: Kinds) -> TickPost {
        // The tick has read use and expiry before it looks at the word. With the owner's fence in `finish` this makes one
        // of two things true: the owner's last comparison sees what the tick saw, or the tick does not see RUNNING.
        fence(Ordering::SeqCst);
        let mut word = self.load(Ordering::Relaxed);
        loop {
            if word.generation() != generation || word.kinds().contains(Kinds::ENDED) {
                return TickPost::Gone;
            }
            if word.kinds().contains(Kinds::RUNNING) {
                return TickPost::Running;
            }
            let valid = word.kinds_for(seq);
            if valid.contains(kinds) {
                return TickPost::Already;
            }
            match self.swap_if(word, word.with_seq(seq).with_kinds(valid.or(kinds))) {
                Ok(()) => return TickPost::Posted,
                Err(now) => word = now,
            }
        }
    }

    /// Posts waking kinds; by a thread that holds a reference to the account. `Ok(true)`: the caller must wake the task.
    pub(crate) fn post(&self, kinds: Kinds) -> Result<bool, Ended> {
        self.post_for(self.generation(), kinds)
    }

    /// The same for a thread that holds no reference: refused if `generation` does not own the record any more.
    pub(crate) fn post_for(&self, generation: u32, kinds: Kinds) -> Result<bool, Ended> {
        let mut word = self.load(Ordering::Relaxed);
        loop {
            if word.generation() != generation || word.kinds().contains(Kinds::ENDED) {
                return Err(Ended);
            }
            // An EXPIRY may have been posted while there was no waker; whoever cancels has one.
            let there = word.kinds().and(Kinds::WAKING);
            let wake = there.is_empty() || (kinds.contains(Kinds::CANCEL) && !there.contains(Kinds::CANCEL));
            match self.swap_if(word, word.with_kinds(word.kinds().or(kinds))) {
                Ok(()) => return Ok(wake),
                Err(now) => word = now,
            }
        }
    }

    /// Takes back a LIMIT that was posted before the limit was raised.
    pub(crate) fn retract_limit(&self) {
        let mut word = self.load(Ordering::Relaxed);
        while word.kinds().contains(Kinds::LIMIT) {
            match self.swap_if(word, word.with_kinds(word.kinds().without(Kinds::LIMIT))) {
                Ok(()) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Whether nothing is pending: the one load of the fast path.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.load(Ordering::Relaxed).kinds().is_empty()
    }

    /// Whether a waking kind is posted.
    pub(crate) fn is_waking(&self) -> bool {
        !self.load(Ordering::Relaxed).kinds().and(Kinds::WAKING).is_empty()
    }

    /// What is pending for a thread in the poll `seq`, without taking it.
    pub(crate) fn peek(&self, seq: u32) -> Kinds {
        self.load(Ordering::Acquire).kinds_for(seq).without(Kinds::RUNNING.or(Kinds::ENDED))
    }

    /// Whether a post of the owner `generation` waits that a thread in the poll `seq` should hear of.
    pub(crate) fn wants_attention(&self, generation: u32, seq: u32) -> bool {
        let word = self.load(Ordering::Acquire);
        word.generation() == generation && !word.kinds_for(seq).without(Kinds::RUNNING.or(Kinds::ENDED)).is_empty()
    }

    /// The owner starts a pass: takes every kind, goes to Running, and returns what counts for its poll `seq`.
    pub(crate) fn begin(&self, seq: u32) -> Kinds {
        let mut word = self.load(Ordering::Relaxed);
        loop {
            let ended = word.kinds().and(Kinds::ENDED);
            match self.swap_if(word, word.with_kinds(ended.or(Kinds::RUNNING))) {
                Ok(()) => return word.kinds_for(seq).without(Kinds::RUNNING.or(Kinds::ENDED)),
                Err(now) => word = now,
            }
        }
    }

    /// The owner ends its pass. Returns whether kinds were posted meanwhile; whatever the answer, the owner compares use
    /// with expiry once more afterwards.
    pub(crate) fn finish(&self) -> bool {
        let before = Word(self.0.fetch_and(!Kinds::RUNNING.0, Ordering::SeqCst));
        crate::sync::fence_after_rmw();
        !before.kinds().without(Kinds::RUNNING.or(Kinds::ENDED)).is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn occupied() -> WakeQueue {
        let queue = WakeQueue::vacant();
        queue.occupy();
        queue
    }

    #[test]
    fn t10_a_second_tick_queues_nothing_while_scheduled_or_running() {
        let queue = occupied();
        assert_eq!(queue.post_tick(0, 1, Kinds::TICK), TickPost::Posted);
        assert_eq!(queue.post_tick(0, 1, Kinds::TICK), TickPost::Already);
        assert_eq!(queue.begin(1), Kinds::TICK);
        assert_eq!(queue.post_tick(0, 1, Kinds::TICK), TickPost::Running);
        assert!(!queue.finish());
        assert!(queue.is_idle());
    }

    #[test]
    fn t10_a_tick_never_suppresses_the_wake_of_a_cancel() {
        let queue = occupied();
        assert_eq!(queue.post_tick(0, 1, Kinds::TICK), TickPost::Posted);
        assert_eq!(queue.post(Kinds::CANCEL), Ok(true), "a CANCEL that meets a TICK must wake");
        assert_eq!(queue.post(Kinds::EXPIRY), Ok(false), "the CANCEL has woken already");
        assert_eq!(queue.begin(1), Kinds::TICK.or(Kinds::CANCEL).or(Kinds::EXPIRY));
    }

    #[test]
    fn t13_posting_on_an_ended_account_is_refused() {
        let queue = occupied();
        assert!(queue.end());
        assert!(!queue.end());
        assert_eq!(queue.post(Kinds::CANCEL), Err(Ended));
        assert_eq!(queue.post_tick(0, 1, Kinds::TICK), TickPost::Gone);
    }

    #[test]
    fn t15_a_late_post_reaches_neither_the_next_poll_nor_the_next_owner() {
        let queue = occupied();
        assert_eq!(queue.post_tick(0, 7, Kinds::TICK.or(Kinds::LIMIT)), TickPost::Posted);
        assert_eq!(queue.peek(8), Kinds::NONE);
        assert_eq!(queue.begin(8), Kinds::NONE);
        queue.finish();

        queue.end();
        queue.vacate();
        queue.occupy();
        assert_eq!(queue.generation(), 1);
        assert_eq!(queue.post_tick(0, 9, Kinds::TICK), TickPost::Gone);
        assert!(queue.is_idle());
    }

    #[test]
    fn t10_a_tick_of_a_new_poll_replaces_the_stale_one() {
        let queue = occupied();
        queue.post_tick(0, 1, Kinds::TICK.or(Kinds::LIMIT));
        assert_eq!(queue.post_tick(0, 2, Kinds::TICK), TickPost::Posted);
        assert_eq!(queue.peek(2), Kinds::TICK, "the LIMIT belonged to the poll before");
    }

    #[test]
    fn t11_a_kind_posted_while_running_is_seen_by_finish() {
        let queue = occupied();
        queue.begin(1);
        assert_eq!(queue.post(Kinds::CANCEL), Ok(true));
        assert!(queue.finish());
        assert_eq!(queue.begin(1), Kinds::CANCEL);
    }

    #[test]
    fn t58_a_retracted_limit_leaves_the_rest() {
        let queue = occupied();
        queue.post_tick(0, 1, Kinds::TICK.or(Kinds::LIMIT));
        queue.retract_limit();
        assert_eq!(queue.peek(1), Kinds::TICK);
    }
}
