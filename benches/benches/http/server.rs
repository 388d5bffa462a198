//! The two servers: the same service of the same hyper, on either runtime.

use std::convert::Infallible;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use stipend::compat::hyper::{HyperIo, HyperTimer};
use stipend::{CpuLimit, task};
use stipend_benches::os;

/// Far above what a connection uses here: kept, and never reached.
const LIMIT: Duration = Duration::from_secs(3600);

async fn hello(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, world!")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The number of workers; the process keeps to as many processors.
fn workers(arguments: &[String]) -> usize {
    os::raise_file_limit();
    let workers = arguments.first().and_then(|workers| workers.parse().ok()).unwrap_or(1);
    if let Err(error) = os::pin(0..workers) {
        eprintln!("the server is not pinned: {error}");
    }
    workers
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    listener.set_nonblocking(true).expect("a listener can be made not to block");
    println!("{}", listener.local_addr().expect("it is bound"));
    std::io::stdout().flush().expect("the parent reads");
    listener
}

/// On Stipend, with limits. A second argument is the tick's period in milliseconds.
pub(crate) fn stipend(arguments: &[String]) {
    let workers = workers(arguments);
    let mut builder = stipend::Runtime::builder().worker_threads(workers);
    if let Some(period) = arguments.get(1).and_then(|period| period.parse().ok()) {
        builder = builder.tick_period(Duration::from_millis(period));
    }
    let runtime = builder.build().expect("a runtime can be built");
    let listener = listen();
    let serving = runtime.spawn(async move {
        let listener = stipend::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = async move {
                let io = HyperIo::new(stream);
                // That a client goes away is not worth a word here.
                let _ = http1::Builder::new().timer(HyperTimer).serve_connection(io, service_fn(hello)).await;
            };
            let spawned = task::Builder::new().cpu_limit(CpuLimit::hard(LIMIT)).spawn(connection);
            drop(spawned.map_err(std::io::Error::other)?);
        }
    });
    let ended: Result<std::io::Result<()>, _> = runtime.block_on(serving);
    eprintln!("the server ended: {ended:?}");
}

/// On tokio.
pub(crate) fn tokio(arguments: &[String]) {
    let workers = workers(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let listener = listen();
    let serving = runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service_fn(hello)).await;
            });
        }
    });
    let ended: Result<std::io::Result<()>, _> = runtime.block_on(serving);
    eprintln!("the server ended: {ended:?}");
}
