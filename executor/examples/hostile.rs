//! What a task that arms 100,000 timers, again and again, costs the tick and its neighbours.
//!
//! ```sh
//! cargo run --release -p stipend --example hostile
//! ```
//!
//! Three times the same two seconds: alone, beside a task that computes, and beside one that computes and has 100,000 periodic timers
//! that are all due at once. For each it prints the tick thread's CPU time a tick, by how much the ticks came later than their
//! period on average, how late a neighbour was that sleeps a millisecond at a time, and how many expiries were delivered.
//!
//! The tick's cost should not differ between the second and the third: it looks at what is polled, not at what is armed. (Alone it
//! is off between the neighbour's polls, which is no lateness.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stipend::{Runtime, current_clock, has_budget, spawn, time, yield_now};

const LENGTH: Duration = Duration::from_secs(2);
const TIMERS: usize = 100_000;

#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nobody,
    Busy,
    Hostile,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{:<22} {:>12} {:>12} {:>14} {:>14} {:>12}",
        "beside", "tick, us", "late, us", "neighbour p50", "neighbour p99", "expiries"
    );
    for (name, beside) in
        [("nobody", Beside::Nobody), ("a busy task", Beside::Busy), ("a hostile task", Beside::Hostile)]
    {
        let row = measure(beside)?;
        println!(
            "{name:<22} {:>12.2} {:>12.1} {:>11.1} us {:>11.1} us {:>12}",
            row.tick_us, row.late_us, row.p50_us, row.p99_us, row.expiries
        );
    }
    Ok(())
}

struct Row {
    tick_us: f64,
    late_us: f64,
    p50_us: f64,
    p99_us: f64,
    expiries: u64,
}

fn measure(beside: Beside) -> std::io::Result<Row> {
    let runtime = Runtime::builder().worker_threads(2).build()?;
    let (stop, expiries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let row = runtime.block_on(async {
        let other = (beside != Beside::Nobody).then(|| {
            let (stop, expiries) = (stop.clone(), expiries.clone());
            spawn(async move {
                let timers = if beside == Beside::Hostile { arm(&expiries) } else { Vec::new() };
                while !stop.load(Ordering::Relaxed) {
                    while has_budget() {
                        std::hint::spin_loop();
                    }
                    yield_now().await;
                }
                drop(timers);
            })
        });
        // It arms first.
        time::sleep(Duration::from_millis(200)).await;
        let meter = runtime.handle().meter();
        let (begun, ticks, cpu) = (Instant::now(), meter.metrics().ticks, tick_cpu());
        let told = expiries.load(Ordering::Relaxed);
        let mut late: Vec<Duration> = spawn(async move {
            let mut late = Vec::new();
            while begun.elapsed() < LENGTH {
                let due = Instant::now() + Duration::from_millis(1);
                time::sleep_until(due).await;
                late.push(due.elapsed());
            }
            late
        })
        .await
        .expect("it neither panics nor is aborted");
        let elapsed = begun.elapsed();
        let ticks = (meter.metrics().ticks - ticks).max(1) as u32;
        let tick = tick_cpu().saturating_sub(cpu) / ticks;
        let expiries = expiries.load(Ordering::Relaxed) - told;
        stop.store(true, Ordering::Relaxed);
        if let Some(other) = other {
            other.await.expect("it neither panics nor is aborted");
        }
        late.sort_unstable();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Row {
            tick_us: us(tick),
            late_us: us((elapsed / ticks).saturating_sub(meter.tick_period())),
            p50_us: us(late[late.len() / 2]),
            p99_us: us(late[late.len() * 99 / 100]),
            expiries,
        }
    });
    Ok(row)
}

/// As many timers as an account may have, due together every millisecond of its CPU time.
fn arm(expiries: &Arc<AtomicU64>) -> Vec<stipend::CpuTimer> {
    let clock = current_clock().expect("it runs in a task");
    let every = Duration::from_millis(1);
    let at = clock.now() + Duration::from_millis(500);
    let timer = || {
        let expiries = expiries.clone();
        let count = move |_| {
            expiries.fetch_add(1, Ordering::Relaxed);
        };
        clock.timer().every(every).on_expiry(count).arm_at(at).expect("there may be so many")
    };
    (0..TIMERS).map(|_| timer()).collect()
}

/// CPU time of the thread that ticks; zero where the system does not tell.
fn tick_cpu() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let cpu_of = |thread: std::fs::DirEntry| {
        let comm = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let cpu = schedstat.split_whitespace().next()?.parse().ok()?;
        comm.trim_end().ends_with("-tick").then(|| Duration::from_nanos(cpu))
    };
    threads.flatten().filter_map(cpu_of).sum()
}
