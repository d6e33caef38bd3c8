//! Every metric by name. Labels come from the configuration and from fixed sets, never from a client.
//!
//! The registry is the one piece of global state: a metric that two parts of the process count must be one
//! metric. Parts that count per request fetch their labelled counters once, when the plan is built.

use once_cell::sync::Lazy;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
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

/// Declares the metrics: a field each, whose name with the prefix `tidegate_` is the exported one, and whose one
/// line of documentation is the help text.
macro_rules! metrics {
    ($(#[doc = $help:literal] $name:ident: $kind:ty = $new:ident($($with:expr),*),)*) => {
        /// One field a metric; the exported name is the field's with the prefix `tidegate_`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $name: $kind,)*
        }

        impl Metrics {
            fn new() -> Self {
                let registry = Registry::new();
                $(let $name = $new(&registry, (stringify!($name), $help.trim_start()), $($with),*);)*
                Self { registry, $($name,)* }
            }
        }
    };
}

metrics! {
    /// Answers given, by route and status code.
    requests_total: IntCounterVec = counters(&["route", "code"]),
    /// Seconds from the head of a request to the end of its answer.
    request_seconds: HistogramVec = histogram(&["route"], REQUEST_SECONDS),
    /// Seconds from choosing a server to the head of its answer.
    upstream_seconds: HistogramVec = histogram(&["upstream"], REQUEST_SECONDS),
    /// Requests turned away because the upstream worked on as many as it may.
    upstream_full_total: IntCounterVec = counters(&["upstream"]),
    /// Most requests that the upstream may work on for this gateway; +Inf without a bound.
    upstream_in_flight_bound: GaugeVec = float_gauges(&["upstream"]),
    /// Attempts that failed before anything of an answer came, and were made again.
    upstream_retries_total: IntCounterVec = counters(&["upstream"]),
    /// Requests that the upstream is working on for this gateway.
    upstream_in_flight: IntGaugeVec = gauges(&["upstream"]),
    /// 0 once so many requests in a row failed at each of the server's addresses as `eject` says, until one answers; else 1.
    upstream_healthy: IntGaugeVec = gauges(&["server"]),
    /// Times that an address of the server was passed over from then on, because requests failed there.
    upstream_ejections_total: IntCounterVec = counters(&["server"]),
    /// Decisions of a limit: allowed, limited, would_limit, skipped, rejected_missing, store_fault, delayed, expired, to_room.
    throttle_total: IntCounterVec = counters(&["limit", "verdict"]),
    /// Keys that have an exact entry in the hot table.
    throttle_hot_keys: IntGaugeVec = gauges(&["limit"]),
    /// Most keys that may have an exact entry, of each limit by itself.
    throttle_hot_keys_bound: IntGauge = gauge(),
    /// Requests admitted ahead of the store's answer, within the tolerance.
    throttle_overdraft_total: IntCounterVec = counters(&["limit"]),
    /// Requests that are held until there is budget again.
    throttle_held: IntGaugeVec = gauges(&["limit"]),
    /// Largest share of the limit by which a key was above it in the store, in this window and the one before.
    throttle_overshoot: GaugeVec = float_gauges(&["limit"]),
    /// Largest share of the limit by which it may be overshot: its tolerance.
    throttle_overshoot_bound: GaugeVec = float_gauges(&["limit"]),
    /// Budget that was drawn and neither spent nor given back.
    throttle_stranded_total: IntCounterVec = counters(&["limit"]),
    /// Seconds a call of the store took.
    store_seconds: HistogramVec = histogram(&["script"], STORE_SECONDS),
    /// Calls of the store, whatever came of them.
    store_calls_total: IntCounterVec = counters(&["script"]),
    /// Calls of the store that failed.
    store_faults_total: IntCounterVec = counters(&["kind"]),
    /// 1 while the store answers, else 0.
    store_up: IntGauge = gauge(),
    /// Seconds after which a call of the store has failed.
    store_timeout_seconds: Gauge = float_gauge(),
    /// Seconds by which the clocks of the store's servers surely differ.
    store_clock_skew_seconds: Gauge = float_gauge(),
    /// Gateways alive on this store, as last heard.
    fleet_gateways: IntGauge = gauge(),
    /// Visitors waiting in a room.
    room_waiting: IntGaugeVec = gauges(&["room"]),
    /// Visitors inside: called or holding a pass.
    room_inside: IntGaugeVec = gauges(&["room"]),
    /// Visitors called and not yet inside.
    room_called: IntGaugeVec = gauges(&["room"]),
    /// Most visitors called or inside at once, as in force; +Inf without a bound.
    room_visitors_bound: GaugeVec = float_gauges(&["room"]),
    /// Most visitors called per second, as in force; +Inf without a bound.
    room_admission_rate: GaugeVec = float_gauges(&["room"]),
    /// Visitors per second that this gateway proposes to call, where the rate is measured.
    room_proposed_rate: GaugeVec = float_gauges(&["room"]),
    /// Judgements of a room's upstream by this gateway: well, untried, strained, calm, slow, failing.
    room_judgements_total: IntCounterVec = counters(&["room", "reason"]),
    /// The last number called.
    room_frontier: IntGaugeVec = gauges(&["room"]),
    /// The last number given.
    room_last: IntGaugeVec = gauges(&["room"]),
    /// Visitors who were passed over, by this gateway's own copy of the order; 0 while first come is first served.
    room_inversions: IntGaugeVec = gauges(&["room"]),
    /// Seconds since the room's store last answered this gateway.
    room_store_lag_seconds: GaugeVec = float_gauges(&["room"]),
    /// Visitors called.
    room_called_total: IntCounterVec = counters(&["room"]),
    /// Passes given.
    room_entered_total: IntCounterVec = counters(&["room"]),
    /// Places given up: left, or no sign of life.
    room_abandoned_total: IntCounterVec = counters(&["room"]),
    /// Calls that nobody answered in time.
    room_unclaimed_total: IntCounterVec = counters(&["room"]),
    /// Requests that went around a room without a place, by network or by link.
    room_bypassed_total: IntCounterVec = counters(&["room", "by"]),
    /// Seconds from joining to being called.
    room_wait_seconds: HistogramVec = histogram(&["room"], WAIT_SECONDS),
    /// Challenges before a place: given, solved, waited, wrong, expired, replayed.
    room_challenges_total: IntCounterVec = counters(&["room", "outcome"]),
    /// Visitors refused because their network has as many places as it may.
    room_crowded_total: IntCounterVec = counters(&["room"]),
    /// Places given back because whoever asked for them could not be told in time.
    room_given_back_total: IntCounterVec = counters(&["room"]),
    /// Polls that came well before the visitor was told to ask again.
    room_early_polls_total: IntCounterVec = counters(&["room"]),
    /// Visitors who follow their place by events.
    room_event_streams: IntGaugeVec = gauges(&["room"]),
    /// Reloads of the rule files: applied or refused.
    config_reloads_total: IntCounterVec = counters(&["outcome"]),
    /// Number of the plan that runs, counted from 1 at start.
    plan_generation: IntGauge = gauge(),
    /// Seconds until the certificate expires; negative when it has.
    tls_expiry_seconds: GaugeVec = float_gauges(&["certificate"]),
    /// Open client connections.
    connections: IntGaugeVec = gauges(&["listener"]),
    /// Most open client connections, over all listeners.
    connections_bound: IntGauge = gauge(),
    /// Requests that the gateway answered itself with a status of 400 or more, and connections that it ended, by reason.
    rejected_total: IntCounterVec = counters(&["reason"]),
    /// Lines that the access log dropped because its writer was behind.
    access_log_dropped_total: IntCounter = counter(),
    /// 1, labelled with the version of this program.
    build_info: IntGaugeVec = gauges(&["version"]),
    /// Processor time that the process took, in seconds.
    process_cpu_seconds_total: Counter = float_counter(),
    /// Memory that the process has, in bytes.
    process_resident_memory_bytes: IntGauge = gauge(),
    /// Files and sockets that the process has open.
    process_open_fds: IntGauge = gauge(),
    /// Most files and sockets that it may have open.
    process_max_fds: IntGauge = gauge(),
    /// Threads of the process.
    process_threads: IntGauge = gauge(),
    /// When the process started, in seconds since 1970.
    process_start_time_seconds: Gauge = float_gauge(),
}

impl Metrics {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::error!("the metrics could not be written: {error}");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A metric's name, without the prefix, and its help text.
type Named = (&'static str, &'static str);

fn counters(registry: &Registry, named: Named, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(options(named), labels))
}

fn counter(registry: &Registry, named: Named) -> IntCounter {
    registered(registry, IntCounter::with_opts(options(named)))
}

fn float_counter(registry: &Registry, named: Named) -> Counter {
    registered(registry, Counter::with_opts(options(named)))
}

fn gauges(registry: &Registry, named: Named, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(options(named), labels))
}

fn gauge(registry: &Registry, named: Named) -> IntGauge {
    registered(registry, IntGauge::with_opts(options(named)))
}

fn float_gauge(registry: &Registry, named: Named) -> Gauge {
    registered(registry, Gauge::with_opts(options(named)))
}

fn float_gauges(registry: &Registry, named: Named, labels: &[&str]) -> GaugeVec {
    registered(registry, GaugeVec::new(options(named), labels))
}

fn histogram(registry: &Registry, named: Named, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::from(options(named)).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, labels))
}

fn options((name, help): Named) -> Opts {
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
