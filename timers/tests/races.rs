//! Arming, closing and ending against firing, with real threads on the manual clock.

mod common;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::Context;
use std::thread::scope;
use std::time::Duration;

use common::{Bench, Wakes, ms};
use futures::StreamExt;
use futures::executor::block_on;
use stipend_timers::test::Manual;
use stipend_timers::{Account, Control, CpuTimer, Group};

/// Stops the other threads also when an assertion fails, so that the scope ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Runs polls of `each` on `account` until told to stop.
fn polls(manual: &Manual, account: &Account, each: Duration, mut go_on: impl FnMut() -> bool) {
    let lease = manual.meter().attach();
    while go_on() {
        let mut run = lease.begin(account, lease.stamp());
        if matches!(run.before_poll(), Control::Proceed) {
            manual.advance(each);
            let _ = run.after_poll(false);
        }
        run.end();
        account.watch().recheck();
    }
}

#[test]
fn t19_t20_after_close_no_handler_of_the_timer_starts_or_runs() {
    let (manual, account, stop) = (Manual::new(), Account::new(), AtomicBool::new(false));
    let clock = account.clock();
    // Of the rounds that closed without waiting for the handler: how many it came before, and how many it did not.
    let (mut delivered, mut missed) = (0, 0);
    scope(|s| {
        let _stop = Stop(&stop);
        s.spawn(|| polls(&manual, &account, ms(1), || !stop.load(SeqCst)));
        for round in 0..20_000 {
            if round >= 2_000 && delivered > 0 && missed > 0 {
                break;
            }
            let (running, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let (count, violated) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            let handler = {
                let (running, closed, count, violated) =
                    (running.clone(), closed.clone(), count.clone(), violated.clone());
                move |_| {
                    running.fetch_add(1, SeqCst);
                    count.fetch_add(1, SeqCst);
                    std::thread::yield_now();
                    violated.fetch_or(closed.load(SeqCst), SeqCst);
                    running.fetch_sub(1, SeqCst);
                }
            };
            let timer = clock.timer().on_expiry(handler).arm_after(ms(1 + round % 3)).unwrap();
            let waits = round % 4 == 0;
            while waits && count.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            // The others close sooner or later, and some leave the other thread this one's core first, which it may need.
            if round % 4 == 2 {
                std::thread::yield_now();
            } else {
                (0..round % 50).for_each(|_| std::hint::spin_loop());
            }
            block_on(timer.close());
            closed.store(true, SeqCst);
            assert_eq!(running.load(SeqCst), 0, "a handler runs after its timer is closed");
            let seen = count.load(SeqCst);
            assert!(seen <= 1, "a one-shot was delivered {seen} times");
            std::thread::yield_now();
            assert!(count.load(SeqCst) == seen && !violated.load(SeqCst), "a delivery after the close");
            if !waits {
                delivered += seen;
                missed += 1 - seen;
            }
        }
    });
    assert!(delivered > 0 && missed > 0, "the race was none: {delivered} deliveries, and {missed} closed before");
}

#[test]
fn t22_waiting_for_a_close_sleeps() {
    let (manual, account) = (Manual::new(), Account::new());
    let (entered, inside) = mpsc::channel();
    let (let_go, gate) = mpsc::channel::<()>();
    let timer = account
        .clock()
        .timer()
        .on_expiry(move |_| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })
        .arm_after(ms(1))
        .unwrap();
    scope(|s| {
        s.spawn(|| {
            let mut left = 1;
            polls(&manual, &account, ms(1), || std::mem::replace(&mut left, 0) == 1);
        });
        inside.recv().unwrap();
        let mut closing = pin!(timer.close());
        let polls = AtomicUsize::new(0);
        // Let go from a third thread, after a while in which a spinning wait would poll very often.
        s.spawn(move || {
            std::thread::sleep(ms(100));
            let_go.send(()).unwrap();
        });
        block_on(std::future::poll_fn(|cx| {
            polls.fetch_add(1, SeqCst);
            closing.as_mut().poll(cx)
        }));
        assert_eq!(polls.load(SeqCst), 2, "one poll that waits and one that is ready");
    });
}

