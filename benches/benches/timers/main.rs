//! What a CPU timer costs: to arm and disarm, to fire, and in memory; and what a wall timer costs.
//!
//! Arming, disarming and firing are timed by the CPU clock of the thread that does it, system calls included, in batches; so a
//! preemption costs a batch only what it leaves in the caches. Everything is random by a fixed seed: which timer, and when
//! it would expire.
//!
//! * `arm_disarm_ns`: disarming a timer of so many armed ones, and arming it again for another random time, absolute. With
//!   `order=random` each pair is of another timer, chosen before; with `order=same` all pairs are of one. `tasks=` is the number
//!   of accounts that the timers are spread over, in random order too. `by=supervisor`: from outside, while no account runs.
//!   `by=task`: by the task itself, inside its poll, where its clock runs.
//! * `rearm_ns`: the same without disarming in between.
//! * `fire_ns`: from the boundary that finds all of them due until the last of their handlers has run, by timers. Armed in
//!   random order, due within a microsecond.
//! * `bytes_per_timer`: what the allocator has handed out more, its overhead and the handle included, in a child that does
//!   nothing else; `resident` is what the process grew by. The account itself is not counted, but all that its first timer
//!   brings is. Handlers are functions that capture nothing; what one captures is its own allocation.
//! * `sleep_create_drop_ns`: inside a task, `sleep(30 s)`, one poll that registers it, and the drop, while so many others wait for
//!   times around it. By the CPU clock too.
//!
//! Peers do the same with as many: `timer_settime` is a POSIX timer on the thread's CPU clock with a signal (as one without is not
//! queued by the kernel at all), disarmed and armed by a call each; `RLIMIT_SIGPENDING` may allow fewer of them, and
//! `posix_timers` says how many there were. `tokio` is a boxed `Sleep`: to disarm and arm, its place is set to a new one, which is
//! polled; to re-arm, `reset`. It is a wall timer, so it has no clock to read; it is here as the best known timer of tasks. To
//! fire, its driver wakes a waker that counts. POSIX timers are not asked to fire: the kernel delivers 20 a tick, so what one costs
//! cannot be told from what it waits.

mod cpu;
mod memory;
mod peers;
mod wall;

use stipend_benches::args::Args;
use stipend_benches::child;
use stipend_benches::report::Report;

const BENCH: &str = "timers";

fn main() {
    child::serve(&[memory::ROLE]);
    let args = Args::parse();
    let mut report = Report::new(&args);
    cpu::arming(&args, &mut report);
    cpu::firing(&args, &mut report);
    memory::bytes(&args, &mut report);
    wall::sleeps(&args, &mut report);
    report.finish();
}
