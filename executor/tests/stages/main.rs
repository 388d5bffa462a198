//! What may happen to a task from outside, wakes, aborts, a handle that is polled or dropped, at each stage of its life.
//!
//! The test holds the task inside its poll and says how that ends, so each stage is met with certainty and not by timing.

#[path = "../bounded/mod.rs"]
mod bounded;
#[path = "../common/mod.rs"]
mod common;
mod handles;
mod held;
mod runtimes;
mod spawning;
mod wakes;
