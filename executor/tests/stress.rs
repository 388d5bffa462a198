//! Many of everything.

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::SinkExt;
use futures::StreamExt;
use futures::channel::mpsc;
use stipend::runtime::Runtime;
use stipend::{spawn, yield_now};

/// Debug builds do a fiftieth of the work.
const SCALE: u64 = if cfg!(debug_assertions) { 1 } else { 50 };

/// What the process has of memory, in KiB.
#[cfg(target_os = "linux")]
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_million_spawns_leave_memory_flat() {
    let runtime = Runtime::builder().worker_threads(2).build().unwrap();
    let total = Arc::new(AtomicU64::new(0));
    let round = || {
        runtime.block_on(async {
            for _ in 0..20 * SCALE {
                let tasks: Vec<_> = (0..100)
                    .map(|n| {
                        let total = total.clone();
                        spawn(async move {
                            yield_now().await;
                            total.fetch_add(n, Ordering::Relaxed);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
        });
    };
    round();
    let before = resident_kib();
    for _ in 0..9 {
        round();
    }
    assert_eq!(total.load(Ordering::Relaxed), 10 * 20 * SCALE * (0..100).sum::<u64>());
    assert_eq!(runtime.handle().metrics().tasks, 0);
    // A leaked cell of 128 bytes for each would be 22 MiB, in a debug build 2 MiB.
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < if cfg!(debug_assertions) { 1_500 } else { 8_000 }, "{grown} KiB more");
}

#[test]
fn messages_between_many_tasks_all_arrive() {
    let runtime = Runtime::builder().worker_threads(4).build().unwrap();
    let received = runtime.block_on(async {
        let (sender, receiver) = mpsc::channel::<u64>(4);
        let senders: Vec<_> = (0..50)
            .map(|_| {
                let mut sender = sender.clone();
                spawn(async move {
                    for n in 0..20 * SCALE {
                        sender.send(n).await.unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let receiver = spawn(receiver.count());
        for sender in senders {
            sender.await.unwrap();
        }
        receiver.await.unwrap()
    });
    assert_eq!(received as u64, 50 * 20 * SCALE);
}

#[test]
fn a_ring_of_tasks_passes_a_token_across_workers() {
    // At most one task is runnable at a time: a wake-up lost anywhere stops the ring.
    let runtime = Runtime::builder().worker_threads(4).build().unwrap();
    let hops = runtime.block_on(async {
        let (mut first, mut previous) = mpsc::channel::<u64>(1);
        for _ in 0..7 {
            let (mut sender, receiver) = mpsc::channel(1);
            drop(spawn(async move {
                while let Some(token) = previous.next().await {
                    if sender.send(token + 1).await.is_err() {
                        return;
                    }
                }
            }));
            previous = receiver;
        }
        let mut token = 0;
        for _ in 0..500 * SCALE {
            first.send(token).await.unwrap();
            token = previous.next().await.unwrap();
        }
        token
    });
    assert_eq!(hops, 7 * 500 * SCALE);
}

#[test]
fn a_hundred_thousand_tasks_wait_and_are_cancelled() {
    let runtime = Runtime::builder().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..2_000 * SCALE).map(|_| runtime.spawn(pending::<()>())).collect();
    drop(runtime);
    for task in tasks {
        assert!(common::block_on(task).unwrap_err().is_cancelled());
    }
}
