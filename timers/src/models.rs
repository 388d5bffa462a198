//! Loom models of the real lock-free types: every interleaving, under the C++11 memory model as far as loom knows it.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p stipend-timers --lib`.

mod firing;

use loom::thread;
use std::sync::Arc;

use crate::clock::Stamp;
use crate::gate::{Gate, Timer};
use crate::slot::{FrameView, Section, Slot, Target};
use crate::sync::{AtomicU64, Ordering};
use crate::wake_queue::{Kinds, TickPost, WakeQueue};

fn occupied() -> Arc<WakeQueue> {
    let queue = WakeQueue::vacant();
    queue.occupy();
    Arc::new(queue)
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.check(f);
}

/// t15: the owner ends and the record is recycled while a tick still posts for the poll that it saw.
#[test]
fn loom_t15_a_recycled_record_is_never_posted_to() {
    model(|| {
        let queue = occupied();
        let ticks = queue.clone();
        let tick = thread::spawn(move || ticks.post_tick(0, 1, Kinds::TICK.or(Kinds::LIMIT)));
        queue.begin(1);
        queue.finish();
        queue.end();
        queue.vacate();
        queue.occupy();
        assert!(queue.peek(1).is_empty(), "the next owner sees a post that was not for it");
        tick.join().unwrap();
        assert!(queue.is_idle());
    });
}

/// t15: a post that lands as the poll ends is taken there, or is void in the next poll.
#[test]
fn loom_t15_a_post_as_the_poll_ends_does_not_reach_the_next_poll() {
    model(|| {
        let queue = occupied();
        let ticks = queue.clone();
        let tick = thread::spawn(move || ticks.post_tick(0, 1, Kinds::TICK.or(Kinds::LIMIT)));
        // The boundary of poll 1, as the owner does it.
        if !queue.is_idle() {
            queue.begin(1);
            queue.finish();
        }
        // Poll 2.
        assert!(!queue.peek(2).contains(Kinds::LIMIT));
        tick.join().unwrap();
        assert!(!queue.peek(2).contains(Kinds::LIMIT));
        let taken = queue.begin(2);
        assert!(!taken.contains(Kinds::TICK));
        queue.finish();
        assert!(queue.is_idle());
    });
}

/// t10: whatever a tick does, a CANCEL is either taken by the owner's pass or its producer is told to wake the task.
#[test]
fn loom_t10_tick_against_cancel_loses_neither() {
    model(|| {
        let queue = occupied();
        let (ticks, cancels) = (queue.clone(), queue.clone());
        let tick = thread::spawn(move || ticks.post_tick(0, 1, Kinds::TICK));
        let cancel = thread::spawn(move || cancels.post(Kinds::CANCEL).unwrap());
        let first = queue.begin(1);
        let posted = queue.finish();
        let posted_tick = tick.join().unwrap();
        let wake = cancel.join().unwrap();
        assert!(wake, "nobody else has woken the task");
        let second = queue.begin(1);
        assert!(first.or(second).contains(Kinds::CANCEL));
        assert!(!(first.contains(Kinds::CANCEL) && second.contains(Kinds::CANCEL)), "taken once");
        if posted_tick == TickPost::Posted {
            assert!(first.or(second).contains(Kinds::TICK));
        }
        if posted {
            assert!(!second.is_empty());
        }
    });
}

/// Two producers of one waking kind: exactly one is told to wake.
#[test]
fn loom_t10_one_of_two_wakers_wakes() {
    for kind in [Kinds::CANCEL, Kinds::EXPIRY] {
        model(move || {
            let queue = occupied();
            let other = queue.clone();
            let one = thread::spawn(move || other.post(kind).unwrap());
            let mine = queue.post(kind).unwrap();
            let theirs = one.join().unwrap();
            assert!(mine != theirs);
            assert!(queue.begin(1).contains(kind));
        });
    }
}

