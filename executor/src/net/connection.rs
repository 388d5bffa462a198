//! What the connections of every family have in common: they are made, read, written and closed in one way.
//!
//! Invariant: a [`Connection`] whose `connect` has returned is connected, or was. So a public stream is a name, its
//! addresses and its options; how bytes move is decided here.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Result, Write};
use std::net::Shutdown;
use std::ops::Deref;
use std::task::{Context, Poll};

use mio::Interest;
use mio::event::Source;

use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// As many bytes as a vectored write copies together. `send` takes some 200 ns less than `writev` on Linux, which goes
/// through the layer of files; to clear so much and copy into it takes an eighth of that.
const GATHERED: usize = 1024;
/// A buffer for so few is cleared in next to no time.
const FEW: usize = 256;

/// A socket that carries a stream of bytes.
pub(super) trait Socket: Source {
    /// The error of an attempt to connect that failed. Asking takes it away.
    fn failure(&self) -> Result<Option<std::io::Error>>;
    /// `NotConnected` for as long as it is not decided.
    fn is_connected(&self) -> Result<()>;
    fn shutdown(&self, how: Shutdown) -> Result<()>;
}

/// Puts a socket under the reactor's watch in both directions.
pub(super) fn watch<S: Source>(handle: &Handle, socket: S, initially: Initially) -> Result<Io<S>> {
    Io::new(handle.reactor(), socket, Interest::READABLE | Interest::WRITABLE, initially)
}

#[derive(Debug)]
pub(super) struct Connection<S: Source> {
    io: Io<S>,
}

impl<S: Socket> Connection<S> {
    /// Takes over a socket that is connected.
    pub(super) fn register(handle: &Handle, socket: S) -> Result<Self> {
        Ok(Self { io: watch(handle, socket, Initially::Unknown)? })
    }

    /// Waits for a socket that has begun to connect.
    pub(super) async fn connect(socket: S) -> Result<Self> {
        let io = watch(&Handle::current(), socket, Initially::NotReady)?;
        // The connection is decided when the socket is reported writable. A report may come before that, so the
        // socket is asked, for an error first.
        io.perform(Direction::Write, |socket| {
            if let Some(error) = socket.failure()? {
                return Err(error);
            }
            match socket.is_connected() {
                Err(error) if error.kind() == ErrorKind::NotConnected => Err(ErrorKind::WouldBlock.into()),
                result => result,
            }
        })
        .await?;
        Ok(Self { io })
    }

    pub(super) fn into_inner(self) -> Result<S> {
        self.io.into_inner()
    }

    pub(super) fn poll_close(&self) -> Poll<Result<()>> {
        match self.io.shutdown(Shutdown::Write) {
            // The other end has reset the connection: it is as closed as it can be.
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl<S> Connection<S>
where
    S: Socket,
    for<'a> &'a S: Read + Write,
{
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let wanted = buffer.len();
        self.io.poll_transfer(cx, Direction::Read, wanted, |mut socket| socket.read(buffer))
    }

    pub(super) fn poll_read_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<Result<usize>> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        self.io.poll_transfer(cx, Direction::Read, wanted, |mut socket| socket.read_vectored(buffers))
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<Result<usize>> {
        let wanted = buffer.len();
        self.io.poll_transfer(cx, Direction::Write, wanted, |mut socket| socket.write(buffer))
    }

    pub(super) fn poll_write_vectored(&self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        self.io.poll_transfer(cx, Direction::Write, wanted, |mut socket| match buffers {
            [buffer] => socket.write(buffer),
            _ if wanted <= FEW => socket.write(gather(buffers, &mut [0; FEW])),
            _ if wanted <= GATHERED => socket.write(gather(buffers, &mut [0; GATHERED])),
            _ => socket.write_vectored(buffers),
        })
    }
}

/// Copies the buffers together, into one that is large enough.
fn gather<'a>(buffers: &[IoSlice<'_>], into: &'a mut [u8]) -> &'a [u8] {
    let mut end = 0;
    for buffer in buffers {
        into[end..end + buffer.len()].copy_from_slice(buffer);
        end += buffer.len();
    }
    &into[..end]
}

impl<S: Source> Deref for Connection<S> {
    type Target = Io<S>;

    fn deref(&self) -> &Io<S> {
        &self.io
    }
}

/// `AsyncRead` and `AsyncWrite` for a type around a [`Connection`], owned and shared. A blanket implementation would
/// be one of foreign traits for every type.
macro_rules! reads_and_writes {
    ($($type:ty),+) => {$(
        impl ::futures::io::AsyncRead for $type {
            fn poll_read(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                self.io.poll_read(cx, buffer)
            }

            fn poll_read_vectored(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffers: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                self.io.poll_read_vectored(cx, buffers)
            }
        }

        impl ::futures::io::AsyncWrite for $type {
            fn poll_write(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffer: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                self.io.poll_write(cx, buffer)
            }

            fn poll_write_vectored(
                self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                self.io.poll_write_vectored(cx, buffers)
            }

            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                _cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                ::std::task::Poll::Ready(Ok(()))
            }

            fn poll_close(
                self: ::std::pin::Pin<&mut Self>,
                _cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                self.io.poll_close()
            }
        }
    )+};
}

pub(super) use reads_and_writes;
