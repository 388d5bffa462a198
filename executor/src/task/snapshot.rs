//! What can be seen of a task from outside.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::state::Snapshot;
use super::{Id, TaskCore, TaskRef};

/// What a task was doing when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// It waits to be woken.
    Idle,
    /// It is in a run queue.
    Scheduled,
    /// A worker polls it.
    Running,
}

/// A task as it was at one moment; see [`Handle::tasks`](crate::runtime::Handle::tasks).
///
/// The fields are read one after the other, not all at once: a running task may move on in between.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskSnapshot {
    /// Its number.
    pub id: Id,
    /// The name that [`Builder::name`](super::Builder::name) gave it.
    pub name: Option<Arc<str>>,
    /// What it is doing.
    pub state: TaskState,
    /// CPU time charged to it so far, without the poll in progress.
    pub cpu: Duration,
    /// Its hard CPU limit.
    pub limit: Option<Duration>,
    /// The name of its group.
    pub group: Option<Arc<str>>,
    /// How often it has been polled.
    pub polls: u64,
    /// CPU time of its longest poll.
    pub longest_poll: Duration,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
}

impl From<Snapshot> for TaskState {
    fn from(state: Snapshot) -> Self {
        if state.is_running() {
            Self::Running
        } else if state.is_scheduled() {
            Self::Scheduled
        } else {
            Self::Idle
        }
    }
}

impl TaskSnapshot {
    pub(crate) fn of(task: &TaskRef<TaskCore>) -> Self {
        let core = task.core();
        let usage = core.account().usage();
        Self {
            id: core.id(),
            name: core.name().cloned(),
            state: match task.snapshot().into() {
                // A task that woke itself is in a queue, and nobody's state word says so.
                TaskState::Running if !core.account().is_running() => TaskState::Scheduled,
                state => state,
            },
            cpu: usage.cpu,
            limit: core.account().hard_limit(),
            group: core.account().group().map(|group| Arc::from(group.name())),
            polls: usage.polls,
            longest_poll: usage.longest_poll,
            spawned_at: core.spawned_at(),
        }
    }
}

/// One line: `task 7 "render" (idle, src/main.rs:10:5), 1.2ms CPU in 3 polls`.
impl fmt::Display for TaskSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        let state = match self.state {
            TaskState::Idle => "idle",
            TaskState::Scheduled => "scheduled",
            TaskState::Running => "running",
        };
        write!(f, " ({state}, {}), {:?} CPU in {} polls", self.spawned_at, self.cpu, self.polls)?;
        if let Some(group) = &self.group {
            write!(f, ", group {group:?}")?;
        }
        Ok(())
    }
}