/// A cancellation is told to wake whatever was posted before: that may have found no waker.
#[test]
fn loom_t10_a_cancellation_wakes_behind_an_expiry() {
    model(|| {
        let queue = occupied();
        let other = queue.clone();
        let cancel = thread::spawn(move || other.post(Kinds::CANCEL).unwrap());
        queue.post(Kinds::EXPIRY).unwrap();
        assert!(cancel.join().unwrap());
        assert!(queue.begin(1).contains(Kinds::CANCEL.or(Kinds::EXPIRY)));
    });
}

/// t11: the tick sees that use has reached an expiry which another thread has just armed, meets Running and queues nothing.
/// Then the owner's comparison behind `finish` sees the expiry.
#[test]
fn loom_t11_the_recheck_behind_running_sees_what_the_tick_saw() {
    model(|| {
        let queue = occupied();
        let next_expiry = Arc::new(AtomicU64::new(u64::MAX));
        let (ticks, seen_by_tick) = (queue.clone(), next_expiry.clone());
        let armed = next_expiry.clone();
        let armer = thread::spawn(move || armed.store(5, Ordering::Release));
        let tick = thread::spawn(move || {
            if seen_by_tick.load(Ordering::Acquire) <= 10 { Some(ticks.post_tick(0, 1, Kinds::TICK)) } else { None }
        });
        queue.begin(1);
        queue.finish();
        let rechecked = next_expiry.load(Ordering::Relaxed) <= 10;
        let tick = tick.join().unwrap();
        armer.join().unwrap();
        if tick == Some(TickPost::Running) {
            assert!(rechecked, "the tick relied on a look that did not see it");
        }
    });
}

fn view(n: u64) -> FrameView {
    FrameView {
        target: Target { index: n as u32, generation: n as u32 },
        seq: n as u32,
        section: Section::Poll,
        start: Stamp { cpu_ns: n, fast: n },
    }
}

/// The seqlock: a reader sees a frame whole, with the use that belongs to it, or nothing.
#[test]
fn loom_slot_snapshots_are_whole() {
    model(|| {
        let slot = Arc::new(Slot::new());
        let used = Arc::new(AtomicU64::new(0));
        let (slot2, used2) = (slot.clone(), used.clone());
        let reader = thread::spawn(move || {
            let seen = slot2.read(|frames| (frames.iter().next(), used2.load(Ordering::Relaxed)));
            match seen {
                Some((Some(frame), used)) => {
                    assert_eq!(frame, view(frame.seq.into()), "a mixture of two frames");
                    // The first section started at use 0, the second at use 10.
                    assert_eq!(used, if frame.seq == 1 { 0 } else { 10 });
                }
                Some((None, used)) => assert!(used == 0 || used == 20),
                None => {}
            }
        });
        slot.push(view(1), || ());
        slot.restart(0, view(2), || used.store(10, Ordering::Relaxed));
        slot.pop(0, || used.store(20, Ordering::Relaxed));
        reader.join().unwrap();
    });
}

/// A change behind the snapshot is noticed by the second look, so a remote clock read in between is thrown away.
#[test]
fn loom_slot_is_still_only_if_nothing_changed() {
    model(|| {
        let slot = Arc::new(Slot::new());
        let clock = Arc::new(AtomicU64::new(0));
        slot.push(view(1), || ());
        let (slot2, clock2) = (slot.clone(), clock.clone());
        let reader = thread::spawn(move || {
            let version = slot2.read(|frames| frames.version());
            let now = clock2.load(Ordering::Acquire);
            if let Some(version) = version
                && slot2.is_still(version)
            {
                // Nothing has changed: the clock was read within the section that the version names.
                assert!(now == 0 || version != 2, "the clock of a later section was taken for this one's");
            }
        });
        slot.pop(0, || ());
        clock.store(9, Ordering::Release);
        reader.join().unwrap();
    });
}

/// Two threads, the tick and its timer, as in `meter`.
struct Ticking {
    gate: Gate,
    active: [AtomicU64; 2],
    timer: Running,
}

