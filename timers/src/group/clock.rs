//! The CPU clock of a group.

use std::time::Duration;

use super::Group;
use crate::host::Host;
use crate::sleep::CpuSleep;
use crate::timer::TimerBuilder;

/// The CPU time of a group: of all its members and those of its child groups, live and ended, their blocking jobs included. From
/// [`Group::cpu_clock`].
///
/// # Timers
/// They are the same as on a task's clock. A *handler* runs at the poll boundary of the member that finds it due, on that member's
/// time, as the kernel expires a process's timers in whichever of its threads comes back to user space first. One that panics ends
/// that member, and one that answers [`Action::Cancel`](crate::Action::Cancel) cancels it. One thread at a time runs a group's
/// handlers. If a time is past when it is armed for, a member is woken.
///
/// *Streams and sleeps*, for whoever watches from outside, are told also while no member's poll ends.
///
/// A timer is never early by the group's account, and late by at most the polls in progress.
///
/// The clock lives as long as a handle to it or to a timer on it, so that nothing on it ever answers `Exited`.
///
/// # What it costs
/// A poll of a member, one comparison; while anything is armed, a fence and a second one. Arming the first timer costs a
/// system call (`membarrier`, about 1 us).
///
/// ```
/// use std::time::Duration;
/// use futures::executor::block_on;
/// use stipend_timers::test::Manual;
/// use stipend_timers::{Group, Metered};
///
/// let ms = Duration::from_millis;
/// let manual = Manual::new();
/// let _lease = manual.meter().attach();
///
/// let tenant = Group::new("tenant-a")?;
/// let used_up = tenant.cpu_clock().sleep(ms(50));
/// for _ in 0..3 {
///     let job = Metered::new(async { manual.advance(ms(20)) });
///     job.account().set_group(&tenant);
///     block_on(job).unwrap();
/// }
/// block_on(used_up).unwrap();
/// assert_eq!(tenant.cpu_clock().now(), ms(60));
/// # Ok::<(), stipend_timers::GroupError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupClock {
    group: Group,
}

impl GroupClock {
    pub(super) fn of(group: Group) -> Self {
        Self { group }
    }

    fn host(&self) -> Host {
        Host::Group(self.group.clone())
    }

    /// The CPU time used so far, the polls in progress included. Never goes back.
    ///
    /// Costs a few loads for each thread, and a system call for each that is in a member's poll.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.host().now_ns())
    }

    /// The smallest step of the clock.
    pub fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    /// A new timer on this clock.
    pub fn timer(&self) -> TimerBuilder {
        TimerBuilder::new(self.host())
    }

    /// Waits until the group has used this much more CPU time, even if none of its polls returns. A member may sleep on its own
    /// group's clock; it wakes only if others use it up. The output is never an error: the clock lives as long as this.
    ///
    /// # Cancel safety
    /// Dropping the future releases it; nothing is lost.
    pub fn sleep(&self, duration: Duration) -> CpuSleep {
        CpuSleep::for_the_next(self.host(), duration)
    }

    /// Waits until the clock reads `at`. A time in the past is over at once. See [`sleep`](Self::sleep).
    ///
    /// # Cancel safety
    /// As for [`sleep`](Self::sleep).
    pub fn sleep_until(&self, at: Duration) -> CpuSleep {
        CpuSleep::until(self.host(), at)
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }
}
