//! References to one group that a thread has in reserve, so that making and ending its members is no read-modify-write each.
//!
//! A thread that makes a member takes many references at once, and the members that end while it polls leave theirs. It gives all of
//! them back when it is going to wait, when it charges time to its runtime, and when it makes members of another group: so a group
//! outlives its last member by no more than that.
//!
//! # Invariant
//! So many references to the group that has the number are held here: while there are any it lives, and keeps the number. While there are
//! none the number may come to another group; whoever then puts one in has a reference to that one. Only the lease holder is here.

use super::GroupId;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// So many are taken at once.
const BATCH: u64 = 1024;

/// In place of a number: there was none since the thread began to poll.
const NOBODY: u32 = u32::MAX - 1;
/// In place of a number: the thread does not poll.
const CLOSED: u32 = u32::MAX;

/// The reserve of one thread.
#[derive(Debug)]
pub(crate) struct Spare {
    number: AtomicU32,
    count: AtomicU64,
}

impl Spare {
    pub(crate) fn new() -> Self {
        Self { number: AtomicU32::new(CLOSED), count: AtomicU64::new(0) }
    }

    #[inline]
    fn is_of(&self, number: u32) -> bool {
        self.number.load(Ordering::Relaxed) == number
    }

    /// Takes a reference out, if there is one to the group that has the number.
    #[inline]
    pub(crate) fn take(&self, number: u32) -> bool {
        if !self.is_of(number) {
            return false;
        }
        match self.count.load(Ordering::Relaxed).checked_sub(1) {
            Some(left) => self.count.store(left, Ordering::Relaxed),
            None => return false,
        }
        true
    }

    /// Puts a reference in, unless those that are in there are of another group, or the thread does not poll.
    #[inline]
    pub(crate) fn put(&self, number: u32) -> bool {
        if !self.is_of(number) && !self.change_to(number) {
            return false;
        }
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        true
    }

    /// False: there are some of another group, or none are to be left here.
    #[cold]
    fn change_to(&self, number: u32) -> bool {
        // No number: of a member of a scope that is in no group.
        let may = number != 0 && self.count.load(Ordering::Relaxed) == 0 && !self.is_of(CLOSED);
        if may {
            self.number.store(number, Ordering::Relaxed);
        }
        may
    }

    /// Fills it with references to a group that the caller has one to, if the thread polls.
    pub(crate) fn fill(&self, id: GroupId) {
        if !self.is_of(CLOSED) {
            self.empty();
            id.retain_many(BATCH);
            self.number.store(id.index() as u32, Ordering::Relaxed);
            self.count.store(BATCH, Ordering::Relaxed);
        }
    }

    /// Gives all back.
    #[inline]
    pub(crate) fn empty(&self) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.give_back(self.number.load(Ordering::Relaxed));
        }
    }

    /// The thread polls.
    pub(crate) fn open(&self) {
        if self.is_of(CLOSED) {
            self.number.store(NOBODY, Ordering::Relaxed);
        }
    }

    /// The thread does not poll: gives all back.
    pub(crate) fn close(&self) {
        self.give_back(CLOSED);
    }

    /// Gives all back, and is `then` of that number. A group's end runs no code that comes here: what it owns is its name, its number
    /// and a reference to its parent, which goes directly.
    fn give_back(&self, then: u32) {
        let (number, count) = (self.number.load(Ordering::Relaxed), self.count.load(Ordering::Relaxed));
        self.number.store(then, Ordering::Relaxed);
        self.count.store(0, Ordering::Relaxed);
        if count > 0 {
            GroupId::from_index(number).release_many(count);
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
    fn a_reserve_that_was_used_up_is_of_the_group_that_has_the_number_now() {
        let meter = Meter::builder().build().unwrap();
        let lease = meter.attach();
        lease.set_active();
        let found = (0..1_000).any(|_| {
            lease.charge_runtime(lease.stamp());
            let (maker, id, serial) = last_member();
            let mut run = lease.begin(&maker, lease.stamp());
            // One by a reference of its own, and with it come as many as a reserve has.
            let children: Vec<_> = (0..=super::BATCH).map(|_| Account::inherit()).collect();
            run.end();
            drop(run);
            assert!(children.iter().all(|(_, of)| (*of, of.serial()) == (id, serial)));
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
            let mut run = lease.begin(&other, lease.stamp());
            let (child, of) = Account::inherit();
            run.end();
            assert_eq!((of, child.group()), (heir.id(), Some(heir)));
            true
        });
        lease.set_idle();
        assert!(found, "no group had the number of the one before");
    }
}
