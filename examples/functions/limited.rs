//! Running a request's work in a task of its own, with its tenant's name on it and a CPU limit.
//!
//! The limit is a scope's: should the work spawn tasks or blocking jobs, they count too, and end with it. The task has it as well,
//! so that `/stats` can show it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use stipend::task::{self, JoinError, JoinHandle, SpawnError};
use stipend::{CpuLimit, Scope, yield_now};

use crate::answer::{self, Answer};
use crate::log;
use crate::tenants::Tenant;

/// Runs `work` and returns what it returns, or the answer to give instead.
///
/// # Cancel safety
/// The task is aborted: a client that has gone leaves nothing behind.
pub(crate) async fn run<F>(
    tenant: &Arc<Tenant>,
    name: &'static str,
    limit: Duration,
    work: F,
) -> Result<F::Output, Answer>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tenant.count_request();
    let scope = Scope::try_with_limit(limit).map_err(|error| {
        log(&format!("functions: {error}"));
        answer::internal()
    })?;
    let task = task::Builder::new().name(name).group(tenant.group()).cpu_limit(CpuLimit::hard(limit));
    let joined = match task.spawn(scope.run(work)) {
        Ok(task) => AbortOnDrop(task).await,
        Err(SpawnError::ShutDown) => return Err(answer::shutting_down()),
        Err(error) => {
            log(&format!("functions: {error}"));
            return Err(answer::internal());
        }
    };
    match joined {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(exceeded)) | Err(JoinError::CpuLimitExceeded(exceeded)) => {
            tenant.count_exceeded();
            Err(answer::cpu_limit_exceeded(tenant.name(), &exceeded))
        }
        Err(JoinError::Cancelled) => Err(answer::shutting_down()),
        Err(JoinError::Panicked(_)) => Err(answer::internal()),
    }
}

/// For work that `checkpoint` has stopped: gives the worker back until the task is ended for the reason that it was stopped for,
/// at this poll's boundary.
pub(crate) async fn until_ended() -> ! {
    loop {
        yield_now().await;
    }
}

/// Dropping a [`JoinHandle`] lets the task run on; dropping this aborts it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
