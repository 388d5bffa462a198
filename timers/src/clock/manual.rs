//! The manual clock: time stands still until a test moves it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Stamp;
use crate::thread::ThreadSlot;

/// Shared by a manual meter and the handle that moves it. CPU time is kept by thread, in the thread's slot.
#[derive(Debug, Default)]
pub(crate) struct ManualState {
    fast_ns: AtomicU64,
}

impl ManualState {
    pub(crate) fn fast(&self) -> u64 {
        self.fast_ns.load(Ordering::SeqCst)
    }

    pub(crate) fn stamp(&self, slot: &ThreadSlot) -> Stamp {
        Stamp { cpu_ns: slot.manual_cpu_ns(), fast: self.fast() }
    }

    pub(crate) fn advance_fast(&self, ns: u64) {
        self.fast_ns.fetch_add(ns, Ordering::SeqCst);
    }
}
