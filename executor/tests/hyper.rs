//! hyper over loopback: both ends run on the runtime.
#![cfg(feature = "hyper")]

mod bounded;
mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bounded::run;
use futures::io::AsyncReadExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::rt::Executor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use stipend::compat::hyper::{HyperExecutor, HyperIo, HyperTimer};
use stipend::net::{TcpListener, TcpStream};

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}

async fn start_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = stipend::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = http1::Builder::new()
                .timer(HyperTimer)
                .header_read_timeout(Duration::from_millis(300))
                .serve_connection(HyperIo::new(stream), service_fn(echo));
            HyperExecutor.execute(connection);
        }
    });
    drop(server);
    address
}

async fn client(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(HyperIo::new(stream)).await.unwrap();
    drop(stipend::spawn(connection));
    sender
}

async fn send(client: &mut SendRequest<Full<Bytes>>, body: Bytes) -> Bytes {
    client.ready().await.unwrap();
    let request = Request::post("/").body(Full::new(body)).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert!(response.status().is_success());
    response.into_body().collect().await.unwrap().to_bytes()
}

#[test]
fn requests_are_answered_on_one_connection() {
    run(async {
        let mut client = client(start_server().await).await;
        for length in [0, 1, 100, 8192, 8193, 1 << 20] {
            let body: Bytes = (0..length).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
            assert!(send(&mut client, body.clone()).await == body, "{length} bytes");
        }
    });
}

#[test]
fn many_clients_are_served_at_once() {
    run(async {
        let address = start_server().await;
        let clients: Vec<_> = (0..50_u8)
            .map(|number| {
                stipend::spawn(async move {
                    let mut client = client(address).await;
                    for _ in 0..10 {
                        let body = Bytes::from(vec![number; 1000]);
                        assert_eq!(send(&mut client, body.clone()).await, body);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
}

#[test]
fn a_client_that_sends_nothing_is_dropped_by_the_timer() {
    run(async {
        let mut silent = TcpStream::connect(start_server().await).await.unwrap();
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"));
    });
}

#[test]
fn a_connection_error_ends_that_connection_alone() {
    run(async {
        let address = start_server().await;
        let mut broken = TcpStream::connect(address).await.unwrap();
        futures::AsyncWriteExt::write_all(&mut broken, b"not http\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        broken.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400"));
        assert_eq!(send(&mut client(address).await, Bytes::from("fine")).await, "fine");
    });
}
