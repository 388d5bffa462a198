//! Connections: accepted up to a number, each served by hyper in a task of its own, and drained at the end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{pending, ready};
use std::io::{ErrorKind, Write, stdout};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, FutureExt, Shared, select};
use futures::select_biased;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use stipend::compat::hyper::{HyperIo, HyperTimer};
use stipend::net::{TcpListener, TcpStream};
use stipend::signal::{SignalKind, signal};
use stipend::task;
use stipend::time::{sleep, timeout};

use crate::log;
use crate::patient::Patient;
use crate::routes::App;

/// Those that come while there are this many wait in the system's queue. It also bounds the scripts in memory.
const MAX_CONNECTIONS: usize = 512;

/// For a request's head; also how long a connection may have none.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

const MAX_HEAD_BYTES: usize = 16 << 10;

/// How long running requests may go on after Ctrl-C or SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Before accepting again when the process has no file descriptor left, or the like.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Resolves when the server is about to end.
type Stopped = Shared<oneshot::Receiver<Infallible>>;

/// Serves until Ctrl-C or SIGTERM, and then what is running for up to [`DRAIN`].
pub(crate) async fn serve(address: SocketAddr, app: Arc<App>) -> Result<(), Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?.fuse();
    let mut terminate = signal(SignalKind::terminate())?.fuse();
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen at {address}: {error}"))?;
    announce(listener.local_addr()?);

    let (stop, stopped) = oneshot::channel();
    let stopped = stopped.shared();
    let mut connections = FuturesUnordered::new();
    loop {
        let has_room = connections.len() < MAX_CONNECTIONS;
        select_biased! {
            _ = interrupt.next() => break,
            _ = terminate.next() => break,
            _ended = connections.select_next_some() => {}
            stream = pin!(accept(&listener, has_room).fuse()) => {
                let connection = task::Builder::new()
                    .name("connection")
                    .spawn(serve_connection(stream, Arc::clone(&app), stopped.clone()))?;
                connections.push(connection);
            }
        }
    }
    drop(listener);
    drop(stop);
    if timeout(DRAIN, connections.by_ref().for_each(|_ended| ready(()))).await.is_err() {
        log(&format!("functions: not ended within {DRAIN:?}: {} connections", connections.len()));
    }
    Ok(())
}

/// The line that says where, for people and for programs that let the system choose the port.
fn announce(address: SocketAddr) {
    let mut out = stdout();
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
}

/// The next connection. An error is about one connection, or about a lack that may pass.
async fn accept(listener: &TcpListener, has_room: bool) -> TcpStream {
    if !has_room {
        return pending().await;
    }
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return stream,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                log(&format!("functions: cannot accept a connection: {error}"));
                sleep(BACK_OFF).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, app: Arc<App>, stopped: Stopped) {
    // Answers are written in one go; should the system refuse, they are a little later.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let http = http1::Builder::new()
        .timer(HyperTimer)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(HyperIo::new(Patient::new(stream)), answer);
    let mut http = pin!(http);
    // What ends a connection, other than its end, is the client's doing: nothing to do about it.
    if let Either::Right(_) = select(http.as_mut(), stopped).await {
        http.as_mut().graceful_shutdown();
        let _ = http.await;
    }
}
