//! Groups, members and the threads that poll them.

use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use stipend_timers::test::Manual;
use stipend_timers::{Account, Control, CpuTimer, CpuTimerStream, Expiry, Group, GroupClock, Lease};

use crate::common::{Bench, Log, Task, Wakes};

pub(super) fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

pub(super) fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

pub(super) fn child(parent: &Group) -> Group {
    Group::builder("child").parent(parent).build().unwrap()
}

pub(super) fn member<'a>(task: Task<'a>, group: &Group) -> Task<'a> {
    task.inner.account().set_group(group);
    task
}

/// A member that uses so much in every poll.
pub(super) fn burner<'a>(bench: &'a Bench, group: &Group, each: Duration) -> Task<'a> {
    member(bench.burner(each), group)
}

pub(super) fn noting<T, U>(log: &Log<T>, what: U) -> impl FnMut(Expiry) + Send + use<T, U>
where
    T: Send + 'static,
    U: Fn(Expiry) -> T + Send + 'static,
{
    let log = log.clone();
    move |expiry| log.lock().unwrap().push(what(expiry))
}

pub(super) fn handler(clock: &GroupClock, log: &Log<(Duration, Duration, u32)>, at: Duration) -> CpuTimer {
    clock.timer().on_expiry(noting(log, |e| (e.at, e.used, e.overrun))).arm_at(at).unwrap()
}

pub(super) fn next(stream: &mut CpuTimerStream, wakes: &Arc<Wakes>) -> Option<(Duration, Duration, u32)> {
    let waker = wakes.clone().into();
    match Pin::new(stream).poll_next(&mut Context::from_waker(&waker)) {
        Poll::Ready(Some(e)) => Some((e.at, e.used, e.overrun)),
        Poll::Ready(None) => panic!("a group's clock does not end"),
        Poll::Pending => None,
    }
}

/// One poll of an account on a lease's thread.
pub(super) fn poll(lease: &Lease, manual: &Manual, account: &Account, used: Duration) -> bool {
    let mut run = lease.begin(account, lease.stamp());
    let mut goes_on = matches!(run.before_poll(), Control::Proceed);
    if goes_on {
        manual.advance(used);
        goes_on = matches!(run.after_poll(false), Control::Proceed);
    }
    run.end();
    account.watch().recheck();
    goes_on
}

pub(super) type Order = Box<dyn FnOnce(&Lease, &Manual) + Send>;

/// Threads that run what they are told, one thing at a time, each with a lease of its own.
pub(super) struct Threads {
    pub(super) manual: Manual,
    pub(super) orders: Vec<mpsc::Sender<Order>>,
    pub(super) done: mpsc::Receiver<()>,
}

impl Threads {
    pub(super) fn new(count: usize) -> Self {
        let manual = Manual::new();
        let (told, done) = mpsc::channel();
        let orders = (0..count).map(|_| {
            let (order, orders) = mpsc::channel::<Order>();
            let (manual, told) = (manual.clone(), told.clone());
            std::thread::spawn(move || {
                let lease = manual.meter().attach();
                lease.set_active();
                for order in orders {
                    order(&lease, &manual);
                    let _ = told.send(());
                }
            });
            order
        });
        Self { orders: orders.collect(), manual, done }
    }

    /// Has a thread start something, which may wait.
    pub(super) fn start(&self, thread: usize, order: impl FnOnce(&Lease, &Manual) + Send + 'static) {
        self.orders[thread].send(Box::new(order)).unwrap();
    }

    pub(super) fn wait(&self) {
        self.done.recv_timeout(Duration::from_secs(60)).expect("a thread has panicked or is stuck");
    }

    pub(super) fn run(&self, thread: usize, order: impl FnOnce(&Lease, &Manual) + Send + 'static) {
        self.start(thread, order);
        self.wait();
    }

    pub(super) fn poll(&self, thread: usize, account: &Arc<Account>, used: Duration) {
        let account = account.clone();
        self.run(thread, move |lease, manual| {
            poll(lease, manual, &account, used);
        });
    }
}

pub(super) fn account(group: &Group) -> Arc<Account> {
    let account = Account::new();
    account.set_group(group);
    Arc::new(account)
}
