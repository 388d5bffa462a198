//! A socket for UDP.

use std::io::Result;
use std::net::SocketAddr;

use super::addr::{ToSocketAddrs, first_of, resolve};
use super::connection::watch;
use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// A UDP socket: datagrams to and from anywhere, or, once it is connected, one address.
///
/// Every operation takes `&self`, so several tasks can use one socket behind an `Arc`. Each datagram goes to one of
/// those that receive. What does not fit into the buffer of a receiver is lost.
///
/// # Examples
///
/// ```
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use stipend::net::UdpSocket;
///
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.connect(server.local_addr()?).await?;
/// client.send(b"ping").await?;
///
/// let mut buffer = [0; 16];
/// let (length, sender) = server.recv_from(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"ping");
/// server.send_to(b"pong", sender).await?;
/// assert_eq!(client.recv(&mut buffer).await?, 4);
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    pub(super) io: Io<mio::net::UdpSocket>,
}

impl UdpSocket {
    /// Binds the first of the addresses that can be bound. Port 0 lets the system choose one; see
    /// [`local_addr`](Self::local_addr).
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
        let socket = first_of(resolve(address).await?, mio::net::UdpSocket::bind)?;
        Self::register(&Handle::current(), socket)
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
    pub fn from_std(socket: std::net::UdpSocket) -> Result<Self> {
        let handle = Handle::current();
        socket.set_nonblocking(true)?;
        Self::register(&handle, mio::net::UdpSocket::from_std(socket))
    }

    fn register(handle: &Handle, socket: mio::net::UdpSocket) -> Result<Self> {
        Ok(Self { io: watch(handle, socket, Initially::Unknown)? })
    }

    /// Makes the first of the addresses that the system accepts the one that is [sent](Self::send) to and
    /// [received](Self::recv) from. Datagrams from elsewhere are then dropped by the system. Nothing is sent.
    ///
    /// # Errors
    ///
    /// That of the lookup, or that of the last address tried.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime with a name to look up.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the socket is as it was.
    pub async fn connect(&self, address: impl ToSocketAddrs) -> Result<()> {
        first_of(resolve(address).await?, |address| self.io.connect(address))
    }

    /// Sends a datagram to the connected address, waiting for room. Returns its length.
    ///
    /// # Errors
    ///
    /// If the socket is not connected or the datagram is too long; `ConnectionRefused` if the other end said so to one
    /// before.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub async fn send(&self, datagram: &[u8]) -> Result<usize> {
        self.io.perform(Direction::Write, |socket| socket.send(datagram)).await
    }

    /// Receives a datagram from the connected address. Returns how many bytes were copied to `buffer`.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` if the other end said so to a datagram sent before. The socket stays usable.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no datagram was taken.
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.io.perform(Direction::Read, |socket| socket.recv(buffer)).await
    }

    /// Sends a datagram to the first address of `target`, waiting for room. Returns its length.
    ///
    /// # Errors
    ///
    /// That of the lookup; if the datagram is too long, or the address is of the other family.
    ///
    /// # Panics
    ///
    /// When polled outside of a runtime with a name to look up.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub async fn send_to(&self, datagram: &[u8], target: impl ToSocketAddrs) -> Result<usize> {
        // `resolve` never returns an empty list.
        let address = resolve(target).await?[0];
        self.io.perform(Direction::Write, |socket| socket.send_to(datagram, address)).await
    }

    /// Receives a datagram. Returns how many bytes were copied to `buffer`, and the sender's address.
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

    /// As [`recv_from`](Self::recv_from), but the datagram stays there for the next to receive it.
    ///
    /// # Errors
    ///
    /// As `recv_from`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken in any case.
    pub async fn peek_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        self.io.perform(Direction::Read, |socket| socket.peek_from(buffer)).await
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

    /// Gives the socket to the standard library. It stays non-blocking.
    ///
    /// # Errors
    ///
    /// If the system refuses to stop watching it.
    pub fn into_std(self) -> Result<std::net::UdpSocket> {
        self.io.into_inner().map(Into::into)
    }
}
