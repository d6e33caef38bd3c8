//! Where a message ends: whatever two servers could read in two ways is refused, or passed on in one way only.

use crate::support::client::{Answer, Raw};
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Step, answer, send};

/// What a smuggled request asks for.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// Requests whose end is in doubt, each with a request hidden where a careless reader would find one.
fn doubtful() -> Vec<(&'static str, String)> {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n{body}");
    let chunked = |body: &str| post("transfer-encoding: chunked", &format!("{body}{HIDDEN}"));
    let length = HIDDEN.len();
    vec![
        (
            "two lengths",
            post(&format!("content-length: 0\r\ncontent-length: {length}"), HIDDEN),
        ),
        (
            "a list of lengths",
            post(&format!("content-length: 0, {length}"), HIDDEN),
        ),
        (
            "the same length twice",
            post(&format!("content-length: {length}\r\ncontent-length: {length}"), HIDDEN),
        ),
        (
            "a list of one length",
            post(&format!("content-length: {length}, {length}"), HIDDEN),
        ),
        (
            "chunked twice",
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked", &chunks),
        ),
        (
            "a length and chunks",
            post(
                &format!("content-length: {}\r\ntransfer-encoding: chunked", chunks.len()),
                &chunks,
            ),
        ),
        (
            "chunks and a length",
            post(
                &format!("transfer-encoding: chunked\r\nContent-Length: {}", chunks.len()),
                &chunks,
            ),
        ),
        ("a signed length", post("content-length: +0", HIDDEN)),
        ("a negative length", post("content-length: -1", HIDDEN)),
        ("a length in hex", post("content-length: 0x0", HIDDEN)),
        ("a length with a space in it", post("content-length: 0 0", HIDDEN)),
        ("an unknown coding", post("transfer-encoding: xchunked", &chunks)),
        (
            "chunked and then another",
            post("transfer-encoding: chunked, identity", &chunks),
        ),
        ("a space before the colon", post("transfer-encoding : chunked", &chunks)),
        (
            "a folded header",
            post("x-a: b\r\n transfer-encoding: chunked", &chunks),
        ),
        (
            "a vertical tab before chunked",
            post("transfer-encoding:\x0bchunked", &chunks),
        ),
        ("a size with a sign", chunked("+0\r\n\r\n")),
        ("a size with a prefix", chunked("0x0\r\n\r\n")),
        ("a size too large", chunked("10000000000000000\r\n\r\n")),
        ("a chunk longer than its size", chunked("1\r\nabc\r\n0\r\n\r\n")),
        ("a chunk that ends in a bare line feed", chunked("1\na\n0\n\n")),
        (
            "HTTP/1.0 with chunks",
            chunked("0\r\n\r\n").replace("HTTP/1.1\r\nhost", "HTTP/1.0\r\nhost"),
        ),
        (
            "a bare carriage return",
            post("x-a: b\rtransfer-encoding: chunked", &chunks),
        ),
        ("a zero byte", post("x-a: b\0c", HIDDEN)),
        ("a name with a space", post("x a: b", HIDDEN)),
        ("a line without a colon", post("chunked", HIDDEN)),
        (
            "a version that is none",
            format!("GET / HTTP/1.7\r\nhost: a\r\n\r\n{HIDDEN}"),
        ),
        ("no version", format!("GET /\r\n\r\n{HIDDEN}")),
    ]
}

/// The origin is the judge: it counts a request when it has all of it.
#[tokio::test]
async fn a_request_that_could_end_in_two_places_is_refused_and_ends_its_connection() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for (what, request) in doubtful() {
        let mut client = Raw::connect(gateway.http()).await;
        client.send(&request).await;
        let answer = client.try_answer(true).await;
        assert!(
            answer.as_ref().is_none_or(|answer| answer.status == 400),
            "{what}: {answer:?}"
        );
        client.is_closed().await;
        assert!(origin.requests().is_empty(), "{what}: {:?}", origin.requests());
    }
}

