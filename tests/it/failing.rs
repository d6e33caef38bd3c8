//! Servers that are slow, gone, broken or full: what their clients get, and that nothing stays behind.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::client::Raw;
use crate::support::gateway::Gateway;
use crate::support::origin::{Gate, Origin, Script, Step, answer, send};
use crate::support::{PATIENCE, eventually};

/// An address that refuses connections: it was free a moment ago, and outside the range that the system gives out.
async fn nobody() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut address = socket.local_addr().unwrap();
    address.set_port(1);
    address
}

fn hello_after(gate: &Gate) -> Script {
    let mut script = vec![Step::Wait(gate.clone())];
    script.extend(answer("200 OK", &[], "hello"));
    script
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_at_its_deadline() {
    let gate = Gate::closed();
    let origin = Origin::scripted(move |_| hello_after(&gate)).await;
    let gateway = Gateway::start(&origin.rules_with("timeouts: { read: 300ms }", "[]")).await;
    let mut client = Raw::connect(gateway.http()).await;
    let begun = Instant::now();
    let answer = client.get("/").await;
    let took = begun.elapsed();
    assert_eq!(
        (answer.status, answer.value("content-type")),
        (504, Some("application/problem+json"))
    );
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        gateway
            .metric("tidegate_rejected_total{reason=\"upstream_timeout\"}")
            .await,
        1.0
    );
    assert_eq!(
        origin.requests().len(),
        1,
        "what a server may have begun is not sent again"
    );
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_bad_gateway() {
    let address = nobody().await;
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{address}] }} }}\nroutes: [{{ name: all, chain: [], upstream: app }}]\n"
    ))
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    let answer = client.get("/").await;
    assert_eq!(
        (answer.status, answer.value("content-type")),
        (502, Some("application/problem+json"))
    );
    assert!(
        !answer.body.contains("127.0.0.1"),
        "nothing of the inside: {}",
        answer.body
    );
    assert_eq!(
        answer.value("connection"),
        Some("close"),
        "the client is told what Pingora does"
    );
    client.is_closed().await;
}

#[tokio::test]
async fn a_request_that_could_not_be_sent_goes_to_the_other_server() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{}, {}], retry: {{ budget: 100% }} }} }}\n\
         routes: [{{ name: all, chain: [], upstream: app }}]\n",
        nobody().await,
        origin.address
    ))
    .await;
    let mut client = Raw::connect(gateway.http()).await;
    for n in 0..10 {
        assert_eq!(client.get("/").await.status, 200, "request {n}");
    }
    assert_eq!(origin.requests().len(), 10);
    let retries = gateway
        .metric("tidegate_upstream_retries_total{upstream=\"app\"}")
        .await;
    assert!(retries >= 3.0, "{retries}");
    let said = gateway.log.all();
    assert!(!said.iter().any(|line| line.contains("Fail to proxy")), "{said:#?}");
}

#[tokio::test]
async fn what_is_no_answer_is_a_bad_gateway() {
    let broken: [(&str, Script); 4] = [
        ("nothing at all", vec![Step::Close]),
        ("a reset", vec![Step::Reset]),
        ("nonsense", send("nonsense\r\n\r\n")),
        (
            "half a head",
            [send("HTTP/1.1 200 OK\r\ncontent-len"), vec![Step::Close]].concat_steps(),
        ),
    ];
    for (what, script) in broken {
        let script = std::sync::Mutex::new(Some(script));
        let origin =
            Origin::scripted(move |_| script.lock().unwrap().take().unwrap_or_else(|| vec![Step::Close])).await;
        let gateway = Gateway::start(&origin.rules()).await;
        let answer = Raw::connect(gateway.http()).await.get("/").await;
        assert_eq!(answer.status, 502, "{what}: {}", answer.head);
    }
}

/// A server may close a kept connection just as a request is sent on it. What may be repeated is, as often as the rule
/// says, and no oftener.
#[tokio::test]
async fn a_request_on_a_kept_connection_that_dies_is_sent_again_only_within_its_attempts() {
    for (attempts, method, expected) in [(1, "GET", 502), (2, "GET", 200), (2, "POST", 502)] {
        let count = AtomicUsize::new(0);
        let fickle = Origin::scripted(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            1 => vec![Step::Close],
            _ => answer("200 OK", &[], "hello"),
        })
        .await;
        let rules = fickle.rules_with(&format!("retry: {{ attempts: {attempts} }}"), "[]");
        let gateway = Gateway::start(&rules).await;
        let mut client = Raw::connect(gateway.http()).await;
        assert_eq!(client.get("/").await.status, 200);
        let again = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert!(client.send(again).await);
        assert_eq!(client.answer().await.status, expected, "{attempts} {method}");
        let retries = gateway
            .metric("tidegate_upstream_retries_total{upstream=\"app\"}")
            .await;
        assert_eq!(retries, if expected == 200 { 1.0 } else { 0.0 }, "{attempts} {method}");
    }
}

