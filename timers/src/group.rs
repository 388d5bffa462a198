//! Groups of accounts: their members' CPU time in one clock, with no shared line on the poll path.
//!
//! A group's use is kept by slot: each polling thread adds to a table of its own, indexed by group, and the sum over the slots
//! is taken when somebody reads. So a poll pays one load and, as a group's member, one addition to a line that no other thread
//! writes. The tables live as long as the slots, for ever; a group's index is used again with the sums of that moment as its
//! base.
//!
//! # Invariants
//! * Each cell is written by the thread that holds the slot, and only grows: a group's clock never goes back.
//! * A group lives as long as its members; when it ends, what it used passes to its parent under the parent's lock, in one
//!   step with leaving the parent's list.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use crate::thread;

const CHUNK: usize = 256;
const CHUNKS: usize = 256;

/// One thread's use by group.
pub(crate) struct Shard {
    chunks: [OnceLock<Box<[AtomicU64; CHUNK]>>; CHUNKS],
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shard { .. }")
    }
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// Adds to a group's use on this thread. Only the lease holder calls it.
    #[inline]
    pub(crate) fn charge(&self, index: u32, ns: u64) {
        let chunk = self.chunks[index as usize / CHUNK].get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        let cell = &chunk[index as usize % CHUNK];
        cell.store(cell.load(Ordering::Relaxed) + ns, Ordering::Release);
    }

    fn get(&self, index: u32) -> u64 {
        self.chunks[index as usize / CHUNK]
            .get()
            .map_or(0, |chunk| chunk[index as usize % CHUNK].load(Ordering::Acquire))
    }
}

/// The indices in use. 0 stands for "no group".
struct Indices {
    next: u32,
    free: Vec<u32>,
}

static INDICES: Mutex<Indices> = Mutex::new(Indices { next: 1, free: Vec::new() });

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn sum(index: u32) -> u64 {
    thread::all_slots().map(|slot| slot.groups.get(index)).sum()
}

/// More groups at once than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupError {
    /// The most groups that can live at once.
    pub max: usize,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {} groups already, the most that can live at once; drop some first", self.max)
    }
}

impl std::error::Error for GroupError {}

struct Node {
    name: Arc<str>,
    parent: Option<Group>,
    usage: Arc<Usage>,
}

/// What a group has used: all that its parent needs to know of it.
struct Usage {
    index: u32,
    base_ns: u64,
    family: Mutex<Family>,
}

#[derive(Default)]
struct Family {
    /// Of children that live. They leave under this lock, in one step with what they pass on.
    children: Vec<Arc<Usage>>,
    /// What children used that have ended.
    ended_ns: u64,
}

impl Usage {
    fn cpu_ns(&self) -> u64 {
        let own_ns = sum(self.index).saturating_sub(self.base_ns);
        // Locks go from parent to child only.
        let family = lock(&self.family);
        own_ns + family.ended_ns + family.children.iter().map(|child| child.cpu_ns()).sum::<u64>()
    }
}

/// A group of tasks, a tenant say: its clock is the sum of its members', live and ended. Clones are the same group.
///
/// A task spawned by a member is a member too. A group lives as long as a handle or a member.
///
/// ```
/// use stipend_timers::Group;
///
/// let tenant = Group::new("tenant-a")?;
/// let batch = Group::builder("batch").parent(&tenant).build()?;
/// assert_eq!(batch.parent(), Some(&tenant));
/// assert!(tenant.cpu_time().is_zero());
/// # Ok::<(), stipend_timers::GroupError>(())
/// ```
#[derive(Clone)]
pub struct Group(Arc<Node>);

impl Group {
    /// A group of its own.
    ///
    /// # Errors
    /// [`GroupError`] if there are too many groups.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Group, GroupError> {
        Self::builder(name).build()
    }

    /// For a group with more than a name.
    pub fn builder(name: impl Into<Arc<str>>) -> GroupBuilder {
        GroupBuilder { name: name.into(), parent: None }
    }

    /// The name; it need not be unique.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The group that this one's time is a part of.
    pub fn parent(&self) -> Option<&Group> {
        self.0.parent.as_ref()
    }

    /// CPU time used by its members and its child groups, up to each one's last boundary. Never goes back.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.0.usage.cpu_ns())
    }

    pub(crate) fn index(&self) -> u32 {
        self.0.usage.index
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            let mut family = lock(&parent.0.usage.family);
            family.ended_ns += self.usage.cpu_ns();
            family.children.retain(|child| !Arc::ptr_eq(child, &self.usage));
        }
        lock(&INDICES).free.push(self.usage.index);
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Group {}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Makes a [`Group`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct GroupBuilder {
    name: Arc<str>,
    parent: Option<Group>,
}

impl GroupBuilder {
    /// Makes the group's time a part of this one's.
    pub fn parent(mut self, parent: &Group) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`GroupError`] if there are too many groups.
    pub fn build(self) -> Result<Group, GroupError> {
        let index = {
            let mut indices = lock(&INDICES);
            match indices.free.pop() {
                Some(index) => index,
                None if (indices.next as usize) < CHUNK * CHUNKS => {
                    indices.next += 1;
                    indices.next - 1
                }
                None => {
                    return Err(GroupError { max: CHUNK * CHUNKS - 1 });
                }
            }
        };
        let usage = Arc::new(Usage { index, base_ns: sum(index), family: Mutex::default() });
        if let Some(parent) = &self.parent {
            lock(&parent.0.usage.family).children.push(usage.clone());
        }
        Ok(Group(Arc::new(Node { name: self.name, parent: self.parent, usage })))
    }
}
