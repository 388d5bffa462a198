//! Polls that go on and on, on the real clock: what is enforced, told and charged while they do.
//!
//! No test here asserts how fast anything is; each waits for a condition, however long a busy machine takes.

#![cfg(target_os = "linux")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stipend::runtime::Runtime;
use stipend::task::{Builder, JoinError};
use stipend::{Action, CheckpointError, CpuLimit, PollLimit, checkpoint, has_budget};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// CPU time of the calling thread, by the kernel: `schedstat` begins with the run time in nanoseconds.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Uses CPU until `done`.
fn burn_until(mut done: impl FnMut() -> bool) {
    while !done() {
        for _ in 0..1000 {
            std::hint::spin_loop();
        }
    }
}

/// Calls `spawn` as if inside the runtime.
fn spawning<R>(runtime: &Runtime, spawn: impl FnOnce() -> R) -> R {
    let _inside = runtime.handle().enter();
    spawn()
}

fn runtime() -> Runtime {
    Runtime::builder().worker_threads(2).tick_period(ms(1)).build().unwrap()
}

#[test]
fn t01_r05_checkpoint_fails_in_the_poll_that_is_over_its_limit_and_never_early() {
    let runtime = runtime();
    let task = spawning(&runtime, || {
        Builder::new()
            .cpu_limit(CpuLimit::hard(ms(20)))
            .spawn(async {
                let before = thread_cpu();
                loop {
                    if let Err(CheckpointError::CpuLimitExceeded(e)) = checkpoint() {
                        // Everything that the thread has used since is the task's.
                        return (e, thread_cpu() - before);
                    }
                }
            })
            .unwrap()
    });
    let (exceeded, truly) = common::block_on(task).unwrap();
    assert!(exceeded.used >= ms(20) && exceeded.limit == ms(20), "{exceeded}");
    assert!(truly >= ms(19), "told after {truly:?} of true CPU time");
}

#[test]
fn t01_t53_a_task_of_many_polls_is_cancelled_behind_its_limit() {
    let runtime = runtime();
    let used = Arc::new(Mutex::new(Duration::ZERO));
    let seen = used.clone();
    let task = spawning(&runtime, || {
        Builder::new()
            .cpu_limit(CpuLimit::hard(ms(10)))
            .spawn(async move {
                loop {
                    let before = thread_cpu();
                    burn_until(|| thread_cpu() - before >= Duration::from_micros(200));
                    *seen.lock().unwrap() += thread_cpu() - before;
                    stipend::yield_now().await;
                }
            })
            .unwrap()
    });
    let clock = task.cpu_clock();
    let Err(JoinError::CpuLimitExceeded(exceeded)) = common::block_on(task) else { panic!("it never ends by itself") };
    assert!(exceeded.used >= ms(10));
    assert!(clock.now() >= exceeded.used);
    // What the task saw itself use is a part of what it was charged.
    assert!(*used.lock().unwrap() <= clock.now());
}

#[test]
fn t18_handlers_run_on_a_worker_and_never_on_the_tick_thread() {
    let runtime = Runtime::builder().worker_threads(1).thread_name("t18").tick_period(ms(1)).build().unwrap();
    let (tell, told) = mpsc::channel();
    let task = spawning(&runtime, || {
        Builder::new()
            .cpu_limit(CpuLimit::hard(ms(30)).soft(ms(5)).repeat(ms(5)))
            .on_soft_limit(move |_| {
                tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
                Action::Continue
            })
            .spawn(async {
                let worker = std::thread::current().name().map(str::to_owned);
                loop {
                    // Long polls: it is the tick that finds them.
                    let before = thread_cpu();
                    burn_until(|| thread_cpu() - before >= ms(6));
                    assert_eq!(std::thread::current().name().map(str::to_owned), worker);
                    stipend::yield_now().await;
                }
            })
            .unwrap()
    });
    assert!(matches!(common::block_on(task), Err(JoinError::CpuLimitExceeded(_))));
    let names: Vec<_> = told.into_iter().collect();
    assert!(!names.is_empty());
    for name in names {
        let name = name.unwrap();
        assert!(name.starts_with("t18") && !name.contains("tick") && !name.contains("service"), "{name}");
    }
}

