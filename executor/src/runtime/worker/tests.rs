//! A worker led by hand: nothing else runs its tasks, and the manual clock ends no turn.

use std::sync::Mutex;

use stipend_timers::Group;
use stipend_timers::test::Manual;

use super::cohort::CROWD;
use super::*;
use crate::runtime::{Builder, Handle};
use crate::scheduler::idle::Place;
use crate::task;

#[test]
fn what_was_to_run_next_stays_with_its_group_when_the_turn_goes_to_a_task_from_elsewhere() {
    let manual = Manual::new();
    let builder = Builder::new().meter(manual.meter().clone());
    let (shared, lanes) = builder.share(1, true).expect("what a runtime consists of");
    let local = Rc::new(Local::new(Arc::clone(&shared), 0, lanes.into_iter().next().expect("one worker's")));
    let thread = AsWorker::begin(&local);
    let lease = shared.meter().attach();
    let mut worker = Worker::new(&local, &lease);

    let (handle, polled) = (Handle::new(Arc::clone(&shared)), Arc::new(Mutex::new(Vec::new())));
    let [a, b] = ["a", "b"].map(|name| Group::new(name).expect("a group"));
    let spawn = |group: &Group, name: &'static str| {
        let polled = Arc::clone(&polled);
        let future = async move { polled.lock().unwrap().push(name) };
        drop(task::Builder::new().group(group).spawn_on(&handle, future).expect("a task"));
    };

    spawn(&a, "a1");
    let first = worker.find().expect("it was spawned");
    worker.run_task(first);
    // It is a's turn, so this one is to run next, and nothing else waits.
    spawn(&a, "a2");
    std::thread::scope(|scope| {
        scope.spawn(|| spawn(&b, "b1"));
    });
    let found = shared.injector.pop().expect("another thread has spawned it");
    worker.run_task(found);
    // The later one takes the earlier one's place.
    spawn(&b, "b2");
    spawn(&b, "b3");
    while let Some(task) = worker.find() {
        worker.run_task(task);
    }
    assert_eq!(*polled.lock().unwrap(), ["a1", "b1", "b3", "b2", "a2"]);

    worker.stop();
    drop((lease, thread));
    shared.close();
    run_to_end(&local);
}

#[cfg(unix)]
#[test]
fn what_lies_apart_in_a_crowd_can_be_taken_and_stays_with_its_group_when_the_turn_changes() {
    use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

    let manual = Manual::new();
    let builder = Builder::new().meter(manual.meter().clone());
    let (shared, lanes) = builder.share(2, false).expect("what a runtime consists of");
    let mut lanes = lanes.into_iter();
    let mut next = || lanes.next().expect("two workers'");
    let (local, thief) = (Rc::new(Local::new(Arc::clone(&shared), 0, next())), next());
    let thread = AsWorker::begin(&local);
    let lease = shared.meter().attach();
    let mut worker = Worker::new(&local, &lease);
    let handle = Handle::new(Arc::clone(&shared));
    let [a, b] = ["a", "b"].map(|name| Group::new(name).expect("a group"));
    let spawn = |group: &Group| drop(task::Builder::new().group(group).spawn_on(&handle, async {}).expect("a task"));
    // One that waits for a socket, and a crowd behind it; returns the other end.
    let crowd = |group: &Group| {
        let (reader, writer) = crate::net::UnixStream::pair().expect("a pair of sockets");
        let reads = async move {
            let mut reader = reader;
            reader.read_exact(&mut [0]).await.expect("it is written");
        };
        drop(task::Builder::new().group(group).spawn_on(&handle, reads).expect("a task"));
        (0..CROWD + 3).for_each(|_| spawn(group));
        writer
    };

    for thieves in [true, false] {
        let mut writer = crowd(&a);
        // Of the first two one is the reader: at its group's turn the last one goes first.
        for _ in 0..2 {
            let task = worker.find().expect("hundreds wait");
            worker.run_task(task);
        }
        writer.write_all(&[1]).now_or_never().expect("there is room").expect("the socket takes it");
        worker.look_at_reactor();
        assert!(worker.local.lanes.has_recent());
        if thieves {
            let peer = &shared.peers[0].lanes;
            while let Some(lane) = peer.most_lagging(thief.shares()) {
                assert_eq!(lane, a.id());
                worker.run_task(peer.steal_half(lane, &thief).expect("nobody else takes it"));
                thief.switch_to(lane);
                while let Some(stolen) = thief.pop_current() {
                    worker.run_task(stolen);
                }
            }
            assert!(!worker.local.lanes.has_recent() && worker.find().is_none(), "all of it was taken");
        } else {
            spawn(&b);
            worker.local.lanes.switch_to(b.id());
            assert!(!worker.local.lanes.has_recent() && shared.peers[0].lanes.has_work());
            while let Some(task) = worker.find() {
                worker.run_task(task);
            }
        }
        assert_eq!(shared.task_count(), 0);
    }

    worker.stop();
    drop((lease, thread));
    shared.close();
    run_to_end(&local);
}

