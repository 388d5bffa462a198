//! Switch detectors: was the thread switched out since the anchor?

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// How switches are detected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detector {
    /// [`rseq`](super::rseq). Whether it sees the thread block, the self-test found out.
    Rseq { sees_blocking: bool },
    /// [`perf`](super::perf).
    Perf,
    /// Not at all: anchors are renewed by the guard, and after long polls.
    None,
    /// It need not be known: the CPU clock is read at every stamp.
    EveryStamp,
}

impl Detector {
    pub(crate) fn sees_blocking(self) -> bool {
        match self {
            Detector::Rseq { sees_blocking } => sees_blocking,
            Detector::Perf | Detector::EveryStamp => true,
            Detector::None => false,
        }
    }
}

/// One thread's end of a detector: a word, and how to set it anew.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sentinel {
    /// There is none; it looks whole always.
    None,
    /// It looks broken always.
    EveryStamp,
    /// A word that holds [`pointer_value`] until the thread is switched out.
    Pointer(NonNull<AtomicU64>),
    /// A word that changes when the thread is switched in.
    Counter(NonNull<AtomicU64>),
}

/// For sentinels without a word of their own; never written.
static NEVER_MOVES: AtomicU64 = AtomicU64::new(0);
/// A value that no sentinel's word ever has.
pub(crate) const NO_MATCH: u64 = u64::MAX;

impl Sentinel {
    /// The word to look at.
    pub(crate) fn word(self) -> NonNull<AtomicU64> {
        match self {
            Sentinel::None | Sentinel::EveryStamp => NonNull::from(&NEVER_MOVES),
            Sentinel::Pointer(word) | Sentinel::Counter(word) => word,
        }
    }

    /// Sets the sentinel, and returns what its word holds while the thread is not switched out.
    ///
    /// # Safety
    /// The calling thread is the sentinel's, and what came with it is kept.
    pub(crate) unsafe fn arm(self) -> u64 {
        match self {
            Sentinel::None => 0,
            Sentinel::EveryStamp => NO_MATCH,
            // SAFETY: valid by the caller's word.
            Sentinel::Counter(word) => unsafe { word.as_ref() }.load(Ordering::Relaxed),
            Sentinel::Pointer(word) => {
                let mine = pointer_value();
                // SAFETY: valid by the caller's word; all access to it in this process is atomic.
                unsafe { word.as_ref() }.store(mine, Ordering::Relaxed);
                mine
            }
        }
    }

    /// Whether the word still holds what `arm` returned.
    ///
    /// # Safety
    /// As for [`arm`](Self::arm).
    pub(crate) unsafe fn is_whole(self, expected: u64) -> bool {
        // SAFETY: valid by the caller's word, or static.
        unsafe { self.word().as_ref() }.load(Ordering::Relaxed) == expected
    }

    /// Takes back what `arm` set, so that the kernel does not look at it any more.
    ///
    /// # Safety
    /// As for [`arm`](Self::arm).
    pub(crate) unsafe fn disarm(self) {
        if let Sentinel::Pointer(word) = self {
            // Anybody else's is left. SAFETY: valid by the caller's word.
            let word = unsafe { word.as_ref() };
            if word.load(Ordering::Relaxed) == pointer_value() {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// What a [`Sentinel::Pointer`] is set to.
pub(crate) fn pointer_value() -> u64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
    return super::rseq::descriptor();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable))))]
    1
}

/// What a thread keeps open for its sentinel.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    #[cfg(all(target_os = "linux", not(stipend_portable)))]
    _page: Option<super::perf::PerfPage>,
}

/// The calling thread's sentinel, valid while what comes with it is kept. A thread that cannot have one does without: its
/// anchors are renewed by the guard.
pub(crate) fn sentinel(detector: Detector) -> (Detector, Sentinel, Keep) {
    match detector {
        Detector::None => (detector, Sentinel::None, Keep::default()),
        Detector::EveryStamp => (detector, Sentinel::EveryStamp, Keep::default()),
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable)))]
        Detector::Rseq { .. } => match super::rseq::field() {
            Some(word) => (detector, Sentinel::Pointer(word), Keep::default()),
            None => (Detector::None, Sentinel::None, Keep::default()),
        },
        #[cfg(all(target_os = "linux", not(stipend_portable)))]
        Detector::Perf => match super::perf::PerfPage::open() {
            Ok(page) => (detector, Sentinel::Counter(page.word()), Keep { _page: Some(page) }),
            Err(_) => (Detector::None, Sentinel::None, Keep::default()),
        },
        #[cfg(not(all(target_os = "linux", not(stipend_portable))))]
        Detector::Perf => (Detector::None, Sentinel::None, Keep::default()),
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(stipend_portable))))]
        Detector::Rseq { .. } => (Detector::None, Sentinel::None, Keep::default()),
    }
}
