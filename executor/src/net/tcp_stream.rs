//! A connection.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Read, Result, Write};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};
use mio::Interest;

use super::addr::{ToSocketAddrs, resolve};
use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// A TCP connection.
///
/// It is read and written through [`AsyncRead`] and [`AsyncWrite`] of the `futures` crate, which are implemented
/// for `&TcpStream` too, so several tasks can use one connection behind an `Arc`.
/// [`AsyncReadExt::split`](futures::AsyncReadExt::split) makes two halves of it. Closing the writer
/// ([`AsyncWriteExt::close`](futures::AsyncWriteExt::close)) tells the other end that nothing more comes; it can
/// still be read from. Dropping it closes the connection.
///
/// Nothing is buffered here: flushing does nothing.
#[derive(Debug)]
pub struct TcpStream {
    io: Io<mio::net::TcpStream>,
}

impl TcpStream {
    /// Connects to the first of the addresses that answers, trying one after the other. This takes as long as the
    /// system tries; bound it with [`timeout`](crate::time::timeout).
    ///
    /// # Errors
    ///
    /// That of the lookup, or that of the last address tried.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the attempt in progress is given up and its socket closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # stipend::Runtime::new().unwrap().block_on(async {
    /// use stipend::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// stream.set_nodelay(true)?;
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn connect(address: impl ToSocketAddrs) -> Result<Self> {
        let mut last_error = None;
        for address in resolve(address).await? {
            match Self::connect_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| Error::other("there is no address to connect to")))
    }

    async fn connect_to(address: SocketAddr) -> Result<Self> {
        let stream = mio::net::TcpStream::connect(address)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let io = Io::new(Handle::current().reactor(), stream, interest, Initially::NotReady)?;
        // The connection is decided when the socket is reported writable. A report may come before that, so the
        // socket is asked, for an error first: asking takes it away.
        io.perform(Direction::Write, |stream| {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => Err(ErrorKind::WouldBlock.into()),
                result => result,
            }
        })
        .await?;
        Ok(Self { io })
    }

    /// Takes over a connection of the standard library. It becomes non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking or to watch it.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn from_std(stream: std::net::TcpStream) -> Result<Self> {
        let handle = Handle::current();
        stream.set_nonblocking(true)?;
        Self::register(&handle, mio::net::TcpStream::from_std(stream))
    }

    /// Gives the connection to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::net::TcpStream> {
        self.io.into_inner().map(Into::into)
    }

    pub(super) fn register(handle: &Handle, stream: mio::net::TcpStream) -> Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let io = Io::new(handle.reactor(), stream, interest, Initially::Unknown)?;
        Ok(Self { io })
    }

    /// Waits for bytes and copies them to `buffer` without taking them. Returns how many; 0 at the end.
    ///
    /// # Errors
    ///
    /// As reading.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken in any case.
    pub async fn peek(&self, buffer: &mut [u8]) -> Result<usize> {
        self.io.perform(Direction::Read, |stream| stream.peek(buffer)).await
    }

    /// Ends one direction of the connection, or both. Readers and writers in that direction see it at once.
    ///
    /// # Errors
    ///
    /// If the connection has ended already (`NotConnected`), for example.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.io.shutdown(how)
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// If the connection has ended (`NotConnected`), for example.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.io.peer_addr()
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn nodelay(&self) -> Result<bool> {
        self.io.nodelay()
    }

    /// Sends small writes at once (`TCP_NODELAY`) rather than waiting for more to send with them.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        self.io.set_nodelay(nodelay)
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let wanted = buffer.len();
        self.io.poll_transfer(cx, Direction::Read, wanted, |mut stream| stream.read(buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<Result<usize>> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        self.io.poll_transfer(cx, Direction::Read, wanted, |mut stream| stream.read_vectored(buffers))
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<Result<usize>> {
        let wanted = buffer.len();
        self.io.poll_transfer(cx, Direction::Write, wanted, |mut stream| stream.write(buffer))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        self.io.poll_transfer(cx, Direction::Write, wanted, |mut stream| stream.write_vectored(buffers))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.shutdown(Shutdown::Write) {
            // The other end has reset the connection: it is as closed as it can be.
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buffer)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut &*self).poll_read_vectored(cx, buffers)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buffer)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}

#[cfg(unix)]
impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

#[cfg(unix)]
impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }
}
