//! A socket that waits for connections from processes of the same machine.

use std::io::Result;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll, ready};

use mio::Interest;

use super::incoming::{Accept, Incoming};
use super::unix_stream::UnixStream;
use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// A socket of the Unix family that accepts connections.
///
/// Several tasks may accept on one listener; each connection goes to one of them. Dropping it closes the socket. The
/// file stays, and has to be removed before the path can be bound again.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use stipend::net::{UnixListener, UnixStream};
///
/// let path = std::env::temp_dir().join(format!("stipend-listener-{}", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let client = UnixStream::connect(&path).await?;
/// let (server, _peer) = listener.accept().await?;
/// std::fs::remove_file(&path)?;
/// assert_eq!(client.peer_addr()?.as_pathname(), Some(&*path));
/// # drop(server);
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct UnixListener {
    pub(super) io: Io<mio::net::UnixListener>,
}

impl UnixListener {
    /// Makes a socket at `path`, and listens.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if there is something at the path, also if nobody listens there any more.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let handle = Handle::current();
        Self::register(&handle, mio::net::UnixListener::bind(path)?)
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
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> Result<Self> {
        let handle = Handle::current();
        listener.set_nonblocking(true)?;
        Self::register(&handle, mio::net::UnixListener::from_std(listener))
    }

    /// Gives the listener to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::os::unix::net::UnixListener> {
        self.io.into_inner().map(Into::into)
    }

    fn register(handle: &Handle, listener: mio::net::UnixListener) -> Result<Self> {
        Ok(Self { io: Io::new(handle.reactor(), listener, Interest::READABLE, Initially::Unknown)? })
    }

    /// Waits for a connection, and returns it with the address of its other end, which seldom has a name. It belongs
    /// to the runtime on which this is called.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::accept`](super::TcpListener::accept): the listener stays usable.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no connection was taken.
    pub async fn accept(&self) -> Result<(UnixStream, SocketAddr)> {
        let (stream, peer) = self.io.perform(Direction::Read, |listener| listener.accept()).await?;
        Ok((UnixStream::register(&Handle::current(), stream)?, peer))
    }

    /// The connections as an endless stream. See [`accept`](Self::accept) for its errors.
    ///
    /// # Panics
    ///
    /// The stream, when polled outside of a runtime.
    pub fn incoming(&self) -> Incoming<'_, Self> {
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

impl Accept for UnixListener {
    type Connection = UnixStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<UnixStream>> {
        let (stream, _) = ready!(self.io.poll_with(cx, Direction::Read, |listener| listener.accept()))?;
        Poll::Ready(UnixStream::register(&Handle::current(), stream))
    }
}
