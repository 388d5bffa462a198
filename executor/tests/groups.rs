//! Shares of groups that want more than there is.
//!
//! On the manual clock: a poll takes as long as it says, so what a group has had is exact, whatever the machine does beside. With
//! several workers the machine decides which of them gets on. Where that matters, because a group has tasks on one of them only, polls
//! also take real time: else a worker that the machine does not run for a moment would be behind by seconds of manual time, which
//! it is not owed.

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{block_on, wait_until};
use stipend::runtime::LocalRuntime;
use stipend::test::Manual;
use stipend::{Group, Runtime, task, yield_now};

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// Groups whose tasks want all they can get, for so long in all.
struct Contest {
    manual: Arc<Manual>,
    runtime: Runtime,
    left_us: Arc<AtomicU64>,
    start: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    tasks: Vec<task::JoinHandle<()>>,
    /// What a poll takes of the real time.
    real: Duration,
}

impl Contest {
    fn new(workers: usize, total: Duration) -> Self {
        let manual = Arc::new(Manual::new());
        let runtime =
            Runtime::builder().worker_threads(workers).meter(manual.meter().clone()).build().expect("a runtime");
        let left_us = Arc::new(AtomicU64::new(total.as_micros() as u64));
        Self {
            manual,
            runtime,
            left_us,
            start: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
            real: Duration::ZERO,
        }
    }

    /// Tasks of a group that do nothing but poll after poll of this length. They begin when all are there.
    fn compete(&mut self, group: Option<&Group>, tasks: usize, poll: Duration) {
        for _ in 0..tasks {
            let (manual, left_us) = (self.manual.clone(), self.left_us.clone());
            let (start, stop) = (self.start.clone(), self.stop.clone());
            let mut builder = task::Builder::new();
            if let Some(group) = group {
                builder = builder.group(group);
            }
            let (poll_us, real) = (poll.as_micros() as u64, self.real);
            let future = async move {
                while !start.load(Ordering::Relaxed) {
                    yield_now().await;
                }
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    while began.elapsed() < real {
                        std::hint::spin_loop();
                    }
                    manual.advance(poll);
                    let enough = |left: u64| left.checked_sub(poll_us);
                    if left_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    yield_now().await;
                }
            };
            let task = builder.spawn_on(self.runtime.handle(), future).expect("a task");
            self.tasks.push(task);
        }
    }

    fn run(&mut self) {
        self.start.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.tasks);
        self.runtime.block_on(async {
            for task in tasks {
                task.await.expect("it ends");
            }
        });
    }

    /// Everything once more, for so long.
    fn again(&mut self, total: Duration) {
        self.start.store(false, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
        self.left_us.store(total.as_micros() as u64, Ordering::Relaxed);
    }
}

fn group(weight: u32) -> Group {
    Group::builder("contestant").weight(weight).build().expect("a group")
}

/// Fails unless the groups' times are in these proportions, within so many percent of each one's due.
#[track_caller]
fn assert_shares(groups: &[&Group], proportions: &[f64], percent: f64) {
    let used: Vec<f64> = groups.iter().map(|group| group.cpu_time().as_secs_f64()).collect();
    let total: f64 = used.iter().sum();
    let whole: f64 = proportions.iter().sum();
    for (used, proportion) in used.iter().zip(proportions) {
        let due = total * proportion / whole;
        let error = 100.0 * (used - due).abs() / due;
        assert!(error <= percent, "{used:.4} s of {total:.4} s where {due:.4} s are due: {error:.2} % off");
    }
}

#[test]
fn g15_contended_shares_are_in_proportion_to_the_weights() {
    for poll in [us(10), us(300), us(2_000)] {
        let groups = [group(100), group(200), group(400)];
        let mut contest = Contest::new(1, poll * 14_000);
        for group in &groups {
            contest.compete(Some(group), 5, poll);
        }
        contest.run();
        assert_shares(&groups.each_ref(), &[100.0, 200.0, 400.0], 2.0);
    }
}

#[test]
fn g15_also_with_several_workers_and_polls_of_unlike_length() {
    let groups = [group(100), group(200), group(400)];
    let mut contest = Contest::new(2, us(70_000_000));
    contest.real = us(25);
    for (group, poll) in groups.iter().zip([us(700), us(300), us(2_000)]) {
        contest.compete(Some(group), 20, poll);
    }
    contest.run();
    assert_shares(&groups.each_ref(), &[100.0, 200.0, 400.0], 2.0);
}

#[test]
fn g15_the_least_and_the_greatest_weight() {
    let groups = [group(1), group(10_000)];
    let mut contest = Contest::new(1, us(60_000_000));
    for group in &groups {
        contest.compete(Some(group), 2, us(100));
    }
    contest.run();
    assert_shares(&groups.each_ref(), &[1.0, 10_000.0], 2.0);
}

