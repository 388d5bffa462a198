//! A connection.

use std::io::{Error, Result};
use std::net::{Shutdown, SocketAddr};

use super::addr::{ToSocketAddrs, no_address, resolve};
use super::connection::{Connection, Socket, reads_and_writes};
use crate::reactor::Direction;
use crate::runtime::Handle;

/// A TCP connection.
///
/// It is read and written through [`AsyncRead`](futures::AsyncRead) and [`AsyncWrite`](futures::AsyncWrite) of the `futures` crate, which are implemented
/// for `&TcpStream` too, so several tasks can use one connection behind an `Arc`.
/// [`AsyncReadExt::split`](futures::AsyncReadExt::split) makes two halves of it. Closing the writer
/// ([`AsyncWriteExt::close`](futures::AsyncWriteExt::close)) tells the other end that nothing more comes; it can
/// still be read from. Dropping it closes the connection.
///
/// Nothing is buffered here: flushing does nothing.
#[derive(Debug)]
pub struct TcpStream {
    pub(super) io: Connection<mio::net::TcpStream>,
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
        Err(last_error.unwrap_or_else(no_address))
    }

    async fn connect_to(address: SocketAddr) -> Result<Self> {
        Ok(Self { io: Connection::connect(mio::net::TcpStream::connect(address)?).await? })
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
        Ok(Self { io: Connection::register(handle, stream)? })
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

reads_and_writes!(TcpStream, &TcpStream);

impl Socket for mio::net::TcpStream {
    fn failure(&self) -> Result<Option<Error>> {
        self.take_error()
    }

    fn is_connected(&self) -> Result<()> {
        self.peer_addr().map(drop)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.shutdown(how)
    }
}
