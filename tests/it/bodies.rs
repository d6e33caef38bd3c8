//! Bodies of requests: how large they may be, and answers that come before their end.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::client::{Raw, header, plain};
use crate::support::frames::Frames;
use crate::support::gateway::{Gateway, Setup};
use crate::support::nginx::Nginx;
use crate::support::origin::{Gate, Origin, Step, answer};
use crate::support::{PATIENCE, eventually};

/// Rules with a route that takes little, one that is forbidden, and one that is limited.
fn rules(origin: &Origin) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [{}] }} }}\n\
         routes:\n  \
         - {{ name: small, match: {{ path: /small }}, chain: [max_body: 16B], upstream: app }}\n  \
         - {{ name: large, match: {{ path: /large }}, chain: [max_body: 1MiB], upstream: app }}\n  \
         - {{ name: forbidden, match: {{ path: /forbidden }}, chain: [ip_filter: {{ deny: [127.0.0.0/8] }}], upstream: app }}\n  \
         - {{ name: limited, match: {{ path: /limited }}, chain: [rate_limit: {{ name: one, key: client_ip, limit: 1/h }}], upstream: app }}\n  \
         - {{ name: open, match: {{ path: /open }}, chain: [], upstream: app }}\n",
        origin.address
    )
}

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}",
        "a".repeat(length)
    )
}

#[tokio::test]
async fn a_declared_body_that_is_too_large_is_refused_before_a_server_hears_of_it() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&rules(&origin)).process("max_body: 1KiB").start().await;
    for (path, length, status) in [
        ("/open", 1024, 200),
        ("/open", 1025, 413),
        ("/small", 16, 200),
        ("/small", 17, 413),
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(post(path, length)).await);
        assert_eq!(client.answer().await.status, status, "{length} bytes to {path}");
    }
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send(post("/large", 100_000)).await);
    assert_eq!(
        client.answer().await.status,
        200,
        "a route may take more than the process does elsewhere"
    );
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_refused_as_soon_as_it_is() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST /small HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n")
            .await
    );
    client.send("a\r\n0123456789\r\n").await;
    assert_eq!(client.answer().await.status, 413, "the body has no end yet");
    client.is_closed().await;
    assert!(origin.requests().is_empty(), "no server has seen a whole request");
}

#[tokio::test]
async fn an_early_answer_keeps_the_connection() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let mut client = Raw::connect(gateway.http()).await;
    let table = [
        ("/nowhere", 404),
        ("/forbidden", 403),
        ("/limited", 200),
        ("/limited", 429),
        ("/small", 413),
        ("/open", 200),
    ];
    for (path, status) in table {
        assert!(
            client.send(post(path, 1000)).await,
            "the connection is open before {path}"
        );
        assert_eq!(client.answer().await.status, status, "{path}");
    }
    for (path, status) in [
        ("/nowhere", 404),
        ("/forbidden", 403),
        ("/limited", 429),
        ("/open", 200),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn a_large_body_is_not_waited_for_by_an_early_answer() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST /forbidden HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\nabc")
            .await
    );
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.value("connection")),
        (403, Some("close")),
        "{}",
        answer.head
    );
    client.is_closed().await;
}

#[tokio::test]
async fn a_client_that_sends_all_of_a_large_body_before_it_listens_gets_its_answer() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    for _ in 0..5 {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(post("/forbidden", 10_000_000)).await);
        assert_eq!(client.answer().await.status, 403);
        client.is_closed().await;
    }
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_body() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello")
            .await
    );
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.value("connection")), (404, Some("keep-alive")));
    assert!(client.send("world").await);
    assert_eq!(
        client.get("/open").await.status,
        200,
        "the connection goes on behind the body"
    );
}

#[tokio::test]
async fn a_connection_whose_body_does_not_end_is_closed_behind_the_early_answer() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&rules(&origin))
        .process("timeouts: { request_body: 300ms }")
        .start()
        .await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello")
            .await
    );
    assert_eq!(client.answer().await.status, 404);
    client.is_closed().await;
}

#[tokio::test]
async fn a_client_that_waits_for_leave_is_refused_without_it() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin)).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST /forbidden HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n")
            .await
    );
    assert_eq!(client.answer().await.status, 403, "and no 100 before it");
}

/// Heads and first bytes of bodies that are not finished: one that is small, one without a length, a large one.
const UNFINISHED: [&str; 3] = [
    "content-length: 10\r\n\r\nabc",
    "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "content-length: 1000000\r\n\r\nabc",
];