#[test]
fn g16_without_contention_the_least_weight_has_all_workers() {
    // With the real tick, which relieves a worker whose poll goes on.
    let runtime = Runtime::builder().worker_threads(2).build().expect("a runtime");
    let (light, heavy) = (group(1), group(10_000));
    let rests = task::Builder::new().group(&heavy).spawn_on(runtime.handle(), pending::<()>()).expect("a task");
    // Members spawn members, so the other worker has to take its part from this one's lane.
    let members = async {
        let there = Arc::new(AtomicU64::new(0));
        let tasks = [(); 2].map(|()| {
            let there = there.clone();
            stipend::spawn(async move {
                for round in 1..=100 {
                    there.fetch_add(1, Ordering::Relaxed);
                    // Within the poll: both are polled at the same time.
                    wait_until(|| there.load(Ordering::Relaxed) >= 2 * round);
                    yield_now().await;
                }
            })
        });
        for task in tasks {
            task.await.expect("it meets the other");
        }
    };
    let members = task::Builder::new().group(&light).spawn_on(runtime.handle(), members).expect("a task");
    block_on(members).expect("all have met");
    rests.abort();
}

#[test]
fn g16_a_weight_of_1_still_gets_on() {
    let (light, heavy) = (group(1), group(10_000));
    let mut contest = Contest::new(1, us(100_000_000));
    contest.compete(Some(&heavy), 10, us(100));
    contest.compete(Some(&light), 1, us(100));
    contest.run();
    // 10 ms are due, a poll now and then.
    assert!(light.cpu_time() >= us(5_000), "{:?}", light.cpu_time());
}

#[test]
fn g17_weights_nest() {
    let (left, right) = (group(100), group(300));
    let child = |parent: &Group, weight| Group::builder("child").parent(parent).weight(weight).build().unwrap();
    let (a, b) = (child(&left, 100), child(&left, 200));
    let (c, d) = (child(&right, 10), child(&right, 40));
    let mut contest = Contest::new(1, us(6_000_000));
    for (group, tasks) in [(&a, 1), (&b, 7), (&c, 3), (&d, 20)] {
        contest.compete(Some(group), tasks, us(100));
    }
    contest.run();
    assert_shares(&[&left, &right], &[100.0, 300.0], 2.0);
    assert_shares(&[&a, &b], &[100.0, 200.0], 2.0);
    assert_shares(&[&c, &d], &[10.0, 40.0], 2.0);
}

#[test]
fn g17_a_parents_own_tasks_are_one_child_more() {
    let parent = group(100);
    let child = Group::builder("child").parent(&parent).weight(300).build().unwrap();
    let other = group(100);
    let mut contest = Contest::new(1, us(8_000_000));
    for (group, tasks) in [(&parent, 9), (&child, 1), (&other, 2)] {
        contest.compete(Some(group), tasks, us(100));
    }
    contest.run();
    assert_shares(&[&parent, &other], &[1.0, 1.0], 2.0);
    // The parent's time has the child's in it.
    assert_shares(&[&parent, &child], &[400.0, 300.0], 2.0);
}

#[test]
fn g17_what_has_no_group_stands_beside_the_groups_with_the_default_weight() {
    let heavy = group(300);
    let plain = group(100);
    let mut contest = Contest::new(1, us(5_000_000));
    contest.compete(None, 10, us(100));
    contest.compete(Some(&heavy), 1, us(100));
    contest.compete(Some(&plain), 2, us(100));
    contest.run();
    assert_shares(&[&heavy, &plain], &[300.0, 100.0], 2.0);
    assert_shares(&[&plain], &[1.0], 2.0);
    assert!((plain.cpu_time().as_secs_f64() - 1.0).abs() < 0.02, "{:?} of five seconds", plain.cpu_time());
}

#[test]
fn g18_a_hundred_tasks_get_no_more_than_one() {
    let (many, one) = (group(100), group(100));
    let mut contest = Contest::new(1, us(4_000_000));
    contest.compete(Some(&many), 100, us(100));
    contest.compete(Some(&one), 1, us(100));
    contest.run();
    assert_shares(&[&many, &one], &[1.0, 1.0], 2.0);
}

#[test]
fn g18_also_with_several_workers() {
    let (one, others) = (group(100), [group(100), group(100), group(100)]);
    let mut contest = Contest::new(2, us(4_000_000));
    contest.real = us(50);
    for many in &others {
        contest.compete(Some(many), 100, us(100));
    }
    contest.compete(Some(&one), 1, us(100));
    contest.run();
    assert_shares(&[&one, &others[0], &others[1], &others[2]], &[1.0; 4], 2.0);
}

