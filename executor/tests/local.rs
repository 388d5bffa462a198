//! The runtime of one thread: what is spawned on it stays there, and its tasks are tasks like any other.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::channel::oneshot;
use stipend::runtime::{BuildError, LocalRuntime, Runtime};
use stipend::task::{self, JoinError};
use stipend::test::Manual;
use stipend::{CpuLimit, spawn, spawn_blocking, spawn_local, yield_now};

fn local() -> LocalRuntime {
    LocalRuntime::new().expect("a runtime")
}

/// Notes the thread that drops it.
struct NotesThread(Rc<RefCell<Vec<ThreadId>>>);

impl Drop for NotesThread {
    fn drop(&mut self) {
        self.0.borrow_mut().push(thread::current().id());
    }
}

#[test]
fn futures_and_outputs_need_not_be_send() {
    let runtime = local();
    let words = Rc::new(RefCell::new(Vec::new()));
    let last = runtime.block_on(async {
        let said = words.clone();
        let task = spawn_local(async move {
            said.borrow_mut().push("first");
            yield_now().await;
            said.borrow_mut().push("second");
            Rc::new("third")
        });
        task.await.unwrap()
    });
    assert_eq!((words.borrow().as_slice(), *last), (["first", "second"].as_slice(), "third"));
}

#[test]
fn everything_runs_on_the_one_thread() {
    let runtime = local();
    let here = thread::current().id();
    runtime.block_on(async {
        let threads = [
            spawn(async { thread::current().id() }).await.unwrap(),
            spawn_local(async { thread::current().id() }).await.unwrap(),
            thread::current().id(),
        ];
        assert_eq!(threads, [here; 3]);
        assert_ne!(spawn_blocking(|| thread::current().id()).await.unwrap(), here);
    });
}

#[test]
fn what_is_left_rests_until_the_next_block_on() {
    let runtime = local();
    let polls = Rc::new(Cell::new(0));
    let counter = polls.clone();
    let task = runtime.spawn_local(async move {
        for _ in 0..1_000 {
            counter.set(counter.get() + 1);
            yield_now().await;
        }
    });
    assert_eq!(polls.get(), 0, "nothing runs outside of block_on");
    runtime.block_on(async {
        while polls.get() < 10 {
            yield_now().await;
        }
    });
    let before = polls.get();
    assert!(before < 1_000, "the root was ready, and the task had to wait: {before} polls");
    runtime.block_on(task).unwrap();
    assert_eq!(polls.get(), 1_000);
}

#[test]
fn root_and_tasks_wait_for_each_other_alike() {
    let runtime = local();
    let polls = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let polls = polls.clone();
        drop(runtime.spawn_local(async move {
            loop {
                polls.set(polls.get() + 1);
                yield_now().await;
            }
        }));
    }
    runtime.block_on(async {
        for turns in 0..1_000 {
            assert!((turns - 1..=turns + 1).contains(&polls.get()), "{} polls of tasks at poll {turns}", polls.get());
            yield_now().await;
        }
    });
}

#[test]
fn another_thread_wakes_and_spawns() {
    let runtime = local();
    let handle = runtime.handle().clone();
    let (asked, ask) = oneshot::channel::<Waker>();
    let answered = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let answered = answered.clone();
        move || {
            let task = handle.spawn(async { thread::current().id() });
            let runs_on = futures::executor::block_on(task).unwrap();
            let waker = futures::executor::block_on(ask).unwrap();
            thread::sleep(Duration::from_millis(20));
            answered.store(true, Ordering::SeqCst);
            waker.wake();
            runs_on
        }
    });
    let task = runtime.spawn_local(async move {
        let mut asked = Some(asked);
        let not_send = Rc::new(());
        poll_fn(|cx| {
            if let Some(asked) = asked.take() {
                asked.send(cx.waker().clone()).unwrap();
            }
            if answered.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(not_send);
    });
    runtime.block_on(task).unwrap();
    assert_eq!(other.join().unwrap(), thread::current().id());
}

#[test]
fn the_root_is_woken_from_another_thread_while_the_worker_sleeps() {
    let runtime = local();
    for _ in 0..100 {
        let (answer, asked) = oneshot::channel();
        let other = thread::spawn(move || answer.send(7).unwrap());
        assert_eq!(runtime.block_on(asked).unwrap(), 7);
        other.join().unwrap();
    }
}

#[test]
fn sockets_and_sleeps_get_on() {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = local();
    let said = runtime.block_on(async {
        let listener = stipend::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stipend::time::sleep(Duration::from_millis(5)).await;
            stream.write_all(b"hello").await.unwrap();
        });
        let mut stream = stipend::net::TcpStream::connect(address).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        server.await.unwrap();
        said
    });
    assert_eq!(said, "hello");
}

