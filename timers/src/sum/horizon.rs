//! When threads that add to one clock must look whether it has come to its next expiry, so that they need not look at each other
//! at every poll.
//!
//! A clock that many threads add to is kept in cells, one a thread, and read by adding them up. Beside its use each cell has a
//! [`Watch`]: the use at which its owner has to look. So a cell whose watch is not reached stands at one less at the most, and
//! the sum of that, of (watch - 1), stays below the next expiry: if none is reached the clock has not come to it:
//!
//! ```text
//!   next expiry        100
//!   cells' use          20    10     0      sum 30, left 70, two threads poll
//!   watches             55    45     1      a thread that does not poll now looks at its first charge
//! ```
//!
//! Who reaches its watch *reckons*: adds the cells up and, if the expiry has not come, gives every cell a new watch: its use and an
//! equal share of what is left. All of them and not its own alone: a share that was made when more was left, and was not used
//! since, would let its owner run past the expiry unseen.
//!
//! So the boundary of the poll that brings the clock to an expiry finds it, whichever thread it is on. It is never found too early:
//! what decides is the sum.
//!
//! # What a poll pays
//! Nothing is armed: one comparison, of the watch with "off". Something is: a fence and a comparison more. Only reckoning touches
//! other threads' lines. A thread that runs alone has all of what is left as its share; where n threads run, each reckons about
//! n times for every halving of what is left, until its share is as short as a poll, and then at each of about n polls.
//!
//! Measured, more than an empty poll of a task without a group: 1.3 ns for a member of a group, 3 ns more if the group is
//! nested and 1.2 ns for each level beyond, 6.5 ns while a timer is armed (far off, or every millisecond).
//!
//! # Invariants
//! * **While no watch is reached the clock has not come to the next expiry**, whenever nobody reckons: what is left is shared out
//!   once.
//! * **No charge is missed.** Each step below is a store, a full fence and a load, on both sides, so one of the two sees the other:
//!   - A charge stores the use, fences, and loads the watch. Whoever sets a watch stores it, fences, and loads the uses once more.
//!     If they have changed, it reckons again; if not, every later charge sees the new watch.
//!   - One thread reckons at a time. Another that wants to says so first (`version`), then finds it busy, and leaves: its own watch
//!     is still reached, and whoever is at it looks at `version` behind giving it up.
//!   - Arming stores the next expiry and then reckons, waiting its turn. Whoever has reckoned with the expiry before sees `version`.
//! * A watch is *off* if nothing was armed when its owner looked. To switch watches on costs the armer a
//!   [heavy fence](crate::membarrier), in place of the one that charges under a watch that is off do without.
//! * A cell that nobody has set stands at zero: its owner looks at its first charge. So threads that are new need not be known.

use crate::membarrier;
use crate::record::NEVER;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, fence_after_rmw};

/// How often one reckoning starts anew because others have charged meanwhile, before it has each thread look at its next charge.
const ATTEMPTS: u32 = 4;

/// The use at which the owner of a cell has to look. The owner reads it; who reckons sets it.
#[derive(Debug)]
pub(crate) struct Watch(AtomicU64);

impl Watch {
    const OFF: u64 = NEVER;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Behind a charge: whether its owner has to [look](Horizon::look). The one comparison of the poll path.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        // In a model the light fence is a full one, which only the armer's heavy one can bring about: so only where it is off.
        #[cfg(loom)]
        if self.0.load(Ordering::Relaxed) != Self::OFF {
            return true;
        }
        membarrier::light();
        self.0.load(Ordering::Relaxed) != Self::OFF
    }

    pub(crate) fn is_reached(&self, used_ns: u64) -> bool {
        used_ns >= self.0.load(Ordering::Relaxed)
    }

    /// Has the owner look at its next charge. For the tick, too; where it meets a reckoning one of the two is lost, which the next
    /// tick makes good.
    pub(crate) fn call(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How much its owner can use without a look.
    #[cfg(all(test, loom))]
    pub(super) fn unseen_ns(&self, used_ns: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(used_ns + 1)
    }

    /// Returns whether it was off.
    fn set(&self, at_ns: u64) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(at_ns, Ordering::Relaxed);
        before == Self::OFF
    }

    fn switch_off(&self) {
        // Without a heavy fence every charge has to fence, so every owner looks.
        self.0.store(if membarrier::is_there() { Self::OFF } else { 0 }, Ordering::Relaxed);
    }
}

/// A cell as somebody else sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) used_ns: u64,
    pub(crate) watch: &'a Watch,
    /// Whether its thread polls, as opposed to waiting.
    pub(crate) is_active: bool,
}

