//! How long a ready task waits: the bounds that the worker's module documentation gives, one by one.
#![cfg(unix)]

mod common;
mod polls;

use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt};
use polls::{Bell, Name, Scene, between, play};
use stipend::net::UnixStream;
use stipend::runtime::Handle;
use stipend::test::Manual;
use stipend::time::{sleep, sleep_until};
use stipend::{Group, Runtime, yield_now};

/// Noted when what the test is about begins.
const READY: Name = ("ready", 0);
const LAST: Name = ("last", 0);

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// No time at all: no turn is ever over.
const SHORT: Duration = us(0);
/// Longer than any turn.
const LONG: Duration = us(50_000);

/// How many polls of this length make a turn: the last one begins within it.
fn polls_of_a_turn(poll: Duration) -> usize {
    us(100).as_nanos().div_ceil(poll.as_nanos()) as usize
}

#[test]
fn tasks_that_wake_each_other_let_the_queue_go_on() {
    for others in [0, 1, 7, 60] {
        for pairs in [1, 3] {
            let polls = play(|scene| async move {
                let mut bells: Vec<Bell> = (0..others).map(|number| scene.waits(("other", number))).collect();
                bells.push(scene.waits(LAST));
                bells.extend((0..pairs).map(|number| scene.pair(number)));
                scene.until(|| scene.polls_of(("pong", pairs - 1)) > 0).await;
                scene.note(READY);
                bells.iter().for_each(Bell::ring);
                // Now the others are in the queue, then the last one, then the pairs but one: that one is to run next.
                scene.until(|| scene.polls_of(LAST) > 1).await;
            });
            let waited = between(&polls, READY, LAST).len();
            assert!(waited <= 4 * others + 3, "behind {others} others it waited for {waited} polls");
            assert!(waited >= 4 * others, "the pairs are not what they are meant to be: {waited} polls");
        }
    }
}

#[test]
fn tasks_that_give_way_take_turns() {
    for poll in [SHORT, us(7), us(40), LONG] {
        let tasks = 50;
        let polls = play(|scene| async move {
            (0..tasks).for_each(|number| scene.saturate(("task", number), None, poll));
            scene.polls(20 * tasks).await;
        });
        let mut counts = vec![0; tasks];
        for (_, number) in polls.iter().filter(|(kind, _)| *kind == "task") {
            counts[*number] += 1;
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "with polls of {poll:?}: {counts:?}");
        }
        assert!(counts.iter().all(|count| *count >= 19), "{counts:?}");
    }
}

/// Spawns so many from a thread that is no worker, and returns when it has.
fn spawn_from_outside(scene: &Scene, tasks: usize, poll: Duration) {
    let (scene, handle) = (scene.clone(), Handle::current());
    let spawn = move || {
        for number in 0..tasks {
            let spawned = scene.clone();
            let future = async move { spawned.advance(poll) };
            drop(handle.spawn(scene.noted(("injected", number), future)));
        }
    };
    thread::spawn(spawn).join().expect("it spawns");
}

#[test]
fn what_is_spawned_from_outside_goes_before_a_saturated_queue() {
    for (poll, bound) in [(SHORT, 61), (us(30), polls_of_a_turn(us(30))), (LONG, 1)] {
        let tasks = 20;
        let polls = play(|scene| async move {
            (0..10).for_each(|number| scene.saturate(("task", number), None, poll));
            scene.until(|| scene.polls_of(("task", 0)) == 10).await;
            scene.note(READY);
            spawn_from_outside(&scene, tasks, poll);
            scene.polls(bound * (tasks + 1)).await;
        });
        // The first waits for so many polls at most, each other one for so many from the one before it on.
        let mut before = READY;
        for number in 0..tasks {
            let injected = ("injected", number);
            let waited = between(&polls, before, injected).len() + usize::from(number > 0);
            assert!(waited <= bound, "{poll:?}: {injected:?} waited for {waited} polls from {before:?} on");
            before = injected;
        }
    }
}

