//! A reading that is made only if somebody wants it.

use crate::cpu_clock::CpuClock;
use crate::sum::Whole;

/// What the clock reads, for who needs it: a reading may be a look at every thread.
#[derive(Clone, Copy)]
pub(crate) enum Now<'a> {
    Is(u64),
    By(&'a CpuClock),
    Of(Whole),
}

impl Now<'_> {
    #[inline]
    pub(crate) fn ns(self) -> u64 {
        match self {
            Now::Is(ns) => ns,
            Now::By(clock) => clock.now_ns(),
            Now::Of(whole) => whole.now_ns(),
        }
    }
}

impl From<u64> for Now<'_> {
    fn from(ns: u64) -> Self {
        Now::Is(ns)
    }
}
