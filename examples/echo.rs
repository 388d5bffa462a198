//! A server that sends back what it receives, with a CPU limit for each connection.
//!
//! ```sh
//! cargo run --release --example echo -- --listen 127.0.0.1:7000 --cpu-limit-ms 100
//! curl telnet://127.0.0.1:7000
//! ```
//!
//! A connection that has used up its limit is closed, and the server prints what it used. This one does, in a second or so:
//! `cat /dev/zero | curl telnet://127.0.0.1:7000 >/dev/null`. Ctrl-C and SIGTERM end the server.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use futures::future::{Either, select};
use futures::io::copy;
use futures::{AsyncReadExt, StreamExt};
use stipend::net::{TcpListener, TcpStream};
use stipend::signal::{SignalKind, signal};
use stipend::task::{self, JoinError};
use stipend::{CpuLimit, Runtime, time};

/// Sends back what it receives, until a connection has used up its CPU time.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,

    /// CPU time that a connection may use, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    cpu_limit_ms: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(args.listen).await?;
        println!("listening on {}", listener.local_addr()?);
        let limit = CpuLimit::hard(Duration::from_millis(args.cpu_limit_ms));
        let mut stop = futures::stream::select(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        match select(Box::pin(serve(listener, limit)), stop.next()).await {
            Either::Left((error, _)) => Err(error),
            Either::Right(_) => Ok(()),
        }
    })
}

/// Accepts connections for ever; returns only if a limit is refused.
async fn serve(listener: TcpListener, limit: CpuLimit) -> Box<dyn std::error::Error> {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // One connection failed, or there are no descriptors left: the others go on.
            time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        match task::Builder::new().name("echo").cpu_limit(limit).spawn(echo(stream)) {
            Ok(connection) => drop(stipend::spawn(async move {
                if let Err(JoinError::CpuLimitExceeded(exceeded)) = connection.await {
                    println!("{peer}: {exceeded}");
                }
            })),
            Err(error) => return error.into(),
        }
    }
}

async fn echo(stream: TcpStream) -> std::io::Result<u64> {
    let (reader, mut writer) = stream.split();
    copy(reader, &mut writer).await
}
