//! Members on several threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::scope;
use std::time::Duration;

use stipend_timers::Group;
use stipend_timers::test::Manual;

use crate::common::{Wakes, log, ms, taken};
use crate::fixtures::*;

#[test]
fn t60_polls_on_several_threads_come_to_the_time_together() {
    let threads = Threads::new(4);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let told = Arc::<Wakes>::default();
    let mut stream = clock.timer().stream_at(ms(40)).unwrap();
    assert_eq!(next(&mut stream, &told), None);
    let fired = log();
    let _timer = handler(&clock, &fired, ms(44));
    let gates: Vec<_> = [16, 14, 5]
        .into_iter()
        .enumerate()
        .map(|(thread, used)| {
            let (account, (open, gate), (at_gate, arrived)) =
                (account(&tenant), mpsc::channel::<()>(), mpsc::channel());
            threads.start(thread, move |lease, manual| {
                let mut run = lease.begin(&account, lease.stamp());
                manual.advance(ms(used));
                at_gate.send(()).unwrap();
                gate.recv().unwrap();
                manual.advance(ms(used));
                at_gate.send(()).unwrap();
                gate.recv().unwrap();
                let _ = run.after_poll(false);
                run.end();
            });
            arrived.recv().unwrap();
            (open, arrived)
        })
        .collect();
    // 16 + 14 + 5 are in progress, and nothing is charged.
    threads.manual.tick();
    assert_eq!((clock.now(), told.count()), (ms(35), 0));
    gates[2].0.send(()).unwrap();
    gates[2].1.recv().unwrap();
    assert_eq!(tenant.cpu_time(), ms(0));
    threads.manual.tick();
    assert_eq!((clock.now(), told.count()), (ms(40), 1), "no thread has come to it alone");
    assert_eq!(next(&mut stream, &told), Some((ms(40), ms(40), 0)));
    gates[1].0.send(()).unwrap();
    gates[1].1.recv().unwrap();
    threads.manual.tick();
    assert_eq!(taken(&fired), []);
    // A poll on the fourth thread, which was not there when the tick looked, and uses nothing.
    threads.poll(3, &account(&tenant), ms(0));
    assert_eq!(taken(&fired), [(ms(44), ms(54), 0)]);
    assert_eq!((clock.now(), tenant.cpu_time()), (ms(54), ms(0)));
    let _later = handler(&clock, &fired, ms(68));
    gates[0].0.send(()).unwrap();
    gates[0].1.recv().unwrap();
    threads.manual.tick();
    assert_eq!(taken(&fired), []);
    // The shortest of them ends: it has used 10 ms itself, and finds that all have used 70.
    gates[2].0.send(()).unwrap();
    threads.wait();
    assert_eq!(taken(&fired), [(ms(68), ms(70), 0)]);
    assert_eq!((clock.now(), tenant.cpu_time()), (ms(70), ms(10)));
    for (open, _) in &gates[..2] {
        let _ = (open.send(()), open.send(()));
        threads.wait();
    }
    assert_eq!(clock.now(), ms(70));
}

#[test]
fn t26_one_thread_at_a_time_expires_and_another_takes_over_what_is_left() {
    let threads = Threads::new(2);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let (a, b) = (account(&tenant), account(&tenant));
    let (entered, inside) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let fired = log();
    let mut note = noting(&fired, |e| ("slow", e.used));
    let _slow = clock
        .timer()
        .on_expiry(move |e| {
            note(e);
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })
        .arm_at(ms(5))
        .unwrap();
    let _second = clock.timer().on_expiry(noting(&fired, |e| ("second", e.used))).arm_at(ms(6)).unwrap();
    let first = a.clone();
    threads.start(0, move |lease, manual| {
        poll(lease, manual, &first, ms(5));
    });
    inside.recv().unwrap();
    // The handler is out on the other thread; this one comes to the second timer's time, and goes on.
    threads.poll(1, &b, ms(5));
    assert_eq!(taken(&fired), [("slow", ms(5))]);
    open.send(()).unwrap();
    threads.wait();
    assert_eq!(taken(&fired), [("second", ms(10))], "the thread that is at it looks once more");
}

