//! UDP: datagrams are whole, belong to one receiver, and errors are about one of them.

mod bounded;
mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bounded::{run, run_on};
use futures::FutureExt;
use stipend::Runtime;
use stipend::net::UdpSocket;
use stipend::time::{sleep, timeout};

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn pair() -> (UdpSocket, UdpSocket) {
    let (left, right) = (socket().await, socket().await);
    left.connect(right.local_addr().unwrap()).await.unwrap();
    right.connect(left.local_addr().unwrap()).await.unwrap();
    assert_eq!(left.peer_addr().unwrap(), right.local_addr().unwrap());
    (left, right)
}

#[test]
fn the_answer_goes_to_whoever_asked() {
    run(async {
        let (server, client) = (socket().await, socket().await);
        let mut buffer = [0; 64];
        assert_eq!(client.send_to(b"question", server.local_addr().unwrap()).await.unwrap(), 8);
        let (length, asker) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], asker), (&b"question"[..], client.local_addr().unwrap()));
        server.send_to(b"answer", asker).await.unwrap();
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer[..6], b"answer");
    });
}

#[test]
fn a_datagram_wakes_a_receiver_that_waits() {
    run(async {
        let (left, right) = pair().await;
        let receiver = stipend::spawn(async move { right.recv(&mut [0; 8]).await.unwrap() });
        sleep(Duration::from_millis(20)).await;
        assert!(!receiver.is_finished());
        left.send(b"now").await.unwrap();
        assert_eq!(receiver.await.unwrap(), 3);
    });
}

#[test]
fn datagrams_keep_their_bounds() {
    run(async {
        let (left, right) = pair().await;
        for datagram in [&b"one"[..], b"", b"three"] {
            left.send(datagram).await.unwrap();
        }
        let mut buffer = [0; 64];
        assert_eq!(right.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(right.recv(&mut buffer).await.unwrap(), 0, "an empty datagram is a datagram");
        assert_eq!(right.recv(&mut buffer[..2]).await.unwrap(), 2);
        assert!(right.recv(&mut buffer).now_or_never().is_none(), "what did not fit is lost");
    });
}

#[test]
fn peeking_takes_nothing() {
    run(async {
        let (left, right) = pair().await;
        left.send(b"still here").await.unwrap();
        let mut buffer = [0; 64];
        let peeked = right.peek_from(&mut buffer).await.unwrap();
        assert_eq!(peeked, (10, left.local_addr().unwrap()));
        assert_eq!(right.recv_from(&mut buffer).await.unwrap(), peeked);
    });
}

#[test]
fn a_receiver_that_is_dropped_takes_nothing() {
    run(async {
        let (left, right) = pair().await;
        assert!(timeout(Duration::from_millis(10), right.recv(&mut [0; 8])).await.is_err());
        left.send(b"kept").await.unwrap();
        assert_eq!(right.recv(&mut [0; 8]).await.unwrap(), 4);
    });
}

#[test]
fn a_refusal_is_an_error_once() {
    run(async {
        let (left, right) = pair().await;
        let address = right.local_addr().unwrap();
        drop(right);
        left.send(b"anybody?").await.unwrap();
        assert_eq!(left.recv(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

        let right = UdpSocket::bind(address).await.unwrap();
        left.send(b"again").await.unwrap();
        assert_eq!(right.recv(&mut [0; 8]).await.unwrap(), 5);
    });
}

#[test]
fn sockets_change_hands_with_the_standard_library() {
    run(async {
        let (left, right) = pair().await;
        let right = right.into_std().unwrap();
        right.set_nonblocking(false).unwrap();
        left.send(b"std").await.unwrap();
        assert_eq!(right.recv(&mut [0; 8]).unwrap(), 3);
        let right = UdpSocket::from_std(right).unwrap();
        assert!(right.recv(&mut [0; 8]).now_or_never().is_none(), "it is non-blocking");
        left.send(b"back").await.unwrap();
        assert_eq!(right.recv(&mut [0; 8]).await.unwrap(), 4);
    });
}

#[test]
fn a_socket_that_is_always_ready_lets_others_run() {
    run_on(|| Runtime::builder().worker_threads(1).build().unwrap(), async {
        let (left, right) = pair().await;
        let done = Arc::new(AtomicBool::new(false));
        let busy = stipend::spawn({
            let done = done.clone();
            async move {
                // Nothing here ever has to wait: only the budget makes it yield.
                while !done.load(Ordering::Relaxed) {
                    left.send(b"x").await.unwrap();
                    right.recv(&mut [0; 8]).await.unwrap();
                }
            }
        });
        let other = stipend::spawn(async move {
            stipend::yield_now().await;
            done.store(true, Ordering::Relaxed);
        });
        other.await.unwrap();
        busy.await.unwrap();
    });
}

#[test]
fn errors_of_addresses_are_told() {
    run(async {
        let taken = socket().await;
        let error = UdpSocket::bind(taken.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(taken.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(taken.send(b"where to?").await.is_err());
        assert_eq!(taken.send_to(b"", &[][..]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}
