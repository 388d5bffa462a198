//! Who runs what, and who sleeps.
//!
//! * [`queue`]: one run queue a worker and one injector for everybody else. First in, first out, and *all* of it open
//!   to thieves at any time: no slot and no batch is reachable by its owner only, so a poll that never returns strands
//!   nothing.
//! * [`idle`]: how many workers sleep, how many search, and whom to wake, without losing a wake-up and without waking
//!   everybody.
//! * [`parker`]: how a worker without the reactor sleeps.

pub(crate) mod idle;
pub(crate) mod parker;
#[cfg(not(loom))]
pub(crate) mod queue;

#[cfg(all(test, loom))]
mod models;
