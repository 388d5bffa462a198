//! One timer: what it is armed for, and who hears of it.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::stream::Inbox;

/// What one delivery tells its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Expiry {
    /// The clock's CPU time at the delivery; never below `at`.
    pub used: Duration,
    /// The CPU time for which the timer was armed.
    pub at: Duration,
    /// How many further intervals of a periodic timer passed before this delivery; saturates (POSIX `timer_getoverrun`).
    pub overrun: u32,
}

/// What a handler answers. `()` is `Continue`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Action {
    /// Go on.
    #[default]
    Continue,
    /// Cancel the task before its next poll.
    Cancel,
    /// Arm this timer again, to fire after this much more CPU time. Zero leaves it as it is.
    RearmAfter(Duration),
}

impl From<()> for Action {
    fn from((): ()) -> Self {
        Action::Continue
    }
}

/// A handler, run on the account's own time.
pub(crate) type Handler = Box<dyn FnMut(Expiry) -> Action + Send>;

/// Who hears of an expiry.
pub(crate) enum Delivery {
    /// The boundary runs it. `None` while it is out.
    Handler(Option<Handler>),
    /// A supervisor is woken, by whoever finds the expiry first.
    Supervisor { waker: Option<Waker> },
    /// The same, for a stream: what fires is left in its inbox, which outlives the account.
    Stream(Box<Ear>),
    /// Nobody: the timer is only read.
    Silent,
}

/// A stream's. In a box, so that the other timers, of which there may be many more, are small.
pub(crate) struct Ear {
    pub(super) waker: Option<Waker>,
    pub(super) inbox: Arc<Inbox>,
}

impl Delivery {
    /// To a stream that looks into this inbox.
    pub(crate) fn stream(inbox: Arc<Inbox>) -> Self {
        Self::Stream(Box::new(Ear { waker: None, inbox }))
    }
}

pub(super) struct Timer {
    /// The next expiry.
    pub(super) at_ns: u64,
    pub(super) interval_ns: u64,
    /// Of the last delivery.
    pub(super) overrun: u32,
    pub(super) firing: bool,
    pub(super) closing: bool,
    /// Armed again when its clock starts anew: see `Restarting`.
    pub(super) has_fired: bool,
    /// A supervisor has not heard of it yet.
    pub(super) is_news: bool,
    /// Another with each arming, and in no other timer of the set: so that what a handler answers does not undo an arming that
    /// happened meanwhile, and a timer is told from a later one with the same id.
    pub(super) stamp: u64,
    pub(super) delivery: Delivery,
}

impl Timer {
    /// Discards an expiry that was not delivered yet.
    pub(super) fn forget(&mut self) {
        self.is_news = false;
        if let Delivery::Stream(ear) = &self.delivery {
            ear.inbox.take();
        }
    }
}

/// What armed a timer before: time left and interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// CPU time left until the next expiry, relative also for an absolute timer; zero if disarmed, else at least 1 ns.
    pub remaining: Duration,
    /// The interval of a periodic timer; zero otherwise.
    pub interval: Duration,
}
