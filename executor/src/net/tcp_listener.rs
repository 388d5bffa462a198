//! A socket that waits for connections.

use std::io::Result;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use mio::Interest;

use super::addr::{ToSocketAddrs, first_of, resolve};
use super::incoming::{Accept, Incoming};
use super::tcp_stream::TcpStream;
use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// A TCP socket that accepts connections.
///
/// Several tasks may accept on one listener; each connection goes to one of them. Dropping it closes the
/// socket.
///
/// # Examples
///
/// ```no_run
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use futures::io::{AsyncReadExt, copy};
/// use stipend::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:7000").await?;
/// loop {
///     let (stream, _peer) = listener.accept().await?;
///     drop(stipend::spawn(async move {
///         let (reader, mut writer) = stream.split();
///         copy(reader, &mut writer).await
///     }));
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TcpListener {
    pub(super) io: Io<mio::net::TcpListener>,
}

impl TcpListener {
    /// Listens at the first of the addresses that can be bound. Port 0 lets the system choose one; see
    /// [`local_addr`](Self::local_addr). On Unix, `SO_REUSEADDR` is set.
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
    /// If it is dropped, nothing was bound.
    pub async fn bind(address: impl ToSocketAddrs) -> Result<Self> {
        let listener = first_of(resolve(address).await?, mio::net::TcpListener::bind)?;
        Self::register(&Handle::current(), listener)
    }

    /// Takes over a listener of the standard library. It becomes non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking or to watch it.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn from_std(listener: std::net::TcpListener) -> Result<Self> {
        let handle = Handle::current();
        listener.set_nonblocking(true)?;
        Self::register(&handle, mio::net::TcpListener::from_std(listener))
    }

    /// Gives the listener to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::net::TcpListener> {
        self.io.into_inner().map(Into::into)
    }

    fn register(handle: &Handle, listener: mio::net::TcpListener) -> Result<Self> {
        let io = Io::new(handle.reactor(), listener, Interest::READABLE, Initially::Unknown)?;
        Ok(Self { io })
    }

    /// Waits for a connection, and returns it with the address of its other end. It belongs to the runtime on
    /// which this is called.
    ///
    /// # Errors
    ///
    /// An error is about one connection, or about resources; the listener stays usable. A server that ends
    /// at the first error can be stopped by any client. On `ConnectionAborted` and `ConnectionReset`, go on. If
    /// the process or the system has no file descriptor left (`EMFILE`, `ENFILE`), the connection stays in the
    /// queue and the next call fails alike: close something, or wait a little before trying again.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no connection was taken.
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.io.perform(Direction::Read, |listener| listener.accept()).await?;
        Ok((TcpStream::register(&Handle::current(), stream)?, peer))
    }

    /// The connections as an endless stream. See [`accept`](Self::accept) for its errors.
    ///
    /// # Panics
    ///
    /// The stream, when polled outside of a runtime.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming::new(self)
    }

    /// The address it listens at.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.io.local_addr()
    }
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<TcpStream>> {
        let (stream, _) = ready!(self.io.poll_with(cx, Direction::Read, |listener| listener.accept()))?;
        Poll::Ready(TcpStream::register(&Handle::current(), stream))
    }
}
