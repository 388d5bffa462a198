//! The same script against a POSIX CPU timer of the kernel and one of ours: deliveries, overruns and readings agree.
//!
//! The kernel's are on the CPU clock of the thread (`timer_create(CLOCK_THREAD_CPUTIME_ID)`), ours on that of a task whose polls are
//! all that the thread does. The kernel looks at a thread's timers in its tick, so it may be late by some ticks, and is waited for;
//! neither may be early, lose an interval, or read another time left.

#![cfg(all(target_os = "linux", not(stipend_portable)))]
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use stipend_timers::{Account, CpuClock, CpuTimer, Meter, Setting};

#[path = "common/real.rs"]
mod real;
use real::{burn, poll, thread_cpu};

/// How far readings of the two may lie apart: they are made one after the other.
const APART: Duration = Duration::from_millis(1);
/// CPU time in which the kernel's tick meets this thread. Beside four busy processes it missed it for 344 ms once.
const TICK: Duration = Duration::from_secs(10);

const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn to_duration(time: libc::timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn to_timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos().into() }
}

/// A timer of the kernel whose signal is blocked, and collected by hand.
struct Theirs {
    id: libc::timer_t,
    /// `None`: it is only read (`SIGEV_NONE`).
    signal: Option<libc::c_int>,
}

impl Theirs {
    fn new(signal: Option<libc::c_int>) -> Self {
        // SAFETY: all of `sigevent` is integers and a pointer that is not used, for which zero is valid.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        match signal {
            Some(signal) => {
                event.sigev_notify = libc::SIGEV_THREAD_ID;
                event.sigev_signo = signal;
                // SAFETY: takes nothing and returns the caller's thread id.
                event.sigev_notify_thread_id = unsafe { libc::gettid() };
                let mut set = signal_set(signal);
                // SAFETY: the set is valid for the call; the old mask is not asked for. Only this thread is affected.
                assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw mut set, std::ptr::null_mut()) }, 0);
            }
            None => event.sigev_notify = libc::SIGEV_NONE,
        }
        let mut id = MaybeUninit::uninit();
        // SAFETY: both pointers are valid for the call.
        let made = unsafe { libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, id.as_mut_ptr()) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the call succeeded and has written it.
        Self { id: unsafe { id.assume_init() }, signal }
    }

    /// Returns the setting before.
    fn set(&self, absolute: bool, value: Duration, interval: Duration) -> Setting {
        let new = libc::itimerspec { it_value: to_timespec(value), it_interval: to_timespec(interval) };
        let mut old = MaybeUninit::uninit();
        let flags = if absolute { libc::TIMER_ABSTIME } else { 0 };
        // SAFETY: the timer exists as long as `self`; both pointers are valid for the call.
        assert_eq!(unsafe { libc::timer_settime(self.id, flags, &raw const new, old.as_mut_ptr()) }, 0);
        // SAFETY: the call succeeded and has written it.
        setting(unsafe { old.assume_init() })
    }

    fn get(&self) -> Setting {
        let mut now = MaybeUninit::uninit();
        // SAFETY: the timer exists as long as `self`; the pointer is valid for the call.
        assert_eq!(unsafe { libc::timer_gettime(self.id, now.as_mut_ptr()) }, 0);
        // SAFETY: the call succeeded and has written it.
        setting(unsafe { now.assume_init() })
    }

    /// Collects what was delivered: the sum of 1 + overrun.
    fn take(&self) -> u64 {
        let Some(signal) = self.signal else { return 0 };
        let (set, at_once) = (signal_set(signal), to_timespec(Duration::ZERO));
        let mut sum = 0;
        // SAFETY: the pointers are valid for the call; what was received is not asked for.
        while unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const at_once) } == signal {
            // SAFETY: the timer exists as long as `self`.
            let overrun = unsafe { libc::timer_getoverrun(self.id) };
            sum += 1 + u64::try_from(overrun).expect("the timer exists");
        }
        sum
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: it was made by `timer_create` and is deleted once.
        unsafe { libc::timer_delete(self.id) };
    }
}

fn signal_set(signal: libc::c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initializes the set, and the signal is a valid number.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        set.assume_init()
    }
}

fn setting(spec: libc::itimerspec) -> Setting {
    Setting { remaining: to_duration(spec.it_value), interval: to_duration(spec.it_interval) }
}

