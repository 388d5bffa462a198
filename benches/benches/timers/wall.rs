//! Wall timers: `stipend::time::sleep` beside tokio's, inside a task of each runtime.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use stipend_benches::args::Args;
use stipend_benches::os::thread_cpu_ns;
use stipend_benches::random::Random;
use stipend_benches::report::Report;
use stipend_benches::rounds::interleave;
use stipend_benches::row::Row;

use crate::BENCH;

/// A usual timeout.
const TIMEOUT: Duration = Duration::from_secs(30);

/// When the others that wait are due: around it.
fn around(random: &mut Random) -> Duration {
    TIMEOUT.mul_f64(20.0 * random.unit() + 1.0)
}

/// Makes a sleep, polls it once, drops it.
fn once<S: Future<Output = ()>>(cx: &mut Context<'_>, sleep: S) {
    let sleep = pin!(sleep);
    assert!(sleep.poll(cx).is_pending());
}

/// How many are made in one poll: below tokio's budget of 128, at which a sleep does not register any more.
const AT_ONCE: usize = 100;

/// The task that measures: `make` a sleep, so many times; gives way now and then, which is a hundredth of the work. By the CPU
/// clock of the runtime's one worker.
async fn measure<S: Future<Output = ()>>(count: usize, make: impl Fn() -> S, give_way: impl AsyncFn()) -> f64 {
    give_way().await;
    let start = thread_cpu_ns();
    for _ in 0..count / AT_ONCE {
        poll_fn(|cx| {
            for _ in 0..AT_ONCE {
                once(cx, make());
            }
            Poll::Ready(())
        })
        .await;
        give_way().await;
    }
    (thread_cpu_ns() - start) as f64 / count as f64
}

/// A task that holds so many sleeps, registered, until it is told to end.
async fn hold<S: Future<Output = ()>>(sleeps: Vec<S>, ready: std::sync::mpsc::Sender<()>, give_way: impl AsyncFn()) {
    let mut sleeps: Vec<Pin<Box<S>>> = sleeps.into_iter().map(Box::pin).collect();
    for some in sleeps.chunks_mut(AT_ONCE) {
        give_way().await;
        poll_fn(|cx| {
            some.iter_mut().for_each(|sleep| assert!(sleep.as_mut().poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
    }
    let _ = ready.send(());
    std::future::pending().await
}

pub(crate) fn sleeps(args: &Args, report: &mut Report) {
    for pending in [0, 1_000, 100_000] {
        let name = format!("default/sleep/pending={pending}");
        if !args.wants(&name) {
            continue;
        }
        let ours = stipend::Runtime::builder().worker_threads(1).build().expect("a runtime can be built");
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let tokio = tokio.expect("a runtime can be built");
        let mut random = Random::default();
        let times: Vec<Duration> = (0..pending).map(|_| around(&mut random)).collect();
        let (ready, wait) = std::sync::mpsc::channel();
        let at = Instant::now();
        let others: Vec<_> = times.iter().map(|time| stipend::time::sleep_until(at + *time)).collect();
        let _held = ours.spawn(hold(others, ready.clone(), stipend::yield_now));
        {
            let _in = tokio.enter();
            let others: Vec<_> = times.iter().map(|time| tokio::time::sleep_until((at + *time).into())).collect();
            tokio.spawn(hold(others, ready, tokio::task::yield_now));
        }
        for _ in 0..2 {
            wait.recv().expect("both say that they are ready");
        }
        let count = args.choose(10_000, 50_000);
        let columns = interleave(args.choose(15, 51), 2, |which| match which {
            0 => {
                let task = ours.spawn(measure(count, || stipend::time::sleep(TIMEOUT), stipend::yield_now));
                ours.block_on(task).expect("nobody cancels it")
            }
            _ => {
                let task = tokio.spawn(measure(count, || tokio::time::sleep(TIMEOUT), tokio::task::yield_now));
                tokio.block_on(task).expect("nobody cancels it")
            }
        });
        let [ours, tokio]: [Vec<f64>; 2] = columns.try_into().expect("as many as were asked for");
        report.add(Row::new(BENCH, name, "sleep_create_drop_ns", ours).peer("tokio", tokio).over_best_peer());
    }
}
