//! Reading a request's body: no more than it may have, and no longer.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::EXPECT;
use stipend::time::timeout;

use crate::answer::{self, Answer};

/// The largest script.
pub(crate) const MAX: usize = 1 << 20;

/// A client that announced nothing and sends too much is listened to for this many bytes, and only then answered: most send
/// everything before they read, and closing in their face would lose them the answer.
const PATIENCE: usize = 8 << 20;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The body, or the answer to give instead.
pub(crate) async fn read(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let asks_first = request.headers().contains_key(EXPECT);
    let body = request.into_body();
    if asks_first && body.size_hint().lower() > MAX as u64 {
        return Err(answer::body_too_large(MAX));
    }
    match timeout(TIMEOUT, collect(body)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(answer::body_too_slow(TIMEOUT)),
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, Answer> {
    let mut collected = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| answer::bad_request("broken_body", &error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX {
            collected.extend_from_slice(data);
        } else {
            collected = Vec::new();
        }
        if length > PATIENCE {
            break;
        }
    }
    if length <= MAX { Ok(collected.into()) } else { Err(answer::body_too_large(MAX)) }
}
