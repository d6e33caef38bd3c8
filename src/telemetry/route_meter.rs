//! The counters of one route, fetched once, so that counting a request is two atomic additions.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

use super::metrics::METRICS;

/// Status codes whose counter is kept at hand; others are looked up by label.
const COMMON: [u16; 18] = [
    200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 429, 500, 502, 503, 504,
];

/// Reasons whose counter is kept at hand: those for which the route first refused requests.
const REASONS: usize = 4;

/// Status codes that are shown from the start, at 0: what an alert counts must be there before it first happens.
const AT_ZERO: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Counters of one route.
#[derive(Debug)]
pub struct RouteMeter {
    route: Box<str>,
    seconds: Histogram,
    common: [OnceLock<IntCounter>; COMMON.len()],
    rejected: [OnceLock<(&'static str, IntCounter)>; REASONS],
}

impl RouteMeter {
    /// The counters of the route of this name. Also used for what no route took, under a name no route can have.
    pub fn new(route: &str) -> Self {
        let meter = Self {
            route: route.into(),
            seconds: METRICS.request_seconds.with_label_values(&[route]),
            common: [const { OnceLock::new() }; COMMON.len()],
            rejected: [const { OnceLock::new() }; REASONS],
        };
        AT_ZERO.iter().for_each(|code| drop(meter.counter(*code)));
        meter
    }

    /// Counts one answer.
    pub fn record(&self, status: StatusCode, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        match COMMON.iter().position(|code| *code == status.as_u16()) {
            Some(index) => self.common[index].get_or_init(|| self.counter(status)).inc(),
            None => self.counter(status).inc(),
        }
    }

    /// Counts a request that the gateway refused; over all routes, by reason.
    pub fn reject(&self, reason: &'static str) {
        let counter = || METRICS.rejected_total.with_label_values(&[reason]);
        let mut kept = self
            .rejected
            .iter()
            .map(|slot| slot.get_or_init(|| (reason, counter())));
        match kept.find(|(known, _)| *known == reason) {
            Some((_, counter)) => counter.inc(),
            None => counter().inc(),
        }
    }

    fn counter(&self, status: StatusCode) -> IntCounter {
        METRICS
            .requests_total
            .with_label_values(&[&*self.route, status.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        const NAMES: [&str; 2 * REASONS] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let meter = RouteMeter::new("counts_reasons");
        for (index, reason) in NAMES.into_iter().enumerate() {
            (0..=index).for_each(|_| meter.reject(reason));
        }
        for (index, reason) in NAMES.into_iter().enumerate() {
            let counted = METRICS.rejected_total.with_label_values(&[reason]).get();
            assert_eq!(counted, index as u64 + 1, "{reason}");
        }
    }
}