#[tokio::test]
async fn a_body_that_stops_coming_is_the_clients_fault_and_ends_at_its_deadline() {
    let origin = Origin::saying("hello").await;
    let within = Duration::from_millis(500);
    let gateway = Setup::new(&origin.rules_with("timeouts: { read: 50ms }", "[]"))
        .process("timeouts: { request_body: 500ms }")
        .start()
        .await;
    for unfinished in UNFINISHED {
        let mut client = Raw::connect(gateway.http()).await;
        let begun = Instant::now();
        assert!(client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{unfinished}")).await);
        let answer = client.answer().await;
        let took = begun.elapsed();
        assert_eq!(
            (answer.status, answer.value("connection")),
            (408, Some("close")),
            "{unfinished}"
        );
        assert!(took >= within, "{unfinished}: {took:?}");
        client.is_closed().await;
    }
    let refused = "tidegate_rejected_total{reason=\"request_timeout\"}";
    assert_eq!(gateway.metric(refused).await, 3.0);
    assert!(origin.requests().is_empty());
    assert_eq!(origin.connections(), 2, "nobody was asked with half of a small body");
}

/// A byte now and then is no pause, and would hold a place in flight for ever.
#[tokio::test]
async fn a_body_that_drips_is_refused_and_no_server_is_blamed() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    for (number, (unfinished, drop)) in UNFINISHED.into_iter().zip(["a", "1\r\na\r\n", "a"]).enumerate() {
        let unfinished = unfinished.replace(": 10\r", ": 60000\r");
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{unfinished}")).await);
        refused(&gateway, number + 1, async || client.send(drop).await).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.value("connection")),
            (408, Some("close")),
            "{unfinished}"
        );
        assert_eq!(
            Raw::connect(gateway.http()).await.get("/").await.status,
            200,
            "{unfinished}"
        );
    }
    assert_eq!(
        origin.requests().len(),
        UNFINISHED.len(),
        "no server has seen a whole body that drips"
    );
}

#[tokio::test]
async fn a_stream_whose_body_drips_is_refused_and_no_other() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let mut client = Frames::connect(gateway.http()).await;
    client.ask(1, "POST", false).await;
    refused(&gateway, 1, async || client.data(1, b"a").await).await;
    client.ask(3, "GET", true).await;
    origin.has_seen(1).await;
    let lines = gateway.access_lines(2).await;
    let told: Vec<_> = lines.iter().map(|line| (&line["status"], &line["reason"])).collect();
    assert_eq!(
        told,
        [(&json!(408), &json!("request_timeout")), (&json!(200), &json!(null))]
    );
}

/// A gateway that takes one request at a time, and lets no body lie behind for long.
async fn impatient(origin: &Origin) -> Gateway {
    let rules = origin.rules_with("in_flight: 1", "[]");
    let setup = Setup::new(&rules).process("timeouts: { request_body: 800ms }");
    setup.start().await
}

/// Sends drop by drop until so many requests have been refused because they took too long.
async fn refused(gateway: &Gateway, count: usize, mut drip: impl AsyncFnMut() -> bool) {
    eventually("the end of the drip", PATIENCE, async || {
        drip().await;
        let refused = gateway
            .metric("tidegate_rejected_total{reason=\"request_timeout\"}")
            .await;
        (refused >= count as f64).then_some(())
    })
    .await;
}

/// A server says nothing while a body is on its way, and that must not be taken for slowness.
#[tokio::test]
async fn a_body_may_pause_for_longer_than_a_server_may() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules_with("timeouts: { read: 100ms }", "[]")).await;
    for (unfinished, rest) in UNFINISHED
        .into_iter()
        .zip([&b"defghij"[..], b"0\r\n\r\n", &[b'a'; 999_997]])
    {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{unfinished}")).await);
        let early = timeout(Duration::from_millis(400), client.head()).await;
        assert!(early.is_err(), "{unfinished}: {early:?}");
        assert!(client.send(rest).await);
        assert_eq!(client.answer().await.status, 200, "{unfinished}");
    }
}

#[tokio::test]
async fn a_body_is_passed_on_while_it_comes() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = Origin::scripted(move |_| {
        let mut script = vec![Step::Wait(opened.clone())];
        script.extend(answer("200 OK", &[], "all of it"));
        script
    })
    .await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await
    );
    assert!(client.send("3\r\ndef\r\n0\r\n\r\n").await);
    origin.has_seen(1).await;
    gate.open();
    assert_eq!(client.answer().await.body, "all of it");
    assert_eq!(origin.last().body, b"abcdef");
}

#[tokio::test]
async fn files_of_a_real_server_come_through_unchanged() {
    let text = "0123456789".repeat(50_000);
    let Some(nginx) = Nginx::start("gzip on; gzip_types text/plain;", &[("file", &text), ("empty", "")]) else {
        return;
    };
    let address = nginx.address;
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{address}] }} }}\nroutes: [{{ name: all, chain: [], upstream: app }}]\n"
    ))
    .await;
    let client = plain();
    let whole = client.get(gateway.url("/file")).send().await.unwrap();
    let (length, tag) = (whole.content_length(), header(&whole, "etag").to_owned());
    assert_eq!(length, Some(500_000));
    assert_eq!(whole.text().await.unwrap(), text);
    let part = client
        .get(gateway.url("/file"))
        .header("range", "bytes=5-14")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (part.status().as_u16(), header(&part, "content-range")),
        (206, "bytes 5-14/500000")
    );
    assert_eq!(part.text().await.unwrap(), "5678901234");
    let known = client
        .get(gateway.url("/file"))
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), 304);
    let packed = client
        .get(gateway.url("/file"))
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&packed, "content-encoding"), "gzip");
    assert!(packed.bytes().await.unwrap().len() < 50_000);
    assert_eq!(
        client
            .get(gateway.url("/empty"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        ""
    );
    assert_eq!(client.get(gateway.url("/none")).send().await.unwrap().status(), 404);
}
