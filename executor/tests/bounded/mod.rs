//! Runs a test on a runtime of its own, and fails it rather than wait for ever.

use std::future::Future;
use std::sync::mpsc;
use std::thread;

use stipend::Runtime;

use crate::common::PATIENCE;

/// Runs `test` to its end, on a runtime of the usual size.
pub(crate) fn run<F>(test: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    run_on(|| Runtime::new().expect("a runtime starts"), test);
}

/// Runs `test` to its end, on the runtime that `start` makes.
///
/// # Panics
///
/// If it panics, or has not ended after [`PATIENCE`].
pub(crate) fn run_on<F>(start: fn() -> Runtime, test: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ended, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = start();
        runtime.block_on(test);
        drop(runtime);
        let _ = ended.send(());
    });
    match end.recv_timeout(PATIENCE) {
        Ok(()) => {}
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not ended after {PATIENCE:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("the test has panicked"));
        }
    }
}