#[test]
fn no_task_of_a_group_starves_behind_one_that_can_never_have_its_share() {
    // Its weight is due all of both workers, and it can use one. The others must share what is left among all of their tasks, on
    // whichever worker they are.
    let (greedy, modest) = (group(10_000), group(100));
    let mut contest = Contest::new(2, us(4_000_000));
    let polls: Vec<Arc<AtomicU64>> = (0..20).map(|_| Arc::default()).collect();
    for polls in &polls {
        let (manual, stop, polls) = (contest.manual.clone(), contest.stop.clone(), polls.clone());
        let future = async move {
            while !stop.load(Ordering::Relaxed) {
                manual.advance(us(100));
                polls.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        };
        let task = task::Builder::new().group(&modest).spawn_on(contest.runtime.handle(), future).unwrap();
        contest.tasks.push(task);
    }
    let so_far = || polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // All of them are on the way, on both workers, when the greedy one comes.
    wait_until(|| so_far().iter().all(|polls| *polls >= 100));
    // So that the other worker gets on meanwhile.
    contest.real = us(20);
    contest.compete(Some(&greedy), 1, us(100));
    let before = so_far();
    contest.run();
    let since: Vec<u64> = so_far().iter().zip(before).map(|(now, before)| now - before).collect();
    assert!(since.iter().all(|polls| *polls > 10), "polls of the tasks of one group: {since:?}");
}

#[test]
fn a_group_that_comes_back_does_not_keep_the_others_waiting_for_what_it_missed() {
    let (busy, away) = (group(100), group(100));
    let mut contest = Contest::new(1, us(2_000_000));
    contest.compete(Some(&busy), 2, us(100));
    contest.run();
    // The other one comes two seconds of CPU late; from now on they share.
    let before = busy.cpu_time();
    contest.again(us(1_000_000));
    contest.compete(Some(&busy), 2, us(100));
    contest.compete(Some(&away), 2, us(100));
    contest.run();
    let (busy, away) = ((busy.cpu_time() - before).as_secs_f64(), away.cpu_time().as_secs_f64());
    assert!((busy / away - 1.0).abs() < 0.02, "{busy} s against {away} s");
}

#[test]
fn a_number_that_comes_to_a_group_with_another_parent_strands_nobody() {
    let runtime = LocalRuntime::new().expect("a runtime");
    runtime.block_on(async {
        let (p, q) = (group(100), group(100));
        let under = |parent: &Group| Group::builder("child").parent(parent).build().expect("a group");
        let mut heir = None;
        for _ in 0..1_000 {
            let child = under(&p);
            let number = child.id();
            // Its task is the last that runs: the turn is the child's.
            task::Builder::new().group(&child).spawn(async {}).unwrap().await.unwrap();
            drop(child);
            // Numbers are handed out last in, first out, but another test may be faster.
            heir = Some(under(&q)).filter(|heir| heir.id() == number);
            if heir.is_some() {
                break;
            }
        }
        let heir = heir.expect("a group that has the number of the one before");
        // The turn goes from the heir to the own tasks of what was its parent.
        let of_heir = task::Builder::new().group(&heir).spawn(yield_now()).unwrap();
        let of_p = task::Builder::new().group(&p).spawn(async { 7 }).unwrap();
        of_heir.await.unwrap();
        assert_eq!(of_p.await.unwrap(), 7);
    });
}

#[test]
fn g12_a_group_outlives_scopes_that_were_in_none() {
    let runtime = Runtime::builder().worker_threads(1).build().expect("a runtime");
    let name: Arc<str> = Arc::from("tenant");
    let (lives, group) = (Arc::downgrade(&name), Group::new(name).expect("a group"));
    let main = runtime.spawn(async move {
        for _ in 0..3 {
            stipend::Scope::with_limit(Duration::from_secs(3600)).run(async {}).await.expect("it does nothing");
        }
        let member = |yields| async move {
            for _ in 0..yields {
                yield_now().await;
            }
        };
        let spawn = |yields| task::Builder::new().group(&group).spawn(member(yields)).expect("a task");
        let long: Vec<_> = (0..3).map(|_| spawn(u32::MAX)).collect();
        spawn(0).await.expect("it does nothing");
        drop(group);
        member(300).await;
        // Whoever waits gives back what it has in reserve.
        stipend::time::sleep(Duration::from_millis(1)).await;
        assert!(lives.upgrade().is_some(), "it has members");
        for task in long {
            task.abort();
        }
    });
    block_on(main).expect("it ends");
}
