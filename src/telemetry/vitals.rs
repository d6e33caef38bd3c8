//! How a service bears its requests, as one gateway saw it: running totals, from which whoever watches takes differences.
//!
//! Latencies are added up as logarithms: their mean doubles when everything takes twice as long, and one answer that took
//! a minute among a thousand does not drown the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a natural logarithm's unit that are counted.
const PARTS: f64 = 65_536.0;

/// The totals of one upstream. A request costs two or three atomic additions.
#[derive(Debug, Default)]
pub struct Vitals {
    requests: AtomicU64,
    failures: AtomicU64,
    log_latency: AtomicU64,
    /// Places in flight that are taken, in thousandths.
    busy: AtomicU64,
}

/// Totals at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Of these, those that failed.
    pub failures: u64,
    log_latency: u64,
}

impl Vitals {
    /// A request was answered, so long after it had been sent.
    pub fn answered(&self, took: Duration) {
        let micros = took.as_micros().max(1) as f64;
        self.log_latency
            .fetch_add((micros.ln() * PARTS) as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request failed: no answer, an answer too late, a server's error, or no place in flight.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// So many of so many places in flight are taken.
    pub fn note_in_flight(&self, taken: u64, bound: u64) {
        let thousandths = taken.saturating_mul(1_000) / bound.max(1);
        self.busy.store(thousandths, Ordering::Relaxed);
    }

    /// The share of places in flight that was taken when one was last asked for, from 0 to 1; 0 without a bound.
    pub fn busy(&self) -> f64 {
        self.busy.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    /// All so far. A request that ends in this very moment may be half in it, and the other half in the next.
    pub fn totals(&self) -> Totals {
        Totals {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            log_latency: self.log_latency.load(Ordering::Relaxed),
        }
    }
}

impl Totals {
    /// What came since `before`: requests, failures, and the sum of the natural logarithms of the latencies in
    /// microseconds.
    pub fn since(&self, before: &Self) -> (u64, u64, f64) {
        let requests = self.requests.saturating_sub(before.requests);
        let failures = self.failures.saturating_sub(before.failures).min(requests);
        let logarithms = self.log_latency.saturating_sub(before.log_latency);
        (requests, failures, logarithms as f64 / PARTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_is_told_apart_from_what_was_before() {
        let vitals = Vitals::default();
        vitals.answered(Duration::from_secs(10));
        vitals.failed();
        let before = vitals.totals();
        for _ in 0..10 {
            vitals.answered(Duration::from_millis(50));
        }
        vitals.failed();
        let (requests, failures, logarithms) = vitals.totals().since(&before);
        assert_eq!((requests, failures), (11, 1));
        assert!(((logarithms / 10.0).exp() - 50_000.0).abs() < 50.0);
        assert_eq!(before.since(&vitals.totals()), (0, 0, 0.0));
    }

    #[test]
    fn places_in_flight_are_a_share() {
        let vitals = Vitals::default();
        assert_eq!(vitals.busy(), 0.0);
        vitals.note_in_flight(48, 64);
        assert_eq!(vitals.busy(), 0.75);
    }
}