#[test]
fn what_comes_from_outside_without_end_does_not_starve_the_queue() {
    for poll in [SHORT, us(30), LONG] {
        let tasks = 150;
        let polls = play(|scene| async move {
            (0..10).for_each(|number| scene.saturate(("task", number), None, poll));
            scene.until(|| scene.polls_of(("task", 9)) == 10).await;
            scene.note(READY);
            spawn_from_outside(&scene, tasks, poll);
            scene.until(|| scene.polls_of(("injected", tasks - 1)) == 1).await;
        });
        let behind = between(&polls, READY, LAST);
        let in_a_row = behind.chunk_by(|one, other| one.0 == other.0).filter(|chunk| chunk[0].0 == "injected");
        let most = in_a_row.map(<[_]>::len).max();
        assert!(most.is_some_and(|most| most <= 32), "{poll:?}: {most:?} in a row");
        if poll == LONG {
            let queued = between(behind, ("injected", 0), ("injected", tasks - 1))
                .iter()
                .filter(|name| name.0 == "task")
                .count();
            assert!(queued <= tasks / 32, "{queued} of the queue between {tasks}");
        }
    }
}

#[test]
fn what_comes_from_outside_is_run_beside_tasks_that_leave_the_queue_empty() {
    let tasks = 40;
    let polls = play(|scene| async move {
        // They wake each other, and so each is to run next.
        let bell = scene.pair(0);
        scene.until(|| scene.polls_of(("pong", 0)) > 0).await;
        spawn_from_outside(&scene, tasks, SHORT);
        bell.ring();
        scene.polls(61 * (tasks + 2)).await;
    });
    for number in 0..tasks {
        assert!(polls.contains(&("injected", number)), "the {number}th of {tasks} waits");
    }
}

#[test]
fn a_long_poll_does_not_bring_those_that_it_wakes_before_the_queue() {
    let polls = play(|scene| async move {
        let (queued, woken) = (scene.waits(("queued", 0)), scene.waits(("woken", 0)));
        scene.until(|| scene.polls_of(("woken", 0)) == 1).await;
        scene.note(READY);
        queued.ring();
        // Who is woken next takes the place before the queue, and the next one again.
        woken.ring();
        scene.spawn(("spawned", 0), async {});
        scene.advance(LONG);
        scene.until(|| scene.polls_of(("spawned", 0)) == 1 && scene.polls_of(("woken", 0)) == 2).await;
    });
    assert_eq!(between(&polls, READY, ("queued", 0)), []);
}

#[test]
fn of_long_polls_none_that_came_later_goes_first() {
    for others in [0, 1, 7, 60] {
        let polls = play(|scene| async move {
            let mut bells = Vec::new();
            for number in 0..others {
                let (bell, own) = (Bell::default(), scene.clone());
                bells.push(bell.clone());
                scene.spawn(("other", number), async move {
                    bell.heard().await;
                    own.advance(LONG);
                    own.spawn(("spawned", number), async {});
                });
            }
            bells.extend([scene.waits(LAST), scene.waits(("woken", 0))]);
            scene.until(|| scene.polls_of(("woken", 0)) == 1).await;
            scene.note(READY);
            bells.iter().for_each(Bell::ring);
            scene.advance(LONG);
            scene.until(|| scene.polls_of(LAST) == 2).await;
        });
        let waited = between(&polls, READY, LAST);
        assert_eq!(waited.len(), others, "{waited:?}");
    }
}

