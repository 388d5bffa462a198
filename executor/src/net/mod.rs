//! Sockets: TCP, UDP and, on Unix, those of the Unix family.
//!
//! A socket belongs to the runtime on which it was made and works in tasks of any other as well. Many tasks may
//! read, write and accept on one socket at the same time through a shared reference; each gets whole operations, in
//! no particular order. After the runtime has shut down every operation that would touch the network fails.
//!
//! Operations are cooperative: when the running task's slice is over they let other tasks run first.
//!
//! ```
//! # stipend::Runtime::new().unwrap().block_on(async {
//! use futures::{AsyncReadExt, AsyncWriteExt};
//! use stipend::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let mut client = TcpStream::connect(listener.local_addr()?).await?;
//! let (mut server, _peer) = listener.accept().await?;
//!
//! client.write_all(b"hello").await?;
//! client.close().await?;
//! let mut received = String::new();
//! server.read_to_string(&mut received).await?;
//! assert_eq!(received, "hello");
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```

mod addr;
mod connection;
#[cfg(unix)]
mod descriptor;
mod incoming;
mod tcp_listener;
mod tcp_stream;
mod udp;
#[cfg(unix)]
mod unix_datagram;
#[cfg(unix)]
mod unix_listener;
#[cfg(unix)]
mod unix_stream;

pub use self::addr::ToSocketAddrs;
pub use self::incoming::Incoming;
pub use self::tcp_listener::TcpListener;
pub use self::tcp_stream::TcpStream;
pub use self::udp::UdpSocket;
#[cfg(unix)]
pub use self::{unix_datagram::UnixDatagram, unix_listener::UnixListener, unix_stream::UnixStream};
