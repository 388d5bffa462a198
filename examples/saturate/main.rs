//! Two workers that do nothing but switch tasks, and what the clock cost them: for counting system calls from outside.
//!
//! ```sh
//! cargo build --release --example saturate
//! strace -c -f -e trace=clock_gettime target/release/examples/saturate
//! ```
//!
//! It prints the CPU time of the workers in microseconds, how often they read their CPU clock, and how often they were switched
//! out. A reading is due once in 250 us of run time, and after each switch.

use std::time::{Duration, Instant};

use stipend::{Runtime, spawn, yield_now};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder().worker_threads(2).build()?;
    let end = Instant::now() + Duration::from_secs(3);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                spawn(async move {
                    let mut polls = 0u64;
                    while !polls.is_multiple_of(1000) || Instant::now() < end {
                        polls += 1;
                        yield_now().await;
                    }
                    polls
                })
            })
            .collect();
        let mut polls = 0;
        for task in tasks {
            polls += task.await?;
        }
        println!("polls={polls}");
        Ok::<(), stipend::task::JoinError>(())
    })?;
    let metrics = runtime.handle().meter().metrics();
    println!("accuracy={}", runtime.handle().meter().accuracy());
    println!("cpu_us={}", metrics.threads.as_micros());
    println!("clock_reads={}", metrics.clock_reads);
    println!("switches={}", switches());
    Ok(())
}

/// Switches of all threads of this process, voluntary and not. Zero where the system does not tell.
fn switches() -> u64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0 };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok())
        .flat_map(|status| {
            let switches = |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok();
            status.lines().filter_map(switches).collect::<Vec<_>>()
        })
        .sum()
}
