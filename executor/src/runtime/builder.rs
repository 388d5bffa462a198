//! Building a runtime.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use stipend_timers::{ClockSource, Meter, MeterError};

use super::shared::{Parts, Ready, Shared};
use super::worker::{self, Local};
use super::{Handle, LocalRuntime, Runtime};
use crate::blocking::Pool;
use crate::reactor::Reactor;
use crate::scheduler::idle::MAX_WORKERS;
use crate::scheduler::lanes::Lanes;
use crate::scheduler::shares::Shares;

const DEFAULT_BLOCKING_THREADS: usize = 512;

/// Configures a [`Runtime`].
///
/// ```
/// use std::time::Duration;
/// use stipend::runtime::Runtime;
///
/// let runtime = Runtime::builder()
///     .worker_threads(2)
///     .tick_period(Duration::from_millis(2))
///     .thread_name("web")
///     .build()?;
/// assert_eq!(runtime.handle().metrics().workers, 2);
/// # Ok::<(), stipend::runtime::BuildError>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    workers: Option<usize>,
    tick_period: Option<Duration>,
    thread_name: Option<String>,
    max_blocking_threads: Option<usize>,
    clock: Option<ClockSource>,
    meter: Option<Meter>,
}

impl Builder {
    /// One worker for each core that the process may use, 512 blocking threads, a meter with its default tick.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many threads poll tasks. By default as many as the process may use cores. A
    /// [local runtime](Self::build_local) has one, the thread that it is on.
    pub fn worker_threads(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// How often the tick looks at the polls in progress: how late a limit that is reached within a poll is noticed.
    /// Not heeded when a [`meter`](Self::meter) is given: that one has its period.
    pub fn tick_period(mut self, period: Duration) -> Self {
        self.tick_period = Some(period);
        self
    }

    /// What the threads' names begin with; `stipend` by default.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = Some(name.into());
        self
    }

    /// How many threads `spawn_blocking` may use; 512 by default.
    pub fn max_blocking_threads(mut self, threads: usize) -> Self {
        self.max_blocking_threads = Some(threads);
        self
    }

    /// Where CPU time comes from: see [`MeterBuilder::clock`](stipend_timers::MeterBuilder::clock), which has the classes and what
    /// each misses. By default the best that passes a self-test; [`Runtime::accuracy`] says which that was.
    ///
    /// Not heeded when a [`meter`](Self::meter) is given.
    pub fn clock(mut self, clock: ClockSource) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Meters with this meter instead of one of its own: to share one, or to drive clock and tick by hand in tests.
    pub fn meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Builds the runtime and starts its workers.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Runtime, BuildError> {
        let workers = match self.workers {
            None => thread::available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS),
            Some(asked) if (1..=MAX_WORKERS).contains(&asked) => asked,
            Some(asked) => {
                return Err(BuildError::WorkerThreads { asked, max: MAX_WORKERS });
            }
        };
        let (shared, lanes) = self.share(workers, false)?;
        let mut runtime = Runtime { handle: Handle::new(Arc::clone(&shared)), workers: Vec::with_capacity(workers) };
        for (index, lanes) in lanes.into_iter().enumerate() {
            let local = Local::new(Arc::clone(&shared), index, lanes);
            let name = format!("{}-{index}", shared.thread_name());
            match thread::Builder::new().name(name).spawn(move || worker::run(local)) {
                Ok(thread) => runtime.workers.push(thread),
                Err(error) => {
                    // Those that started are stopped by the drop of `runtime`, which waits for them alone.
                    (index..workers).for_each(|_| shared.worker_ended());
                    return Err(BuildError::Io(error));
                }
            }
        }
        Ok(runtime)
    }

    /// Builds a runtime whose tasks all run on the thread that calls this.
    ///
    /// # Errors
    /// [`BuildError`]; [`BuildError::WorkerThreads`] if another number of workers than one was asked for.
    ///
    /// ```
    /// use stipend::runtime::Runtime;
    ///
    /// let runtime = Runtime::builder().thread_name("ui").build_local()?;
    /// assert_eq!(runtime.block_on(async { 42 }), 42);
    /// # Ok::<(), stipend::runtime::BuildError>(())
    /// ```
    pub fn build_local(self) -> Result<LocalRuntime, BuildError> {
        if let Some(asked) = self.workers.filter(|asked| *asked != 1) {
            return Err(BuildError::WorkerThreads { asked, max: 1 });
        }
        let (shared, lanes) = self.share(1, true)?;
        let lanes = lanes.into_iter().next().expect("one was asked for");
        Ok(LocalRuntime::new_on_this_thread(Local::new(shared, 0, lanes)))
    }

    /// What the threads of the runtime will share, and each worker's own queues.
    pub(super) fn share(self, workers: usize, local: bool) -> Result<(Arc<Shared>, Vec<Lanes<Ready>>), BuildError> {
        let blocking = match self.max_blocking_threads {
            None => DEFAULT_BLOCKING_THREADS,
            Some(0) => return Err(BuildError::BlockingThreads),
            Some(asked) => asked,
        };
        let thread_name = self.thread_name.unwrap_or_else(|| "stipend".to_owned());
        if thread_name.contains('\0') {
            return Err(BuildError::ThreadName { asked: thread_name });
        }
        let meter = match self.meter {
            Some(meter) => meter,
            None => {
                let mut meter = Meter::builder().thread_name(thread_name.as_str());
                if let Some(clock) = self.clock {
                    meter = meter.clock(clock);
                }
                if let Some(period) = self.tick_period {
                    meter = meter.tick_period(period);
                }
                meter.build().map_err(BuildError::Meter)?
            }
        };
        let (reactor, driver) = Reactor::new().map_err(BuildError::Io)?;
        let shares = Arc::new(Shares::new());
        let lanes: Vec<_> = (0..workers).map(|_| Lanes::new(Arc::clone(&shares))).collect();
        let shared = Arc::new(Shared::new(Parts {
            lanes: lanes.iter().map(Lanes::remote).collect(),
            shares,
            local,
            driver,
            reactor,
            pool: Pool::new(blocking),
            meter,
            thread_name,
        }));
        Ok((shared, lanes))
    }
}

/// Why a runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// So many workers cannot be had: at least 1, at most `max`.
    WorkerThreads {
        /// What was asked for.
        asked: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// No blocking thread was allowed: at least 1, or `spawn_blocking` could never run anything.
    BlockingThreads,
    /// A thread's name must not contain a NUL character.
    ThreadName {
        /// What was asked for.
        asked: String,
    },
    /// The meter could not be built.
    Meter(MeterError),
    /// The system refused a thread, or the reactor its files.
    Io(io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerThreads { asked, max } => {
                write!(f, "{asked} worker threads were asked for; 1 to {max} are possible")
            }
            Self::BlockingThreads => f.write_str("0 blocking threads were asked for; allow at least 1"),
            Self::ThreadName { asked } => {
                write!(f, "the thread name {asked:?} contains a NUL character; leave it out")
            }
            Self::Meter(error) => write!(f, "the meter could not be built: {error}"),
            Self::Io(error) => write!(f, "the system refused a thread or a file of the reactor: {error}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Meter(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::WorkerThreads { .. } | Self::BlockingThreads | Self::ThreadName { .. } => None,
        }
    }
}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Io(error) => error,
            BuildError::Meter(_) => Self::other(error),
            BuildError::WorkerThreads { .. } | BuildError::BlockingThreads | BuildError::ThreadName { .. } => {
                Self::new(io::ErrorKind::InvalidInput, error)
            }
        }
    }
}