#[test]
fn a_ready_socket_and_a_due_timer_are_seen_under_saturation() {
    for poll in [us(1), us(30), LONG] {
        let tasks = 10;
        let scene = |scene: Scene| async move {
            let (mut writer, reader) = StdUnixStream::pair().expect("a pair of sockets");
            let mut reader = UnixStream::from_std(reader).expect("the reactor takes it");
            scene.spawn(("reader", 0), async move {
                reader.read_exact(&mut [0]).await.expect("it is written");
            });
            let (awake, slept) = (Arc::new(AtomicBool::new(false)), sleep(Duration::from_millis(10)));
            let wakes = awake.clone();
            scene.spawn(("sleeper", 0), async move {
                slept.await;
                wakes.store(true, Ordering::Relaxed);
            });
            (0..tasks).for_each(|number| scene.saturate(("task", number), None, poll));
            scene.until(|| scene.polls_of(("task", 0)) == 10).await;
            writer.write_all(&[1]).expect("the socket takes it");
            // By the real time the timer is due then, by the manual one nothing has happened.
            thread::sleep(Duration::from_millis(20));
            if awake.load(Ordering::Relaxed) {
                // The machine has taken so long on the way here that it was seen before.
                return;
            }
            scene.note(READY);
            scene.until(|| scene.polls_of(("reader", 0)) == 2 && scene.polls_of(("sleeper", 0)) == 2).await;
        };
        let polls =
            std::iter::repeat_with(|| play(scene)).find(|polls| polls.contains(&READY)).expect("it is played again");
        for name in [("reader", 0), ("sleeper", 0)] {
            let waited = between(&polls, READY, name).len();
            // Then it stands in the queue, behind the tasks, the director and perhaps the other of the two.
            let bound = polls_of_a_turn(poll) + 1 + tasks + 2;
            assert!(waited <= bound, "{name:?}, {poll:?}: it waited for {waited} polls, {bound} are allowed");
        }
    }
}

/// Ready at each look at the reactor: a poll reads what the one before has written, and writes.
fn echoes_to_itself(scene: &Scene, number: usize, poll: Duration) {
    let (mut writer, reader) = StdUnixStream::pair().expect("a pair of sockets");
    let (mut reader, own) = (UnixStream::from_std(reader).expect("the reactor takes it"), scene.clone());
    let echoes = poll_fn(move |cx| {
        while Pin::new(&mut reader).poll_read(cx, &mut [0]).map(|read| read.expect("it is written")).is_ready() {}
        own.advance(poll);
        if own.is_over() {
            return Poll::Ready(());
        }
        writer.write_all(&[1]).expect("the socket takes it");
        Poll::Pending
    });
    scene.spawn(("echo", number), echoes);
}

/// So many tasks that give way, with some that the reactor wakes: polls of each of the former, in all, and of each of the latter; and for
/// how many polls one of the former waited at most.
fn crowd(tasks: usize, echoes: usize, poll: Duration) -> (Vec<usize>, Vec<usize>, usize) {
    let polls = play(|scene| async move {
        (0..tasks).for_each(|number| scene.saturate(("task", number), None, poll));
        (0..echoes).for_each(|number| echoes_to_itself(&scene, number, poll));
        scene.until(|| scene.polls_of(("task", tasks - 1)) > 0 && scene.polls_of(("echo", echoes - 1)) > 0).await;
        scene.note(READY);
        scene.until(|| scene.polls_of(("task", 0)) >= 6).await;
    });
    let (mut of_tasks, mut of_echoes, mut longest) = (vec![0; tasks], vec![0; echoes], 0);
    let mut latest = vec![0; tasks];
    let begin = polls.iter().position(|name| *name == READY).expect("all have begun");
    for (at, name) in polls[begin..].iter().enumerate() {
        match *name {
            ("task", number) => {
                longest = longest.max(at - latest[number]);
                latest[number] = at;
                of_tasks[number] += 1;
            }
            ("echo", number) => of_echoes[number] += 1,
            _ => {}
        }
    }
    (of_tasks, of_echoes, longest)
}

#[test]
fn with_256_or_fewer_in_the_queue_what_the_reactor_wakes_waits_its_turn() {
    for poll in [us(1), us(30)] {
        let (tasks, echoes, longest) = crowd(200, 40, poll);
        let (least, most) = (tasks.iter().min().unwrap(), echoes.iter().max().unwrap());
        assert!(
            most - 1 <= *least,
            "{poll:?}: {most} polls of one that the reactor wakes, {least} of one in the queue"
        );
        // The others, the director, and those whose turn came up before and after.
        assert!(longest <= 200 + 2 * 40 + 2, "{poll:?}: one waited for {longest} polls");
    }
}

