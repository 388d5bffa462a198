//! Which request gets which answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};

use crate::answer::{self, Answer};
use crate::body;
use crate::burn::burn;
use crate::limited;
use crate::sandbox::{FaultKind, Sandbox};
use crate::stats;
use crate::tenants::{self, Refused, Tenants};

/// Whom the CPU time of `/burn` is counted to.
const BURN_TENANT: &str = "burn";

/// What the requests share.
pub(crate) struct App {
    pub(crate) tenants: Tenants,
    sandbox: Arc<Sandbox>,
    cpu_limit: Duration,
}

impl App {
    pub(crate) fn new(cpu_limit: Duration) -> Arc<Self> {
        Arc::new(Self { tenants: Tenants::default(), sandbox: Arc::new(Sandbox::new()), cpu_limit })
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let read_only = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/hello" | "/healthz" | "/stats" | "/burn" if !read_only => answer::method_not_allowed("GET, HEAD"),
            "/hello" => answer::text("hello\n"),
            "/healthz" => answer::text("ok\n"),
            "/stats" => answer::json(&stats::collect(&self.tenants)),
            "/burn" => self.burn(request.uri().query()).await,
            path => match path.strip_prefix("/run/").map(str::to_owned) {
                None => answer::not_found(),
                Some(_) if request.method() != Method::POST => answer::method_not_allowed("POST"),
                Some(tenant) => self.run(&tenant, request).await,
            },
        }
    }

    async fn run(&self, tenant: &str, request: Request<Incoming>) -> Answer {
        if !tenants::is_valid_name(tenant) {
            return answer::bad_request("bad_tenant", "a tenant's name is 1 to 64 of a-z, 0-9 and '-'");
        }
        let script = match body::read(request).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let tenant = match self.tenants.get(tenant) {
            Ok(tenant) => tenant,
            Err(Refused { max }) => return answer::too_many_tenants(max),
        };
        let sandbox = Arc::clone(&self.sandbox);
        let work = async move {
            let result = match str::from_utf8(&script) {
                Ok(script) => sandbox.run(script),
                Err(_) => return answer::bad_request("parse_error", "the script is not UTF-8"),
            };
            match result {
                Ok(value) => answer::text(value),
                Err(fault) if fault.kind == FaultKind::Stopped => limited::until_ended().await,
                Err(fault) => answer::script_fault(&fault),
            }
        };
        limited::run(&tenant, "script", self.cpu_limit, work).await.unwrap_or_else(|answer| answer)
    }

    async fn burn(&self, query: Option<&str>) -> Answer {
        let ms = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("ms=")));
        let Some(total) = ms.and_then(|ms| ms.parse().ok()).map(Duration::from_millis) else {
            return answer::bad_request("bad_query", "say for how long: /burn?ms=20");
        };
        let tenant = match self.tenants.get(BURN_TENANT) {
            Ok(tenant) => tenant,
            Err(Refused { max }) => return answer::too_many_tenants(max),
        };
        match limited::run(&tenant, "burn", self.cpu_limit, burn(total)).await {
            Ok(used) => answer::text(format!("used {:.1} ms of CPU\n", answer::millis(used))),
            Err(answer) => answer,
        }
    }
}