trait ConcatSteps {
    fn concat_steps(self) -> Script;
}

impl<const N: usize> ConcatSteps for [Script; N] {
    fn concat_steps(self) -> Script {
        self.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_its_connection() {
    let beginnings = [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n",
    ];
    for beginning in beginnings {
        for end in [|| Step::Close, || Step::Reset] {
            let gate = Gate::closed();
            let opened = gate.clone();
            let origin =
                Origin::scripted(move |_| [send(beginning), vec![Step::Wait(opened.clone()), end()]].concat_steps())
                    .await;
            let gateway = Gateway::start(&origin.rules()).await;
            let mut client = Raw::connect(gateway.http()).await;
            assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
            assert!(client.head().await.unwrap().contains(" 200 "));
            gate.open();
            let rest = String::from_utf8(client.rest().await).unwrap();
            assert!(rest.contains("begun"), "{rest:?}");
            assert!(
                !rest.contains("HTTP/1.1") && !rest.contains("\r\n0\r\n"),
                "a second answer, or an end: {rest:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_full_service_refuses_at_once_and_has_room_again_afterwards() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = Origin::scripted(move |_| hello_after(&opened)).await;
    let gateway = Gateway::start(&origin.rules_with("in_flight: 2", "[]")).await;
    let mut held = [Raw::connect(gateway.http()).await, Raw::connect(gateway.http()).await];
    for client in &mut held {
        assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    }
    origin.has_seen(2).await;
    assert_eq!(
        gateway.metric("tidegate_upstream_in_flight{upstream=\"app\"}").await,
        2.0
    );
    let mut other = Raw::connect(gateway.http()).await;
    let refused = other.get("/").await;
    assert_eq!((refused.status, refused.value("retry-after")), (503, Some("1")));
    gate.open();
    for client in &mut held {
        assert_eq!(client.answer().await.body, "hello");
    }
    assert_eq!(other.get("/").await.status, 200);
    assert_eq!(
        gateway.metric("tidegate_upstream_in_flight{upstream=\"app\"}").await,
        0.0
    );
}

#[tokio::test]
async fn a_place_in_flight_is_free_when_a_request_has_failed_though_its_body_goes_on() {
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{}], in_flight: 1 }} }}\n\
         routes: [{{ name: all, chain: [], upstream: app }}]\n",
        nobody().await
    ))
    .await;
    let mut slow = Vec::new();
    for n in 0..3 {
        let mut client = Raw::connect(gateway.http()).await;
        let begun = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        assert!(client.send(begun).await);
        assert_eq!(client.answer().await.status, 502, "client {n}");
        slow.push(client);
    }
}

/// A place that is taken and never given back would close the service one client at a time.
#[tokio::test]
async fn a_place_in_flight_is_freed_however_a_request_ends() {
    let endings: [(&str, fn() -> Script); 4] = [
        ("an answer that never comes", || vec![Step::Wait(Gate::closed())]),
        ("an answer that never ends", || {
            [
                send("HTTP/1.1 200 OK\r\n\r\n"),
                vec![Step::SendForEver(vec![b'a'; 4096])],
            ]
            .concat_steps()
        }),
        ("an answer that breaks off", || {
            [send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na"), vec![Step::Reset]].concat_steps()
        }),
        ("no answer", || vec![Step::Reset]),
    ];
    for (what, script) in endings {
        for release in ["upstream", "client"] {
            let origin = Origin::scripted(move |_| script()).await;
            let upstream = format!("in_flight: 1\n    release: {release}");
            let gateway = Gateway::start(&origin.rules_with(&upstream, "[]")).await;
            let mut client = Raw::connect(gateway.http()).await;
            assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
            origin.has_seen(1).await;
            client.reset();
            let series = "tidegate_upstream_in_flight{upstream=\"app\"}";
            let freed = format!("the place is free after {what}, released by the {release}");
            eventually(&freed, PATIENCE, async || {
                (gateway.metric(series).await == 0.0).then_some(())
            })
            .await;
        }
    }
}