#[test]
fn t27_a_share_that_was_not_used_does_not_hide_the_expiry() {
    // One thread is given a large share and waits, another brings the clock near the expiry, then the first goes on.
    let threads = Threads::new(3);
    let tenant = group("tenant");
    let clock = tenant.cpu_clock();
    let members = [(); 3].map(|()| account(&tenant));
    let fired = log();
    for start in 0..3 {
        let used = clock.now();
        let _timer = handler(&clock, &fired, used + ms(100));
        for (thread, member) in members.iter().enumerate() {
            threads.poll(thread, member, us(100));
        }
        let (one, other) = (start, (start + 1) % 3);
        while clock.now() < used + ms(99) {
            threads.poll(one, &members[one], us(100));
        }
        assert_eq!(taken(&fired), []);
        while taken(&fired).is_empty() {
            assert!(clock.now() < used + ms(100), "late");
            threads.poll(other, &members[other], us(20));
        }
        assert_eq!(clock.now(), used + ms(100));
    }
}

/// What a member used, by its own account, beside the threads that run it.
#[test]
fn t26_t49_stress_on_threads_the_clock_is_the_sum_and_each_timer_is_delivered_once() {
    const THREADS: usize = 4;
    let manual = Manual::new();
    let tenant = group("tenant");
    let groups = [tenant.clone(), child(&tenant), child(&tenant)];
    let clock = tenant.cpu_clock();
    let stop = AtomicBool::new(false);
    let start = Barrier::new(THREADS + 2);
    let members: Vec<_> = (0..THREADS).map(|n| account(&groups[n % 3])).collect();
    let running = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let (mut went_back, mut delivered) = (0, 0u64);
    scope(|s| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let _stop = Stop(&stop);
        for (n, account) in members.iter().enumerate() {
            let (manual, start, stop) = (&manual, &start, &stop);
            s.spawn(move || {
                let lease = manual.meter().attach();
                lease.set_active();
                start.wait();
                let mut step = n as u64;
                while !stop.load(SeqCst) {
                    step = (step * 31 + 7) % 97;
                    poll(&lease, manual, account, us(step));
                    if step.is_multiple_of(16) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let reader = {
            let (clock, start, stop) = (clock.clone(), &start, &stop);
            s.spawn(move || {
                start.wait();
                let (mut last, mut back) = (Duration::ZERO, 0);
                while !stop.load(SeqCst) {
                    let now = clock.now();
                    back += usize::from(now < last);
                    last = now.max(last);
                    std::thread::yield_now();
                }
                back
            })
        };
        start.wait();
        for round in 0..1_500u64 {
            let (tell, heard) = mpsc::channel();
            let (running, group) = (running[round as usize % 3].clone(), &groups[round as usize % 3]);
            let clock = group.cpu_clock();
            let at = clock.now() + us(round % 700);
            let timer = clock
                .timer()
                .on_expiry(move |e| {
                    assert_eq!(running.fetch_add(1, SeqCst) & 1, 0, "two threads at once");
                    let _ = tell.send((e.at, e.used));
                    running.fetch_add(1, SeqCst);
                })
                .build()
                .unwrap();
            timer.arm_at(at.max(us(1))).unwrap();
            let (armed_for, used) = heard.recv_timeout(Duration::from_secs(60)).expect("a timer is lost");
            assert!(armed_for <= used, "early: {armed_for:?} at {used:?}");
            assert!(heard.recv_timeout(Duration::ZERO).is_err(), "twice");
            delivered += 1;
        }
        stop.store(true, SeqCst);
        went_back += reader.join().unwrap();
    });
    assert_eq!((went_back, delivered), (0, 1_500));
    let sum: Duration = members.iter().map(|account| account.usage().cpu).sum();
    assert_eq!((tenant.cpu_time(), clock.now()), (sum, sum));
    let below: Duration = groups[1..].iter().map(Group::cpu_time).sum();
    let own: Duration = members.iter().step_by(3).map(|account| account.usage().cpu).sum();
    assert_eq!(below + own, sum);
}
