//! A connection between processes of one machine.

use std::io::Result;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use super::connection::{Connection, Socket, reads_and_writes};
use crate::runtime::Handle;

/// A connection of the Unix family. It is used as a [`TcpStream`](super::TcpStream) is.
#[derive(Debug)]
pub struct UnixStream {
    pub(super) io: Connection<mio::net::UnixStream>,
}

impl UnixStream {
    /// Connects to the listener at `path`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no socket, `ConnectionRefused` if nobody listens. On Linux, `WouldBlock` if the
    /// listener's queue is full: there is nothing to wait for, so try again later.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the attempt is given up and its socket closed.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { io: Connection::connect(mio::net::UnixStream::connect(path)?).await? })
    }

    /// Two streams connected to each other, without a path.
    ///
    /// # Errors
    ///
    /// If the system has no file descriptors left, or the runtime has shut down.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # stipend::Runtime::new().unwrap().block_on(async {
    /// use futures::{AsyncReadExt, AsyncWriteExt};
    /// use stipend::net::UnixStream;
    ///
    /// let (mut left, mut right) = UnixStream::pair()?;
    /// left.write_all(b"hello").await?;
    /// left.close().await?;
    /// let mut received = String::new();
    /// right.read_to_string(&mut received).await?;
    /// assert_eq!(received, "hello");
    /// # Ok::<(), std::io::Error>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn pair() -> Result<(Self, Self)> {
        let handle = Handle::current();
        let (left, right) = mio::net::UnixStream::pair()?;
        Ok((Self::register(&handle, left)?, Self::register(&handle, right)?))
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
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> Result<Self> {
        let handle = Handle::current();
        stream.set_nonblocking(true)?;
        Self::register(&handle, mio::net::UnixStream::from_std(stream))
    }

    /// Gives the connection to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::os::unix::net::UnixStream> {
        self.io.into_inner().map(Into::into)
    }

    pub(super) fn register(handle: &Handle, stream: mio::net::UnixStream) -> Result<Self> {
        Ok(Self { io: Connection::register(handle, stream)? })
    }

    /// Ends one direction of the connection, or both. Readers and writers in that direction see it at once.
    ///
    /// # Errors
    ///
    /// If the connection has ended already (`NotConnected`), for example.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.io.shutdown(how)
    }

    /// The address of this end; that of a client has no name.
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
}

reads_and_writes!(UnixStream, &UnixStream);

impl Socket for mio::net::UnixStream {
    fn failure(&self) -> Result<Option<std::io::Error>> {
        self.take_error()
    }

    fn is_connected(&self) -> Result<()> {
        self.peer_addr().map(drop)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.shutdown(how)
    }
}
