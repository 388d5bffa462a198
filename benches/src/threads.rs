//! The threads of this process, as the kernel counts them.

use std::fs;
use std::io;

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// Its number.
    pub id: u32,
    /// Its name, as much as the kernel keeps of it: 15 bytes.
    pub name: String,
    /// How often it gave its processor up by itself, or had it taken away: each time but the last it was woken or put back.
    pub switches: u64,
}

/// All that live now.
///
/// # Errors
/// If the system does not say.
pub fn all() -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let entry = entry?;
        // A thread may end while it is looked at.
        if let Some(thread) = look(&entry.file_name().to_string_lossy()) {
            threads.push(thread);
        }
    }
    Ok(threads)
}

fn look(id: &str) -> Option<Thread> {
    let name = fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
    let status = fs::read_to_string(format!("/proc/self/task/{id}/status")).ok()?;
    Some(Thread { id: id.parse().ok()?, name: name.trim_end().to_owned(), switches: switches(&status)? })
}

fn switches(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some(field("voluntary_ctxt_switches:")? + field("nonvoluntary_ctxt_switches:")?)
}

/// The thread of this name.
#[must_use]
pub fn named(name: &str) -> Option<Thread> {
    all().ok()?.into_iter().find(|thread| thread.name == name)
}

/// The sum of all threads' switches.
///
/// # Errors
/// If the system does not say.
pub fn switches_of_all() -> io::Result<u64> {
    Ok(all()?.iter().map(|thread| thread.switches).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(switches(status), Some(42));
        assert_eq!(switches("Name:\tx\n"), None);
    }

    #[test]
    fn a_thread_is_found_by_its_name_and_its_sleeps_count() {
        let sleeper = std::thread::Builder::new().name("sleeper".to_owned()).spawn(|| {
            std::thread::park();
            (0..10).for_each(|_| std::thread::sleep(std::time::Duration::from_millis(1)));
            std::thread::park();
        });
        let sleeper = sleeper.unwrap();
        let wait = |least: u64| loop {
            match named("sleeper") {
                Some(thread) if thread.switches >= least => break thread,
                _ => std::thread::yield_now(),
            }
        };
        let before = wait(1);
        sleeper.thread().unpark();
        let after = wait(before.switches + 10);
        assert_eq!(after.id, before.id);
        sleeper.thread().unpark();
        sleeper.join().unwrap();
    }
}
