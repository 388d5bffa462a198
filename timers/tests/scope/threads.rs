//! Members on several threads.

use std::sync::mpsc::channel;
use std::time::Duration;

use stipend_timers::test::Manual;
use stipend_timers::{Account, CheckpointError, Control, LimitKind, checkpoint, has_budget};

use crate::common::ms;
use crate::fixtures::*;

#[test]
fn s02_runaway_polls_on_several_threads_are_seen_by_one_tick() {
    let manual = Manual::new();
    let _bench = Bench::on(&manual);
    let mut request = Request::new(ms(50));
    let members: Vec<_> = (0..2).map(|_| request.spawn().0).collect();
    let clock = request.run.clock();
    std::thread::scope(|threads| {
        let mut runs = Vec::new();
        for member in &members {
            let (burnt, wait_burnt) = channel();
            let (go_on, wait_go_on) = channel::<()>();
            let manual = manual.clone();
            let thread = threads.spawn(move || {
                let bench = Bench::on(&manual);
                let control = bench.poll(member, || {
                    manual.advance(ms(30));
                    assert!(has_budget() && checkpoint().is_ok());
                    burnt.send(()).unwrap();
                    wait_go_on.recv().unwrap();
                    assert!(!has_budget());
                    let Err(CheckpointError::CpuLimitExceeded(e)) = checkpoint() else { panic!("no limit") };
                    assert_eq!((e.kind, e.used, e.limit), (LimitKind::Scope, ms(60), ms(50)));
                });
                over(control);
            });
            wait_burnt.recv().unwrap();
            runs.push((thread, go_on));
        }
        assert_eq!(clock.now(), ms(60), "neither is charged yet");
        // The run is told too, in a poll that goes on.
        let polled = request.poll(|| {
            assert!(has_budget());
            manual.tick();
            assert!(!has_budget() && checkpoint().is_err());
            false
        });
        over_run(polled);
        for (thread, go_on) in runs {
            go_on.send(()).unwrap();
            thread.join().unwrap();
        }
    });
    assert_eq!(clock.now(), ms(60));
}

/// Members on several threads at once: what they and the run were charged is what the scope was, and all who end early end alike.
#[test]
fn s01_s02_members_on_several_threads_add_up() {
    for round in 0..200 {
        let manual = Manual::new();
        let mut request = Request::new(ms(100));
        let clock = request.run.clock();
        let _bench = Bench::on(&manual);
        let members: Vec<Vec<Account>> = (0..3).map(|_| (0..4).map(|_| request.spawn().0).collect()).collect();
        std::thread::scope(|threads| {
            for members in &members {
                let manual = manual.clone();
                threads.spawn(move || {
                    let bench = Bench::on(&manual);
                    let mut alive: Vec<&Account> = members.iter().collect();
                    while !alive.is_empty() {
                        alive.retain(|member| match bench.burn(member, ms(1 + round % 3)) {
                            Control::Proceed => true,
                            control => {
                                let exceeded = over(control);
                                assert!(exceeded.used >= exceeded.limit && exceeded.limit == ms(100));
                                false
                            }
                        });
                    }
                });
            }
            while request.again().is_pending() {
                std::thread::yield_now();
            }
        });
        let sum: Duration = members.iter().flatten().map(|member| member.usage().cpu).sum();
        assert_eq!(clock.now(), sum);
        assert!(sum >= ms(100) && sum <= ms(100) + 12 * ms(3), "{sum:?}");
    }
}

/// Scopes that end while members join, run and end on other threads.
#[test]
fn s02_s03_scopes_end_under_their_members() {
    for _ in 0..300 {
        let manual = Manual::new();
        let bench = Bench::on(&manual);
        let mut request = Request::new(ms(1000));
        let members: Vec<Account> = (0..3).map(|_| request.spawn().0).collect();
        std::thread::scope(|threads| {
            for member in &members {
                let manual = manual.clone();
                threads.spawn(move || {
                    let bench = Bench::on(&manual);
                    let mut children = Vec::new();
                    let control = loop {
                        match bench.poll(member, || children.push(Account::inherit().0)) {
                            Control::Proceed => {}
                            cancel => break cancel,
                        }
                        if children.len() > 8 {
                            children.remove(3);
                        }
                    };
                    requested(control);
                    for child in &children {
                        requested(bench.poll(child, || panic!("its scope has ended")));
                    }
                });
            }
            assert!(request.again().is_pending());
            drop(request);
        });
        drop(bench);
    }
}
