//! The operator's listener: what it shows, and that nobody else sees it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Method;

use crate::support::client::{Raw, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;

/// Everything that a gateway with a limit, a room and an upstream shows once it has been used.
const METRICS: &[&str] = &[
    "requests_total",
    "request_seconds",
    "upstream_seconds",
    "upstream_in_flight",
    "upstream_in_flight_bound",
    "upstream_ejections_total",
    "upstream_full_total",
    "throttle_total",
    "throttle_hot_keys",
    "throttle_hot_keys_bound",
    "throttle_held",
    "throttle_overdraft_total",
    "throttle_overshoot",
    "throttle_overshoot_bound",
    "throttle_stranded_total",
    "store_seconds",
    "store_up",
    "store_timeout_seconds",
    "fleet_gateways",
    "room_waiting",
    "room_inside",
    "room_called",
    "room_visitors_bound",
    "room_admission_rate",
    "room_frontier",
    "room_last",
    "room_inversions",
    "room_store_lag_seconds",
    "room_mode",
    "room_opens_at_seconds",
    "room_answers_total",
    "room_called_total",
    "room_entered_total",
    "room_abandoned_total",
    "room_unclaimed_total",
    "room_wait_seconds",
    "config_reloads_total",
    "config_last_reload_successful",
    "config_rules_hash",
    "plan_generation",
    "connections",
    "connections_bound",
    "rejected_total",
    "build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_threads",
    "process_start_time_seconds",
];

fn rules(origin: &Origin) -> String {
    format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with(
            "",
            "[rate_limit: { name: few, key: [{ header: x-key }, path], limit: 5/h, missing: skip }, waiting_room: { room: hall }]"
        )
    )
}

