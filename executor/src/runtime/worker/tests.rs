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