#[test]
fn in_a_poll_nobody_is_called_twice_in_twenty_microseconds() {
    let (calls, begin) = (Calls::default(), Instant::now());
    let may_call = |us| calls.may_call(begin + Duration::from_micros(us));
    assert!(may_call(5));
    assert!((5..25).all(|us| !may_call(us)));
    assert!(may_call(25) && !may_call(26) && !may_call(44) && may_call(100));
    assert!(!may_call(90), "a clock that goes back");
}

/// Leads the first of two workers; the second is nobody's.
fn lead_one_of_two(lead: impl FnOnce(&mut Worker<'_>, &Handle)) {
    lead_by(&Manual::new(), lead);
}

fn lead_by(manual: &Manual, lead: impl FnOnce(&mut Worker<'_>, &Handle)) {
    let builder = Builder::new().meter(manual.meter().clone());
    let (shared, lanes) = builder.share(2, false).expect("what a runtime consists of");
    let locals = lanes.into_iter().enumerate().map(|(index, lanes)| Local::new(Arc::clone(&shared), index, lanes));
    let locals: Vec<_> = locals.map(Rc::new).collect();
    let thread = AsWorker::begin(&locals[0]);
    let lease = shared.meter().attach();
    let mut worker = Worker::new(&locals[0], &lease);
    lead(&mut worker, &Handle::new(Arc::clone(&shared)));

    worker.stop();
    drop((lease, thread));
    shared.idle.wake_up(1);
    shared.close();
    locals.iter().for_each(run_to_end);
}

#[test]
fn a_poll_that_was_not_allowed_to_call_is_followed_by_a_call() {
    lead_one_of_two(|worker, handle| {
        let idle = &worker.shared.idle;
        idle.sleep(1, false, Place::Parker);
        // As if one had been called just now, and was asleep again.
        worker.local.called.latest.set(Some(Instant::now() + Duration::from_secs(3600)));
        (0..3).for_each(|_| drop(handle.spawn(async {})));
        assert_eq!(idle.sleeping(), 1);
        let task = worker.find().expect("three were spawned");
        worker.run_task(task);
        assert_eq!(idle.sleeping(), 0);
        idle.end_search();
    });
}

#[test]
fn a_task_that_whoever_closed_has_missed_is_cancelled_although_it_never_rests() {
    lead_one_of_two(|worker, handle| {
        drop(handle.spawn(async {
            loop {
                crate::yield_now().await;
            }
        }));
        // As if it had come into its slot behind the look.
        worker.shared.refuse_from_now_on();
        for _ in 0..CHECK_EVERY + 2 {
            if let Some(task) = worker.find() {
                worker.run_task(task);
            }
        }
        assert_eq!(worker.shared.task_count(), 0);
    });
}

/// Crowds on a worker that is led by hand.
#[cfg(unix)]
mod crowds {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdUnixStream;
    use std::pin::Pin;

    use futures::AsyncRead;

    use super::*;
    use crate::net::UnixStream;
    use crate::yield_now;

    struct Stage {
        shared: Arc<Shared>,
        local: Rc<Local>,
        handle: Handle,
        manual: Arc<Manual>,
        polled: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Stage {
        fn new() -> Self {
            let manual = Arc::new(Manual::new());
            let builder = Builder::new().meter(manual.meter().clone());
            let (shared, lanes) = builder.share(1, true).expect("what a runtime consists of");
            let lanes = lanes.into_iter().next().expect("one worker's");
            let local = Rc::new(Local::new(Arc::clone(&shared), 0, lanes));
            Self { handle: Handle::new(Arc::clone(&shared)), shared, local, manual, polled: Arc::default() }
        }

        fn spawn(&self, group: Option<&Group>, future: impl Future<Output = ()> + Send + 'static) {
            let builder = group.map_or_else(task::Builder::new, |group| task::Builder::new().group(group));
            drop(builder.spawn_on(&self.handle, future).expect("a task"));
        }

        /// What a poll does: it is noted, and takes so long.
        fn poll(&self, name: &'static str, time: Duration) -> impl Fn() + Clone + Send + 'static {
            let (polled, manual) = (Arc::clone(&self.polled), Arc::clone(&self.manual));
            move || {
                polled.lock().unwrap().push(name);
                manual.advance(time);
            }
        }

        /// One that gives way, after it has done something more.
        fn gives_way(&self, group: Option<&Group>, poll: impl Fn() + Send + 'static) {
            self.spawn(group, async move {
                loop {
                    poll();
                    yield_now().await;
                }
            });
        }

        /// Ready at each look at the reactor.
        fn echoes_to_itself(&self, group: Option<&Group>, time: Duration) {
            let (mut writer, reader) = StdUnixStream::pair().expect("a pair of sockets");
            let (mut reader, poll) = (UnixStream::from_std(reader).expect("a source"), self.poll("echo", time));
            let echoes = move |cx: &mut Context<'_>| {
                while Pin::new(&mut reader).poll_read(cx, &mut [0]).map(|read| read.expect("no error")).is_ready() {}
                poll();
                writer.write_all(&[1]).expect("the socket takes it");
                Poll::Pending
            };
            self.spawn(group, std::future::poll_fn(echoes));
        }

        /// Leads a new worker.
        fn lead(&self, lead: impl FnOnce(&mut Worker<'_>)) {
            let _thread = AsWorker::begin(&self.local);
            let lease = self.shared.meter().attach();
            let mut worker = Worker::new(&self.local, &lease);
            lead(&mut worker);
            worker.stop();
        }

        /// How many polls of the queue's and of the reactor's there were since the last question.
        fn polls(&self) -> (usize, usize) {
            let polled = std::mem::take(&mut *self.polled.lock().unwrap());
            let count = |name| polled.iter().filter(|polled| **polled == name).count();
            (count("queue"), count("echo"))
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            self.shared.close();
            run_to_end(&self.local);
        }
    }

    fn run(worker: &mut Worker<'_>, tasks: usize) {
        for _ in 0..tasks {
            let task = worker.find().expect("there are always some");
            worker.run_task(task);
        }
    }

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_worker_does_not_begin_with_a_cohort() {
        let (stage, poll) = (Stage::new(), 200 * US);
        let entered = stage.handle.enter();
        (0..400).for_each(|_| stage.gives_way(None, stage.poll("queue", poll)));
        (0..40).for_each(|_| stage.echoes_to_itself(None, poll));
        drop(entered);
        stage.lead(|worker| run(worker, 2000));
        stage.polls();
        for _ in 0..200 {
            stage.lead(|worker| run(worker, 20));
        }
        let (queue, echoes) = stage.polls();
        assert!(echoes < queue / 2, "{queue} of the queue, {echoes} of the reactor's");
    }

    #[test]
    fn what_one_group_polls_makes_no_cohort_of_anothers() {
        let (stage, poll) = (Stage::new(), 200 * US);
        let [short, crowded] = ["short", "crowded"].map(|name| Group::new(name).expect("a group"));
        stage.lead(|worker| {
            (0..400).for_each(|_| stage.gives_way(Some(&crowded), stage.poll("queue", poll)));
            (0..40).for_each(|_| stage.echoes_to_itself(Some(&crowded), poll));
            run(worker, 2000);
            stage.polls();
            for _ in 0..50 {
                (0..64).for_each(|_| stage.spawn(Some(&short), async {}));
                while worker.local.lanes.current() != short.id() {
                    run(worker, 1);
                }
                run(worker, 64 + 20);
            }
        });
        let (queue, echoes) = stage.polls();
        assert!(echoes < queue / 2, "{queue} of the queue, {echoes} of the reactor's");
    }

    #[test]
    fn what_runs_next_is_not_the_queues_and_shortens_a_cohort() {
        let stage = Stage::new();
        stage.lead(|worker| {
            let chain = || spawn_in_a_row(&stage.handle, NEXT_IN_A_ROW, stage.poll("next", US));
            chain();
            run(worker, NEXT_IN_A_ROW as usize);
            assert_eq!((worker.cohort.queued(), stage.polled.lock().unwrap().len()), (0, NEXT_IN_A_ROW as usize));
            // A cohort's part that all but two are polled of.
            (0..32).for_each(|_| worker.cohort.count_queued());
            worker.cohort.may_turn(worker.at);
            (0..32 * 7 - 2).for_each(|_| worker.count_recent());
            assert!(worker.cohort.has_turned());
            worker.in_a_row = 0;
            chain();
            run(worker, 2);
            assert!(!worker.cohort.has_turned());
            run(worker, 1);
        });
    }

    fn spawn_in_a_row(handle: &Handle, left: u32, poll: impl Fn() + Clone + Send + 'static) {
        if left == 0 {
            return;
        }
        let own = handle.clone();
        let future = async move {
            poll();
            spawn_in_a_row(&own, left - 1, poll);
        };
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        drop(task::Builder::new().spawn_on(handle, future).expect("a task"));
    }
}

/// Spawns a task from a thread that is no worker.
fn inject(handle: &Handle) {
    std::thread::scope(|scope| {
        scope.spawn(|| handle.spawn(async {}));
    });
}

/// A worker that is led by hand has been called again and again.
mod standing_aside {
    use super::*;

    fn is_due(worker: &Worker<'_>) -> bool {
        worker.local.aside.get().is_due(Instant::now)
    }

    fn lead(lead: impl FnOnce(&mut Worker<'_>, &Handle)) {
        let manual = Manual::new();
        lead_by(&manual, |worker, handle| {
            manual.advance(SINCE_LOOKED);
            assert!(worker.find().is_none() && worker.searching);
            let mut aside = worker.local.aside.get();
            while !is_due(worker) {
                aside.slept(Duration::ZERO, true);
                worker.local.aside.set(aside);
            }
            lead(worker, handle);
            assert!(worker.shared.driver.try_lock().is_ok());
        });
    }

    const SINCE_LOOKED: Duration = Duration::from_millis(1);

    /// Lets it wait, where it must not any more once it has been asked so often. Says how often it has looked at the reactor; it knows
    /// itself whether it has.
    fn wait(worker: &mut Worker<'_>, questions: usize) -> u64 {
        let looks = |worker: &Worker<'_>| worker.counters().reactor_checks.get();
        let (asked, before) = (Cell::new(0), looks(worker));
        worker.sleep(|| {
            asked.set(asked.get() + 1);
            asked.get() > questions
        });
        assert!(worker.counters().parks.get() == 0 && !worker.searching);
        let looks = looks(worker) - before;
        let since = Duration::from_nanos(worker.at.nanos_since(worker.turned_at));
        assert_eq!(since, if looks == 0 { SINCE_LOOKED } else { Duration::ZERO });
        looks
    }

    #[test]
    fn it_looks_at_the_reactor_afterwards_and_does_not_do_it_again_at_once() {
        lead(|worker, _| {
            assert_eq!(wait(worker, 1), 1);
            assert!(!is_due(worker));
        });
    }

    #[test]
    fn it_does_not_stand_aside_if_it_must_not_sleep() {
        lead(|worker, _| {
            assert_eq!(wait(worker, 0), 0);
            assert!(is_due(worker));
        });
    }

    #[test]
    fn what_was_left_to_it_as_a_searcher_is_found_before() {
        lead(|worker, handle| {
            worker.shared.idle.sleep(1, false, Place::Parker);
            inject(handle);
            assert_eq!(worker.shared.idle.sleeping(), 1, "nobody was called for it: somebody searches");
            assert_eq!(wait(worker, usize::MAX), 0);
            assert!(is_due(worker));
            let injected = worker.find().expect("it was injected");
            worker.run_task(injected);
        });
    }

    #[test]
    fn another_worker_is_called_to_the_reactor_before() {
        lead(|worker, _| {
            worker.stop_searching();
            let shared = worker.shared;
            shared.idle.sleep(1, false, Place::Parker);
            // So that it cannot call when it has looked at it afterwards.
            let driver = shared.driver.try_lock();
            let asked = Cell::new(false);
            worker.sleep(|| asked.replace(true));
            drop(driver);
            assert_eq!(shared.idle.sleeping(), 0);
            // It does not come: nobody is there.
            worker.shared.idle.end_search();
        });
    }

    #[test]
    fn it_sleeps_if_there_is_nothing() {
        lead(|worker, handle| {
            std::thread::scope(|scope| {
                let idle = &worker.shared.idle;
                scope.spawn(|| {
                    while idle.sleeping() == 0 {
                        std::thread::yield_now();
                    }
                    inject(handle);
                });
                loop {
                    worker.sleep(|| false);
                    // The system may end a sleep for reasons of its own, and then nobody is called.
                    if worker.searching || worker.shared.has_work() {
                        break;
                    }
                }
            });
            let injected = worker.find().expect("it was injected");
            worker.run_task(injected);
        });
    }
}

/// A worker that is led by hand looks on before it sleeps, beside another that sleeps.
#[cfg(unix)]
mod lingering {
    use futures::AsyncReadExt;
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;
    use crate::net::UnixStream;

    /// Leads the one, which knows that a sleep is dear, and counts among the searching or does not. Its task waits for a socket, whose
    /// other end is given, too.
    fn lead(searching: bool, lead: impl FnOnce(&mut Worker<'_>, &Handle, StdUnixStream)) {
        lead_one_of_two(|worker, handle| {
            let (writer, reader) = StdUnixStream::pair().expect("a pair of sockets");
            let mut reader = UnixStream::from_std(reader).expect("a source");
            handle.spawn(async move { drop(reader.read(&mut [0]).await) });
            let reads = worker.find().expect("it was spawned");
            worker.run_task(reads);
            assert!(worker.find().is_none() && worker.searching);

            if !searching {
                worker.stop_searching();
            }
            worker.shared.idle.sleep(1, false, Place::Parker);
            // On the manual clock it costs nothing to look on.
            worker.linger.slept(1_000_000);
            lead(worker, handle, writer);
            assert!(worker.counters().parks.get() == 0 && worker.shared.driver.try_lock().is_ok());
        });
    }

    /// Lets it wait, and says how often it has looked at the reactor without sleeping.
    fn wait(worker: &mut Worker<'_>, must_not: bool) -> u64 {
        let looks = |worker: &Worker<'_>| worker.counters().reactor_checks.get();
        let before = looks(worker);
        worker.sleep(|| must_not);
        assert!(worker.counters().parks.get() == 0 && !worker.searching);
        looks(worker) - before
    }

    #[test]
    fn it_sees_a_socket_and_calls_nobody() {
        for searching in [true, false] {
            lead(searching, |worker, _, mut socket| {
                socket.write_all(&[1]).expect("the socket takes it");
                assert_eq!(wait(worker, false), 1);
                let reads = worker.find().expect("the socket is ready");
                worker.run_task(reads);
                assert_eq!(worker.shared.idle.sleeping(), 1);
            });
        }
    }

    #[test]
    fn it_takes_what_comes_from_outside_meanwhile() {
        lead(false, |worker, handle, _socket| {
            // The other one is not asleep any more, so nobody is called.
            worker.shared.idle.wake_up(1);
            inject(handle);
            assert_eq!(wait(worker, false), 1);
            let injected = worker.find().expect("it was injected");
            worker.run_task(injected);
        });
    }

    #[test]
    fn it_does_not_look_on_if_it_must_not_sleep() {
        lead(true, |worker, _, _socket| assert_eq!(wait(worker, true), 0));
    }

    #[test]
    fn what_others_have_put_aside_for_a_searcher_is_found_before_it_looks_on() {
        lead(true, |worker, handle, _socket| {
            inject(handle);
            assert_eq!(worker.shared.idle.sleeping(), 1, "nobody was called for it: somebody searches");
            let task = worker.shared.injector.pop().expect("it was injected");
            worker.shared.peers[1].next.put(task);
            assert_eq!(wait(worker, false), 0);
            assert_eq!(worker.shared.idle.sleeping(), 0, "somebody is called to sleep in the reactor");
            worker.shared.idle.end_search();
            let stolen = worker.find().expect("it is the other's");
            worker.run_task(stolen);
        });
    }
}
