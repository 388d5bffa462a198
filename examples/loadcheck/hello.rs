//! `GET /hello` at a fixed rate, open-loop.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{Target, histogram, quantile_ms};

/// More than are ever under way at once, unless the server stands still.
const CLIENTS: u64 = 32;

/// How they were answered.
pub(crate) struct Report {
    failures: u64,
    latency_us: Histogram<u64>,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        self.failures == 0 && !self.latency_us.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = &self.latency_us;
        write!(
            f,
            "{} answered, {} not; p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            latency.len(),
            self.failures,
            quantile_ms(latency, 0.5),
            quantile_ms(latency, 0.99),
            latency.max() as f64 / 1e3,
        )
    }
}

/// Sends them for as long as the target says.
pub(crate) fn measure(target: &Target) -> Report {
    let start = Instant::now();
    let total = target.duration.as_secs() * target.rate;
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(target, start, total, &next))).collect();
        let mut all = Report { failures: 0, latency_us: histogram() };
        for client in clients {
            match client.join() {
                Ok(report) => {
                    all.failures += report.failures;
                    all.latency_us += report.latency_us;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// Takes the next arrival that nobody has taken, waits for its time, sends it.
fn client(target: &Target, start: Instant, total: u64, next: &AtomicU64) -> Report {
    let agent = target.agent();
    let url = target.url("/hello");
    let mut report = Report { failures: 0, latency_us: histogram() };
    loop {
        let arrival = next.fetch_add(1, Ordering::Relaxed);
        if arrival >= total {
            return report;
        }
        let due = start + Duration::from_secs_f64(arrival as f64 / target.rate as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answered = agent.get(&url).call().and_then(|mut answer| {
            let body = answer.body_mut().read_to_string()?;
            Ok(answer.status() == 200 && body == "hello\n")
        });
        if matches!(answered, Ok(true)) {
            report.latency_us.saturating_record(due.elapsed().as_micros() as u64);
        } else {
            report.failures += 1;
        }
    }
}
