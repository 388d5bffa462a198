//! The tenants, each with a group on whose clock its requests' CPU time adds up.
//!
//! Anybody can make up names, so there are at most [`MAX`]. A new one takes the place of the one that has been idle longest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stipend::{Group, GroupId};

/// The most tenants at once.
const MAX: usize = 1000;

const MAX_NAME: usize = 64;

/// Is this 1 to 64 of a-z, 0-9 and '-'?
pub(crate) fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// One of them. It is busy as long as somebody else than the list holds it.
pub(crate) struct Tenant {
    group: Group,
    requests: AtomicU64,
    exceeded: AtomicU64,
}

impl Tenant {
    pub(crate) fn name(&self) -> &str {
        self.group.name()
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Requests that were run.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Those of them that reached the CPU limit.
    pub(crate) fn exceeded(&self) -> u64 {
        self.exceeded.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_exceeded(&self) {
        self.exceeded.fetch_add(1, Ordering::Relaxed);
    }
}

/// All of them, by name.
#[derive(Default)]
pub(crate) struct Tenants {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    by_name: BTreeMap<String, Entry>,
    /// Counts the requests: what orders the tenants by their last one.
    now: u64,
}

struct Entry {
    tenant: Arc<Tenant>,
    last_request: u64,
}

/// There are `max` tenants, and each has a request running.
pub(crate) struct Refused {
    pub(crate) max: usize,
}

impl Tenants {
    /// The tenant of this name, which is made if need be.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Tenant>, Refused> {
        let mut list = self.lock();
        list.now += 1;
        let last_request = list.now;
        if let Some(entry) = list.by_name.get_mut(name) {
            entry.last_request = last_request;
            return Ok(Arc::clone(&entry.tenant));
        }
        if list.by_name.len() >= MAX {
            list.evict()?;
        }
        // Of its errors only that there are too many concerns a group without weight and parent.
        let group = Group::new(name).map_err(|_| Refused { max: GroupId::LIMIT - 1 })?;
        let tenant = Arc::new(Tenant { group, requests: AtomicU64::new(0), exceeded: AtomicU64::new(0) });
        list.by_name.insert(name.to_owned(), Entry { tenant: Arc::clone(&tenant), last_request });
        Ok(tenant)
    }

    /// All, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        self.lock().by_name.values().map(|entry| Arc::clone(&entry.tenant)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // No step under the lock leaves the list half changed.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// Removes the tenant that has been idle longest, with what is known of it.
    fn evict(&mut self) -> Result<(), Refused> {
        // New holders come from the list only, which is locked: one that is idle stays so.
        let idle = self.by_name.iter().filter(|(_, entry)| Arc::strong_count(&entry.tenant) == 1);
        let Some((name, _)) = idle.min_by_key(|(_, entry)| entry.last_request) else {
            return Err(Refused { max: MAX });
        };
        let name = name.clone();
        self.by_name.remove(&name);
        Ok(())
    }
}
