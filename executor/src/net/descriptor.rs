//! The file descriptors of sockets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};

macro_rules! have_descriptors {
    ($($type:ty),+) => {$(
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.io.as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.io.as_raw_fd()
            }
        }
    )+};
}

have_descriptors!(TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream);