#[test]
fn in_a_crowd_7_that_the_reactor_wakes_go_first_for_each_of_the_queue_or_4_ms_for_32() {
    let (queued, woken) = (400, 40);
    for (poll, recent_of_32) in [(us(1), 32 * 7), (us(30), 4_000 / 30 + 1), (LONG, 1)] {
        let (tasks, echoes, longest) = crowd(queued, woken, poll);
        let (least, most) = (tasks.iter().min().unwrap(), tasks.iter().max().unwrap());
        assert!(most - least <= 2, "{poll:?}: the queue is not served in order: {tasks:?}");
        // In front of one: all others of the queue, by 32, and the woken ones that were left over and stand in it, too.
        let before = queued + 2 * woken + 2;
        // And one cohort was under way, of 64 at the most.
        let bound = before + (before.div_ceil(32) + 2) * recent_of_32;
        assert!(longest <= bound, "{poll:?}: one waited for {longest} polls, {bound} are allowed");
        let (of_tasks, of_echoes) = (tasks.iter().sum::<usize>() / queued, echoes.iter().sum::<usize>() / woken);
        if poll < LONG {
            assert!(of_echoes > 3 * of_tasks, "{poll:?}: no cohort: {of_echoes} polls each, {of_tasks} of the queue's");
        }
    }
}

#[test]
fn what_the_reactor_wakes_at_once_is_shared_before_the_first_of_it_is_polled() {
    // The manual clock's tick stands still: nobody relieves a worker whose poll goes on.
    let manual = Manual::new();
    let runtime = Runtime::builder().worker_threads(2).meter(manual.meter().clone()).build().expect("a runtime");
    for _ in 0..5 {
        let (deadline, there) = (Instant::now() + Duration::from_millis(20), Arc::new(AtomicU64::new(0)));
        let tasks = [(); 2].map(|()| {
            let there = there.clone();
            runtime.spawn(async move {
                sleep_until(deadline).await;
                there.fetch_add(1, Ordering::Relaxed);
                // Within the poll.
                common::wait_until(|| there.load(Ordering::Relaxed) == 2);
            })
        });
        tasks.into_iter().for_each(|task| common::block_on(task).expect("it meets the other"));
    }
}

#[test]
fn by_the_real_clock_the_reactor_is_asked_once_a_turn_at_the_least() {
    let runtime = Runtime::builder().worker_threads(1).build().expect("a runtime");
    let handle = runtime.handle().clone();
    let checks = runtime.spawn(async move {
        for _ in 0..10 {
            drop(stipend::spawn(async {
                loop {
                    yield_now().await;
                }
            }));
        }
        let so_far = || (handle.meter().metrics().charged, handle.metrics().reactor_checks);
        let (from, checks_before) = so_far();
        loop {
            let (to, checks) = so_far();
            if to - from >= Duration::from_millis(100) {
                return (to - from, checks - checks_before);
            }
            // Reading the metrics takes longer than many polls.
            for _ in 0..1_000 {
                yield_now().await;
            }
        }
    });
    let (charged, checks) = common::block_on(checks).expect("it ends");
    // Ten times the bound: what a busy machine takes from the worker in one piece may count as one long poll.
    assert!(charged < us(1_000) * checks as u32, "{checks} checks in {charged:?}");
}

#[test]
fn a_turn_is_over_at_the_first_boundary_behind_100_us() {
    for poll in [us(7), us(30), us(100), LONG] {
        let polls = play(|scene| async move {
            let groups = ["a", "b"].map(|name| (name, Group::builder(name).build().expect("a group")));
            for (name, group) in &groups {
                (0..3).for_each(|number| scene.saturate((name, number), Some(group), poll));
            }
            scene.polls(500).await;
        });
        let turns: Vec<&[Name]> = polls[..500].chunk_by(|one, next| one.0 == next.0).collect();
        // The first one is the director's, and the last one was going on.
        for turn in &turns[1..turns.len() - 1] {
            assert_eq!(turn.len(), polls_of_a_turn(poll), "{poll:?}: {turn:?}");
        }
        assert!(turns.len() > 20);
    }
}
