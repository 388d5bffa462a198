//! A fence whose price is paid by the side that seldom comes: `membarrier(2)`.
//!
//! Two threads that each store and then load what the other stores need a full fence between the two on both sides, or both may
//! miss the other's store. Where one of them does it with every poll and the other once in a while, Linux lets the second pay for
//! both: the system call has every running thread of the process execute a full barrier, and returns behind that. What is left for
//! the first is to keep the compiler from moving the load up.
//!
//! # Why that is as good as two fences
//! Let F be the moment of the barrier on the first thread: before the call returns, and behind its beginning. If F lies before that
//! thread's load, the load sees what the second thread had stored before the call. If F lies behind its load, then also behind its
//! store, which the second thread's loads behind the call therefore see. A thread that does not run has passed a full barrier when
//! it was switched out, or passes one when it is switched in (`Documentation/features/sched/membarrier-sync-core` and the comments
//! in `kernel/sched/membarrier.c`).
//!
//! A loom model knows no such call: there both sides are full fences.
//!
//! Measured: 0.6 us alone, 1.2 us beside another thread that runs.

#![allow(unsafe_code)]

#[cfg(loom)]
use crate::sync::{Ordering, fence};

/// The side that comes often. Costs no instruction.
#[inline(always)]
pub(crate) fn light() {
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// Whether [`heavy`] is to be had. Where it is not, the side that comes often has to fence too.
pub(crate) fn is_there() -> bool {
    imp::is_there()
}

/// The side that comes seldom: a full fence here, and on every other thread between two of its instructions.
pub(crate) fn heavy() {
    crate::sync::fence(crate::sync::Ordering::SeqCst);
    imp::call();
    crate::sync::fence(crate::sync::Ordering::SeqCst);
}

#[cfg(all(target_os = "linux", not(stipend_portable), not(loom)))]
mod imp {
    use std::sync::OnceLock;

    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the call takes three numbers, and touches no memory of the process.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub(super) fn is_there() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED))
    }

    pub(super) fn call() {
        // A process that has registered is not refused (a child of a fork, which has not, does not meter).
        let done = is_there() && membarrier(PRIVATE_EXPEDITED);
        debug_assert!(
            done || !is_there() || crate::clock::fork::is_child(),
            "membarrier is refused after it was granted"
        );
    }
}

#[cfg(not(all(target_os = "linux", not(stipend_portable), not(loom))))]
mod imp {
    pub(super) fn is_there() -> bool {
        cfg!(loom)
    }
    pub(super) fn call() {}
}
