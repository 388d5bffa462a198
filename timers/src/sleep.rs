//! Waiting until a CPU clock has come to a time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::SleepError;
use crate::host::Host;
use crate::record::NEVER;
use crate::timer_set::{Closed, Delivery};
use crate::units::nanos;

/// Future of [`CpuClock::sleep`](crate::CpuClock::sleep) and its like.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct CpuSleep {
    host: Host,
    at_ns: u64,
    /// Registered at the first poll.
    timer: Option<u32>,
}

impl CpuSleep {
    /// Until the clock has gone on by that much.
    pub(crate) fn for_the_next(host: Host, duration: Duration) -> Self {
        let at_ns = host.now_ns().saturating_add(nanos(duration));
        Self::at(host, at_ns)
    }

    /// Until the clock shows that.
    pub(crate) fn until(host: Host, at: Duration) -> Self {
        Self::at(host, nanos(at))
    }

    fn at(host: Host, at_ns: u64) -> Self {
        // A time that never comes: only the end of the clock can end it.
        Self { host, at_ns: at_ns.min(NEVER - 1), timer: None }
    }
}

impl Future for CpuSleep {
    type Output = Result<(), SleepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.host.now_ns() >= self.at_ns {
            return Poll::Ready(Ok(()));
        }
        if self.host.is_own() {
            return Poll::Ready(Err(SleepError::OwnClock));
        }
        let (at_ns, mut timer) = (self.at_ns, self.timer);
        // Cloned outside the lock, where the one before is dropped too.
        let mut waker = Some(cx.waker().clone());
        let fired = self.host.change(|timers, now| {
            let id = *timer.get_or_insert_with(|| {
                let id = timers.insert(Delivery::Supervisor { waker: None });
                timers.arm(id, at_ns, 0, now);
                id
            });
            // Fired, and yet the clock above read less: the reading was older. It has come.
            timers.poll_fired(id, &mut waker)
        });
        self.timer = timer;
        match fired {
            None => Poll::Ready(Err(SleepError::Exited)),
            Some(true) => Poll::Ready(Ok(())),
            Some(false) => {
                self.host.kick_if_due();
                Poll::Pending
            }
        }
    }
}

impl Drop for CpuSleep {
    fn drop(&mut self) {
        let Some(id) = self.timer.take() else { return };
        if let Some(Closed::Done(delivery)) = self.host.change(|timers, _| timers.close(id)) {
            crate::panics::contain(|| drop(delivery));
        }
    }
}
