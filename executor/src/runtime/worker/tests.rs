//! A worker led by hand: nothing else runs its tasks, and the manual clock ends no turn.

use std::sync::Mutex;

use stipend_timers::Group;
use stipend_timers::test::Manual;

use super::*;
use crate::runtime::{Builder, Handle};
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