#[test]
fn t60_a_sleep_on_the_clock_of_a_poll_that_never_returns_ends() {
    let runtime = runtime();
    let stop = Arc::new(AtomicBool::new(false));
    let stuck = spawning(&runtime, || {
        let stop = stop.clone();
        stipend::spawn(async move { burn_until(|| stop.load(Ordering::Relaxed)) })
    });
    let clock = stuck.cpu_clock();
    let supervisor = spawning(&runtime, || {
        let clock = clock.clone();
        stipend::spawn(async move {
            clock.sleep(ms(10)).await.unwrap();
            clock.now()
        })
    });
    // Waits for ever if the expiry has to wait for the end of the poll.
    let seen = common::block_on(supervisor).unwrap();
    assert!(seen >= ms(10));
    assert!(!stuck.is_finished(), "the task is still in its poll");
    stop.store(true, Ordering::Relaxed);
    common::block_on(stuck).unwrap();
}

#[test]
fn t55_a_poll_limit_on_the_real_clock() {
    let runtime = runtime();
    let task = spawning(&runtime, || {
        Builder::new()
            .poll_limit(PollLimit::hard(ms(5)))
            .spawn(async {
                let before = thread_cpu();
                burn_until(|| thread_cpu() - before >= ms(8));
                std::future::pending::<()>().await;
            })
            .unwrap()
    });
    let Err(JoinError::CpuLimitExceeded(e)) = common::block_on(task) else { panic!("one poll used 8 ms") };
    assert_eq!((e.limit, e.polls), (ms(5), 1));
    assert!(e.used >= ms(7));
}

#[test]
fn r06_the_budget_ends_with_the_slice_and_comes_back_with_the_next_poll() {
    let runtime = runtime();
    let task = spawning(&runtime, || {
        stipend::spawn(async {
            for _ in 0..3 {
                let mut polls = 0;
                while !has_budget() {
                    // The slice is wall time: a busy machine may take all of it before this poll comes so far.
                    polls += 1;
                    assert!(polls < 10_000, "the next poll has no budget");
                    stipend::yield_now().await;
                }
                burn_until(|| !has_budget());
                stipend::yield_now().await;
            }
        })
    });
    common::block_on(task).unwrap();
}

#[test]
fn t03_the_tick_is_off_while_nothing_polls() {
    let runtime = runtime();
    runtime.block_on(async { stipend::spawn(async { burn_until(|| !has_budget()) }).await.unwrap() });
    // It goes off at some tick after the last poll; from then on it stands still.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = runtime.handle().meter().metrics().ticks;
        std::thread::sleep(ms(50));
        if runtime.handle().meter().metrics().ticks == before {
            break;
        }
        assert!(Instant::now() < deadline, "the tick never stops");
    }
    // And it comes back when somebody polls.
    let before = runtime.handle().meter().metrics().ticks;
    let burner = spawning(&runtime, || stipend::spawn(async { burn_until(|| !has_budget()) }));
    common::block_on(burner).unwrap();
    assert!(runtime.handle().meter().metrics().ticks > before);
}

#[test]
fn c03_children_are_charged_to_their_own_account_and_to_the_group() {
    let runtime = runtime();
    let group = stipend::Group::new("family").unwrap();
    let (parent, child) = runtime.block_on(async {
        let task = Builder::new()
            .group(&group)
            .spawn(async {
                let child = stipend::spawn(async {
                    let before = thread_cpu();
                    burn_until(|| thread_cpu() - before >= ms(8));
                });
                let clock = child.cpu_clock();
                child.await.unwrap();
                clock.now()
            })
            .unwrap();
        let parent = task.cpu_clock();
        let child = task.await.unwrap();
        (parent, child)
    });
    assert!(child >= ms(7), "{child:?}");
    assert!(parent.now() < child, "the child's time is not the parent's");
    drop(runtime);
    assert!(group.cpu_time() >= child);
    assert!(group.cpu_time() <= child + parent.now() + ms(1));
}
