//! Any sequence of timers, polls and moves agrees with a simple model.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;
use stipend_timers::{CpuTimer, CpuTimerStream};

use crate::common::Wakes;
use crate::fixtures::*;

#[derive(Clone, Debug)]
enum Op {
    /// A timer on a group's clock: which group, when from now, interval (0: none), whether it is a stream's.
    Arm(usize, u64, u64, bool),
    /// Moves a timer.
    Move(usize, u64),
    Drop(usize),
    /// A member's poll: thread, member, use.
    Poll(usize, usize, u64),
    Regroup(usize, usize),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3usize, 1..300u64, prop_oneof![2 => Just(0), 1 => 20..200u64], any::<bool>())
            .prop_map(|(group, after, every, stream)| Op::Arm(group, after, every, stream)),
        1 => (any::<usize>(), 1..300u64).prop_map(|(timer, after)| Op::Move(timer, after)),
        1 => any::<usize>().prop_map(Op::Drop),
        10 => (0..2usize, 0..4usize, 0..60u64).prop_map(|(thread, member, used)| Op::Poll(thread, member, used)),
        1 => (0..4usize, 0..3usize).prop_map(|(member, group)| Op::Regroup(member, group)),
    ]
}

struct Modelled {
    timer: Result<CpuTimer, (CpuTimerStream, Arc<Wakes>)>,
    group: usize,
    at: Option<u64>,
    every: u64,
    fired: u64,
    heard: Arc<AtomicU64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that keeps each group's use in a number: nothing is early, and nothing is found later than at the boundary
    /// that comes to it, whichever thread it is on.
    #[test]
    fn t01_t27_t43_t49_t57_g12_any_sequence_on_two_threads_agrees_with_the_model(ops in prop::collection::vec(ops(), 1..120)) {
        let threads = Threads::new(2);
        let top = group("top");
        let groups = [top.clone(), child(&top), child(&top)];
        let inside = |group: usize, of: usize| of == 0 || group == of;
        let mut used = [0u64; 3];
        let members = [0, 1, 2, 1].map(|g: usize| (account(&groups[g]), AtomicUsize::new(g)));
        let mut timers: Vec<Modelled> = Vec::new();
        for op in ops {
            match op {
                Op::Arm(of, after, every, is_stream) => {
                    let heard = Arc::new(AtomicU64::new(0));
                    let sink = heard.clone();
                    let mut builder = groups[of].cpu_clock().timer();
                    if every > 0 {
                        builder = builder.every(us(every));
                    }
                    let timer = if is_stream {
                        let mut stream = builder.stream_after(us(after)).unwrap();
                        let wakes = Arc::default();
                        assert_eq!(next(&mut stream, &wakes), None);
                        Err((stream, wakes))
                    } else {
                        Ok(builder.on_expiry(move |e| {
                            assert!(e.used >= e.at);
                            sink.fetch_add(1 + u64::from(e.overrun), SeqCst);
                        }).arm_after(us(after)).unwrap())
                    };
                    timers.push(Modelled { timer, group: of, at: Some(used[of] + after), every, fired: 0, heard });
                }
                Op::Move(any, after) => if !timers.is_empty() {
                    let any = any % timers.len();
                    let timer = &mut timers[any];
                    let handle = match &timer.timer { Ok(timer) => timer, Err((stream, _)) => stream.timer() };
                    handle.arm_after(us(after)).unwrap();
                    timer.at = Some(used[timer.group] + after);
                    (timer.every, timer.fired) = (0, 0);
                    timer.heard.store(0, SeqCst);
                },
                Op::Drop(any) => if !timers.is_empty() {
                    timers.swap_remove(any % timers.len());
                },
                Op::Regroup(member, group) => {
                    members[member].0.set_group(&groups[group]);
                    members[member].1.store(group, SeqCst);
                }
                Op::Poll(thread, member, work) => {
                    let (account, group) = &members[member];
                    threads.poll(thread, account, us(work));
                    for (of, used) in used.iter_mut().enumerate() {
                        if inside(group.load(SeqCst), of) {
                            *used += work;
                        }
                    }
                }
            }
            for timer in &mut timers {
                let now = used[timer.group];
                while let Some(at) = timer.at.filter(|&at| at <= now) {
                    timer.fired += 1;
                    timer.at = (timer.every > 0).then(|| at + timer.every);
                }
                if let Err((stream, wakes)) = &mut timer.timer
                    && let Some((_, _, overrun)) = next(stream, wakes)
                {
                    timer.heard.fetch_add(1 + u64::from(overrun), SeqCst);
                }
                assert_eq!(timer.heard.load(SeqCst), timer.fired, "at {now}");
            }
            for (group, used) in groups.iter().zip(used) {
                assert_eq!((group.cpu_time(), group.cpu_clock().now()), (us(used), us(used)));
            }
        }
    }
}
