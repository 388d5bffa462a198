//! The service thread: does what must happen although a poll does not end, and what the tick may not do itself.
//!
//! It waits, parked, until the tick hands it an account that it confirmed; then it delivers the timers that supervisors wait
//! for, and wakes tasks whose blocking jobs used up their time. Handlers of a task never run here: they are the task's own.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::thread::Thread;

use crate::cpu_clock;
use crate::meter::Inner;
use crate::panics;
use crate::poll_timers;
use crate::record;
use crate::scope::members;
use crate::slot::Target;
use crate::sum::Whole;
use crate::sync::{Ordering, lock};
use crate::thread;
use crate::wake_queue::Kinds;

/// What the tick asks for: an account, and whether its task has to be woken.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) wake_task: bool,
}

impl Request {
    const SOME: u64 = 1 << 63;
    const WAKE: u64 = 1 << 62;

    pub(crate) fn pack(self) -> u64 {
        self.target.pack() | Self::SOME | if self.wake_task { Self::WAKE } else { 0 }
    }

    fn unpack(word: u64) -> Option<Self> {
        (word & Self::SOME != 0).then(|| Self {
            target: Target::unpack(word & !(Self::SOME | Self::WAKE)),
            wake_task: word & Self::WAKE != 0,
        })
    }
}

/// How the tick reaches the thread.
#[derive(Debug, Default)]
pub(crate) struct Service {
    thread: OnceLock<Thread>,
    /// Told here too, since a waker that the thread calls may park, and so eat the token.
    called: AtomicBool,
}

impl Service {
    /// Calls it: an atomic exchange and, if it is parked, one system call. Never blocks.
    pub(crate) fn notify(&self) {
        self.called.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The calling thread is the one to be called. To be said before its first `wait`.
    pub(crate) fn is_this_thread(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Sleeps until it was called since the last time, or `stop`.
    pub(crate) fn wait(&self, stop: impl Fn() -> bool) {
        while !self.called.swap(false, Ordering::SeqCst) && !stop() {
            std::thread::park();
        }
    }
}

impl Inner {
    /// Serves every request that waits.
    pub(crate) fn serve(&self) {
        if self.total.id().take_asked() {
            Whole::Meter(self.total.id()).kick_if_nothing_runs();
        }
        for slot in thread::all_slots() {
            if slot.inbox.meter_id.load(Ordering::Acquire) != self.id {
                continue;
            }
            if slot.inbox.overdue.swap(0, Ordering::Acquire) != 0 {
                let hook = lock(&slot.inbox.on_overdue).clone();
                if let Some(hook) = hook {
                    panics::contain(|| {
                        (hook.0)();
                        drop(hook);
                    });
                }
            }
            for request in &slot.inbox.requests {
                if let Some(request) = Request::unpack(request.swap(0, Ordering::Acquire)) {
                    serve_one(request);
                }
            }
        }
    }
}

pub(crate) fn serve_one(request: Request) {
    serve_account(request);
    let Some(record) = record::at(request.target.index) else {
        return;
    };
    // If another account has the record by now, nothing is done to its scopes but what is due.
    for scope in members::around(record).take(members::SEEN).filter(|scope| !std::ptr::eq(*scope, record)) {
        let target = scope.target();
        if cpu_clock::read(scope, target)
            .is_some_and(|now_ns| now_ns >= scope.shared.next_expiry_ns.load(Ordering::Relaxed))
        {
            serve_account(Request { target, wake_task: true });
        }
    }
}

fn serve_account(Request { target, wake_task }: Request) {
    let Some(record) = record::at(target.index) else {
        return;
    };
    // Read anew: this thread has time, and what it decides by must belong to this account at this moment.
    let Some(now_ns) = cpu_clock::read(record, target) else {
        return;
    };
    let poll = if record.has_poll_timers() { poll_timers::in_progress(record) } else { None };
    let mut wakers = Vec::new();
    {
        let mut cold = record.cold.lock();
        if record.shared.wake.generation() != target.generation {
            return;
        }
        if let Some(timers) = cold.timers.as_mut() {
            timers.task.fire_remote(now_ns, &mut wakers);
            if let (Some(timers), Some(poll)) = (&mut timers.poll, poll)
                && poll.goes_on()
            {
                timers.enter(poll.seq);
                timers.set.fire_remote(poll.ns, &mut wakers);
            }
            record.refresh(&cold);
        }
    }
    for waker in wakers {
        panics::contain(|| waker.wake());
    }
    // With a reference: else the group could end behind the reading, and another one have the number, to whom it would say nothing.
    let group = record.hold_group();
    for whole in group.wholes() {
        let now_ns = whole.now_ns();
        if whole.sum().is_remote_due(now_ns) {
            whole.deliver_remote(now_ns);
        }
    }
    drop(group);
    if members::is_scope(record) && now_ns >= record.shared.hard_ns.load(Ordering::Relaxed) {
        members::exhaust(record, target.generation, None);
    }
    if wake_task {
        record.post_and_wake_target(target, Kinds::EXPIRY);
    }
}
