//! Children of a bench: the same program, run again with a first argument that says what it is to be.
//!
//! A child ends with its parent, however that ends: it holds the reading end of a pipe, and leaves when that closes.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

const ROLE: &str = "--child";

/// What a child may be: its name, and what it does with its arguments.
pub type Role = (&'static str, fn(&[String]));

/// If this process is a child, does what it was started for and does not return.
pub fn serve(roles: &[Role]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, name, rest @ ..] = arguments.as_slice() else { return };
    if first != ROLE {
        return;
    }
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        std::process::exit(0);
    });
    match roles.iter().find(|(role, _)| role == name) {
        Some((_, run)) => run(rest),
        None => eprintln!("there is no child {name}"),
    }
    std::process::exit(1);
}

/// The program that a child is.
///
/// # Panics
/// If the system does not say.
#[must_use]
pub fn program() -> PathBuf {
    std::env::current_exe().expect("the bench knows where it lies")
}

/// What its arguments begin with.
#[must_use]
pub fn arguments(role: &str) -> [&str; 2] {
    [ROLE, role]
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts one.
    ///
    /// # Panics
    /// If the system refuses a process.
    #[must_use]
    pub fn start(role: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program())
            .args(self::arguments(role))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process can be started");
        Self(child)
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it prints; once.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
