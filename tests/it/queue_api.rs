//! The queue API as programs use it: its description, its own limits, and what it keeps of connections.

use std::process::Command;

use reqwest::Client;
use serde_json::Value;

use crate::support::client::{Raw, builder, header, plain};
use crate::support::gateway::{Gateway, Setup, TIDEGATE};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually, soon};

async fn hall(keys: &str, process: &str) -> (Origin, Gateway) {
    let origin = Origin::saying("hello").await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, mode: hold, {keys} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let gateway = Setup::new(&rules).process(process).start().await;
    (origin, gateway)
}

async fn join(gateway: &Gateway, client: &Client) -> (u16, Option<String>) {
    let answer = client.post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    let ticket = header(&answer, "set-cookie").split(';').next().map(str::to_owned);
    (answer.status().as_u16(), ticket)
}

#[test]
fn the_api_is_described_under_the_prefix_of_the_process_file() {
    let setup = Setup::new("routes: [{ name: a, chain: [respond: { status: 204 }] }]\n");
    let setup = setup.process("queue: { prefix: /line }");
    let file = setup.write();
    let output = Command::new(TIDEGATE)
        .arg("openapi")
        .arg("-c")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        document["paths"]["/line/status"]["get"]["responses"]["410"].is_object(),
        "{document}"
    );
    let nowhere = Command::new(TIDEGATE)
        .args(["openapi", "-c", "/nowhere.yaml"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
}

#[tokio::test]
async fn a_network_that_joins_too_often_is_told_when_to_come_again() {
    let (_origin, gateway) = hall("", "queue: { joins: 3/h }").await;
    for _ in 0..3 {
        assert_eq!(join(&gateway, &plain()).await.0, 200);
    }
    let refused = plain().post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "content-type"), "application/problem+json");
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
    let page = plain()
        .get(gateway.url("/"))
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200, "the page itself has other limits");
    let metrics = gateway.metrics().await;
    let rejected = metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_rejected_total{"));
    let rejected: Vec<_> = rejected.filter(|line| !line.ends_with(" 0")).collect();
    let refusal = "tidegate_rejected_total{reason=\"queue_api_limited\"} 1";
    assert_eq!(rejected, [refusal], "places and pages are given, not refused");
}

#[tokio::test]
async fn a_connection_is_kept_for_a_poll_that_is_near_and_for_no_other() {
    for (keepalive, closes) in [("5s", false), ("0s", true), ("1s", true)] {
        let (_origin, gateway) = hall(&format!("keepalive: {keepalive}"), "").await;
        let mut client = Raw::connect(gateway.http()).await;
        assert!(
            client
                .send("GET / HTTP/1.1\r\nhost: a\r\naccept: text/html\r\n\r\n")
                .await
        );
        let page = client.answer().await;
        assert_eq!(page.status, 200);
        assert_eq!(page.value("connection") == Some("close"), closes, "{}", page.head);
        if closes {
            client.is_closed().await;
        } else {
            // It is kept, and then not for as long as others are.
            assert_eq!(client.get("/queue/none").await.status, 404);
        }
    }
}

#[tokio::test]
async fn a_connection_that_rests_is_closed_whatever_is_spoken() {
    let (_origin, gateway) = hall("keepalive: 3s", "").await;
    let open = "tidegate_connections{listener=\"127.0.0.1:0\"}";
    let modern = builder().http2_prior_knowledge().build().unwrap();
    let classic = plain();
    assert_eq!(join(&gateway, &modern).await.0, 200);
    assert_eq!(join(&gateway, &classic).await.0, 200);
    assert_eq!(gateway.metric(open).await, 2.0);
    eventually("the connections of those who wait are closed", PATIENCE, async || {
        (gateway.metric(open).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(join(&gateway, &modern).await.0, 200, "and a new one comes about");
}

#[tokio::test]
async fn a_connection_of_http2_that_still_carries_something_is_not_closed() {
    let (_origin, gateway) = hall("keepalive: 3s", "").await;
    let modern = builder().http2_prior_knowledge().build().unwrap();
    let (_, ticket) = join(&gateway, &modern).await;
    let ticket = ticket.unwrap();
    let request = modern.get(gateway.url("/queue/events")).header("cookie", &ticket);
    let mut stream = request.send().await.unwrap();
    let request = modern.get(gateway.url("/queue/status")).header("cookie", &ticket);
    assert_eq!(request.send().await.unwrap().status(), 200);
    loop {
        let piece = soon("the heartbeat, after fifteen seconds", stream.chunk()).await;
        let piece = piece.unwrap().expect("a stream that goes on");
        if piece.starts_with(b":") {
            break;
        }
    }
}

/// A service may have a path of that name, and where nobody waits it is the service's own.
#[tokio::test]
async fn without_rooms_the_prefix_is_a_path_like_any() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let answer = plain().get(gateway.url("/queue/status")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (200, "hello")
    );
    assert_eq!(origin.last().target(), "/queue/status");
}