/// What one side has been told since it was armed, beside the grid that it was armed for.
#[derive(Clone, Copy, Default)]
struct Grid {
    /// The first expiry, on the side's own clock, lies between these.
    first: Option<(Duration, Duration)>,
    interval: Duration,
}

impl Grid {
    /// How many expiries there were until `now`: at least and at most.
    fn elapsed(&self, now: Duration) -> (u64, u64) {
        let until = |first: Duration| match now.checked_sub(first) {
            None => 0,
            Some(_) if self.interval.is_zero() => 1,
            Some(since) => 1 + (since.as_nanos() / self.interval.as_nanos()) as u64,
        };
        self.first.map_or((0, 0), |(earliest, latest)| (until(latest), until(earliest)))
    }
}

/// One timer of each.
struct Pair {
    theirs: Theirs,
    ours: CpuTimer,
    clock: CpuClock,
    delivered: Arc<AtomicU64>,
    grids: [Grid; 2],
    taken: u64,
    /// How late the kernel was at worst.
    late: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    After(Duration),
    Every(Duration, Duration),
    /// Before or after now, by the task's clock.
    At(i64),
    Disarm,
    Read,
}

impl Pair {
    fn new(account: &Account, signal: Option<libc::c_int>) -> Self {
        let delivered = Arc::<AtomicU64>::default();
        let count = delivered.clone();
        let clock = account.clock();
        let timer = clock.timer();
        let ours = match signal {
            None => timer,
            Some(_) => timer.on_expiry(move |expiry| {
                assert!(expiry.used >= expiry.at, "early");
                count.fetch_add(1 + u64::from(expiry.overrun), SeqCst);
            }),
        };
        let ours = ours.build().unwrap();
        Self {
            theirs: Theirs::new(signal),
            ours,
            clock,
            delivered,
            grids: Default::default(),
            taken: 0,
            late: Duration::ZERO,
        }
    }

    /// Does the same to both, in the middle of a poll, and compares what they answer.
    fn apply(&mut self, op: Op, offset: Duration) {
        let before = self.pending();
        let own_now = || self.clock.now();
        let (from, own_from) = (thread_cpu(), own_now());
        let (theirs, ours, first, interval) = match op {
            Op::After(after) => (
                self.theirs.set(false, after, Duration::ZERO),
                self.ours.arm_after(after).unwrap(),
                Some((after, true)),
                Duration::ZERO,
            ),
            Op::Every(after, every) => (
                self.theirs.set(false, after, every),
                self.ours.arm_every(after, every).unwrap(),
                Some((after, true)),
                every,
            ),
            Op::At(by_us) => {
                let at = own_from.saturating_sub(us((-by_us).max(0) as u64)) + us(by_us.max(1) as u64);
                let theirs = self.theirs.set(true, at + offset, Duration::ZERO);
                (theirs, self.ours.arm_at(at).unwrap(), Some((at, false)), Duration::ZERO)
            }
            Op::Disarm => {
                (self.theirs.set(false, Duration::ZERO, Duration::ZERO), self.ours.disarm(), None, Duration::ZERO)
            }
            Op::Read => (self.theirs.get(), self.ours.setting(), None, Duration::ZERO),
        };
        self.compare(theirs, ours, before, op);
        if matches!(op, Op::Read) {
            return;
        }
        let (until, own_until) = (thread_cpu(), own_now());
        let bounds = |from: Duration, until: Duration, offset: Duration| {
            first.map(|(value, relative)| match relative {
                true => (from + value, until + value),
                false => (value + offset, value + offset),
            })
        };
        self.grids = [
            Grid { first: bounds(from, until, offset), interval },
            Grid { first: bounds(own_from, own_until, Duration::ZERO), interval },
        ];
        self.taken = 0;
        self.delivered.store(0, SeqCst);
    }

    /// Whether the kernel has yet to deliver an expiry, or may have: it then reads 1 ns.
    fn pending(&mut self) -> bool {
        self.take();
        self.taken < self.grids[0].elapsed(thread_cpu() + APART).1
    }

