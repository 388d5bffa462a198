//! Every answer that the server gives. Errors are JSON with a field `error` that names the kind.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use stipend::CpuLimitExceeded;

use crate::sandbox::Fault;

pub(crate) type Answer = Response<Full<Bytes>>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// When a client that was refused for lack of room or time may try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

pub(crate) fn text(body: impl Into<Bytes>) -> Answer {
    with(StatusCode::OK, TEXT, body.into())
}

pub(crate) fn json(value: &impl Serialize) -> Answer {
    as_json(StatusCode::OK, value)
}

/// 400.
pub(crate) fn bad_request(kind: &str, message: &str) -> Answer {
    as_json(StatusCode::BAD_REQUEST, &json!({ "error": kind, "message": message }))
}

/// 400: the script is to blame, and here is where.
pub(crate) fn script_fault(fault: &Fault) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'static str,
        message: &'a str,
        line: Option<usize>,
        column: Option<usize>,
    }
    let body = Body {
        error: fault.kind.as_str(),
        message: &fault.message,
        line: fault.position.line(),
        column: fault.position.position(),
    };
    as_json(StatusCode::BAD_REQUEST, &body)
}

/// 404.
pub(crate) fn not_found() -> Answer {
    let message = "POST /run/{tenant}, GET /burn?ms=N, /hello, /healthz and /stats are served";
    as_json(StatusCode::NOT_FOUND, &json!({ "error": "not_found", "message": message }))
}

/// 405.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer =
        as_json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "method_not_allowed", "allow": allowed }));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// 408.
pub(crate) fn body_too_slow(timeout: Duration) -> Answer {
    let body = json!({ "error": "body_too_slow", "timeout_ms": millis(timeout) });
    as_json(StatusCode::REQUEST_TIMEOUT, &body)
}

/// 413.
pub(crate) fn body_too_large(max: usize) -> Answer {
    as_json(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": "body_too_large", "max_bytes": max }))
}

/// 500.
pub(crate) fn internal() -> Answer {
    as_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "internal" }))
}

/// 503: the request has used up its CPU time.
pub(crate) fn cpu_limit_exceeded(tenant: &str, exceeded: &CpuLimitExceeded) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'static str,
        used_ms: f64,
        limit_ms: f64,
        tenant: &'a str,
    }
    unavailable(&Body {
        error: "cpu_limit_exceeded",
        used_ms: millis(exceeded.used),
        limit_ms: millis(exceeded.limit),
        tenant,
    })
}

/// 503: every tenant that there is room for has a request running.
pub(crate) fn too_many_tenants(max: usize) -> Answer {
    unavailable(&json!({ "error": "too_many_tenants", "max": max }))
}

/// 503: the server is about to end.
pub(crate) fn shutting_down() -> Answer {
    unavailable(&json!({ "error": "shutting_down" }))
}

fn unavailable(body: &impl Serialize) -> Answer {
    let mut answer = as_json(StatusCode::SERVICE_UNAVAILABLE, body);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}

fn as_json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            with(status, JSON, body.into())
        }
        // Only maps with keys that are not strings, and values that refuse by themselves, are not possible as JSON.
        Err(error) => with(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string().into()),
    }
}

fn with(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Milliseconds with their fraction, as JSON has them.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}
