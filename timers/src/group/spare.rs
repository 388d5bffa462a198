//! References to one group that a thread has in reserve, so that making and ending its members is no read-modify-write each.
//!
//! A thread that makes a member takes many references at once, and the members that end while it polls leave theirs. It gives all of
//! them back when it is going to wait, when it charges time to its runtime, and when it makes members of another group: so a group
//! outlives its last member by no more than that.
//!
//! # Invariant
//! `left` references are held for the group `of`, which lives while there are any; of no group, 0, there are none. Only the lease holder is
//! here.

use super::{GroupId, GroupKey};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// So many are taken at once, and so many are left when there are too many.
const BATCH: u32 = 64;

/// The reserve of one thread.
#[derive(Debug)]
pub(crate) struct Spare {
    of: AtomicU32,
    left: AtomicU32,
    /// The group's serial.
    serial: AtomicU64,
}

impl Spare {
    pub(crate) fn new() -> Self {
        Self { of: AtomicU32::new(0), left: AtomicU32::new(0), serial: AtomicU64::new(0) }
    }

    /// Takes a reference out, if there is one.
    #[inline]
    pub(crate) fn take(&self, id: GroupId) -> Option<GroupKey> {
        let left = self.left.load(Ordering::Relaxed);
        if self.of.load(Ordering::Relaxed) != id.index() as u32 || left == 0 {
            return None;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        Some(GroupKey::known(id, self.serial.load(Ordering::Relaxed)))
    }

    /// Puts a reference in, unless what is in there is of another group.
    #[inline]
    pub(crate) fn put(&self, id: GroupId) -> bool {
        let of = self.of.load(Ordering::Relaxed);
        if of != id.index() as u32 {
            if of != 0 {
                return false;
            }
            self.be_of(id);
        }
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left + 1, Ordering::Relaxed);
        if left >= 2 * BATCH {
            self.left.store(left + 1 - BATCH, Ordering::Relaxed);
            id.release_many(BATCH.into());
        }
        true
    }

    /// Fills it with references to a group that the caller has one to.
    pub(crate) fn fill(&self, id: GroupId) {
        self.empty();
        id.retain_many(BATCH.into());
        self.be_of(id);
        self.left.store(BATCH, Ordering::Relaxed);
    }

    /// The caller has a reference.
    #[cold]
    fn be_of(&self, id: GroupId) {
        self.of.store(id.index() as u32, Ordering::Relaxed);
        self.serial.store(id.serial(), Ordering::Relaxed);
    }

    /// Gives all back.
    #[inline]
    pub(crate) fn empty(&self) {
        if self.of.load(Ordering::Relaxed) != 0 {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&self) {
        let id = GroupId::from_index(self.of.swap(0, Ordering::Relaxed));
        let left = self.left.swap(0, Ordering::Relaxed);
        id.release_many(left.into());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Account, Group, GroupId, Lease, Meter};

    /// A group with one account, and nobody else who has it: its number and serial.
    fn last_member() -> (Account, GroupId, u64) {
        let (account, group) = (Account::new(), Group::new("g").unwrap());
        account.set_group(&group);
        (account, group.id(), group.id().serial())
    }

    fn lives(id: GroupId, serial: u64) -> bool {
        let is_taken = id.retain();
        let lives = is_taken && id.serial() == serial;
        if is_taken {
            id.release();
        }
        lives
    }

    #[test]
    fn g12_a_group_ends_with_its_last_member_on_a_thread_that_does_not_poll() {
        let meter = Meter::builder().build().unwrap();
        let _lease = meter.attach();
        let (account, id, serial) = last_member();
        assert!(lives(id, serial));
        drop(account);
        assert!(!lives(id, serial));
    }

    #[test]
    fn g12_a_group_whose_last_member_ends_on_a_thread_that_polls_ends_when_that_waits_or_serves_its_runtime() {
        let meter = Meter::builder().build().unwrap();
        let lease = meter.attach();
        let waits: [fn(&Lease); 2] = [Lease::set_idle, |lease| {
            lease.charge_runtime(lease.stamp());
        }];
        for wait in waits {
            lease.set_active();
            let (account, id, serial) = last_member();
            let (other, other_id, other_serial) = last_member();
            drop(account);
            assert!(lives(id, serial), "it is in reserve");
            drop(other);
            assert!(!lives(other_id, other_serial), "of one group at a time");
            wait(&lease);
            assert!(!lives(id, serial));
        }
        lease.set_idle();
    }
}
