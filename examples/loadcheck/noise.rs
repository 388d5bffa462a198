//! `loop {}`, without pause.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::{Target, histogram, quantile_ms};

/// How the endless loops were answered.
pub(crate) struct Report {
    answers: u64,
    /// Answers by status; 0 stands for none.
    statuses: BTreeMap<u16, u64>,
    /// Answers that say that less than the limit was used.
    early: u64,
    used_us: Histogram<u64>,
}

impl Default for Report {
    fn default() -> Self {
        Self { answers: 0, statuses: BTreeMap::new(), early: 0, used_us: histogram() }
    }
}

impl Report {
    pub(crate) fn add(&mut self, other: Report) {
        self.answers += other.answers;
        self.early += other.early;
        self.used_us += other.used_us;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }

    /// Was every one answered 503, with at least the limit used?
    pub(crate) fn is_good(&self) -> bool {
        let used = self.used_us.len();
        self.answers > 0 && self.statuses.get(&503) == Some(&self.answers) && used == self.answers && self.early == 0
    }

    fn count(&mut self, status: u16, body: &Value) {
        self.answers += 1;
        *self.statuses.entry(status).or_default() += 1;
        if let (Some(used), Some(limit)) = (body["used_ms"].as_f64(), body["limit_ms"].as_f64()) {
            self.used_us.saturating_record((used * 1e3) as u64);
            self.early += u64::from(used < limit);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = &self.used_us;
        write!(
            f,
            "{} answers, by status {:?}, {} below the limit; used p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.answers,
            self.statuses,
            self.early,
            quantile_ms(used, 0.5),
            quantile_ms(used, 0.99),
            used.max() as f64 / 1e3,
        )
    }
}

/// Sends them one after the other until told to stop.
pub(crate) fn send(target: &Target, stop: &AtomicBool) -> Report {
    let agent = target.agent();
    let url = target.url("/run/noisy");
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        match agent.post(&url).send("loop {}") {
            Ok(mut answer) => {
                let body = answer.body_mut().read_json().unwrap_or_default();
                report.count(answer.status().as_u16(), &body);
            }
            Err(_) => report.count(0, &Value::Null),
        }
    }
    report
}
