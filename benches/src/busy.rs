//! Busy processes beside the measurement: other people's load.
//!
//! Processes and not threads, as the scheduler may divide time by process, and so that none of their time is the bench's.

use crate::child::{Role, Running};

/// The role of such a child, for [`child::serve`](crate::child::serve).
pub const ROLE: Role = ("busy", burn);

fn burn(_: &[String]) {
    loop {
        std::hint::black_box((0..10_000_u64).fold(0, |sum: u64, n| sum.rotate_left(5) ^ n));
    }
}

/// Starts so many; they end when the value is dropped.
#[must_use]
pub fn processes(count: usize) -> Vec<Running> {
    (0..count).map(|_| Running::start(ROLE.0, &[])).collect()
}
