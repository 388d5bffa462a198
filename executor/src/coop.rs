//! Where leaf futures yield when their task's slice is over.
//!
//! A task whose sockets are always ready never returns `Pending` by itself and would hold its worker for as long
//! as the other side keeps sending. So every leaf future of this crate asks its [`Courtesy`] before it tries
//! anything: while there is budget that is two loads, and after the slice's end the task goes back to the run
//! queue. Nothing has been tried at that point, so nothing is lost.
//!
//! Invariant: a leaf yields at most once between two attempts. A slice is CPU time, not a count, and a poll may use
//! it up *before* it comes to its leaf, in every poll again (`read_to_end` of a large buffer in a debug build does).
//! Such a task would be sent back for ever; as it is, it gets on at every second poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Whether a leaf has yielded since its last attempt. One for each thing that can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Courtesy {
    // Relaxed everywhere: it guards nothing, and if two tasks on one leaf mix their turns up, one of them yields
    // once more or once less.
    yielded: AtomicBool,
}

impl Courtesy {
    /// Ready if the leaf may make an attempt; otherwise schedules the task again and is pending.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let yielded = self.yielded.load(Ordering::Relaxed);
        if !yielded && !stipend_timers::has_budget() {
            self.yielded.store(true, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if yielded {
            self.yielded.store(false, Ordering::Relaxed);
        }
        Poll::Ready(())
    }
}
