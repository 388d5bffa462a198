//! The time stamp counter of x86-64.

#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Reads it: 10 ns on the virtual machines this was written on, less on bare metal.
#[inline]
pub(crate) fn read() -> u64 {
    // SAFETY: every x86-64 processor has the instruction. The kernel could forbid it to user space (`PR_SET_TSC`), which is
    // asked for nowhere but in a few sandboxes, and ends the process with a signal rather than with a wrong value.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether it counts time: constant in all states by the processor's word, and trusted by the kernel.
pub(crate) fn is_trusted() -> bool {
    static TRUSTED: OnceLock<bool> = OnceLock::new();
    *TRUSTED.get_or_init(|| is_invariant() && is_the_kernels_clock())
}

fn is_invariant() -> bool {
    use core::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    __cpuid(EXTENDED).eax >= POWER && __cpuid(POWER).edx & INVARIANT_TSC != 0
}

/// The kernel checks the counters of all processors against each other and against other clocks, and drops `tsc` if they differ.
fn is_the_kernels_clock() -> bool {
    std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .is_ok_and(|name| name.trim() == "tsc")
}