struct Running(AtomicU64);

impl Timer for Running {
    fn start(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    fn stop(&self) -> bool {
        self.0.store(0, Ordering::Relaxed);
        true
    }
}

impl Ticking {
    /// The first thread is active, or was a moment ago, and the tick is on.
    fn on(active: bool) -> Arc<Self> {
        let timer = Running(AtomicU64::new(1));
        let active = [AtomicU64::new(active.into()), AtomicU64::new(0)];
        let ticking = Arc::new(Self { gate: Gate::new(), active, timer });
        assert!(ticking.gate.open());
        ticking
    }

    fn any_active(&self) -> bool {
        self.active.iter().any(|active| active.load(Ordering::Acquire) != 0)
    }

    fn set_active(&self, thread: usize) {
        self.active[thread].store(1, Ordering::Relaxed);
        if self.gate.open() {
            self.timer.start();
        }
    }

    fn set_idle(&self, thread: usize) {
        self.active[thread].store(0, Ordering::Release);
        if self.gate.is_open() && !self.any_active() {
            self.gate.switch_off(&self.timer, || self.any_active());
        }
    }

    fn tick(&self) {
        if self.gate.came(&self.timer, || self.any_active()) && !self.any_active() {
            self.gate.switch_off(&self.timer, || self.any_active());
        }
    }

    fn is_running(&self) -> bool {
        self.timer.0.load(Ordering::Relaxed) == 1
    }

    #[track_caller]
    fn assert_on(&self) {
        assert!(self.gate.is_open(), "a thread is active and the tick is off");
        assert!(self.is_running(), "the gate is open and the timer stands still");
    }
}

/// The tick goes to sleep while a thread leaves idleness: afterwards, with the thread active, the timer runs.
#[test]
fn loom_the_tick_never_sleeps_beside_an_active_thread() {
    model(|| {
        let ticking = Ticking::on(false);
        let worker = thread::spawn({
            let ticking = ticking.clone();
            move || ticking.set_active(1)
        });
        ticking.tick();
        worker.join().unwrap();
        ticking.assert_on();
    });
}

/// The last thread becomes idle and switches the tick off, as the tick itself does so too; meanwhile another becomes active.
#[test]
fn loom_two_that_switch_the_tick_off_do_not_stop_it_for_a_third() {
    model(|| {
        let ticking = Ticking::on(true);
        let last = thread::spawn({
            let ticking = ticking.clone();
            move || ticking.set_idle(0)
        });
        let next = thread::spawn({
            let ticking = ticking.clone();
            move || ticking.set_active(1)
        });
        ticking.tick();
        last.join().unwrap();
        next.join().unwrap();
        ticking.assert_on();
    });
}

/// A thread becomes idle while another is active for a moment: the next tick finds nobody, and is the last one.
#[test]
fn loom_the_tick_ends_once_it_has_found_nobody() {
    model(|| {
        let ticking = Ticking::on(true);
        let last = thread::spawn({
            let ticking = ticking.clone();
            move || ticking.set_idle(0)
        });
        let next = thread::spawn({
            let ticking = ticking.clone();
            move || {
                ticking.set_active(1);
                ticking.set_idle(1);
            }
        });
        last.join().unwrap();
        next.join().unwrap();
        if ticking.is_running() {
            ticking.tick();
        }
        assert!(!ticking.is_running(), "nobody is active and the tick goes on");
        assert!(!ticking.gate.is_open(), "whoever is active next would not start the timer");
    });
}

/// Two threads leave idleness at once: one of them starts the timer, not both.
#[test]
fn loom_one_thread_starts_the_tick() {
    model(|| {
        let gate = Arc::new(Gate::new());
        let other = gate.clone();
        let theirs = thread::spawn(move || other.open());
        let mine = gate.open();
        assert!(mine != theirs.join().unwrap());
    });
}
