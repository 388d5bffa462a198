//! What `/stats` shows.

use std::time::Duration;

use serde::Serialize;
use stipend::runtime::Handle;
use stipend::task::{TaskSnapshot, TaskState};

use crate::answer::millis;
use crate::tenants::{Tenant, Tenants};

#[derive(Serialize)]
pub(crate) struct Stats {
    tenants: Vec<TenantStats>,
    tasks: Vec<TaskStats>,
    runtime: RuntimeStats,
}

#[derive(Serialize)]
struct TenantStats {
    name: String,
    requests: u64,
    exceeded: u64,
    cpu_seconds: f64,
}

#[derive(Serialize)]
struct TaskStats {
    id: u64,
    name: Option<String>,
    tenant: Option<String>,
    state: &'static str,
    cpu_ms: f64,
    limit_ms: Option<f64>,
}

#[derive(Serialize)]
struct RuntimeStats {
    workers: usize,
    /// Tasks and the runtime itself.
    cpu_seconds: f64,
    tick_period_ms: f64,
    ticks: u64,
    accuracy: &'static str,
}

/// Of the current runtime.
pub(crate) fn collect(tenants: &Tenants) -> Stats {
    let runtime = Handle::current();
    Stats {
        tenants: tenants.all().iter().map(|tenant| of_tenant(tenant)).collect(),
        tasks: runtime.tasks().iter().map(of_task).collect(),
        runtime: of_runtime(&runtime),
    }
}

fn of_tenant(tenant: &Tenant) -> TenantStats {
    TenantStats {
        name: tenant.name().to_owned(),
        requests: tenant.requests(),
        exceeded: tenant.exceeded(),
        cpu_seconds: tenant.group().cpu_time().as_secs_f64(),
    }
}

fn of_task(task: &TaskSnapshot) -> TaskStats {
    TaskStats {
        id: task.id.get(),
        name: task.name.as_deref().map(str::to_owned),
        tenant: task.group.as_deref().map(str::to_owned),
        state: match task.state {
            TaskState::Idle => "idle",
            TaskState::Scheduled => "scheduled",
            TaskState::Running => "running",
            _ => "unknown",
        },
        cpu_ms: millis(task.cpu),
        limit_ms: task.limit.map(millis),
    }
}

fn of_runtime(runtime: &Handle) -> RuntimeStats {
    let meter = runtime.meter();
    let metrics = meter.metrics();
    let cpu: Duration = metrics.charged + metrics.runtime;
    RuntimeStats {
        workers: runtime.metrics().workers,
        cpu_seconds: cpu.as_secs_f64(),
        tick_period_ms: millis(meter.tick_period()),
        ticks: metrics.ticks,
        accuracy: meter.accuracy().as_str(),
    }
}
