//! hyper 1.x on this runtime: its input and output, its executor and its timer.
//!
//! ```no_run
//! # stipend::Runtime::new().unwrap().block_on(async {
//! use std::convert::Infallible;
//!
//! use hyper::Response;
//! use hyper::server::conn::http1;
//! use hyper::service::service_fn;
//! use stipend::compat::hyper::{HyperIo, HyperTimer};
//! use stipend::net::TcpListener;
//!
//! let listener = TcpListener::bind("127.0.0.1:8080").await?;
//! loop {
//!     let (stream, _peer) = listener.accept().await?;
//!     drop(stipend::spawn(async move {
//!         let hello = service_fn(|_request| async {
//!             Ok::<_, Infallible>(Response::new(String::from("hello\n")))
//!         });
//!         http1::Builder::new()
//!             .timer(HyperTimer)
//!             .serve_connection(HyperIo::new(stream), hello)
//!             .await
//!     }));
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```

use std::cell::Cell;
use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::io::{AsyncRead, AsyncWrite};
use hyper::rt::{Executor, Read, ReadBufCursor, Timer, Write};
use pin_project::pin_project;

use crate::time::{self, Sleep};

/// The most that one read moves, and the size of the buffer that each thread keeps for it.
const READ_SIZE: usize = 8 * 1024;

thread_local! {
    /// Through which all connections of a thread read. Taken out while it is used.
    static BUFFER: Cell<Box<[u8]>> = Cell::default();
}

/// Anything that is read and written through the traits of `futures`, for hyper.
///
/// hyper reads into memory that is not initialised, and the traits of `futures` into memory that is. Bytes go
/// through a small buffer of the thread, which stays in the cache: a copy of what was received, where
/// clearing hyper's whole buffer for each read would touch more, and no unsafe code.
#[pin_project]
#[derive(Debug)]
pub struct HyperIo<T> {
    #[pin]
    inner: T,
}

impl<T> HyperIo<T> {
    /// Wraps a connection.
    pub fn new(inner: T) -> Self {
        Self { inner }
    }

    /// The connection.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The connection, to change it.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The connection back. Nothing that was read is left in here.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead> Read for HyperIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<Result<()>> {
        // Empty on a thread that has none yet, that is ending, or that reads from within a read.
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        if buffer.is_empty() {
            buffer = vec![0; READ_SIZE].into_boxed_slice();
        }
        let room = cursor.remaining().min(READ_SIZE);
        let read = self.project().inner.poll_read(cx, &mut buffer[..room]);
        if let Poll::Ready(Ok(received)) = read {
            cursor.put_slice(&buffer[..received]);
        }
        let _ = BUFFER.try_with(|place| place.set(buffer));
        read.map_ok(drop)
    }
}

impl<T: AsyncWrite> Write for HyperIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.project().inner.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.project().inner.poll_close(cx)
    }

    // The traits of `futures` do not say. What does not implement it writes the first buffer only, which is correct.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.project().inner.poll_write_vectored(cx, buffers)
    }
}

/// Spawns hyper's tasks on the current runtime, in the group of the task that asks for it.
///
/// # Panics
///
/// hyper panics when it spawns outside of a runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperExecutor;

impl<F> Executor<F> for HyperExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(crate::spawn(future));
    }
}

/// Gives hyper its timeouts, in wall time.
///
/// What it makes is a [`Sleep`] that leaves the clock to the reactor of the runtime that polls it first: it is ready once that has fired it, by
/// a turn of a worker behind the deadline, and not by the deadline alone.
///
/// # Panics
///
/// When such a sleep is polled for the first time outside of a runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperTimer;

impl hyper::rt::Sleep for Sleep {}

impl Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(time::sleep(duration).deadline())
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(time::sleep_unhurried(deadline))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_reset_where_it_is() {
        let mut sleep = HyperTimer.sleep(Duration::from_secs(1000));
        let deadline = Instant::now() + Duration::from_secs(1);
        let place = &raw const *sleep;
        HyperTimer.reset(&mut sleep, deadline);
        assert!(std::ptr::addr_eq(place, &raw const *sleep));
        let ours = sleep.as_mut().downcast_mut_pin::<Sleep>().unwrap();
        assert_eq!(ours.deadline(), deadline);
    }

    #[test]
    fn a_timer_is_ready_behind_its_deadline_and_not_before() {
        let runtime = crate::LocalRuntime::new().unwrap();
        runtime.block_on(async {
            let mut passed = HyperTimer.sleep_until(Instant::now());
            assert!(futures::poll!(&mut passed).is_pending(), "the reactor has not looked yet");
            passed.as_mut().await;
            assert!(futures::poll!(&mut passed).is_ready(), "it stays so");
        });
        runtime.block_on(async {
            let mut sleep = HyperTimer.sleep(Duration::from_secs(1000));
            assert!(futures::poll!(&mut sleep).is_pending());
            let deadline = Instant::now() + Duration::from_millis(5);
            HyperTimer.reset(&mut sleep, deadline);
            sleep.await;
            assert!(Instant::now() >= deadline);
        });
        let mut sleep = HyperTimer.sleep(Duration::from_secs(1000));
        runtime.block_on(async { assert!(futures::poll!(&mut sleep).is_pending()) });
        drop(runtime);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(sleep.as_mut().poll(&mut cx).is_ready(), "nothing would fire it any more");
    }
}
