//! References to one group that a thread has in reserve, so that making and ending its members is no read-modify-write each.
//!
//! A thread that makes a member takes many references at once, and the members that end while it polls leave theirs. It gives all of
//! them back when it is going to wait, when it charges time to its runtime, and when it makes members of another group: so a group
//! outlives its last member by no more than that.
//!
//! # Invariant
//! The word is a group's number, in its upper half, and how many references to that group are held; the group lives while there are any,
//! and the serial is its own. Of no group, 0, there are never any. Where there are none the number may be another group's by now.
//! Only the lease holder is here.

use super::{GroupId, GroupKey};
use crate::sync::{AtomicU64, Ordering};

/// So many are taken at once, and so many are left when there are too many.
const BATCH: u64 = 64;
const MOST: u64 = 2 * BATCH;

/// The word of a thread that does not poll.
const CLOSED: u64 = u64::MAX;

/// The reserve of one thread.
#[derive(Debug)]
pub(crate) struct Spare {
    word: AtomicU64,
    /// The group's serial.
    serial: AtomicU64,
}

/// The word of a group of which there are none.
#[inline]
fn none_of(id: GroupId) -> u64 {
    (id.index() as u64) << 32
}

impl Spare {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(CLOSED), serial: AtomicU64::new(0) }
    }

    /// Takes a reference out, if there is one.
    #[inline]
    pub(crate) fn take(&self, id: GroupId) -> Option<GroupKey> {
        let word = self.word.load(Ordering::Relaxed);
        // Of another group it is far away, and of none of this one 0 - 1.
        if word.wrapping_sub(none_of(id)).wrapping_sub(1) >= MOST {
            return None;
        }
        self.word.store(word - 1, Ordering::Relaxed);
        Some(GroupKey::known(id, self.serial.load(Ordering::Relaxed)))
    }

    /// Puts a reference in, unless what is in there is of another group, or the thread does not poll.
    #[inline]
    pub(crate) fn put(&self, id: GroupId) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word.wrapping_sub(none_of(id)).wrapping_sub(1) < MOST - 1 {
            self.word.store(word + 1, Ordering::Relaxed);
            return true;
        }
        self.put_slowly(id, word)
    }

    #[cold]
    fn put_slowly(&self, id: GroupId, word: u64) -> bool {
        if id == GroupId::NONE {
            // A member of a scope that is in no group.
            return false;
        }
        if word == none_of(id) + MOST {
            self.word.store(none_of(id) + MOST + 1 - BATCH, Ordering::Relaxed);
            id.release_many(BATCH);
        } else if word as u32 == 0 {
            self.be_of(id, 1);
        } else {
            return false;
        }
        true
    }

    /// Fills it with references to a group that the caller has one to, if the thread polls.
    pub(crate) fn fill(&self, id: GroupId) {
        if self.word.load(Ordering::Relaxed) != CLOSED {
            self.empty();
            id.retain_many(BATCH);
            self.be_of(id, BATCH);
        }
    }

    fn be_of(&self, id: GroupId, left: u64) {
        self.serial.store(id.serial(), Ordering::Relaxed);
        self.word.store(none_of(id) + left, Ordering::Relaxed);
    }

    /// Gives all back.
    #[inline]
    pub(crate) fn empty(&self) {
        if !matches!(self.word.load(Ordering::Relaxed), 0 | CLOSED) {
            self.give_back(0);
        }
    }

    /// The thread polls.
    pub(crate) fn open(&self) {
        if self.word.load(Ordering::Relaxed) == CLOSED {
            self.word.store(0, Ordering::Relaxed);
        }
    }

    /// The thread does not poll: gives all back.
    pub(crate) fn close(&self) {
        self.give_back(CLOSED);
    }

    fn give_back(&self, then: u64) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(then, Ordering::Relaxed);
        if word != CLOSED {
            GroupId::from_index((word >> 32) as u32).release_many(word & u64::from(u32::MAX));
        }
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

    #[test]
    fn g12_scopes_without_a_group_put_no_references() {
        let meter = Meter::builder().build().unwrap();
        let lease = meter.attach();
        lease.set_active();
        for _ in 0..3 {
            drop(crate::Scope::with_limit(std::time::Duration::from_secs(1)));
        }
        let (member, id, serial) = last_member();
        let others: Vec<Account> = std::iter::repeat_with(Account::new).take(3).collect();
        for other in &others {
            other.set_group(&member.group().unwrap());
        }
        drop(member);
        lease.charge_runtime(lease.stamp());
        assert!(lives(id, serial), "the group has ended, and there are {} members", others.len());
        drop(others);
        lease.set_idle();
        assert!(!lives(id, serial));
    }

    #[test]
    fn a_reserve_that_was_used_up_does_not_remember_the_group_that_had_the_number_before() {
        let meter = Meter::builder().build().unwrap();
        let lease = meter.attach();
        lease.set_active();
        let found = (0..1_000).any(|_| {
            lease.charge_runtime(lease.stamp());
            let (maker, id, serial) = last_member();
            let run = lease.begin(&maker, lease.stamp());
            // One by a reference of its own, and with it come as many as a reserve has.
            let children: Vec<_> = (0..=super::BATCH).map(|_| Account::inherit()).collect();
            run.end();
            assert!(children.iter().all(|(_, key)| (key.id(), key.serial()) == (id, serial)));
            // They end elsewhere.
            std::thread::spawn(move || drop((children, maker))).join().unwrap();
            let heir = Group::new("heir").unwrap();
            if heir.id() != id {
                // Another test was faster.
                return false;
            }
            let (one, other) = (Account::new(), Account::new());
            one.set_group(&heir);
            other.set_group(&heir);
            drop(one);
            let run = lease.begin(&other, lease.stamp());
            let (_child, key) = Account::inherit();
            run.end();
            assert_eq!(key, heir.id().key(), "the key of a group that has ended");
            true
        });
        lease.set_idle();
        assert!(found, "no group had the number of the one before");
    }
}