/// Two readers may find the end of such a body in two places, and the first to look may be a proxy in front.
#[tokio::test]
async fn what_follows_a_body_in_chunks_is_not_read_as_a_request() {
    let length = HIDDEN.len();
    let bodies = [
        ("a plain body", "1\r\na\r\n0\r\n\r\n".to_owned()),
        (
            "a line feed in an extension",
            format!("2;a\nxx\r\n{length:x}\r\n\r\n0\r\n\r\n"),
        ),
        ("an extension that hides it", format!("1;\n{HIDDEN}\r\na\r\n0\r\n\r\n")),
        ("an empty size", "\r\n\r\n".to_owned()),
        ("a space for a size", " \r\n\r\n".to_owned()),
        ("an extension without a size", ";x\r\n\r\n".to_owned()),
        ("a trailer without a colon", "0\r\nfoo bar\r\n\r\n".to_owned()),
        ("a trailer with a line feed", "0\r\na: b\n\r\n".to_owned()),
    ];
    for (what, body) in bodies {
        let origin = Origin::saying("hello").await;
        let gateway = Gateway::start(&origin.rules()).await;
        let mut client = Raw::connect(gateway.http()).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(client.send(format!("{head}{body}{HIDDEN}{HIDDEN}")).await);
        let answer = client.try_answer(true).await;
        let closes = |answer: &Answer| answer.value("connection") == Some("close");
        assert!(answer.as_ref().is_none_or(closes), "{what}: {answer:?}");
        client.is_closed().await;
        let seen = origin.requests();
        assert!(seen.iter().all(|request| request.target() == "/"), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn a_coding_that_is_not_understood_is_said_to_be() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for coding in [
        "gzip, chunked",
        "gzip\r\ntransfer-encoding: chunked",
        "identity, chunked",
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n{HIDDEN}");
        assert!(client.send(request).await);
        assert_eq!(client.answer().await.status, 501, "{coding}");
        client.is_closed().await;
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test]
async fn trailers_go_no_further_and_are_not_announced() {
    let said = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n";
    let origin = Origin::scripted(move |_| send(said)).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    assert!(client.send(format!("{head}1\r\na\r\n0\r\nx-sum: 1\r\n\r\n")).await);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.value("trailer")), (200, None));
    assert_eq!(origin.last().value("trailer"), None);
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
    client.is_closed().await;
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
async fn an_old_client_gets_no_answer_before_its_answer_and_need_not_be_told_to_go_on() {
    let said = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let origin = Origin::scripted(move |_| send(said)).await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    let head = "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert!(client.send(format!("{head}abc")).await);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hi"), "{}", answer.head);
    assert_eq!(origin.last().value("expect"), None);
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
    assert!(client.send("HEAD /%00 HTTP/1.1\r\nhost: a\r\n\r\n").await);
    assert_eq!(
        client.bodiless_answer().await.status,
        400,
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
}

#[tokio::test]
async fn what_the_parser_refuses_is_counted() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let malformed = async || {
        let text = gateway.metrics().await;
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("tidegate_rejected_total{reason=\"malformed\"} "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let mut kept = Raw::connect(gateway.http()).await;
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(kept.get("/").await.status, 200);
    assert_eq!(malformed().await, 0);
    assert!(kept.send("GET / HTTP/1.1\r\nhost: a\r\nx a: b\r\n\r\n").await);
    assert_eq!(kept.answer().await.status, 400);
    assert_eq!(malformed().await, 1);
    drop(kept);
    for refused in [
        "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(refused).await);
        assert!(client.answer().await.status >= 400);
    }
    assert_eq!(malformed().await, 3);
    let lines = gateway.access_lines(5).await;
    let refused: Vec<_> = lines.iter().filter(|line| line["reason"] == "malformed").collect();
    let statuses: Vec<_> = refused.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [400, 400, 405], "{lines:?}");
    assert!(
        refused.iter().all(|line| line["client_ip"] == "127.0.0.1"),
        "{refused:?}"
    );
}

/// What servers say of the end of an answer, and what is passed on; no length where it is said otherwise.
#[tokio::test]
async fn an_answer_s_end_is_passed_on_as_the_standard_has_it_read() {
    let ok = "HTTP/1.1 200 OK";
    for (said, expected) in [
        (
            format!("{ok}\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi"),
            (200, vec!["2"], "hi"),
        ),
        (
            format!("{ok}\r\ncontent-length: 2, 2\r\n\r\nhi"),
            (200, vec!["2"], "hi"),
        ),
        (
            format!("{ok}\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
            (200, vec![], "hi"),
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned(),
            (200, vec![], "hi"),
        ),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n".to_owned(),
            (204, vec![], ""),
        ),
        (
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            (204, vec![], ""),
        ),
        (
            format!("{ok}\r\ncontent-length: 2, 3\r\n\r\nhi!"),
            (502, vec!["*"], "*"),
        ),
        (format!("{ok}\r\ncontent-length: two\r\n\r\nhi"), (502, vec!["*"], "*")),
        (format!("{ok}\r\ncontent-length: +2\r\n\r\nhi"), (502, vec!["*"], "*")),
    ] {
        let origin = Origin::scripted({
            let said = said.clone();
            move |_| {
                let mut steps = send(&said);
                steps.push(Step::Close);
                steps
            }
        })
        .await;
        let gateway = Gateway::start(&origin.rules()).await;
        let mut client = Raw::connect(gateway.http()).await;
        let answer = client.get("/").await;
        let (status, lengths, body) = expected;
        assert_eq!(answer.status, status, "{said}: {}", answer.head);
        assert!(answer.head.starts_with("HTTP/1.1 "), "{said}: {}", answer.head);
        if status != 502 {
            let head = answer.head.to_ascii_lowercase();
            let lines = head.lines().filter_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(
                (lines.collect::<Vec<_>>(), answer.body.as_str()),
                (lengths, body),
                "{said}: {head}"
            );
            let chunked = answer.value("transfer-encoding").is_some();
            assert_eq!(chunked, said.contains("chunked") && status == 200, "{said}: {head}");
        }
    }
}
