//! WebSockets, and whatever else a connection is upgraded to: bytes both ways, and nothing of the gateway's own.

use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use crate::support::client::Raw;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Gate, Origin, Script, Step, send};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// An origin that agrees to an upgrade and then does this.
async fn agreeing(then: impl Fn() -> Script + Send + Sync + 'static) -> Origin {
    Origin::scripted(move |_| {
        let mut script = send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        script.extend(then());
        script
    })
    .await
}

async fn upgraded(gateway: &Gateway) -> Raw {
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send(ASK).await);
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.value("upgrade")),
        (101, Some("websocket")),
        "{}",
        answer.head
    );
    client
}

#[tokio::test]
async fn a_connection_may_change_its_protocol_and_then_carries_bytes_both_ways() {
    let origin = agreeing(|| vec![Step::Echo]).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = upgraded(&gateway).await;
    for message in ["ping", "GET / HTTP/1.1\r\n\r\n"] {
        assert!(client.send(message).await);
        assert_eq!(client.take(message.len()).await, message.as_bytes());
    }
    assert_eq!(origin.last().value("upgrade"), Some("websocket"));
    drop(client);
    let line = gateway.access_lines(1).await.remove(0);
    assert_eq!(
        (&line["status"], &line["bytes_sent"], &line["request_bytes"]),
        (&101.into(), &22.into(), &22.into()),
        "{line}"
    );
    let counted = "tidegate_requests_total{code=\"101\",route=\"all\"}";
    assert_eq!(gateway.metric(counted).await, 1.0, "{}", gateway.metrics().await);
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed_without_a_word() {
    let origin = agreeing(|| vec![Step::Echo]).await;
    let gateway = Gateway::start(&origin.rules_with("timeouts: { read: 300ms }", "[]")).await;
    let mut client = upgraded(&gateway).await;
    assert!(client.send("ping").await);
    assert_eq!(client.take(4).await, b"ping");
    client.is_closed().await;
    let line = gateway.access_lines(1).await.remove(0);
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &"tunnel_idle".into()),
        "{line}"
    );
}

#[tokio::test]
async fn what_a_client_sends_keeps_a_tunnel_open_though_its_server_is_silent() {
    let read = Duration::from_secs(1);
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = agreeing(move || vec![Step::Wait(opened.clone()), Step::Send(b"late".to_vec())]).await;
    let gateway = Gateway::start(&origin.rules_with("timeouts: { read: 1s }", "[]")).await;
    let mut client = upgraded(&gateway).await;
    let begun = Instant::now();
    let mut ticks = interval(read / 5);
    while begun.elapsed() < read * 3 / 2 {
        ticks.tick().await;
        assert!(client.send("a").await);
    }
    gate.open();
    assert_eq!(client.take(4).await, b"late");
}

#[tokio::test]
async fn a_client_may_be_silent_for_longer_than_a_body_may_pause() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = agreeing(move || vec![Step::Wait(opened.clone()), Step::Send(b"late".to_vec())]).await;
    let gateway = Setup::new(&origin.rules())
        .process("timeouts: { request_body: 100ms }")
        .start()
        .await;
    let mut client = upgraded(&gateway).await;
    let closed = timeout(Duration::from_millis(500), client.is_closed()).await;
    assert!(closed.is_err(), "the tunnel is open");
    gate.open();
    assert_eq!(client.take(4).await, b"late");
}

#[tokio::test]
async fn no_bound_on_bodies_holds_for_what_goes_through_a_tunnel() {
    let origin = agreeing(|| vec![Step::Echo]).await;
    let gateway = Setup::new(&origin.rules()).process("max_body: 1KiB").start().await;
    let mut client = upgraded(&gateway).await;
    let message = [b'a'; 1000];
    for _ in 0..10 {
        assert!(client.send(message).await);
        assert_eq!(client.take(message.len()).await, message);
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::saying("no").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send(ASK).await);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "no"));
}
