//! Where a message ends: whatever two servers could read in two ways is refused, or passed on in one way only.

use crate::support::client::Raw;
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Step, answer, send};

/// What a smuggled request asks for: no server may ever see it.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// Requests whose end is in doubt, each with a request hidden where a careless reader would find one.
fn doubtful() -> Vec<(&'static str, String)> {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let both = chunks.len();
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}");
    vec![
        (
            "both lengths",
            post(
                &format!("content-length: {both}\r\ntransfer-encoding: chunked\r\n"),
                &chunks,
            ),
        ),
        (
            "both, the other way",
            post(
                &format!("transfer-encoding: chunked\r\ncontent-length: {both}\r\n"),
                &chunks,
            ),
        ),
        (
            "two lengths",
            post(
                &format!("content-length: 0\r\ncontent-length: {}\r\n", HIDDEN.len()),
                HIDDEN,
            ),
        ),
        (
            "a list of lengths",
            post(&format!("content-length: 0, {}\r\n", HIDDEN.len()), HIDDEN),
        ),
        ("a signed length", post("content-length: +0\r\n", HIDDEN)),
        ("a negative length", post("content-length: -1\r\n", HIDDEN)),
        ("a length in hex", post("content-length: 0x0\r\n", HIDDEN)),
        ("a length with a space in it", post("content-length: 0 0\r\n", HIDDEN)),
        ("an unknown coding", post("transfer-encoding: xchunked\r\n", &chunks)),
        (
            "chunked and then another",
            post("transfer-encoding: chunked, identity\r\n", &chunks),
        ),
        (
            "chunked twice",
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", &chunks),
        ),
        (
            "a space before the colon",
            post("transfer-encoding : chunked\r\n", &chunks),
        ),
        (
            "a folded header",
            post("x-a: b\r\n transfer-encoding: chunked\r\n", &chunks),
        ),
        (
            "a tab before chunked",
            post("transfer-encoding:\x0bchunked\r\n", &chunks),
        ),
        (
            "a size with a sign",
            post("transfer-encoding: chunked\r\n", &format!("+0\r\n\r\n{HIDDEN}")),
        ),
        (
            "a size with a prefix",
            post("transfer-encoding: chunked\r\n", &format!("0x0\r\n\r\n{HIDDEN}")),
        ),
        (
            "a size too large",
            post(
                "transfer-encoding: chunked\r\n",
                &format!("10000000000000000\r\n\r\n{HIDDEN}"),
            ),
        ),
        (
            "a chunk longer than its size",
            post(
                "transfer-encoding: chunked\r\n",
                &format!("1\r\nabc\r\n0\r\n\r\n{HIDDEN}"),
            ),
        ),
        (
            "a chunk that ends in a bare line feed",
            post("transfer-encoding: chunked\r\n", &format!("1\na\n0\n\n{HIDDEN}")),
        ),
        (
            "HTTP/1.0 with chunks",
            format!("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        ),
        (
            "a bare carriage return",
            post("x-a: b\rtransfer-encoding: chunked\r\n", &chunks),
        ),
        ("a zero byte", post("x-a: b\0c\r\n", HIDDEN)),
        ("a name with a space", post("x a: b\r\n", HIDDEN)),
        ("a line without a colon", post("chunked\r\n", HIDDEN)),
        (
            "a version that is none",
            format!("GET / HTTP/1.7\r\nhost: a\r\n\r\n{HIDDEN}"),
        ),
        ("no version", format!("GET /\r\n\r\n{HIDDEN}")),
    ]
}

/// The origin is the judge. It reads strictly, so a request that it sees twice was sent twice; and a request with a
/// body must come with exactly one length.
#[tokio::test]
async fn nothing_is_smuggled_past_the_gateway() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for (what, request) in doubtful() {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(&request).await;
        let first = client.try_answer(true).await;
        let refused = first.as_ref().is_none_or(|answer| answer.status >= 400);
        let seen = origin.requests();
        if refused {
            assert!(
                client.try_answer(true).await.is_none(),
                "{what}: the connection went on after {first:?}"
            );
        }
        for request in &seen {
            let lengths = request.values("content-length").len() + request.values("transfer-encoding").len();
            assert!(lengths <= 1, "{what}: {}", request.head);
            assert!(!request.head.contains("hidden") || !refused, "{what}: {}", request.head);
        }
    }
}

/// Some of them have one reading in the standard; then a request that follows is a request of its own.
#[tokio::test]
async fn what_is_hidden_in_a_doubtful_request_is_never_asked_for() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for (what, request) in doubtful() {
        let before = origin.requests().len();
        let mut client = Raw::connect(gateway.http()).await;
        client.send(&request).await;
        while client.try_answer(true).await.is_some_and(|answer| answer.status < 400) {}
        let hidden = origin.requests()[before..]
            .iter()
            .any(|request| request.target() == "/hidden");
        assert!(!hidden, "{what}: a server was asked for what was hidden in it");
    }
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_and_in_the_plainest_form() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    let body = "3;name=value\r\nabc\r\n00a\r\n0123456789\r\n0\r\nx-trailer: a\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(client.send(format!("{head}{body}")).await);
    assert_eq!(client.answer().await.status, 200);
    let request = origin.last();
    assert_eq!(request.body, b"abc0123456789");
    assert_eq!(request.value("transfer-encoding"), Some("chunked"));
    assert_eq!(
        client.get("/next").await.status,
        200,
        "the connection goes on behind the body"
    );
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_one_after_the_other() {
    let origin = Origin::scripted(|request| answer("200 OK", &[], request.target())).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    let both = "GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n";
    assert!(client.send(both).await);
    assert_eq!(client.answer().await.body, "/one");
    assert_eq!(client.answer().await.body, "/two");
}

#[tokio::test]
async fn an_old_client_is_answered_and_its_connection_is_closed() {
    let origin =
        Origin::scripted(|_| send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "abc"), "{}", answer.head);
    assert_eq!(answer.value("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    client.is_closed().await;
}

#[tokio::test]
async fn head_is_answered_with_the_head_alone() {
    let origin = Origin::scripted(|request| match request.method() {
        "HEAD" => send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        _ => answer("200 OK", &[], "hello"),
    })
    .await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    let head = client.bodiless_answer().await;
    assert_eq!((head.status, head.value("content-length")), (200, Some("5")));
    assert_eq!(client.get("/").await.body, "hello");
    assert!(client.send("HEAD /queue/nothing HTTP/1.1\r\nhost: a\r\n\r\n").await);
    assert_eq!(
        client.bodiless_answer().await.status,
        404,
        "answers of the gateway's own have no body either"
    );
    assert_eq!(client.get("/").await.body, "hello");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
            .await
    );
    assert_eq!(client.answer().await.status, 100);
    assert!(client.send("abc").await);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.last().body, b"abc");
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_connection_may_change_its_protocol_and_then_carries_bytes_both_ways() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let origin = Origin::scripted(move |_| {
        let mut script = send(switch);
        script.push(Step::Echo);
        script
    })
    .await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await
    );
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.value("upgrade")),
        (101, Some("websocket")),
        "{}",
        answer.head
    );
    for message in ["ping", "GET / HTTP/1.1\r\n\r\n"] {
        assert!(client.send(message).await);
        assert_eq!(client.take(message.len()).await, message.as_bytes());
    }
    assert_eq!(origin.last().value("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::saying("no").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await
    );
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "no"));
}
