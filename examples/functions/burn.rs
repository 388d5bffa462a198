//! Native async work of a given size: many short polls, which no tick sees one by one.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use stipend::{current_clock, yield_now};

const SLICE: Duration = Duration::from_micros(100);

/// Works for this much CPU time of the current task, and returns what the task has used then.
pub(crate) async fn burn(total: Duration) -> Duration {
    let Some(clock) = current_clock() else { return Duration::ZERO };
    while clock.now() < total {
        let start = Instant::now();
        while start.elapsed() < SLICE {
            spin_loop();
        }
        // The clock moves at the end of a poll.
        yield_now().await;
    }
    clock.now()
}
