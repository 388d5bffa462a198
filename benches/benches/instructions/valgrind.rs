//! Counting the instructions of a child.

use std::io;
use std::process::{Command, Stdio};

use stipend_benches::child;

use crate::operations::ROLE;

/// What became of a child.
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    /// What it printed.
    pub(crate) said: String,
}

/// Runs a child under callgrind.
///
/// # Errors
/// Valgrind is not there, or the child did not end well.
pub(crate) fn instructions(arguments: &[&str]) -> Result<Counted, String> {
    let mut child = Command::new("valgrind");
    child
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(child::program())
        .args(child::arguments(ROLE.0));
    // The child ends if its input does.
    let child = child.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "valgrind is missing; install the package valgrind".to_owned(),
        _ => format!("valgrind: {error}"),
    })?;
    let _input = child.stdin.take();
    let output = child.wait_with_output().map_err(|error| format!("valgrind: {error}"))?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match collected {
        Some(instructions) if output.status.success() => Ok(Counted { instructions, said: said.into_owned() }),
        _ => Err(format!("{arguments:?} under valgrind: {}\n{told}", output.status)),
    }
}
