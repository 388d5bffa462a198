//! The clock against the kernel's: each class forced, beside busy threads, in children that lack this or that.
//!
//! Where a process has to be different from the start, the test runs itself again as a child and looks at what it prints.

#![cfg(all(target_os = "linux", not(stipend_portable)))]
#![allow(unsafe_code)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stipend_timers::{Account, AccuracyClass, ClockSource, Meter, MeterError};

#[path = "common/real.rs"]
mod real;
use real::{burn, poll, thread_cpu};

/// Runs `f` beside busy threads.
fn beside_busy_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..n {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // Also when `f` panics: the scope waits for the busy threads.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        f()
    })
}

fn meter(source: ClockSource) -> Option<Meter> {
    match Meter::builder().clock(source).build() {
        Ok(meter) => Some(meter),
        // A machine without perf events, say; that it is refused with a reason is what can be tested there.
        Err(MeterError::Clock(refused)) => {
            assert_eq!(refused.asked, source);
            None
        }
        Err(other) => panic!("{other}"),
    }
}

const CLASSES: [(ClockSource, AccuracyClass); 4] = [
    (ClockSource::Rseq, AccuracyClass::Rseq),
    (ClockSource::Perf, AccuracyClass::Perf),
    (ClockSource::Guard, AccuracyClass::Guard),
    (ClockSource::ThreadClock, AccuracyClass::ThreadClock),
];

const ROUNDS: u64 = 15;

/// Two unlike tasks in turn on one thread; each one's account against what the kernel counted. A poll is billed its body, and what
/// lies around that: so at least what was counted inside, and at most what was from the end of the body before until behind the run.
fn compare(source: ClockSource, busy: usize, body: impl Fn(Duration)) {
    let Some(meter) = meter(source) else { return };
    let errors = beside_busy_threads(busy, || {
        let lease = meter.attach();
        lease.set_active();
        let tasks = [(Account::new(), Duration::from_millis(4)), (Account::new(), Duration::from_millis(2))];
        let (mut inside, mut around) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
        let mut body_before = thread_cpu();
        let mut at = lease.stamp();
        for _ in 0..ROUNDS {
            for (i, (account, length)) in tasks.iter().enumerate() {
                let mut body_end = body_before;
                at = poll(&lease, account, at, || {
                    let before = thread_cpu();
                    body(*length);
                    body_end = thread_cpu();
                    inside[i] += body_end - before;
                });
                around[i] += thread_cpu() - body_before;
                body_before = body_end;
            }
        }
        let error = |i: usize| {
            let billed: Duration = tasks[i].0.clock().usage().cpu;
            let (least, most) = (inside[i], around[i]);
            assert!(billed >= least.mul_f64(0.99), "{source:?}: billed {billed:?} for at least {least:?}");
            assert!(billed <= most.mul_f64(1.01), "{source:?}: billed {billed:?} for at most {most:?}");
            (least, billed, most)
        };
        [error(0), error(1)]
    });
    println!("{source:?} busy={busy}: {errors:?}");
}

#[test]
fn c01_accounts_agree_with_the_kernel_beside_busy_threads() {
    for (source, _) in CLASSES {
        for busy in [0, 2, 4] {
            compare(source, busy, burn);
        }
    }
}

#[test]
fn c01_accounts_agree_with_the_kernel_when_polls_block() {
    for (source, _) in CLASSES {
        compare(source, 2, |length| {
            burn(length / 2);
            std::thread::sleep(Duration::from_micros(200));
            burn(length / 2);
        });
    }
}

#[test]
fn c02_the_books_add_up() {
    for (source, _) in CLASSES {
        let Some(meter) = meter(source) else { continue };
        beside_busy_threads(2, || {
            let lease = meter.attach();
            lease.set_active();
            let account = Account::new();
            let mut at = lease.stamp();
            for _ in 0..200 {
                at = poll(&lease, &account, at, || burn(Duration::from_micros(300)));
                burn(Duration::from_micros(100));
                at = lease.charge_runtime(at);
            }
            let metrics = meter.metrics();
            assert!(metrics.runtime >= Duration::from_millis(19), "{metrics:?}");
            let rest = metrics.unattributed_nanos().unsigned_abs();
            assert!(rest * 100 <= metrics.threads.as_nanos(), "{source:?}: a rest of {rest} ns in {metrics:?}");
        });
        // And what a thread leaves behind is kept.
        let metrics = meter.metrics();
        let rest = metrics.unattributed_nanos().unsigned_abs();
        assert!(rest * 100 <= metrics.threads.as_nanos(), "{source:?}: a rest of {rest} ns in {metrics:?}");
    }
}

