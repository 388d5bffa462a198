//! Loom models of the real records: members that charge, join and end while their scope comes to its end.

use std::time::Duration;

use loom::thread;

use super::members;
use crate::account::Account;
use crate::limit::CpuLimit;
use crate::record::Record;
use crate::sync::Ordering;
use crate::wake_queue::Kinds;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.check(f);
}

/// A scope with a limit of 10 ns.
fn scope() -> Account {
    let account = Account::new();
    members::make_scope(account.record());
    assert!(account.set_cpu_limit(CpuLimit::hard(Duration::from_nanos(10))).is_ok());
    account
}

fn member(scope: &Account) -> &'static Record {
    // Leaked, like every record of a model.
    let account = std::mem::ManuallyDrop::new(Account::new());
    members::join(account.record(), scope.record());
    account.record()
}

fn told(record: &Record) -> Kinds {
    record.shared.wake.peek(0)
}

/// A boundary's charge of a member, as `Run` does it.
fn charge(member: &'static Record, ns: u64) {
    if members::charge(member, ns, std::iter::empty) {
        members::settle(member, false);
    }
}

/// s02: two members reach the limit together, and neither alone.
#[test]
fn loom_s02_of_two_members_that_reach_the_limit_together_one_finds_it() {
    model(|| {
        let scope = scope();
        let (a, b) = (member(&scope), member(&scope));
        let theirs = thread::spawn(move || charge(b, 5));
        charge(a, 5);
        theirs.join().unwrap();
        assert!(members::is_over(scope.record()), "nobody saw the limit reached");
        assert!(told(scope.record()).contains(Kinds::EXPIRY), "the run was not told");
        let is_told = |record| told(record).contains(Kinds::EXPIRY);
        assert!(is_told(a) || is_told(b), "only the finder knows by itself");
        std::mem::forget(scope);
    });
}

/// s02: the run charges its own time by plain stores; it looks again behind the fence that follows every poll of `Metered`.
#[test]
fn loom_s02_the_run_and_a_member_that_reach_the_limit_together_find_it() {
    model(|| {
        let scope = scope();
        let a = member(&scope);
        let theirs = thread::spawn(move || charge(a, 5));
        let own = scope.record();
        Record::add_own(&own.own.used_ns, 5);
        crate::sync::fence(Ordering::SeqCst);
        scope.watch().recheck();
        theirs.join().unwrap();
        assert!(told(own).contains(Kinds::EXPIRY), "nobody saw the limit reached");
        std::mem::forget(scope);
    });
}

/// s02: who joins a scope as it comes to its limit is told, by whichever comes second.
#[test]
fn loom_s02_who_joins_as_the_limit_is_reached_is_told() {
    model(|| {
        let scope = scope();
        let record = scope.record();
        let a = member(&scope);
        let theirs = thread::spawn(move || charge(a, 10));
        let late = member(&scope);
        theirs.join().unwrap();
        assert!(members::is_over(record));
        assert!(told(late).contains(Kinds::EXPIRY), "it escaped");
        std::mem::forget(scope);
    });
}

/// s03: a scope's run ends while one member ends, another joins, and the list is whole.
#[test]
fn loom_s03_the_end_of_the_run_reaches_who_joins_and_who_stays() {
    model(|| {
        let scope = scope();
        let (first, stays) = (member(&scope), member(&scope));
        let theirs = thread::spawn(move || {
            assert!(first.shared.wake.end());
            members::end(first);
        });
        // As a blocking job of a member does it.
        let record = scope.record();
        let spawner = thread::spawn(move || {
            let late = std::mem::ManuallyDrop::new(Account::new());
            members::join(late.record(), record);
            late.record()
        });
        scope.end();
        theirs.join().unwrap();
        let late = spawner.join().unwrap();
        assert!(told(stays).contains(Kinds::CANCEL) && told(late).contains(Kinds::CANCEL), "one escaped");
        std::mem::forget(scope);
    });
}