/// The names of all series, with their labels.
async fn series(gateway: &Gateway) -> BTreeSet<String> {
    let text = gateway.metrics().await;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn every_metric_that_applies_is_shown() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    for _ in 0..3 {
        plain()
            .get(gateway.url("/"))
            .header("accept", "text/html")
            .header("x-key", "a")
            .send()
            .await
            .unwrap();
    }
    gateway.signal("HUP");
    gateway.says("rules reloaded").await;
    let series = series(&gateway).await;
    for name in METRICS {
        let name = format!("tidegate_{name}");
        let shown = series.iter().any(|series| {
            let rest = series.strip_prefix(&name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_']))
        });
        assert!(shown, "{name} is missing from:\n{series:#?}");
    }
}

/// An alert on a counter that begins with its first event never sees that one.
#[tokio::test]
async fn what_alerts_count_is_there_before_it_happens_and_a_room_is_shown_while_it_is_there() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let before = series(&gateway).await;
    for name in [
        "requests_total{code=\"503\",route=\"all\"}",
        "upstream_full_total{upstream=\"app\"}",
        "upstream_retries_total{upstream=\"app\"}",
        "config_reloads_total{outcome=\"refused\"}",
        "rejected_total{reason=\"connections\"}",
        "room_abandoned_total{room=\"hall\"}",
        "room_unclaimed_total{room=\"hall\"}",
    ] {
        assert!(
            before.contains(&format!("tidegate_{name}")),
            "{name} is not in {before:#?}"
        );
    }
    std::fs::write(gateway.dir().join("rules/rules.yaml"), origin.rules()).unwrap();
    gateway.says("rules reloaded").await;
    let after = series(&gateway).await;
    let left: Vec<_> = after.iter().filter(|series| series.contains("hall")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[tokio::test]
async fn health_is_told_to_whoever_asks() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let ask = async |method: Method, path: &str| plain().request(method, gateway.admin_url(path)).send().await.unwrap();
    for path in ["/healthz", "/readyz", "/metrics", "/limits", "/rooms"] {
        assert_eq!(ask(Method::GET, path).await.status(), 200, "{path}");
        let head = ask(Method::HEAD, path).await;
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(head.text().await.unwrap(), "");
        let refused = ask(Method::POST, path).await;
        assert_eq!(
            (refused.status().as_u16(), header(&refused, "allow")),
            (405, "GET, HEAD"),
            "{path}"
        );
    }
    assert_eq!(ask(Method::GET, "/").await.status(), 404);
    let metrics = ask(Method::GET, "/metrics").await;
    assert!(header(&metrics, "content-type").starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn the_operators_paths_lead_nowhere_on_a_public_listener() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let admin = gateway.admin;
    for path in ["/metrics", "/healthz", "/readyz", "/limits", "/rooms", "/rooms/hall"] {
        for host in [
            "a".to_owned(),
            "localhost".to_owned(),
            admin.to_string(),
            format!("127.0.0.1:{}", admin.port()),
        ] {
            for claim in ["", "x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: localhost\r\n"] {
                let mut client = Raw::connect(gateway.http()).await;
                assert!(
                    client
                        .send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{claim}\r\n"))
                        .await
                );
                let answer = client.answer().await;
                assert_eq!(answer.body, "hello", "{path} on {host} is the upstream's");
            }
        }
    }
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send(format!("GET http://{admin}/metrics HTTP/1.1\r\nhost: {admin}\r\n\r\n"))
            .await
    );
    assert_eq!(client.answer().await.body, "hello", "no target makes the gateway dial");
}

#[tokio::test]
async fn an_operators_client_that_sends_nonsense_is_let_go() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process("timeouts: { request_header: 300ms }")
        .start()
        .await;
    for nonsense in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n", ""] {
        let mut client = Raw::connect(gateway.admin).await;
        client.send(nonsense).await;
        client.rest().await;
    }
    assert_eq!(
        plain()
            .get(gateway.admin_url("/healthz"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

/// As a scraper does that keeps its connection: it pauses for longer than a head may take, and its heads add up to more
/// than one may be.
#[tokio::test]
async fn a_scraper_keeps_its_connection() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process("timeouts: { request_header: 300ms }\nlimits: { header_bytes: 4KiB }")
        .start()
        .await;
    let mut client = Raw::connect(gateway.admin).await;
    let scrape = format!(
        "GET /metrics HTTP/1.1\r\nhost: a\r\nx-padding: {}\r\n\r\n",
        "a".repeat(3000)
    );
    for _ in 0..40 {
        assert!(client.send(&scrape).await);
        assert_eq!(client.answer().await.status, 200);
    }
    let cut = tokio::time::timeout(Duration::from_millis(900), client.rest()).await;
    assert!(cut.is_err(), "the connection was cut while it was idle");
    assert!(client.send(&scrape).await);
    assert_eq!(client.answer().await.status, 200);
    assert!(client.send("GET /metrics HTTP/1.1\r\nhost").await);
    assert_eq!(client.rest().await, b"", "a head that does not end is still cut");
}

/// Whatever clients send, a scrape costs the same.
#[tokio::test]
async fn no_client_makes_a_series() {
    let origin = Origin::saying("hello").await;
    let limit = "{ name: few, key: [{ header: x-key }, path], limit: 5/h, missing: skip }";
    let gateway = Gateway::start(&origin.rules_with("", &format!("[rate_limit: {limit}]"))).await;
    let random = async |count: usize| {
        let mut client = Raw::connect(gateway.http()).await;
        let mut requests = String::new();
        for n in 0..count {
            let method = ["GET", "POST", "DELETE", "PURGE", "X-OTHER"][n % 5];
            let (host, path, key) = (fastrand::u64(..), fastrand::u64(..), fastrand::u64(..));
            write!(
                requests,
                "{method} /{path} HTTP/1.1\r\nhost: h{host}.test\r\nx-key: {key}\r\nuser-agent: {key}\r\ncontent-length: 0\r\n\r\n"
            )
            .unwrap();
        }
        let (mut answers, mut sent) = (0, 0);
        for request in requests.split_inclusive("\r\n\r\n") {
            assert!(client.send(request).await);
            sent += 1;
            answers += usize::from(client.answer().await.status > 0);
        }
        assert_eq!(answers, sent);
    };
    random(50).await;
    let before = series(&gateway).await;
    random(1000).await;
    let after = series(&gateway).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
}
