//! Sockets of the Unix family: what holds for TCP holds for their streams.
#![cfg(unix)]

mod bounded;
mod common;

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bounded::run;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use stipend::net::{UnixDatagram, UnixListener, UnixStream};
use stipend::time::{sleep, timeout};

/// A path for a socket, removed when it is dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("stipend-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_listener_is_reached_by_its_path() {
    run(async {
        let place = Place::new();
        let listener = UnixListener::bind(&place).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(place.as_ref()));
        let accepting = stipend::spawn(async move { listener.accept().await.unwrap() });
        sleep(Duration::from_millis(20)).await;
        let mut client = UnixStream::connect(&place).await.unwrap();
        let (mut server, peer) = accepting.await.unwrap();
        assert!(peer.is_unnamed());
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));

        client.write_all(b"question").await.unwrap();
        client.close().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn incoming_connections_are_a_stream() {
    run(async {
        let place = Place::new();
        let listener = UnixListener::bind(&place).unwrap();
        let clients = futures::future::join_all((0..3).map(|_| UnixStream::connect(&place))).await;
        let served = listener.incoming().take(clients.len()).filter(|stream| std::future::ready(stream.is_ok()));
        assert_eq!(served.count().await, 3);
        assert!(listener.incoming().next().now_or_never().is_none());
    });
}

#[test]
fn who_listens_nowhere_is_not_connected_to() {
    run(async {
        let place = Place::new();
        assert_eq!(UnixStream::connect(&place).await.unwrap_err().kind(), ErrorKind::NotFound);
        let listener = UnixListener::bind(&place).unwrap();
        assert_eq!(UnixListener::bind(&place).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(UnixStream::connect(&place).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn more_than_the_buffers_hold_goes_through() {
    run(async {
        let (left, right) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..4 << 20).map(|i| (i % 251) as u8).collect();
        let writer = stipend::spawn({
            let sent = sent.clone();
            async move {
                let mut left = left;
                left.write_all(&sent).await.unwrap();
            }
        });
        let mut received = Vec::new();
        (&right).read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == sent, "the bytes are those that were sent");
    });
}

#[test]
fn several_buffers_are_written_at_once() {
    run(async {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cde")];
        assert_eq!(left.write_vectored(&parts).await.unwrap(), 5);
        let mut received = [0; 5];
        right.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"abcde");
    });
}

#[test]
fn the_end_is_seen_by_a_reader_that_waits() {
    run(async {
        let (left, mut right) = UnixStream::pair().unwrap();
        let reader = stipend::spawn(async move { right.read(&mut [0; 8]).await.unwrap() });
        sleep(Duration::from_millis(20)).await;
        drop(left);
        assert_eq!(reader.await.unwrap(), 0);
    });
}

#[test]
fn streams_change_hands_with_the_standard_library() {
    run(async {
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut left, mut right) = (UnixStream::from_std(left).unwrap(), UnixStream::from_std(right).unwrap());
        assert!(right.read(&mut [0; 8]).now_or_never().is_none(), "it is non-blocking");
        left.write_all(b"std").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(right.read(&mut buffer).await.unwrap(), 3);
        assert!(right.into_std().is_ok());
    });
}

#[test]
fn datagrams_find_their_path_and_back() {
    run(async {
        let (here, there) = (Place::new(), Place::new());
        let server = UnixDatagram::bind(&here).unwrap();
        let client = UnixDatagram::bind(&there).unwrap();
        client.send_to(b"question", &here).await.unwrap();
        let mut buffer = [0; 64];
        let (length, sender) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"answer", sender.as_pathname().unwrap()).await.unwrap();
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 6);

        let nameless = UnixDatagram::unbound().unwrap();
        assert_eq!(nameless.send(b"where to?").await.unwrap_err().kind(), ErrorKind::NotConnected);
        nameless.connect(&here).unwrap();
        nameless.send(b"").await.unwrap();
        let (length, sender) = server.recv_from(&mut buffer).await.unwrap();
        assert!(length == 0 && sender.is_unnamed());
    });
}

#[test]
fn a_sender_waits_for_room_and_loses_nothing() {
    run(async {
        const COUNT: u32 = 2000;
        let (left, right) = UnixDatagram::pair().unwrap();
        let left = Arc::new(left);
        let sender = stipend::spawn({
            let left = left.clone();
            async move {
                for n in 0..COUNT {
                    left.send(&n.to_le_bytes()).await.unwrap();
                }
            }
        });
        sleep(Duration::from_millis(50)).await;
        assert!(!sender.is_finished(), "the queue is full by now");
        for n in 0..COUNT {
            let mut received = [0; 4];
            assert_eq!(right.recv(&mut received).await.unwrap(), 4);
            assert_eq!(u32::from_le_bytes(received), n);
        }
        sender.await.unwrap();
        assert!(timeout(Duration::from_millis(10), right.recv(&mut [0; 4])).await.is_err());
    });
}
