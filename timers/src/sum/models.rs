//! Loom models of the real [`Horizon`] and [`Sum`]: two threads' cells, in every interleaving.

use loom::thread;
use std::sync::Arc;

use super::Sum;
use super::horizon::{Cells, Horizon, View, Watch};
use crate::stream::Inbox;
use crate::sync::{AtomicU64, Ordering};
use crate::timer_set::{Delivery, Due};

struct Cell {
    used_ns: AtomicU64,
    watch: Watch,
    is_active: bool,
}

#[derive(Clone)]
struct Two(Arc<[Cell; 2]>);

impl Two {
    fn new(active: [bool; 2]) -> Self {
        Self(Arc::new(active.map(|is_active| Cell { used_ns: AtomicU64::new(0), watch: Watch::new(), is_active })))
    }

    /// A boundary, as `Run` and `Whole::look` do it. Whether it finds the expiry due.
    fn charge(&self, own: usize, ns: u64, horizon: &Horizon) -> bool {
        let cell = &self.0[own];
        let used_ns = cell.used_ns.load(Ordering::Relaxed) + ns;
        cell.used_ns.store(used_ns, Ordering::Release);
        cell.watch.is_on() && horizon.look(used_ns, &cell.watch, self)
    }
}

impl Cells for Two {
    fn each(&self, mut see: impl FnMut(View<'_>)) {
        for cell in self.0.iter() {
            let used_ns = cell.used_ns.load(Ordering::Acquire);
            see(View { used_ns, watch: &cell.watch, is_active: cell.is_active });
        }
    }

    fn reading(&self, sum_ns: u64) -> u64 {
        sum_ns
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.check(f);
}

/// Whatever has been armed, by whoever, when everybody has come to an end.
fn arm(horizon: &Horizon, cells: &Two, at_ns: u64) -> bool {
    if horizon.set_next(at_ns) {
        horizon.rearm(cells);
    }
    horizon.is_due(cells)
}

/// t28: nothing was armed, so the charge has no fence of its own. The armer sees the charge, or the charge sees the watch.
#[test]
fn loom_t28_arming_while_a_member_charges_is_seen_by_one_side() {
    model(|| {
        let (horizon, cells) = (Arc::new(Horizon::new()), Two::new([true, false]));
        assert!(!cells.charge(0, 1, &horizon), "switches its watch off");
        let (theirs, of_owner) = (horizon.clone(), cells.clone());
        let owner = thread::spawn(move || of_owner.charge(0, 5, &theirs));
        let armer = arm(&horizon, &cells, 6);
        assert!(owner.join().unwrap() | armer, "the expiry is lost");
        assert!(cells.charge(0, 0, &horizon) && cells.charge(1, 0, &horizon), "every next boundary finds it");
    });
}

/// t27: an owner switches its watch off, as nothing is armed, just when something is.
#[test]
fn loom_t27_a_watch_that_goes_off_does_not_hide_what_is_armed() {
    model(|| {
        let (horizon, cells) = (Arc::new(Horizon::new()), Two::new([true, false]));
        let (theirs, of_owner) = (horizon.clone(), cells.clone());
        let owner = thread::spawn(move || of_owner.charge(0, 5, &theirs) | of_owner.charge(0, 5, &theirs));
        let armer = arm(&horizon, &cells, 9);
        assert!(owner.join().unwrap() | armer, "the expiry is lost");
    });
}

/// t27: two threads each see the other's use, or the other sees theirs, when they come to the expiry together.
#[test]
fn loom_t27_two_threads_that_come_to_it_together_do_not_both_miss_it() {
    model(|| {
        let (horizon, cells) = (Arc::new(Horizon::new()), Two::new([true, true]));
        assert!(!arm(&horizon, &cells, 10));
        let (theirs, of_other) = (horizon.clone(), cells.clone());
        let other = thread::spawn(move || of_other.charge(0, 6, &theirs));
        let own = cells.charge(1, 6, &horizon);
        assert!(other.join().unwrap() | own, "12 of 10 are used, and nobody knows");
    });
}

/// t27: a thread has a share from when more was left. Another takes what is left, and gives it a smaller one, while it uses the old.
#[test]
fn loom_t27_a_share_is_used_while_it_is_made_smaller() {
    model(|| {
        let (horizon, cells) = (Arc::new(Horizon::new()), Two::new([true, true]));
        assert!(!arm(&horizon, &cells, 20), "ten each");
        assert!(!cells.charge(0, 9, &horizon));
        let (theirs, of_other) = (horizon.clone(), cells.clone());
        // Nine of its ten.
        let other = thread::spawn(move || of_other.charge(1, 9, &theirs));
        let own = cells.charge(0, 4, &horizon);
        let found = other.join().unwrap() | own;
        assert!(found, "22 of 20 are used, and nobody knows");
    });
}

/// t27: behind any two charges at once, none of the threads can run past the expiry without a look.
fn what_is_left_is_shared_out_once(own_ns: u64, others_ns: u64) {
    model(move || {
        let (horizon, cells) = (Arc::new(Horizon::new()), Two::new([true, true]));
        assert!(!arm(&horizon, &cells, 40), "twenty each");
        let (theirs, of_other) = (horizon.clone(), cells.clone());
        let other = thread::spawn(move || of_other.charge(1, others_ns, &theirs));
        let own = cells.charge(0, own_ns, &horizon);
        assert!(!other.join().unwrap() && !own);
        let unseen: u64 = cells.0.iter().map(|cell| cell.watch.unseen_ns(cell.used_ns.load(Ordering::Relaxed))).sum();
        assert!(own_ns + others_ns + unseen < 40, "{unseen} can be used unseen");
    });
}

#[test]
fn loom_t27_one_reckons_while_another_charges() {
    what_is_left_is_shared_out_once(3, 21);
}

/// What the other charges is within the share that it had, and beyond the one that it is given.
#[test]
fn loom_t27_another_comes_while_one_reckons() {
    what_is_left_is_shared_out_once(20, 15);
}

#[test]
fn loom_t27_two_want_to_reckon() {
    what_is_left_is_shared_out_once(20, 5);
    what_is_left_is_shared_out_once(21, 12);
}

/// t26: two threads find it due at once. Each expiry is delivered once, one thread is at it at a time, and none is left over when
/// both are done.
#[test]
fn loom_t26_one_thread_at_a_time_expires_and_nothing_is_left() {
    model(|| {
        let (sum, cells) = (Arc::new(Sum::new()), Two::new([true, true]));
        for at_ns in [5, 7] {
            sum.change(&cells, |timers| {
                let id = timers.insert(Delivery::stream(Arc::new(Inbox::default())));
                timers.arm(id, at_ns, 0, 0);
            });
        }
        let at_it = Arc::new(AtomicU64::new(0));
        let expire = |own: usize, ns: u64, sum: &Sum, cells: &Two, at_it: &AtomicU64| {
            let mut delivered = 0;
            if cells.charge(own, ns, &sum.horizon) {
                while sum.horizon.is_due(cells) && sum.begin() {
                    assert_eq!(at_it.fetch_add(1, Ordering::Relaxed), 0, "two threads at once");
                    while !matches!(sum.next_due(cells.charged_ns()), Due::Nothing) {
                        delivered += 1;
                    }
                    at_it.fetch_sub(1, Ordering::Relaxed);
                    if !sum.end(cells) {
                        break;
                    }
                }
            }
            delivered
        };
        let (sum2, cells2, at_it2) = (sum.clone(), cells.clone(), at_it.clone());
        let other = thread::spawn(move || expire(0, 6, &sum2, &cells2, &at_it2));
        let own = expire(1, 4, &sum, &cells, &at_it);
        assert_eq!(other.join().unwrap() + own, 2);
        assert!(!sum.waits_for_expiry(&cells));
    });
}