#[test]
fn c05_stamps_never_go_back_in_any_class() {
    for (source, _) in CLASSES {
        let Some(meter) = meter(source) else { continue };
        beside_busy_threads(2, || {
            let lease = meter.attach();
            let account = Account::new();
            let clock = account.clock();
            let (mut at, mut last) = (lease.stamp(), Duration::ZERO);
            let truly = thread_cpu();
            for i in 0..20_000 {
                at = poll(&lease, &account, at, || {
                    if i % 1000 == 0 {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
                let now = clock.usage().cpu;
                assert!(now >= last);
                last = now;
            }
            // With what the loop itself uses: never more than the thread has used, but for a guard's worth.
            assert!(last <= thread_cpu() - truly + Duration::from_micros(251), "{source:?}");
        });
    }
}

#[test]
fn c06_each_class_can_be_forced_and_reports_itself() {
    for (source, class) in CLASSES {
        if let Some(meter) = meter(source) {
            assert_eq!(meter.accuracy(), class);
        }
    }
    let auto = Meter::builder().build().unwrap().accuracy();
    assert!(matches!(auto, AccuracyClass::Rseq | AccuracyClass::Perf | AccuracyClass::Guard), "{auto}");
}

#[test]
fn c06_extrapolation_spares_the_system_calls() {
    let Some(meter) = meter(ClockSource::Auto) else { return };
    let lease = meter.attach();
    let account = Account::new();
    let (mut at, before) = (lease.stamp(), meter.metrics());
    for _ in 0..100_000 {
        at = poll(&lease, &account, at, || ());
    }
    let after = meter.metrics();
    let guards = (after.threads - before.threads).as_micros() / 250 + 1;
    let reads = u128::from(after.clock_reads - before.clock_reads);
    // Switches cost a read each, and a busy machine has many.
    assert!(reads <= guards + 1_000, "{reads} readings in {guards} guard intervals");
}

/// Runs one test of this file in a child process with other circumstances, and returns what it printed.
fn in_a_child(test: &str, set_up: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--include-ignored", "--nocapture"]).env("STIPEND_CHILD", "1");
    set_up(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What the child does: says what it chose, and that a forced one is refused or works.
#[test]
fn child_reports_its_classes() {
    if std::env::var_os("STIPEND_CHILD").is_none() {
        return;
    }
    if std::env::var_os("STIPEND_NO_PERF").is_some() {
        forbid_perf_event_open();
    }
    println!("auto={}", Meter::builder().build().unwrap().accuracy());
    for (source, class) in CLASSES {
        println!("{class}={}", Meter::builder().clock(source).build().is_ok());
    }
    compare(ClockSource::Auto, 0, burn);
}

#[test]
fn c06_without_an_rseq_registration() {
    let text = in_a_child("child_reports_its_classes", |command| {
        command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
    });
    assert!(text.contains("rseq=false") && text.contains("auto=guard") && text.contains("guard=true"), "{text}");
}

#[test]
fn c06_with_perf_event_open_refused() {
    let text = in_a_child("child_reports_its_classes", |command| {
        command.env("STIPEND_NO_PERF", "1");
    });
    assert!(text.contains("perf=false") && text.contains("thread-clock=true"), "{text}");
}

/// A seccomp filter under which `perf_event_open` fails with EPERM, as in a container.
fn forbid_perf_event_open() {
    let load_number = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let is_perf = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_perf_event_open as u32 };
    let refuse = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::EPERM as u32 };
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter = [load_number, is_perf, refuse, allow];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take plain numbers and a program that is valid for the call; the filter ends with the process.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::syscall(libc::SYS_seccomp, 1, 1, &raw const program),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
    }
}

/// In a process of its own, as it forks: with every class's page or pointer in place, the child reads its clocks, polls, and
/// drops everything.
#[test]
fn child_forks() {
    if std::env::var_os("STIPEND_CHILD").is_none() {
        return;
    }
    for (source, _) in CLASSES {
        let Some(meter) = meter(source) else { continue };
        let lease = meter.attach();
        lease.set_active();
        let account = Account::new();
        let mut at = lease.stamp();
        at = poll(&lease, &account, at, || burn(Duration::from_micros(400)));
        // SAFETY: the child calls nothing but what this test is about, and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let before = account.clock().usage().cpu;
            for _ in 0..100 {
                at = poll(&lease, &account, at, std::hint::spin_loop);
            }
            let ok = meter.accuracy() == AccuracyClass::Disabled && account.clock().usage().cpu == before;
            lease.set_idle();
            lease.set_active();
            drop(account);
            drop(lease);
            drop(meter);
            // SAFETY: ends the child, and nothing of the parent's.
            unsafe { libc::_exit(i32::from(!ok)) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a valid place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{source:?}: the child ended with {status:#x}");
        // The parent goes on, its tick and its clock too.
        let before = account.clock().usage().cpu;
        poll(&lease, &account, lease.stamp(), || burn(Duration::from_millis(12)));
        assert!(account.clock().usage().cpu - before >= Duration::from_millis(11));
        assert_eq!(
            format!("{:?}", meter.accuracy()),
            format!("{:?}", CLASSES.iter().find(|c| c.0 == source).unwrap().1)
        );
    }
    println!("forked");
}

#[test]
fn c06_in_a_forked_child_metering_is_off_and_says_so() {
    assert!(in_a_child("child_forks", |_| ()).contains("forked"));
}
