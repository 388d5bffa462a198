//! Who runs what, and who sleeps.
//!
//! * [`queue`]: the queues that workers own and thieves take from, and the injector for everybody else. First in, first out, and
//!   *all* of it open to thieves at any time: no slot and no batch is reachable by its owner only, so a poll that never
//!   returns strands nothing.
//! * [`lanes`]: a worker's queues, one for each group, and whose turn it is. [`shares`]: how much each group has had.
//! * [`idle`]: how many workers sleep, how many search, and whom to wake, without losing a wake-up and without waking
//!   everybody.
//! * [`parker`]: how a worker without the reactor sleeps.

pub(crate) mod idle;
#[cfg(not(loom))]
pub(crate) mod lanes;
pub(crate) mod parker;
#[cfg(not(loom))]
pub(crate) mod queue;
#[cfg(not(loom))]
pub(crate) mod shares;
#[cfg(not(loom))]
mod table;

#[cfg(all(test, loom))]
mod models;