/// The cells of one clock.
pub(crate) trait Cells {
    /// Shows every cell that has ever been charged.
    fn each(&self, see: impl FnMut(View<'_>));

    /// What the clock reads if the cells add up to this; at least the sum less a constant.
    fn reading(&self, sum_ns: u64) -> u64;

    /// What the clock is known to read without asking anybody else's CPU clock.
    fn charged_ns(&self) -> u64 {
        self.reading(sum(self))
    }
}

fn sum(cells: &(impl Cells + ?Sized)) -> u64 {
    let mut sum_ns = 0u64;
    cells.each(|cell| sum_ns = sum_ns.saturating_add(cell.used_ns));
    sum_ns
}

/// The next expiry of a clock, and who reckons with it.
#[derive(Debug)]
pub(crate) struct Horizon {
    next_ns: AtomicU64,
    /// Counts those who want to reckon.
    version: AtomicU64,
    busy: AtomicU32,
}

impl Horizon {
    pub(crate) fn new() -> Self {
        Self { next_ns: AtomicU64::new(NEVER), version: AtomicU64::new(0), busy: AtomicU32::new(0) }
    }

    /// The next expiry; [`NEVER`] if nothing is armed. Never later than the true one.
    #[inline]
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns.load(Ordering::Relaxed)
    }

    /// Stores the next expiry, under the lock that guards the timers. Returns whether it is earlier than before: then
    /// [`rearm`](Self::rearm) behind the lock.
    pub(crate) fn set_next(&self, next_ns: u64) -> bool {
        let before = self.next_ns.load(Ordering::Relaxed);
        self.next_ns.store(next_ns, Ordering::Relaxed);
        next_ns < before
    }

    /// Whether the clock has come to the next expiry, by what has been charged.
    pub(crate) fn is_due(&self, cells: &impl Cells) -> bool {
        let next_ns = self.next_ns();
        next_ns != NEVER && cells.charged_ns() >= next_ns
    }

    /// For the owner of `mine`, behind a charge, if its watch is on: whether the clock has come to the next expiry. If it has, every
    /// watch is called, so that each thread's next charge finds it too, until somebody has delivered and a charge reckons with
    /// what comes next.
    #[cold]
    pub(crate) fn look(&self, used_ns: u64, mine: &Watch, cells: &impl Cells) -> bool {
        fence(Ordering::SeqCst);
        mine.is_reached(used_ns) && self.reckon(mine, cells)
    }

    fn reckon(&self, mine: &Watch, cells: &impl Cells) -> bool {
        self.version.fetch_add(1, Ordering::SeqCst);
        fence_after_rmw();
        loop {
            if !self.try_take() {
                // Whoever is at it sees the version. Our watch is still reached: should that not be its last word, it is ours.
                return self.is_due(cells);
            }
            let version = self.version.load(Ordering::Acquire);
            let due = self.assign(Some(mine), cells).due;
            if self.give_up(version) || due {
                return due;
            }
        }
    }

    /// Has the clock's threads look out for an expiry earlier than before. For whoever has stored it, behind the lock; not on the poll
    /// path: it waits for one that reckons, and may make a system call.
    pub(crate) fn rearm(&self, cells: &impl Cells) {
        self.version.fetch_add(1, Ordering::SeqCst);
        fence_after_rmw();
        let mut was_off = false;
        loop {
            while !self.try_take() {
                crate::sync::yield_now();
            }
            let version = self.version.load(Ordering::Acquire);
            was_off |= self.assign(None, cells).was_off;
            if self.give_up(version) {
                break;
            }
        }
        if was_off {
            membarrier::heavy();
        }
    }

    fn try_take(&self) -> bool {
        self.busy.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Whether nobody has come meanwhile, who relies on a reckoning behind its coming.
    fn give_up(&self, version: u64) -> bool {
        self.busy.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Gives every cell its watch. For the one that is `busy`.
    fn assign(&self, mine: Option<&Watch>, cells: &impl Cells) -> Assigned {
        let is_mine = |watch: &Watch| mine.is_some_and(|mine| std::ptr::eq(mine, watch));
        let mut was_off = false;
        for attempt in 1.. {
            let next_ns = self.next_ns();
            if next_ns == NEVER {
                // Should something be armed just now, the armer has moved the version, or waits for its turn.
                if let Some(mine) = mine {
                    mine.switch_off();
                }
                break;
            }
            let (mut sum_ns, mut threads) = (0u64, 0);
            cells.each(|cell| {
                sum_ns = sum_ns.saturating_add(cell.used_ns);
                threads += u64::from(cell.is_active || is_mine(cell.watch));
            });
            let now_ns = cells.reading(sum_ns);
            let share_ns = match next_ns.checked_sub(now_ns) {
                None | Some(0) => break,
                // Others keep charging: whatever was missed here, nobody runs on unseen.
                Some(_) if attempt > ATTEMPTS => 1,
                Some(left_ns) => (left_ns / threads.max(1)).max(1),
            };
            cells.each(|cell| {
                // Who waits looks at the first charge: with a share of 1 its watch is above its use, and below any other.
                let share_ns = if cell.is_active || is_mine(cell.watch) { share_ns } else { 1 };
                was_off |= cell.watch.set(cell.used_ns.saturating_add(share_ns).min(NEVER - 1));
            });
            fence(Ordering::SeqCst);
            if self.next_ns() == next_ns && (sum(cells) == sum_ns || attempt > ATTEMPTS) {
                break;
            }
        }
        let due = self.is_due(cells);
        if due {
            cells.each(|cell| was_off |= cell.watch.set(0));
        }
        Assigned { due, was_off }
    }
}

/// What a reckoning came to.
struct Assigned {
    due: bool,
    /// Whether any watch was off.
    was_off: bool,
}
