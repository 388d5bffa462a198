//! A task that arms as many timers as it may, all due at once: it pays for them itself, and nobody else notices.
//!
//! On the manual clock and a single worker, so that what each boundary does can be counted.

mod common;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use stipend::runtime::Runtime;
use stipend::task;
use stipend::{CpuTimer, Group, TimerError, current_clock, yield_now};
use stipend_timers::PASS;
use stipend_timers::test::Manual;

/// All that one account may have.
const TIMERS: usize = 100_000;
/// So many of its own boundaries a task has in a row at the most, because it was woken last, before the others have their turn.
const IN_A_ROW: usize = 4;

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// What the neighbours see.
#[derive(Default)]
struct Seen {
    turns: AtomicU64,
    /// The most that was delivered between two turns of one neighbour.
    most_between: AtomicU64,
    stop: AtomicBool,
}

/// Arms `TIMERS` timers for the end of the poll that is in progress; what each delivers goes into `order` and costs 1 us.
fn arm_all(manual: &Manual, order: &Arc<Mutex<Vec<u32>>>, delivered: &Arc<AtomicU64>) -> Vec<CpuTimer> {
    let clock = current_clock().unwrap();
    let due = clock.now() + us(10);
    let timer = |n| {
        let (manual, order, delivered) = (manual.clone(), order.clone(), delivered.clone());
        let timer = clock.timer().on_expiry(move |_| {
            manual.advance(us(1));
            order.lock().unwrap().push(n);
            delivered.fetch_add(1, Ordering::Relaxed);
        });
        timer.arm_at(due)
    };
    let timers = (0..TIMERS as u32).map(|n| timer(n).unwrap()).collect();
    assert_eq!(timer(0).unwrap_err(), TimerError::TooMany { max: TIMERS });
    manual.advance(us(10));
    timers
}

#[test]
fn t07_t08_t09_a_task_with_all_its_timers_due_at_once_harms_itself_alone() {
    const NEIGHBOURS: u64 = 3;
    let manual = Manual::new();
    let runtime = Runtime::builder().worker_threads(1).meter(manual.meter().clone()).build().unwrap();
    // The worker is there, so that each tick has a thread to look at.
    common::wait_until(|| manual.tick().threads > 0);
    let (hostile_group, neighbours_group) = (Group::new("hostile").unwrap(), Group::new("neighbours").unwrap());
    let (order, delivered, seen) = (Arc::<Mutex<Vec<u32>>>::default(), Arc::<AtomicU64>::default(), Arc::default());

    let neighbour = |seen: Arc<Seen>| {
        let (manual, delivered) = (manual.clone(), delivered.clone());
        let turns = async move {
            let (mut own_turns, mut before) = (0, delivered.load(Ordering::Relaxed));
            while !seen.stop.load(Ordering::Relaxed) {
                let now = delivered.load(Ordering::Relaxed);
                seen.most_between.fetch_max(now - before, Ordering::Relaxed);
                before = now;
                seen.turns.fetch_add(1, Ordering::Relaxed);
                own_turns += 1;
                manual.advance(us(2));
                yield_now().await;
            }
            own_turns
        };
        task::Builder::new().group(&neighbours_group).spawn_on(runtime.handle(), turns).unwrap()
    };
    let neighbours: Vec<_> = (0..NEIGHBOURS).map(|_| neighbour(Arc::clone(&seen))).collect();

    let hostile = {
        let (manual, order, delivered) = (manual.clone(), order.clone(), delivered.clone());
        let all = delivered.clone();
        let mut timers = Vec::new();
        poll_fn(move |_| {
            if timers.is_empty() {
                timers = arm_all(&manual, &order, &delivered);
            }
            if all.load(Ordering::Relaxed) == TIMERS as u64 { Poll::Ready(()) } else { Poll::Pending }
        })
    };
    let hostile = task::Builder::new().group(&hostile_group).spawn_on(runtime.handle(), hostile).unwrap();
    let clock = hostile.cpu_clock();
    // Ticks go on meanwhile, as they would.
    let mut ticks = Vec::new();
    while !hostile.is_finished() {
        ticks.push(manual.tick());
        std::thread::yield_now();
    }
    common::block_on(hostile).unwrap();
    seen.stop.store(true, Ordering::Relaxed);
    let turns: Vec<u64> = neighbours.into_iter().map(|neighbour| common::block_on(neighbour).unwrap()).collect();

    // All were delivered, none twice, in the order of arming.
    assert!(order.lock().unwrap().iter().copied().eq(0..TIMERS as u32));
    // Each pass was bounded, and the neighbours had their turns in between: as many as without it.
    let most = seen.most_between.load(Ordering::Relaxed) as usize;
    assert!((1..=IN_A_ROW * PASS).contains(&most), "{most} expiries between two turns of a neighbour");
    let passes = (TIMERS / PASS) as u64;
    for &turns in &turns {
        assert!(turns >= passes / IN_A_ROW as u64, "{turns} turns of a neighbour beside {passes} passes");
    }
    // The time of all handlers is the hostile task's, and its group's; the neighbours' is what they have used themselves.
    assert_eq!(clock.now(), us(10) + us(TIMERS as u64));
    assert_eq!(hostile_group.cpu_time(), clock.now());
    assert_eq!(neighbours_group.cpu_time(), us(2) * u32::try_from(turns.iter().sum::<u64>()).unwrap());
    // A tick looks at the one polling thread and at what it polls, whatever that has armed.
    for tick in &ticks {
        assert!(tick.threads == 1 && tick.suspects <= 1 && tick.posted <= 2, "{tick:?}");
    }
}

#[test]
fn t07_a_hostile_task_can_be_ended_in_the_middle_of_its_expiries() {
    let manual = Manual::new();
    let runtime = Runtime::builder().worker_threads(1).meter(manual.meter().clone()).build().unwrap();
    let (order, delivered) = (Arc::<Mutex<Vec<u32>>>::default(), Arc::<AtomicU64>::default());
    let hostile = {
        let (manual, order, delivered) = (manual.clone(), order.clone(), delivered.clone());
        let mut timers = Vec::new();
        runtime.spawn(poll_fn(move |_| {
            if timers.is_empty() {
                timers = arm_all(&manual, &order, &delivered);
            }
            Poll::<()>::Pending
        }))
    };
    let clock = hostile.cpu_clock();
    common::wait_until(|| delivered.load(Ordering::Relaxed) >= 1_000);
    hostile.abort();
    assert!(common::block_on(hostile).unwrap_err().is_cancelled());
    let told = delivered.load(Ordering::Relaxed);
    assert_eq!(clock.now(), us(10) + us(told), "what it was told of, and nothing else, is on its account");
    assert_eq!(order.lock().unwrap().len() as u64, told);
}
