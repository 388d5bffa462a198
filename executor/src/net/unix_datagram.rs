//! Datagrams between processes of one machine.

use std::io::Result;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use super::connection::watch;
use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// A datagram socket of the Unix family. Datagrams arrive whole and in order, and none is lost.
///
/// Every operation takes `&self`, so several tasks can use one socket behind an `Arc`. What does not fit into the
/// buffer of a receiver is lost.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use stipend::net::UnixDatagram;
///
/// let (left, right) = UnixDatagram::pair()?;
/// left.send(b"hello").await?;
/// let mut buffer = [0; 16];
/// assert_eq!(right.recv(&mut buffer).await?, 5);
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct UnixDatagram {
    pub(super) io: Io<mio::net::UnixDatagram>,
}

impl UnixDatagram {
    /// Makes a socket at `path`. The file stays when the socket is dropped.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if there is something at the path.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let handle = Handle::current();
        Self::register(&handle, mio::net::UnixDatagram::bind(path)?)
    }

    /// A socket without a path: it can send, and receives only what comes over a connection.
    ///
    /// # Errors
    ///
    /// If the system has no file descriptors left, or the runtime has shut down.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn unbound() -> Result<Self> {
        let handle = Handle::current();
        Self::register(&handle, mio::net::UnixDatagram::unbound()?)
    }

    /// Two sockets connected to each other.
    ///
    /// # Errors
    ///
    /// As [`unbound`](Self::unbound).
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn pair() -> Result<(Self, Self)> {
        let handle = Handle::current();
        let (left, right) = mio::net::UnixDatagram::pair()?;
        Ok((Self::register(&handle, left)?, Self::register(&handle, right)?))
    }

    /// Takes over a socket of the standard library. It becomes non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking or to watch it.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> Result<Self> {
        let handle = Handle::current();
        socket.set_nonblocking(true)?;
        Self::register(&handle, mio::net::UnixDatagram::from_std(socket))
    }

    /// Gives the socket to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::os::unix::net::UnixDatagram> {
        self.io.into_inner().map(Into::into)
    }

    fn register(handle: &Handle, socket: mio::net::UnixDatagram) -> Result<Self> {
        Ok(Self { io: watch(handle, socket, Initially::Unknown)? })
    }

    /// Makes the socket at `path` the one that is [sent](Self::send) to and [received](Self::recv) from.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, `ConnectionRefused` if nobody has it.
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<()> {
        self.io.connect(path)
    }

    /// Sends a datagram to the connected socket, waiting for room in its queue. Returns its length.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it is not, `ConnectionRefused` or `ConnectionReset` if the other end is gone; if the datagram
    /// is too long.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub async fn send(&self, datagram: &[u8]) -> Result<usize> {
        self.io.perform(Direction::Write, |socket| socket.send(datagram)).await
    }

    /// Receives a datagram. Returns how many bytes were copied to `buffer`.
    ///
    /// # Errors
    ///
    /// If the system refuses. The socket stays usable.
    ///
    /// Linux reports nothing when the other end of a connection is gone: bound the wait with
    /// [`timeout`](crate::time::timeout), or learn it from [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no datagram was taken.
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.io.perform(Direction::Read, |socket| socket.recv(buffer)).await
    }

    /// Sends a datagram to the socket at `path`, waiting for room. Returns its length.
    ///
    /// Linux reports room in the queue of a socket that this one is not connected to only as this one's own datagrams
    /// are received. Where others may fill that queue, [`connect`](Self::connect) and [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no socket, `ConnectionRefused` if nobody has it; if the datagram is too long.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub async fn send_to(&self, datagram: &[u8], path: impl AsRef<Path>) -> Result<usize> {
        let path = path.as_ref();
        self.io.perform(Direction::Write, |socket| socket.send_to(datagram, path)).await
    }

    /// Receives a datagram. Returns how many bytes were copied to `buffer`, and the sender's address, which has a name
    /// only if the sender is bound.
    ///
    /// # Errors
    ///
    /// If the system refuses. The socket stays usable.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no datagram was taken.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        self.io.perform(Direction::Read, |socket| socket.recv_from(buffer)).await
    }

    /// Ends one direction, or both.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it is not.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.io.shutdown(how)
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.io.local_addr()
    }

    /// The address it is connected to.
    ///
    /// # Errors
    ///
    /// `NotConnected` if it is not.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.io.peer_addr()
    }
}
