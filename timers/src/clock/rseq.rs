//! The rseq sentinel: a pointer that the kernel clears when it switches the thread out.
//!
//! # The kernel's contract
//! A thread that has registered a `struct rseq` (`include/uapi/linux/rseq.h`; glibc does it for every thread since 2.35) can name
//! a *restartable sequence*, a range of code, through the field `rseq_cs`. When the kernel has preempted or migrated the thread
//! or delivered it a signal, it looks at that field on the way back to user space: if the instruction pointer lies inside the
//! range, it diverts the thread to the abort address; **if it lies outside, it clears the field** (`rseq_ip_fixup`,
//! `clear_rseq_cs` in `kernel/rseq.c`: "clears the rseq_cs field … when preempted outside of the critical section, thus
//! lazily"). So: name a range in which no code ever runs. The field is ours as long as the thread was not switched out, at the
//! price of one load.
//!
//! What the kernel checks on that way, under pain of `SIGSEGV`, and how the descriptor here answers:
//! * the descriptor is readable, its `version` 0, `start_ip`, their sum with `post_commit_offset`, and `abort_ip` are user
//!   addresses: they all point into the descriptor's own allocation;
//! * `abort_ip` lies outside the range: the range is one byte of it;
//! * the four bytes before `abort_ip` are the signature that the thread registered with: [`SIGNATURE`], glibc's;
//! * it stays mapped: it lives in a leaked allocation, not in this library's data, which may be unloaded; and the field is taken
//!   back when the thread gives its slot back ([`ThreadClock::detach`](super::thread_clock::ThreadClock::detach)).
//!
//! # Blocking
//! Up to Linux 6.18 every switch counts (`rseq_preempt` in `prepare_task_switch`), also when the thread blocks in a system call.
//! The rework of 2025-26 (Linux 6.19) looks at the field only if user code was *interrupted*, since a system call inside a
//! sequence is forbidden anyway; a registration of the legacy size keeps more of the old behaviour than the extensible "V2"
//! one. We do not rely on either: the [self-test](super::selftest) blocks once and looks, and where blocking is not seen the
//! CPU clock is read after every poll above 40 us.
//!
//! # Other users of the field
//! Whoever enters a sequence of their own (tcmalloc, librseq, glibc's `sched_getcpu` does not) overwrites the field. It then
//! does not hold our pointer, which reads as "switched": safe, at the price of a read of the CPU clock. We overwrite theirs only
//! at an anchor, in code of ours, hence outside of their sequences. musl, and glibc with `GLIBC_TUNABLES=glibc.pthread.rseq=0`,
//! register nothing; then there is no sentinel, and we do not register one ourselves, since the next library that tries would
//! fail.
//!
//! # fork
//! The child's thread keeps the registration, and its copy of the descriptor.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

/// `RSEQ_SIG` of glibc on x86 (`sysdeps/unix/sysv/linux/x86/bits/rseq.h`).
const SIGNATURE: u32 = 0x5305_3053;
/// Where `rseq_cs` lies in `struct rseq`.
const RSEQ_CS: usize = 8;

/// `struct rseq_cs`, and the place that it names.
#[repr(C, align(32))]
struct Descriptor {
    version: u32,
    flags: u32,
    start_ip: u64,
    post_commit_offset: u64,
    abort_ip: u64,
    /// Never executed: a byte for the range, the signature, and a byte for the abort address.
    range: [u8; 12],
    signature: u32,
    abort: [u8; 16],
}

/// The address of the process's descriptor: what the field holds while the thread was not switched out.
pub(crate) fn descriptor() -> u64 {
    static DESCRIPTOR: OnceLock<u64> = OnceLock::new();
    *DESCRIPTOR.get_or_init(|| {
        let descriptor = Box::leak(Box::new(Descriptor {
            version: 0,
            flags: 0,
            start_ip: 0,
            post_commit_offset: 1,
            abort_ip: 0,
            range: [0; 12],
            signature: SIGNATURE,
            abort: [0; 16],
        }));
        descriptor.start_ip = std::ptr::from_ref(&descriptor.range).addr() as u64;
        descriptor.abort_ip = std::ptr::from_ref(&descriptor.abort).addr() as u64;
        // The kernel reads it behind the compiler's back.
        std::ptr::from_mut(descriptor).expose_provenance() as u64
    })
}

/// The calling thread's `rseq_cs` field. `None`: nothing is registered.
pub(crate) fn field() -> Option<NonNull<AtomicU64>> {
    let offset = registration()?;
    let thread_pointer: usize;
    // SAFETY: on x86-64 Linux the word at fs:0 is the thread pointer's own value (the TCB's self pointer, required by the ABI's
    // TLS model, and by glibc, which is what exported the symbols that got us here).
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) thread_pointer, options(nostack, readonly, preserves_flags)) };
    let area = thread_pointer.wrapping_add_signed(offset);
    NonNull::new(std::ptr::with_exposed_provenance_mut(area + RSEQ_CS))
}

/// The offset of the area from the thread pointer, if glibc has registered it.
fn registration() -> Option<isize> {
    static OFFSET: OnceLock<Option<isize>> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let offset = symbol(c"__rseq_offset")?.cast::<isize>();
        let size = symbol(c"__rseq_size")?.cast::<u32>();
        // SAFETY: glibc's manual ("Restartable Sequences") gives these symbols as `const ptrdiff_t` and `const unsigned int`,
        // set before any code of ours runs and never changed.
        let (offset, size) = unsafe { (*offset.as_ptr(), *size.as_ptr()) };
        // Zero: registration failed or was switched off by the tunable.
        (size > 0).then_some(offset)
    })
}

fn symbol(name: &std::ffi::CStr) -> Option<NonNull<libc::c_void>> {
    // SAFETY: the name is a C string, and the default scope is always there to search.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}
