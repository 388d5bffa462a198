//! Connections as a stream.

use std::fmt;
use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use super::TcpListener;

/// A socket that accepts connections. Sealed: it cannot be named outside of this crate.
pub trait Accept {
    type Connection;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Self::Connection>>;
}

/// The stream of [`TcpListener::incoming`] and its counterpart for Unix sockets.
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a, L = TcpListener> {
    listener: &'a L,
}

impl<'a, L> Incoming<'a, L> {
    pub(super) fn new(listener: &'a L) -> Self {
        Self { listener }
    }
}

impl<L: Accept> Stream for Incoming<'_, L> {
    type Item = Result<L::Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_accept(cx).map(Some)
    }
}

impl<L: fmt::Debug> fmt::Debug for Incoming<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", self.listener).finish()
    }
}