#[test]
fn t22_only_the_waker_of_the_last_poll_of_a_close_is_kept() {
    let bench = Bench::new();
    let wakes: [Arc<Wakes>; 2] = Default::default();
    let place = Arc::new(std::sync::Mutex::new(None::<CpuTimer>));
    let (own, theirs) = (place.clone(), wakes.clone());
    let closing = Arc::new(std::sync::Mutex::new(None));
    let kept = closing.clone();
    let mut task = bench.burner(ms(5));
    let timer = task
        .clock()
        .timer()
        .on_expiry(move |_| {
            // Closed inside its own handler: it waits for this very handler.
            let mut close = Box::pin(own.lock().unwrap().take().unwrap().close());
            for wakes in &theirs {
                let waker = wakes.clone().into();
                assert!(close.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            *kept.lock().unwrap() = Some(close);
        })
        .arm_at(ms(5))
        .unwrap();
    *place.lock().unwrap() = Some(timer);
    task.pending();
    assert_eq!((wakes[0].count(), wakes[1].count()), (0, 1));
    block_on(closing.lock().unwrap().take().unwrap());
}

#[test]
fn t24_arming_while_firing_reports_the_previous_setting_once() {
    let (manual, account, stop) = (Manual::new(), Account::new(), AtomicBool::new(false));
    let fired = Arc::new(AtomicUsize::new(0));
    let count = fired.clone();
    let timer = account
        .clock()
        .timer()
        .on_expiry(move |_| {
            count.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    let (mut armed, mut found) = (0, 0);
    scope(|s| {
        let _stop = Stop(&stop);
        s.spawn(|| polls(&manual, &account, ms(1), || !stop.load(SeqCst)));
        for round in 0..20_000 {
            // Each arming is either delivered or found by the one that takes its place.
            found += usize::from(!timer.arm_after(ms(1)).unwrap().remaining.is_zero());
            armed += 1;
            // The other thread may need this one's core; but each time that is given up, a busy machine keeps it for long.
            if round % 64 == 0 {
                std::thread::yield_now();
            } else {
                (0..round % 50).for_each(|_| std::hint::spin_loop());
            }
        }
        found += usize::from(!timer.disarm().remaining.is_zero());
    });
    assert_eq!(fired.load(SeqCst) + found, armed);
    assert!(found < armed, "nothing fired");
}

#[test]
fn t25_a_target_that_ends_while_its_timers_fire() {
    for round in 0..500 {
        let (manual, account) = (Manual::new(), Account::new());
        let clock = account.clock();
        let start = Barrier::new(3);
        let fired = Arc::new(AtomicUsize::new(0));
        let count = fired.clone();
        let timer = clock
            .timer()
            .every(ms(1))
            .on_expiry(move |_| {
                count.fetch_add(1, SeqCst);
            })
            .arm_after(ms(1))
            .unwrap();
        let mut stream = clock.timer().every(ms(1)).stream_after(ms(1)).unwrap();
        let total = scope(|s| {
            s.spawn(|| {
                start.wait();
                let mut left = round % 7;
                polls(&manual, &account, ms(1), || {
                    left -= 1;
                    left >= 0
                });
                account.end();
            });
            s.spawn(|| {
                start.wait();
                let _ = timer.arm_every(ms(1), ms(1));
                block_on(timer.close());
            });
            let supervisor = s.spawn(|| {
                block_on(async {
                    start.wait();
                    let mut total = 0;
                    while let Some(expiry) = stream.next().await {
                        total += 1 + expiry.overrun;
                    }
                    total
                })
            });
            supervisor.join().unwrap()
        });
        // It ends, and nothing that had fired is lost with the task.
        assert_eq!(u128::from(total), clock.now().as_millis());
        assert!(fired.load(SeqCst) <= 6);
    }
}

/// If the cached next expiry were ever later than the true one, the boundary would pass over a timer.
#[test]
fn t27_no_boundary_passes_over_a_timer_whatever_is_armed_beside_it() {
    let (manual, account, stop) = (Manual::new(), Account::new(), AtomicBool::new(false));
    let clock = account.clock();
    let polled = AtomicUsize::new(0);
    scope(|s| {
        let _stop = Stop(&stop);
        s.spawn(|| polls(&manual, &account, ms(1), || polled.fetch_add(1, SeqCst) < usize::MAX && !stop.load(SeqCst)));
        // Others arm, disarm and drop all the time, later and earlier.
        for seed in 0..2u64 {
            let (clock, stop) = (clock.clone(), &stop);
            s.spawn(move || {
                let mut n = seed;
                while !stop.load(SeqCst) {
                    n += 1;
                    let far = clock.timer().on_expiry(|_| ()).arm_after(ms(1_000 + n % 7)).unwrap();
                    let near = clock.timer().on_expiry(|_| ()).arm_after(ms(2)).unwrap();
                    near.arm_after(ms(5_000)).unwrap();
                    far.disarm();
                }
            });
        }
        for _ in 0..100 {
            let (told, heard) = mpsc::channel();
            let _timer = clock.timer().on_expiry(move |e| told.send((e.at, e.used)).unwrap()).arm_after(ms(3)).unwrap();
            // Armed by now; until it was, polls went by.
            let armed = clock.now();
            let (at, used) = heard.recv_timeout(Duration::from_secs(20)).expect("the timer was passed over");
            assert!(
                at <= used && used <= at.max(armed) + ms(2),
                "due at {at:?}, armed by {armed:?}, found at {used:?}"
            );
        }
    });
    assert!(polled.load(SeqCst) > 100);
}

/// The account's group changes while the account makes children, and numbers of groups that have ended come to others at once.
#[test]
fn g12_a_child_is_in_a_group_that_its_maker_was_in() {
    let (manual, account, stop) = (Manual::new(), Account::new(), AtomicBool::new(false));
    let children = AtomicUsize::new(0);
    account.set_group(&Group::new("a place to be").unwrap());
    scope(|s| {
        let _stop = Stop(&stop);
        s.spawn(|| {
            while !stop.load(SeqCst) {
                account.set_group(&Group::new("a place to be").unwrap());
                // Has the number of the group before, most likely.
                let _decoy = Group::new("a decoy").unwrap();
                std::thread::yield_now();
            }
        });
        let lease = manual.meter().attach();
        let mut run = lease.begin(&account, lease.stamp());
        assert!(matches!(run.before_poll(), Control::Proceed));
        for _ in 0..100_000 {
            let (child, id) = Account::inherit();
            let group = child.group().expect("its maker always is in a group");
            assert_eq!((group.name(), group.id()), ("a place to be", id));
            children.fetch_add(1, SeqCst);
        }
        run.end();
    });
    assert_eq!(children.load(SeqCst), 100_000);
    let last = account.group().unwrap();
    drop(account);
    // Nobody else has a reference, so the number is free as soon as this one goes: it comes to the next group.
    let (id, serial) = (last.id(), last.id().serial());
    drop(last);
    let heirs: Vec<_> = (0..64).map(|_| Group::new("an heir").unwrap()).collect();
    assert!(heirs.iter().any(|heir| heir.id() == id && id.serial() != serial), "a reference was not given back");
}