#[test]
fn a_task_that_is_aborted_from_another_thread_is_dropped_on_its_own() {
    let runtime = local();
    let dropped_on = Rc::new(RefCell::new(Vec::new()));
    let notes = NotesThread(dropped_on.clone());
    let task = runtime.spawn_local(async move {
        let _notes = notes;
        pending::<()>().await;
    });
    runtime.block_on(yield_now());
    let abort = task.abort_handle();
    let other = thread::spawn(move || abort.abort());
    let ended = runtime.block_on(task);
    assert!(matches!(ended, Err(JoinError::Cancelled)), "{ended:?}");
    other.join().unwrap();
    assert_eq!(*dropped_on.borrow(), [thread::current().id()]);
}

#[test]
fn a_handle_may_go_to_another_thread_if_the_output_may() {
    let runtime = local();
    let not_send = Rc::new(41);
    let task = runtime.spawn_local(async move { *not_send + 1 });
    let (tell, told) = channel();
    let other = thread::spawn(move || tell.send(futures::executor::block_on(task).unwrap()).unwrap());
    runtime.block_on(async {
        while runtime.handle().metrics().tasks > 0 {
            yield_now().await;
        }
    });
    assert_eq!(told.recv().unwrap(), 42);
    other.join().unwrap();
}

#[test]
fn dropping_it_drops_every_future_here() {
    let dropped_on = Rc::new(RefCell::new(Vec::new()));
    let runtime = local();
    for polled in [true, true, false] {
        let notes = NotesThread(dropped_on.clone());
        drop(runtime.spawn_local(async move {
            let _notes = notes;
            pending::<()>().await;
        }));
        if polled {
            runtime.block_on(yield_now());
        }
    }
    // A waker that somebody keeps does not keep the future.
    let kept = runtime.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
    let handle = runtime.handle().clone();
    drop(runtime);
    assert_eq!(*dropped_on.borrow(), [thread::current().id(); 3]);
    thread::spawn(move || kept.wake()).join().unwrap();
    let refused = futures::executor::block_on(handle.spawn(async {}));
    assert!(matches!(refused, Err(JoinError::Cancelled)), "{refused:?}");
}

#[test]
fn a_future_that_is_refused_is_dropped_here_too() {
    let dropped_on = Rc::new(RefCell::new(Vec::new()));
    let runtime = local();
    let late = NotesThread(dropped_on.clone());
    /// Spawns as it is dropped, when the runtime takes no more.
    struct SpawnsLate(Option<NotesThread>);
    impl Drop for SpawnsLate {
        fn drop(&mut self) {
            let late = self.0.take();
            drop(spawn_local(async move { drop(late) }));
        }
    }
    let spawns = SpawnsLate(Some(late));
    drop(runtime.spawn_local(async move {
        let _spawns = spawns;
        pending::<()>().await;
    }));
    drop(runtime);
    assert_eq!(*dropped_on.borrow(), [thread::current().id()]);
}

