//! The perf page: a counter in a mapped page that moves whenever the thread is switched in.
//!
//! A software event that counts nothing (`PERF_COUNT_SW_DUMMY`) is opened for the thread and its first page mapped. The kernel
//! updates that page, and with it the page's sequence lock, each time the event is scheduled in, hence at every switch, blocking
//! or not (`perf_event_update_userpage`, `kernel/events/core.c`). The price is the kernel's: 1.1 us at each switch, and a file
//! descriptor a thread. Containers often forbid the call (seccomp, `perf_event_paranoid`); then there is no page.
//!
//! The page is not in a forked child (`VM_DONTCOPY`): see [`fork`](super::fork).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// `struct perf_event_attr` as of its first version, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
/// Flags: `exclude_kernel` and `exclude_hv`, which an unprivileged process has to set.
const EXCLUDE_KERNEL_AND_HV: u64 = 1 << 5 | 1 << 6;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `lock` and `index` of `struct perf_event_mmap_page`, read as one word: `index` of a software event never moves.
const LOCK: usize = 8;
const PAGE: usize = 4096;

/// The mapped page of the thread that opened it.
#[derive(Debug)]
pub(crate) struct PerfPage {
    page: NonNull<u8>,
    _event: OwnedFd,
}

impl PerfPage {
    /// Opens the event for the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_DUMMY,
            flags: EXCLUDE_KERNEL_AND_HV,
            ..Attributes::default()
        };
        // SAFETY: the attributes are valid for the call and of the size they say; this thread (0), any processor (-1), no group.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, event.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or_else(|| io::Error::other("the perf page was mapped at 0"))?;
        Ok(Self { page, _event: event })
    }

    /// The word that moves. Valid as long as `self`.
    pub(crate) fn word(&self) -> NonNull<AtomicU64> {
        // SAFETY: within the page, and aligned as pages are.
        unsafe { self.page.add(LOCK) }.cast()
    }
}

impl Drop for PerfPage {
    fn drop(&mut self) {
        if super::fork::is_child() {
            // The page did not come along.
            return;
        }
        // SAFETY: our mapping, and the clock that looked at it was detached by whoever drops this.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}
