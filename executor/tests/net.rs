//! TCP: what holds for connections that end well, badly, slowly or not at all.

mod bounded;
mod common;

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bounded::{run, run_on};
use futures::future::join_all;
use futures::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures::{StreamExt, stream};
use stipend::Runtime;
use stipend::net::{TcpListener, TcpStream};
use stipend::time::{sleep, timeout};

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = listener().await;
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(client.local_addr().unwrap(), peer);
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    (client, server)
}

/// A stream whose other end is a blocking socket of the standard library.
async fn with_blocking_peer() -> (TcpStream, std::net::TcpStream) {
    let listener = listener().await;
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, peer)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_half_closed_connection_still_carries_the_answer() {
    run(async {
        let (mut client, mut server) = pair().await;
        client.write_all(b"question").await.unwrap();
        client.close().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");

        server.write_all(b"answer").await.unwrap();
        server.close().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn the_end_is_seen_by_a_reader_that_waits() {
    run(async {
        let (client, mut server) = pair().await;
        let reader = stipend::spawn(async move { server.read(&mut [0; 8]).await.unwrap() });
        sleep(Duration::from_millis(20)).await;
        drop(client);
        assert_eq!(reader.await.unwrap(), 0);
    });
}

#[test]
fn a_reset_is_an_error_for_a_reader_that_waits() {
    run(async {
        let (mut stream, peer) = with_blocking_peer().await;
        let reader = stipend::spawn(async move { stream.read(&mut [0; 8]).await });
        sleep(Duration::from_millis(20)).await;
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(reader.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_ends_a_writer_that_waits() {
    run(async {
        let (mut stream, peer) = with_blocking_peer().await;
        let writer = stipend::spawn(async move {
            let bytes = pattern(1 << 16);
            loop {
                if let Err(error) = stream.write_all(&bytes).await {
                    return (error.kind(), stream.close().await.is_ok());
                }
            }
        });
        sleep(Duration::from_millis(20)).await;
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let (error, _) = writer.await.unwrap();
        assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    run(async {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connect_goes_on_to_the_next_address() {
    run(async {
        let closed = listener().await.local_addr().unwrap();
        let open = listener().await;
        let addresses = [closed, open.local_addr().unwrap()];
        let stream = TcpStream::connect(&addresses[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        let nowhere = TcpStream::connect(&[][..]).await.unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn names_are_resolved() {
    run(async {
        let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(format!("localhost:{port}")).await.unwrap();
        assert!(TcpStream::connect("no port here").await.is_err());
    });
}

#[test]
fn a_slow_client_gets_everything_and_holds_up_nobody() {
    run(async {
        let bytes = Arc::new(pattern(8 << 20));
        let (mut server, mut slow) = with_blocking_peer().await;
        let sent = bytes.clone();
        let writer = stipend::spawn(async move {
            server.write_all(&sent).await.unwrap();
            server.close().await.unwrap();
        });
        let (mut client, mut other) = pair().await;
        for _ in 0..10 {
            client.write_all(b"ping").await.unwrap();
            other.read_exact(&mut [0; 4]).await.unwrap();
        }
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            let mut chunk = vec![0; 100_000];
            loop {
                match slow.read(&mut chunk).unwrap() {
                    0 => return received,
                    n => received.extend_from_slice(&chunk[..n]),
                }
                if received.len() < 2_000_000 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        writer.await.unwrap();
        let received = stipend::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
        assert!(received == *bytes);
    });
}

#[test]
fn bytes_that_trickle_in_are_all_seen() {
    run(async {
        let (mut stream, mut peer) = with_blocking_peer().await;
        peer.set_nodelay(true).unwrap();
        let trickle = thread::spawn(move || {
            for byte in 0..=255 {
                peer.write_all(&[byte]).unwrap();
                if byte % 16 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, (0..=255).collect::<Vec<u8>>());
        trickle.join().unwrap();
    });
}

#[test]
fn both_directions_flow_at_once() {
    run(async {
        let (client, server) = pair().await;
        let bytes = Arc::new(pattern(4 << 20));
        let halves = [client, server].map(|stream| {
            let bytes = bytes.clone();
            stipend::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let mut received = vec![0; bytes.len()];
                let write = async {
                    writer.write_all(&bytes).await.unwrap();
                    writer.close().await.unwrap();
                };
                let read = async {
                    reader.read_exact(&mut received).await.unwrap();
                    assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
                };
                futures::join!(write, read);
                assert!(received == *bytes);
            })
        });
        for half in halves {
            half.await.unwrap();
        }
    });
}

#[test]
fn many_tasks_wait_on_one_socket() {
    run(async {
        let (client, server) = pair().await;
        let (client, server) = (Arc::new(client), Arc::new(server));
        let total = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..10)
            .map(|_| {
                let (server, total) = (server.clone(), total.clone());
                stipend::spawn(async move {
                    let mut chunk = [0; 100];
                    loop {
                        match (&*server).read(&mut chunk).await.unwrap() {
                            0 => break,
                            n => total.fetch_add(n, Ordering::SeqCst),
                        };
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                stipend::spawn(async move { (&*client).write_all(&[7; 50_000]).await.unwrap() })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(total.load(Ordering::SeqCst), 500_000);
    });
}

#[test]
fn a_thousand_connections_are_served() {
    run(async {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let server = stipend::spawn(async move {
            let mut incoming = listener.incoming().take(1000);
            while let Some(stream) = incoming.next().await {
                let mut stream = stream.unwrap();
                drop(stipend::spawn(async move {
                    let mut received = [0; 5];
                    stream.read_exact(&mut received).await.unwrap();
                    stream.write_all(&received).await.unwrap();
                }));
            }
        });
        // Not all at once: a process may often have no more than 1024 files open.
        let echoed = stream::iter(0..1000)
            .map(|number| async move {
                let mut client = TcpStream::connect(address).await.unwrap();
                let sent = format!("{number:05}");
                client.write_all(sent.as_bytes()).await.unwrap();
                let mut received = String::new();
                client.read_to_string(&mut received).await.unwrap();
                received == sent
            })
            .buffer_unordered(200)
            .filter(|&echoed| async move { echoed })
            .count()
            .await;
        assert_eq!(echoed, 1000);
        server.await.unwrap();
    });
}

#[test]
fn an_abandoned_accept_takes_no_connection() {
    run(async {
        let listener = listener().await;
        let wait = Duration::from_millis(5);
        assert!(timeout(wait, listener.accept()).await.is_err());
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(listener.accept());
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(timeout(wait, listener.accept()).await.is_err());
    });
}

#[test]
fn many_tasks_accept_on_one_listener() {
    run(async {
        let listener = Arc::new(listener().await);
        let address = listener.local_addr().unwrap();
        let acceptors: Vec<_> = (0..50)
            .map(|_| {
                let listener = listener.clone();
                stipend::spawn(async move { listener.accept().await.unwrap() })
            })
            .collect();
        let clients: Vec<_> = join_all((0..50).map(|_| TcpStream::connect(address))).await;
        let mut peers = Vec::new();
        for acceptor in acceptors {
            peers.push(acceptor.await.unwrap().1);
        }
        for client in clients {
            assert!(peers.contains(&client.unwrap().local_addr().unwrap()));
        }
    });
}

#[test]
fn peeking_takes_nothing() {
    run(async {
        let (mut client, mut server) = pair().await;
        client.write_all(b"abc").await.unwrap();
        let mut seen = [0; 3];
        while server.peek(&mut seen).await.unwrap() < 3 {}
        assert_eq!(&seen, b"abc");
        let mut taken = [0; 3];
        server.read_exact(&mut taken).await.unwrap();
        assert_eq!(&taken, b"abc");
    });
}

#[test]
fn several_buffers_are_written_and_read_at_once() {
    run(async {
        let (mut client, mut server) = pair().await;
        let parts = [IoSlice::new(b"one"), IoSlice::new(b"two"), IoSlice::new(b"three")];
        assert_eq!(client.write_vectored(&parts).await.unwrap(), 11);
        client.close().await.unwrap();
        let mut received = String::new();
        server.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "onetwothree");
    });
}

#[test]
fn buffers_of_any_size_are_written_in_order() {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3000).collect();
    run(async move {
        let (mut client, mut server) = pair().await;
        for cuts in [
            [0, 0, 0],
            [0, 1, 1],
            [0, 100, 256],
            [0, 100, 257],
            [0, 100, 1023],
            [1, 1, 1024],
            [1024, 1024, 1024],
            [7, 500, 1025],
            [0, 2000, 3000],
        ] {
            let [first, second, end] = cuts;
            let parts = [&bytes[..first], &bytes[first..second], &bytes[second..end]].map(IoSlice::new);
            assert_eq!(client.write_vectored(&parts).await.unwrap(), end, "{cuts:?}");
            let mut received = vec![0; end];
            server.read_exact(&mut received).await.unwrap();
            assert_eq!(received, bytes[..end], "{cuts:?}");
        }
    });
}

#[test]
fn small_buffers_wait_for_room() {
    let bytes = |at: usize| -> [u8; 900] { std::array::from_fn(|offset| ((at + offset) % 251) as u8) };
    run(async move {
        let (mut client, mut server) = pair().await;
        let (mut sent, mut turned_away) = (0, 0);
        // Nobody reads. It may be turned away for the others' sake, too, but then it gets on the next time.
        while turned_away < 3 {
            let before = sent;
            poll_fn(|cx| {
                loop {
                    let bytes = bytes(sent);
                    let parts = [IoSlice::new(&bytes[..300]), IoSlice::new(&bytes[300..])];
                    match Pin::new(&mut client).poll_write_vectored(cx, &parts) {
                        Poll::Ready(written) => sent += written.unwrap(),
                        Poll::Pending => return Poll::Ready(()),
                    }
                }
            })
            .await;
            turned_away = if sent == before { turned_away + 1 } else { 0 };
            stipend::yield_now().await;
        }
        let writer = stipend::spawn(async move {
            let bytes = bytes(sent);
            sent += client.write_vectored(&[IoSlice::new(&bytes[..300]), IoSlice::new(&bytes[300..])]).await.unwrap();
            sent
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), writer.await.unwrap());
        assert!(received.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    });
}

#[test]
fn sockets_go_to_the_standard_library_and_come_back() {
    run(async {
        let (client, mut server) = pair().await;
        client.set_nodelay(true).unwrap();
        let mut client = client.into_std().unwrap();
        client.write_all(b"a").unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        assert!(client.nodelay().unwrap());
        client.write_all(b"b").await.unwrap();
        let mut received = [0; 2];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"ab");

        let listener = TcpListener::from_std(listener().await.into_std().unwrap()).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        listener.accept().await.unwrap();
    });
}

#[test]
fn a_socket_outlives_its_runtime() {
    let first = stipend::Runtime::new().unwrap();
    let (client, mut server) = first.block_on(pair());
    drop(first);
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    run(async move {
        assert!(server.read(&mut [0; 1]).await.is_err());
        thread::spawn(move || drop(server)).join().unwrap();
        drop(client);
    });
}

#[test]
#[should_panic]
fn a_socket_needs_a_runtime() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = TcpListener::from_std(listener);
}

fn one_worker() -> Runtime {
    Runtime::builder().worker_threads(1).build().expect("a runtime starts")
}

/// A stream in which one byte waits, and the other end of it.
async fn always_ready() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    peer.write_all(b"x").await.unwrap();
    (listener.accept().await.unwrap().0, peer)
}

#[test]
fn r06_a_task_whose_socket_is_always_ready_lets_others_run() {
    run_on(one_worker, async {
        let (stream, _peer) = always_ready().await;
        let started = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = stipend::spawn({
            let (started, stop) = (started.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(stream.peek(&mut [0; 8]).await.unwrap(), 1);
                    started.store(true, Ordering::SeqCst);
                }
            }
        });
        let stopper = stipend::spawn(async move {
            while !started.load(Ordering::SeqCst) {
                stipend::yield_now().await;
            }
            stop.store(true, Ordering::SeqCst);
        });
        stopper.await.unwrap();
        reader.await.unwrap();
    });
}

#[test]
fn a_timeout_gives_up_a_task_that_uses_up_its_budget_in_every_poll() {
    run_on(one_worker, async {
        let (stream, _peer) = always_ready().await;
        let endless = async move { while stream.peek(&mut [0; 8]).await.unwrap() == 1 {} };
        let given_up = stipend::spawn(timeout(Duration::from_millis(50), endless));
        assert!(given_up.await.unwrap().is_err());
    });
}

#[test]
fn r06_a_task_that_uses_up_its_slice_before_each_read_gets_on() {
    run(async {
        let (stream, _peer) = always_ready().await;
        let reader = stipend::spawn(async move {
            for _ in 0..5 {
                let peeked = poll_fn(|cx| {
                    while stipend_timers::has_budget() {}
                    pin!(stream.peek(&mut [0; 8])).poll(cx)
                });
                assert_eq!(peeked.await.unwrap(), 1);
            }
        });
        reader.await.unwrap();
    });
}
