//! Signals of the operating system.
//!
//! Almost nothing may be done in a signal handler. So it writes a byte to a socket, and the reactor, which watches
//! the other end, wakes the task: a signal is an event like any other. Each [`Signal`] has a socket pair of its own,
//! so several tasks and several runtimes in one process each see every signal.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Result};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use mio::Interest;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

use crate::reactor::{Direction, Initially, Io};
use crate::runtime::Handle;

/// Which signal to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

impl SignalKind {
    /// `SIGHUP`: the terminal is gone; for a daemon, read the configuration again.
    pub const fn hangup() -> Self {
        Self(SIGHUP)
    }

    /// `SIGINT`: Ctrl-C was pressed.
    pub const fn interrupt() -> Self {
        Self(SIGINT)
    }

    /// `SIGTERM`: please end.
    pub const fn terminate() -> Self {
        Self(SIGTERM)
    }

    /// The signal's number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// Listens to a signal, from this call on.
///
/// The signal's default action (for these, ending the process) does not happen any more, for as long as the process
/// lives: also not when the [`Signal`] has been dropped.
///
/// # Errors
///
/// If the system has no file descriptors left, or the runtime has shut down.
///
/// # Panics
///
/// Outside of a runtime.
///
/// # Examples
///
/// ```no_run
/// # stipend::Runtime::new().unwrap().block_on(async {
/// use stipend::signal::{SignalKind, signal};
///
/// let mut hangup = signal(SignalKind::hangup())?;
/// while hangup.recv().await.is_some() {
///     println!("reading the configuration again");
/// }
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[track_caller]
pub fn signal(kind: SignalKind) -> Result<Signal> {
    let handle = Handle::current();
    let (receiver, sender) = UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    let receiver = mio::net::UnixStream::from_std(receiver);
    let receiver = Io::new(handle.reactor(), receiver, Interest::READABLE, Initially::NotReady)?;
    let registration = Registration(pipe::register(kind.0, sender)?);
    Ok(Signal { kind, _registration: registration, receiver })
}

/// Waits for the next `SIGINT`, which is what Ctrl-C in a terminal sends. It is listened to from the first poll on;
/// see [`signal`] about what that means for the rest of the process.
///
/// # Errors
///
/// If the system has no file descriptors left, or the runtime has shut down.
///
/// # Panics
///
/// When polled outside of a runtime.
///
/// # Cancel safety
///
/// A signal that comes after it was dropped is seen by nobody. To miss none between two waits, keep a [`Signal`].
///
/// # Examples
///
/// ```no_run
/// # stipend::Runtime::new().unwrap().block_on(async {
/// stipend::signal::ctrl_c().await?;
/// println!("good-bye");
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
pub async fn ctrl_c() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    poll_fn(|cx| interrupt.poll_signal(cx)).await
}

/// A signal being listened to; see [`signal`]. Also a [`Stream`].
///
/// Signals that come before they are received are merged into one, as the system does.
#[derive(Debug)]
pub struct Signal {
    kind: SignalKind,
    // Dropped first: the handler must not write to a socket whose other end is closed.
    _registration: Registration,
    receiver: Io<mio::net::UnixStream>,
}

#[derive(Debug)]
struct Registration(SigId);

impl Drop for Registration {
    fn drop(&mut self) {
        unregister(self.0);
    }
}

impl Signal {
    /// The signal listened to.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Waits for the signal. `None` once the runtime has shut down.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no signal was taken.
    pub async fn recv(&mut self) -> Option<()> {
        poll_fn(|cx| self.poll_signal(cx)).await.ok()
    }

    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.receiver.poll_with(cx, Direction::Read, |mut receiver| {
            let mut pending = [0; 128];
            match receiver.read(&mut pending)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                // Whatever else is there belongs to the same signal; the end of it is where reading would block.
                mut last => loop {
                    if last < pending.len() {
                        return Ok(());
                    }
                    last = receiver.read(&mut pending).unwrap_or(0);
                },
            }
        })
    }
}

impl Stream for Signal {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        Poll::Ready(ready!(self.get_mut().poll_signal(cx)).ok())
    }
}
