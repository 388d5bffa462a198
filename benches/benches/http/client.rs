//! The load: one thread, one epoll, keep-alive connections that send one request at a time.
//!
//! In the closed loop it never sleeps. To wake it would be the server's work, in each write that finds it asleep: an interrupt to
//! another processor, which in a virtual machine takes longer than the request, and which a client on another machine does not cost.
//!
//! It knows just enough of HTTP to be cheap: every answer of one server has the same length, which the first one tells.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use stipend_benches::random::Random;

const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server that has rested is slow at first.
const WARM_UP: Duration = Duration::from_millis(10);

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends as soon as it has its answer.
    Closed,
    /// So many fall due each second, answered or not, at equal distances.
    Even { per_second: f64 },
    /// The same on the average, at random (a Poisson process). At equal distances a busy server is measured by whether the next one comes
    /// shortly before it would sleep or shortly behind.
    Random { per_second: f64 },
}

/// The moments at which requests fall due.
struct Arrivals {
    pace: Pace,
    next: Instant,
    end: Instant,
    random: Random,
}

impl Arrivals {
    /// When the next falls due, if that is before the end.
    fn next(&self, now: Instant) -> Option<Instant> {
        let next = match self.pace {
            Pace::Closed => now,
            Pace::Even { .. } | Pace::Random { .. } => self.next,
        };
        (next < self.end).then_some(next)
    }

    /// Goes on to the one behind it.
    fn advance(&mut self) {
        let distance = match self.pace {
            Pace::Closed => 0.0,
            Pace::Even { per_second } => 1.0 / per_second,
            Pace::Random { per_second } => -(1.0 - self.random.unit()).ln() / per_second,
        };
        self.next += Duration::from_secs_f64(distance);
    }
}

/// For latencies of up to a minute, to a thousandth.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// What a run came to.
pub(crate) struct Run {
    /// In the open loop not of what fell due in the first [`WARM_UP`].
    pub(crate) latency_ns: Histogram<u64>,
    pub(crate) answered: u64,
    pub(crate) took: Duration,
}

struct Connection {
    stream: TcpStream,
    /// When the request under way fell due.
    due: Option<Instant>,
    received: usize,
}

/// Connections to one server.
pub(crate) struct Client {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    /// The length of an answer.
    answer: usize,
    /// The same numbers for each client, so that all servers see the same arrivals.
    random: Random,
}

impl Client {
    /// Connects, and learns from one request on each connection how long an answer is.
    pub(crate) fn connect(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut answer = 0;
        let connect = |index: usize| {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(REQUEST)?;
            answer = read_answer(&mut stream)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            Ok(Connection { stream, due: None, received: 0 })
        };
        let connections = (0..connections).map(connect).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { poll, events: Events::with_capacity(1024), connections, answer, random: Random::default() })
    }

    /// How many it has.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Sends for so long, and waits for the last answers.
    pub(crate) fn run(&mut self, pace: Pace, time: Duration) -> Run {
        self.try_run(pace, time).expect("the server answers")
    }

    fn try_run(&mut self, pace: Pace, time: Duration) -> io::Result<Run> {
        let mut latency_ns = latencies();
        let start = Instant::now();
        let counts_from = match pace {
            Pace::Closed => start,
            Pace::Even { .. } | Pace::Random { .. } => start + WARM_UP,
        };
        let mut arrivals = Arrivals { pace, next: start, end: start + time, random: self.random.clone() };
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        let (mut sent, mut answered) = (0_u64, 0_u64);
        loop {
            let now = Instant::now();
            while let Some(due) = arrivals.next(now).filter(|due| *due <= now)
                && let Some(index) = free.pop_front()
            {
                self.send(index, due)?;
                sent += 1;
                arrivals.advance();
            }
            let next = arrivals.next(now);
            if next.is_none() && sent == answered {
                break;
            }
            // With a free connection there is something to wait for beside answers.
            let wait = next.filter(|_| !free.is_empty()).map(|due| due.saturating_duration_since(Instant::now()));
            self.look(wait.unwrap_or_default())?;
            let events: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for index in events {
                if let Some(due) = self.receive(index)? {
                    if due >= counts_from {
                        latency_ns.saturating_record(due.elapsed().as_nanos() as u64);
                    }
                    answered += 1;
                    free.push_back(index);
                }
            }
        }
        let took = start.elapsed();
        self.random = arrivals.random;
        Ok(Run { latency_ns, answered, took })
    }

    /// Looks for answers, and waits for them no longer than that. The system waits in whole milliseconds, so for less it looks again and
    /// again: this thread has its processor for itself.
    fn look(&mut self, wait: Duration) -> io::Result<()> {
        let wait = Duration::from_millis(wait.as_millis() as u64);
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    fn send(&mut self, index: usize, due: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        connection.received = 0;
        // It fits: nothing else is under way on this connection.
        connection.stream.write_all(REQUEST)
    }

    /// When the request fell due that is answered in full now.
    fn receive(&mut self, index: usize) -> io::Result<Option<Instant>> {
        let connection = &mut self.connections[index];
        let mut buffer = [0; 4096];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => connection.received += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if connection.received >= self.answer {
                // Nothing more comes before the next request, so the edge need not be waited for.
                return Ok(connection.due.take());
            }
        }
    }
}

/// Reads one answer, and returns its length.
fn read_answer(stream: &mut std::net::TcpStream) -> io::Result<usize> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = head.len() + 4 + length.ok_or_else(|| io::Error::other("an answer without a length"))?;
        if !text.starts_with("http/1.1 200") {
            return Err(io::Error::other(text));
        }
        if answer.len() >= whole {
            return Ok(whole);
        }
    }
}