#[test]
fn limits_bind_as_everywhere() {
    let manual = Manual::new();
    let runtime = Runtime::builder().meter(manual.meter().clone()).build_local().unwrap();
    let ended = runtime.block_on(async {
        let manual = manual.clone();
        let task = task::Builder::new().cpu_limit(CpuLimit::hard(Duration::from_millis(25)));
        let busy = async move {
            let _not_send = Rc::new(());
            loop {
                manual.advance(Duration::from_millis(10));
                yield_now().await;
            }
        };
        task.spawn_local(busy).unwrap().await
    });
    match ended {
        Err(JoinError::CpuLimitExceeded(exceeded)) => assert_eq!(exceeded.used, Duration::from_millis(30)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_ends_its_task_alone() {
    let runtime = local();
    runtime.block_on(async {
        let bad = spawn_local(async { panic!("on purpose") });
        let good = spawn_local(async { 1 });
        assert!(bad.await.unwrap_err().is_panic());
        assert_eq!(good.await.unwrap(), 1);
    });
}

#[test]
fn a_panic_of_the_root_leaves_the_tasks() {
    let runtime = local();
    let done = Rc::new(Cell::new(false));
    let task = {
        let done = done.clone();
        runtime.spawn_local(async move {
            yield_now().await;
            done.set(true);
        })
    };
    let root = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { panic!("on purpose") })));
    assert!(root.is_err());
    runtime.block_on(task).unwrap();
    assert!(done.get());
}

#[test]
fn spawn_local_elsewhere_is_refused_by_a_panic() {
    assert!(catch_unwind(|| drop(spawn_local(async {}))).is_err());
    let runtime = Runtime::builder().worker_threads(1).build().unwrap();
    let told = runtime.block_on(async { spawn(async { drop(spawn_local(async {})) }).await });
    assert!(told.unwrap_err().to_string().contains("LocalRuntime"));
}

#[test]
fn block_on_inside_is_refused_by_a_panic() {
    let runtime = local();
    let inner = local();
    let refused = runtime.block_on(async { catch_unwind(AssertUnwindSafe(|| inner.block_on(async {}))) });
    assert!(refused.is_err());
}

#[test]
fn it_has_one_worker() {
    match Runtime::builder().worker_threads(2).build_local() {
        Err(BuildError::WorkerThreads { asked: 2, max: 1 }) => {}
        other => panic!("{other:?}"),
    }
    assert!(Runtime::builder().worker_threads(1).build_local().is_ok());
    assert_eq!(local().handle().metrics().workers, 1);
}

#[test]
fn one_may_be_dropped_by_a_task_of_another_runtime() {
    let runtime = Runtime::builder().worker_threads(1).build().unwrap();
    let polls = runtime.block_on(async {
        spawn(async {
            {
                let inner = local();
                drop(inner.spawn_local(pending::<()>()));
            }
            // The worker is still what it was.
            spawn(async { 1 }).await.unwrap()
        })
        .await
    });
    assert_eq!(polls.unwrap(), 1);
}

#[test]
fn one_that_a_dying_thread_keeps_leaves_its_tasks_unpolled_and_does_no_harm() {
    thread_local! {
        static KEPT: RefCell<Option<LocalRuntime>> = const { RefCell::new(None) };
    }
    let (dropped, polled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (counts, is_polled) = (Counts(dropped.clone()), polled.clone());
    let handle = thread::spawn(move || {
        KEPT.with(|kept| {
            let runtime = local();
            drop(runtime.spawn_local(async move {
                let _counts = counts;
                is_polled.store(true, Ordering::SeqCst);
                pending::<()>().await;
            }));
            let handle = runtime.handle().clone();
            *kept.borrow_mut() = Some(runtime);
            handle
        })
    })
    .join()
    .unwrap();
    // Dropped on its thread, or left for ever if that knew no more what it was; but not run elsewhere.
    assert!(dropped.load(Ordering::SeqCst) <= 1);
    assert!(!polled.load(Ordering::SeqCst));
    drop(handle);
}

#[test]
fn a_shutdown_with_a_timeout_says_what_is_left() {
    let runtime = local();
    let (go, gone) = channel::<()>();
    let (began, begins) = channel();
    let job = runtime.handle().spawn_blocking(move || {
        began.send(()).unwrap();
        let _ = gone.recv();
    });
    begins.recv().unwrap();
    drop(runtime.spawn_local(pending::<()>()));
    let left = runtime.shutdown_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!((left.tasks.len(), left.blocking_threads), (0, 1));
    go.send(()).unwrap();
    drop(job);
}

#[test]
fn a_root_that_always_yields_does_not_keep_time_from_being_looked_at() {
    let runtime = local();
    runtime.block_on(async {
        let sleeper = spawn(stipend::time::sleep(Duration::from_millis(10)));
        while !sleeper.is_finished() {
            yield_now().await;
        }
    });
}
