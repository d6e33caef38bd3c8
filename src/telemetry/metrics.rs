//! Every metric by name. Labels come from the configuration and from fixed sets, never from a client.
//!
//! The registry is the one piece of global state: a metric that two parts of the process count must be one
//! metric. Parts that count per request fetch their labelled counters once, when the plan is built.

use once_cell::sync::Lazy;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// The metrics of this process.
pub static METRICS: Lazy<Metrics> = Lazy::new(Metrics::new);

/// Upper edges of the buckets of a request's duration, in seconds.
const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Upper edges of the buckets of a wait in a room, in seconds.
const WAIT_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
];

/// Upper edges of the buckets of a call of the store, in seconds.
const STORE_SECONDS: &[f64] = &[
    0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
];

/// One field a metric; the exported name is the field's with the prefix `tidegate_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answers given, by route and status code.
    pub requests_total: IntCounterVec,
    /// Seconds from the head of a request to the end of its answer.
    pub request_seconds: HistogramVec,
    /// Seconds from choosing a server to the head of its answer.
    pub upstream_seconds: HistogramVec,
    /// Requests that the upstream is working on for this gateway.
    pub upstream_in_flight: IntGaugeVec,
    /// 1 when the server is taken for healthy, else 0.
    pub upstream_healthy: IntGaugeVec,
    /// Decisions of a limit: allowed, limited, would_limit, skipped, rejected_missing; and
    /// of those held: delayed (all), expired (in vain); of those handed on: to_room.
    pub throttle_total: IntCounterVec,
    /// Keys that have an exact entry in the hot table.
    pub throttle_hot_keys: IntGaugeVec,
    /// Requests admitted ahead of the store's answer, within the tolerance.
    pub throttle_overdraft_total: IntCounterVec,
    /// Requests that are held until there is budget again.
    pub throttle_held: IntGaugeVec,
    /// Largest share of the limit by which it may be overshot: its tolerance.
    pub throttle_overshoot_bound: GaugeVec,
    /// Budget that was drawn and neither spent nor given back.
    pub throttle_stranded_total: IntCounterVec,
    /// Seconds a call of the store took.
    pub store_seconds: HistogramVec,
    /// Calls of the store that failed.
    pub store_faults_total: IntCounterVec,
    /// 1 while the store answers, else 0.
    pub store_up: IntGauge,
    /// Gateways alive on this store, as last heard.
    pub fleet_gateways: IntGauge,
    /// Visitors waiting in a room.
    pub room_waiting: IntGaugeVec,
    /// Visitors inside: called or holding a pass.
    pub room_inside: IntGaugeVec,
    /// Visitors called.
    pub room_called_total: IntCounterVec,
    /// Passes given.
    pub room_entered_total: IntCounterVec,
    /// Places given up: left, or no sign of life.
    pub room_abandoned_total: IntCounterVec,
    /// Calls that nobody answered in time.
    pub room_unclaimed_total: IntCounterVec,
    /// Seconds from joining to being called.
    pub room_wait_seconds: HistogramVec,
    /// Reloads of the rule files: applied or refused.
    pub config_reloads_total: IntCounterVec,
    /// Number of the plan that runs, counted from 1 at start.
    pub plan_generation: IntGauge,
    /// Seconds until the certificate expires; negative when it has.
    pub tls_expiry_seconds: GaugeVec,
    /// Open client connections.
    pub connections: IntGaugeVec,
    /// Requests and connections the gateway answered or ended itself, by reason.
    pub rejected_total: IntCounterVec,
    /// Lines that the access log dropped because its writer was behind.
    pub access_log_dropped_total: IntCounter,
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            requests_total: counters(
                r,
                "requests_total",
                "Answers given, by route and status code.",
                &["route", "code"],
            ),
            request_seconds: histogram(
                r,
                "request_seconds",
                "Seconds from the head of a request to the end of its answer.",
                &["route"],
                REQUEST_SECONDS,
            ),
            upstream_seconds: histogram(
                r,
                "upstream_seconds",
                "Seconds from choosing a server to the head of its answer.",
                &["upstream"],
                REQUEST_SECONDS,
            ),
            upstream_in_flight: gauges(
                r,
                "upstream_in_flight",
                "Requests that the upstream is working on for this gateway.",
                &["upstream"],
            ),
            upstream_healthy: gauges(
                r,
                "upstream_healthy",
                "1 when the server is taken for healthy, else 0.",
                &["server"],
            ),
            throttle_total: counters(
                r,
                "throttle_total",
                "Decisions of a limit: allowed, limited, would_limit, skipped, rejected_missing, delayed, expired, to_room.",
                &["limit", "verdict"],
            ),
            throttle_hot_keys: gauges(
                r,
                "throttle_hot_keys",
                "Keys that have an exact entry in the hot table.",
                &["limit"],
            ),
            throttle_overdraft_total: counters(
                r,
                "throttle_overdraft_total",
                "Requests admitted ahead of the store's answer, within the tolerance.",
                &["limit"],
            ),
            throttle_held: gauges(r, "throttle_held", "Requests held until there is budget.", &["limit"]),
            throttle_overshoot_bound: float_gauges(
                r,
                "throttle_overshoot_bound",
                "Largest share of the limit by which it may be overshot: its tolerance.",
                &["limit"],
            ),
            throttle_stranded_total: counters(
                r,
                "throttle_stranded_total",
                "Budget that was drawn and neither spent nor given back.",
                &["limit"],
            ),
            store_seconds: histogram(
                r,
                "store_seconds",
                "Seconds a call of the store took.",
                &["script"],
                STORE_SECONDS,
            ),
            store_faults_total: counters(r, "store_faults_total", "Calls of the store that failed.", &["kind"]),
            store_up: gauge(r, "store_up", "1 while the store answers, else 0."),
            fleet_gateways: gauge(r, "fleet_gateways", "Gateways alive on this store, as last heard."),
            room_waiting: gauges(r, "room_waiting", "Visitors waiting in a room.", &["room"]),
            room_inside: gauges(
                r,
                "room_inside",
                "Visitors inside: called or holding a pass.",
                &["room"],
            ),
            room_called_total: counters(r, "room_called_total", "Visitors called.", &["room"]),
            room_entered_total: counters(r, "room_entered_total", "Passes given.", &["room"]),
            room_abandoned_total: counters(
                r,
                "room_abandoned_total",
                "Places given up: left, or no sign of life.",
                &["room"],
            ),
            room_unclaimed_total: counters(
                r,
                "room_unclaimed_total",
                "Calls that nobody answered in time.",
                &["room"],
            ),
            room_wait_seconds: histogram(
                r,
                "room_wait_seconds",
                "Seconds from joining to being called.",
                &["room"],
                WAIT_SECONDS,
            ),
            config_reloads_total: counters(
                r,
                "config_reloads_total",
                "Reloads of the rule files: applied or refused.",
                &["outcome"],
            ),
            plan_generation: gauge(
                r,
                "plan_generation",
                "Number of the plan that runs, counted from 1 at start.",
            ),
            tls_expiry_seconds: float_gauges(
                r,
                "tls_expiry_seconds",
                "Seconds until the certificate expires; negative when it has.",
                &["certificate"],
            ),
            connections: gauges(r, "connections", "Open client connections.", &["listener"]),
            rejected_total: counters(
                r,
                "rejected_total",
                "Requests and connections the gateway answered or ended itself, by reason.",
                &["reason"],
            ),
            access_log_dropped_total: counter(
                r,
                "access_log_dropped_total",
                "Lines that the access log dropped because its writer was behind.",
            ),
            registry,
        }
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::error!("the metrics could not be written: {error}");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(options(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::with_opts(options(name, help)))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(options(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::with_opts(options(name, help)))
}

fn float_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(registry, GaugeVec::new(options(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help)
        .namespace("tidegate")
        .buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, labels))
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("tidegate")
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are literals, checked by the first test that runs"
)]
fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("the metric is well-formed");
    registry
        .register(Box::new(metric.clone()))
        .expect("no other metric has its name");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_prefix_and_shows_once_used() {
        METRICS
            .throttle_total
            .with_label_values(&["per-client", "allowed"])
            .inc();
        METRICS.store_up.set(1);
        let text = METRICS.render();
        assert!(
            text.contains("tidegate_throttle_total{limit=\"per-client\",verdict=\"allowed\"} 1"),
            "{text}"
        );
        assert!(text.contains("tidegate_store_up 1"), "{text}");
        assert!(
            text.lines()
                .all(|line| line.starts_with('#') || line.starts_with("tidegate_")),
            "{text}"
        );
    }
}
