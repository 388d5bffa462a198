//! What a polling thread shows to the tick: which accounts it is running now, since when, and where its CPU clock stands.
//!
//! A slot is leased by one thread at a time and lives for ever (type-stable, padded), so the tick may look at any moment.
//! Only the lease holder writes it, as a seqlock of atomics: `version` is odd while a change is under way, and a reader whose
//! two looks at `version` differ has seen a mixture and throws it away.
//!
//! Nested metering shows itself as a stack of [`FRAMES`] frames, outermost first. The tick checks each of them, so the tighter
//! limit of inner and outer binds by itself, and nothing has to be published anew when the inner one ends. Deeper nesting is
//! charged and enforced at its boundaries like any other, but the tick does not see it; from the second account on that is not shown, its
//! group and scope are charged by what is around it only.
//!
//! # Invariants
//! * A snapshot that [`Slot::read`] returns was true at one moment, and the account's `used` that was read inside belongs to
//!   the same moment: the owner changes `used` only while `version` is odd.
//! * Every change of a frame brings a new sequence, so what was posted for one section never counts in the next.
//! * The owner's side costs plain stores on lines that only the tick, once a period, reads.

use crate::clock::Stamp;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// How many nested accounts the tick can see on one thread.
pub(crate) const FRAMES: usize = 4;

/// The sequence of frames that are no section of the account's own thread. Sequences of polls may come round to it after 2^32
/// of them; a blocking job at that moment would hear of a poll's TICK, which only makes it yield.
pub(crate) const NO_POLL: u32 = 0;

/// What the thread is doing on the account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Section {
    /// Inside `Future::poll`.
    Poll = 0,
    /// Handlers, destructors, waking the awaiter.
    Aftermath = 1,
    /// A job on a blocking thread, charged to an account whose task may be parked.
    Offloaded = 2,
}

/// A reference to a record that may be another owner's by now: what the tick carries about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Target {
    /// No record has that many before it.
    const NONE: Self = Self { index: u32::MAX, generation: 0 };

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
    pub(crate) fn unpack(word: u64) -> Self {
        Self { index: word as u32, generation: (word >> 32) as u32 }
    }
}

/// One frame as the tick reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameView {
    pub(crate) target: Target,
    pub(crate) seq: u32,
    pub(crate) section: Section,
    pub(crate) start: Stamp,
}

#[derive(Debug)]
struct Frame {
    target: AtomicU64,
    /// Sequence in the high half, section in the low one.
    what: AtomicU64,
    start_cpu: AtomicU64,
    start_fast: AtomicU64,
}

impl Frame {
    fn new() -> Self {
        Self {
            target: AtomicU64::new(0),
            what: AtomicU64::new(0),
            start_cpu: AtomicU64::new(0),
            start_fast: AtomicU64::new(0),
        }
    }

    #[inline]
    fn store(&self, view: FrameView) {
        self.target.store(view.target.pack(), Ordering::Relaxed);
        self.what.store(u64::from(view.seq) << 32 | view.section as u64, Ordering::Relaxed);
        self.start_cpu.store(view.start.cpu_ns, Ordering::Relaxed);
        self.start_fast.store(view.start.fast, Ordering::Relaxed);
    }

    fn load(&self) -> FrameView {
        let what = self.what.load(Ordering::Relaxed);
        FrameView {
            target: Target::unpack(self.target.load(Ordering::Relaxed)),
            seq: (what >> 32) as u32,
            section: match what as u32 {
                0 => Section::Poll,
                1 => Section::Aftermath,
                _ => Section::Offloaded,
            },
            start: Stamp {
                cpu_ns: self.start_cpu.load(Ordering::Relaxed),
                fast: self.start_fast.load(Ordering::Relaxed),
            },
        }
    }
}

/// The published part of a polling thread.
#[derive(Debug)]
pub(crate) struct Slot {
    version: AtomicU32,
    depth: AtomicU32,
    frames: [Frame; FRAMES],
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self { version: AtomicU32::new(0), depth: AtomicU32::new(0), frames: std::array::from_fn(|_| Frame::new()) }
    }

    /// One change by the lease holder. `change` may also store the `used` of the account shown.
    #[inline]
    fn write<R>(&self, change: impl FnOnce() -> R) -> R {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // The stores of `change` do not move up over the odd version...
        fence(Ordering::Release);
        let result = change();
        // ...nor down over the even one.
        self.version.store(version.wrapping_add(2), Ordering::Release);
        result
    }

    /// How many accounts this thread is in. For the lease holder.
    #[inline]
    pub(crate) fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Enters an account: shows `view` as the innermost frame and returns its depth, from 0.
    #[inline]
    pub(crate) fn push(&self, view: FrameView, charge: impl FnOnce()) -> u32 {
        let depth = self.depth();
        self.write(|| {
            charge();
            if let Some(frame) = self.frames.get(depth as usize) {
                frame.store(view);
            }
            self.depth.store(depth + 1, Ordering::Relaxed);
        });
        depth
    }

    /// Charges, by `charge`, what the frame at `depth` has used, and shows it as `view` from now on.
    #[inline]
    pub(crate) fn restart<R>(&self, depth: u32, view: FrameView, charge: impl FnOnce() -> R) -> R {
        self.write(|| {
            let result = charge();
            if let Some(frame) = self.frames.get(depth as usize) {
                frame.store(view);
            }
            result
        })
    }

    /// Charges and leaves the frame at `depth` (and, after an unwind, whatever was left standing above it).
    #[inline]
    pub(crate) fn pop<R>(&self, depth: u32, charge: impl FnOnce() -> R) -> R {
        self.write(|| {
            let result = charge();
            self.depth.store(depth, Ordering::Relaxed);
            result
        })
    }

    /// The outermost account shown, or if there is none the one that was shown last since the slot was leased.
    pub(crate) fn last_target(&self) -> Target {
        Target::unpack(self.frames[0].target.load(Ordering::Relaxed))
    }

    /// Leaves every frame: for a thread that gives the slot back.
    pub(crate) fn clear(&self) {
        self.pop(0, || self.frames[0].target.store(Target::NONE.pack(), Ordering::Relaxed));
    }

    /// A frame as its own thread sees it.
    pub(crate) fn own_frame(&self, depth: u32) -> Option<FrameView> {
        (depth < self.depth()).then(|| self.frames.get(depth as usize).map(Frame::load)).flatten()
    }

    /// Reads, from any thread, a consistent picture: what `look` makes of the frames. `None`: the owner was changing it; the
    /// poll that was looked for is over.
    pub(crate) fn read<R>(&self, look: impl FnOnce(Frames<'_>) -> R) -> Option<R> {
        let before = self.version.load(Ordering::Acquire);
        if before % 2 == 1 {
            return None;
        }
        let seen =
            look(Frames { slot: self, depth: (self.depth.load(Ordering::Relaxed) as usize).min(FRAMES), before });
        self.is_still(before).then_some(seen)
    }

    /// Whether nothing has changed since a [`Frames::version`].
    pub(crate) fn is_still(&self, version: u32) -> bool {
        // The loads before do not move down over this second look at the version.
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }
}

/// The frames inside [`Slot::read`]. What is read here counts only if `read` returns it.
pub(crate) struct Frames<'a> {
    slot: &'a Slot,
    depth: usize,
    before: u32,
}

impl Frames<'_> {
    /// The version that this picture belongs to, for [`Slot::is_still`].
    pub(crate) fn version(&self) -> u32 {
        self.before
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = FrameView> {
        self.slot.frames[..self.depth].iter().map(Frame::load)
    }
}
