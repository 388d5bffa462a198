//! A source of events together with its registration.
//!
//! Every operation on a socket has one shape: if the source may be ready, try; if that would block, wait for the
//! next report. [`Io`] is the only place that knows it.
//!
//! Invariant: a source is in the reactor's table and in the operating system's selector exactly as long as its
//! `Io` lives. `Io` keeps the reactor alive, so it can be dropped on any thread and after its runtime.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mio::event::Source;
use mio::{Interest, Token};

use super::Reactor;
use super::readiness::{Direction, Observed, Readiness, Waiting};
use crate::coop::Courtesy;

pub(crate) struct Io<S: Source> {
    /// `None` only once it was taken by `into_inner`.
    source: Option<S>,
    token: Token,
    readiness: Arc<Readiness>,
    reactor: Arc<Reactor>,
    read_courtesy: Courtesy,
    write_courtesy: Courtesy,
}

/// Whether a new source is tried before the first report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initially {
    /// It may be ready by now: the first attempt finds out, and saves a round through the reactor if it is.
    Unknown,
    /// It is known not to be ready, or says something else before it is.
    NotReady,
}

impl<S: Source> Io<S> {
    pub(crate) fn new(
        reactor: &Arc<Reactor>,
        mut source: S,
        interest: Interest,
        initially: Initially,
    ) -> io::Result<Self> {
        let readiness = Arc::new(Readiness::new(initially == Initially::Unknown));
        let token = reactor.register(&mut source, interest, readiness.clone())?;
        Ok(Self {
            source: Some(source),
            token,
            readiness,
            reactor: reactor.clone(),
            read_courtesy: Courtesy::default(),
            write_courtesy: Courtesy::default(),
        })
    }

    /// Takes the source out of the reactor.
    pub(crate) fn into_inner(mut self) -> io::Result<S> {
        let mut source = self.source.take().expect("the source is taken once, by value");
        self.reactor.deregister(&mut source, self.token)?;
        Ok(source)
    }

    /// Tries `operation` until it does not block.
    pub(crate) fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut operation: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        ready!(self.courtesy(direction).poll(cx));
        loop {
            let observed = ready!(self.readiness.poll(cx, direction))?;
            if let Some(result) = self.attempt(direction, observed, &mut operation) {
                return Poll::Ready(result);
            }
        }
    }

    /// As [`poll_with`](Self::poll_with), for an operation that moves up to `wanted` bytes. One that moves fewer
    /// has emptied or filled the socket's buffer, so the attempt that would only find this out is saved. (This
    /// holds for epoll and kqueue, whose next report comes with the next bytes or the next room.)
    pub(crate) fn poll_transfer(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        wanted: usize,
        mut operation: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.courtesy(direction).poll(cx));
        loop {
            let observed = ready!(self.readiness.poll(cx, direction))?;
            match self.attempt(direction, observed, &mut operation) {
                Some(Ok(moved)) => {
                    if cfg!(unix) && 0 < moved && moved < wanted {
                        self.readiness.clear_drained(direction, observed);
                    }
                    return Poll::Ready(Ok(moved));
                }
                Some(error) => return Poll::Ready(error),
                None => {}
            }
        }
    }

    /// The future of [`poll_with`](Self::poll_with). It leaves nothing behind when it is dropped.
    pub(crate) fn perform<R, F>(&self, direction: Direction, operation: F) -> Perform<'_, S, F>
    where
        F: FnMut(&S) -> io::Result<R> + Unpin,
    {
        Perform { io: self, direction, operation, waiting: None }
    }

    fn courtesy(&self, direction: Direction) -> &Courtesy {
        match direction {
            Direction::Read => &self.read_courtesy,
            Direction::Write => &self.write_courtesy,
        }
    }

    /// `None` if the operation has to be tried again once the source is ready.
    fn attempt<R>(
        &self,
        direction: Direction,
        observed: Observed,
        operation: &mut impl FnMut(&S) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        loop {
            match operation(self) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.clear(direction, observed);
                    return None;
                }
                result => return Some(result),
            }
        }
    }
}

impl<S: Source> Deref for Io<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.source.as_ref().expect("the source is taken only by value")
    }
}

impl<S: Source> Drop for Io<S> {
    fn drop(&mut self) {
        if let Some(mut source) = self.source.take() {
            // An error here means that the selector does not know the source; it is closed next anyhow.
            let _ = self.reactor.deregister(&mut source, self.token);
        }
    }
}

impl<S: Source + fmt::Debug> fmt::Debug for Io<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// See [`Io::perform`].
pub(crate) struct Perform<'a, S: Source, F> {
    io: &'a Io<S>,
    direction: Direction,
    operation: F,
    waiting: Option<Waiting>,
}

impl<S, F, R> Future for Perform<'_, S, F>
where
    S: Source,
    F: FnMut(&S) -> io::Result<R> + Unpin,
{
    type Output = io::Result<R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        let this = self.get_mut();
        ready!(this.io.courtesy(this.direction).poll(cx));
        loop {
            let readiness = &this.io.readiness;
            let observed = ready!(readiness.poll_owned(cx, this.direction, &mut this.waiting))?;
            if let Some(result) = this.io.attempt(this.direction, observed, &mut this.operation) {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S: Source, F> Drop for Perform<'_, S, F> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.io.readiness.forget(self.direction, waiting);
        }
    }
}