    fn compare(&self, theirs: Setting, ours: Setting, pending: bool, op: Op) {
        assert_eq!(theirs.interval, ours.interval, "{op:?}: {theirs:?} {ours:?}");
        let (a, b, interval) = (theirs.remaining, ours.remaining, ours.interval);
        let apart = a.abs_diff(b);
        // On either side of an expiry they differ by an interval.
        let agree = apart <= APART || !interval.is_zero() && interval.abs_diff(apart) <= APART;
        // An expiry that waits for the tick or for the boundary.
        let waits = pending && (a <= us(1) || b <= us(1));
        assert!(agree || waits, "{op:?}: the kernel's {theirs:?}, ours {ours:?}");
        if self.grids[1].first.is_none() {
            assert_eq!((a, b), (Duration::ZERO, Duration::ZERO), "disarmed");
        }
    }

    fn take(&mut self) {
        let now = thread_cpu();
        self.taken += self.theirs.take();
        let most = self.grids[0].elapsed(now + APART).1;
        assert!(self.taken <= most, "the kernel told of {} expiries of {most}", self.taken);
    }

    /// Behind a boundary: ours has told of every expiry up to it, and of none too many.
    fn check_ours(&self, used: Duration) {
        if self.theirs.signal.is_some() {
            let (least, most) = self.grids[1].elapsed(used);
            let told = self.delivered.load(SeqCst);
            assert!((least..=most).contains(&told), "told of {told} expiries of {least} to {most}");
        }
    }

    /// Waits for the kernel's tick, using CPU time: it tells of everything up to now.
    fn check_theirs(&mut self) {
        if self.theirs.signal.is_none() {
            return;
        }
        let begun = thread_cpu();
        let least = self.grids[0].elapsed(begun).0;
        self.take();
        while self.taken < least {
            let late = thread_cpu() - begun;
            assert!(late < TICK, "the kernel has told of {} expiries of {least} after {late:?}", self.taken);
            self.late = self.late.max(late);
            burn(us(200));
            self.take();
        }
    }
}

/// xorshift: the same script in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn op(&mut self) -> Op {
        let after = us(self.one_of(&[1, 300, 1_000, 4_000, 9_000, 30_000]) + self.below(500));
        let interval = us(self.one_of(&[100, 1_000, 3_000, 10_000, 25_000]) + self.below(100));
        match self.below(8) {
            0 | 1 => Op::After(after),
            2 | 3 => Op::Every(after, interval),
            4 => Op::At(self.one_of(&[-20_000, -1, 500, 6_000])),
            5 => Op::Disarm,
            _ => Op::Read,
        }
    }
}

fn script(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let meter = Meter::builder().build().unwrap();
    let lease = meter.attach();
    lease.set_active();
    let account = Account::new();
    let mut pairs = [
        Pair::new(&account, Some(libc::SIGRTMIN() + 1)),
        Pair::new(&account, Some(libc::SIGRTMIN() + 2)),
        Pair::new(&account, None),
    ];
    let mut offset = Duration::ZERO;
    let mut at = poll(&lease, &account, lease.stamp(), || {
        offset = thread_cpu() - account.clock().now();
    });
    for _ in 0..steps {
        let changed = random.below(3) as usize;
        let op = random.op();
        // What has expired is delivered on both sides before it is armed anew, which would forget it.
        if !matches!(op, Op::Read) {
            at = poll(&lease, &account, at, || pairs[changed].check_theirs());
        }
        at = poll(&lease, &account, at, || {
            pairs[changed].apply(op, offset);
            burn(us(random.below(8_000)));
            if random.below(4) == 0 {
                std::thread::sleep(us(random.below(3_000)));
            }
            pairs.iter_mut().for_each(|pair| pair.apply(Op::Read, offset));
        });
        for pair in &pairs {
            pair.check_ours(account.usage().cpu);
        }
        if random.below(4) == 0 {
            std::thread::sleep(us(random.below(5_000)));
        }
    }
    poll(&lease, &account, at, || pairs.iter_mut().for_each(Pair::check_theirs));
    let (used, truly) = (account.clock().now(), thread_cpu() - offset);
    assert!(used.abs_diff(truly) <= truly / 100 + APART, "the task's clock reads {used:?}, the kernel's {truly:?}");
    println!("seed {seed}: {used:?} of CPU, the kernel late by {:?}", pairs.each_ref().map(|pair| pair.late));
}

#[test]
fn t01_t04_t28_t29_t32_t33_t34_t35_t40_t43_t45_t46_any_script_agrees_with_the_kernels_timers() {
    for seed in 1..=6 {
        script(seed, if cfg!(debug_assertions) { 60 } else { 200 });
    }
}
