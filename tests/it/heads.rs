//! Requests that are refused by their head alone, and heads that never end.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{Raw, builder};
use crate::support::frames::Frames;
use crate::support::gateway::{Gateway, Setup};
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

/// The deadline for a head in the tests about it.
const HEAD_WITHIN: Duration = Duration::from_millis(600);

/// A client's clock starts a moment after the gateway's, which is that of accepting the connection.
const EARLY: Duration = Duration::from_millis(100);

/// How much later than its deadline a connection may be closed on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

async fn impatient(origin: &Origin) -> Gateway {
    let timeouts = format!("timeouts: {{ request_header: {}ms }}", HEAD_WITHIN.as_millis());
    Setup::new(&origin.rules()).process(&timeouts).start().await
}

/// Sends a byte of a head that never ends whenever the clock has ticked, until the other side closes; gives how long
/// that took.
async fn drip(client: &mut Raw) -> Duration {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(HEAD_WITHIN / 6);
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await);
    loop {
        tokio::select! {
            rest = client.rest() => {
                assert!(!String::from_utf8_lossy(&rest).contains(" 200 "), "a request without an end was answered");
                return begun.elapsed();
            }
            _ = ticks.tick() => {}
        }
        client.send("a").await;
    }
}

#[tokio::test]
async fn a_head_that_drips_is_ended_at_the_deadline() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let took = drip(&mut Raw::connect(gateway.http()).await).await;
    assert!((HEAD_WITHIN - EARLY..HEAD_WITHIN + SLACK).contains(&took), "{took:?}");
    assert!(origin.requests().is_empty());
    assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_dripping_head_on_a_kept_connection_is_ended_at_the_deadline_too() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let mut client = Raw::connect(gateway.http()).await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let took = drip(&mut client).await;
    assert!((HEAD_WITHIN - EARLY..HEAD_WITHIN + SLACK).contains(&took), "{took:?}");
    assert_eq!(origin.requests().len(), 2);
}

/// The first bytes of such a head are read before its turn has come.
#[tokio::test]
async fn a_head_that_began_behind_another_request_is_ended_at_the_deadline_too() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    for before in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        for _ in 0..2 {
            let begun = Instant::now();
            assert!(client.send(format!("{before}{before}GET / HT")).await);
            for _ in 0..2 {
                assert_eq!(client.answer().await.status, 200);
            }
            let rest = "TP/1.1\r\nhost: a\r\n\r\n";
            assert!(client.send(rest).await, "what comes in time is a request");
            assert_eq!(client.answer().await.status, 200);
            assert!(begun.elapsed() < SLACK);
        }
        let begun = Instant::now();
        assert!(client.send(format!("{before}GET / HT")).await);
        assert_eq!(client.answer().await.status, 200);
        client.rest().await;
        let took = begun.elapsed();
        assert!((HEAD_WITHIN - EARLY..HEAD_WITHIN + SLACK).contains(&took), "{took:?}");
    }
    assert_eq!(origin.requests().len(), 2 * 7);
}

#[tokio::test]
async fn a_head_in_frames_of_which_the_last_does_not_come_is_ended_at_the_deadline_too() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let mut client = Frames::connect(gateway.http()).await;
    client.ask(1, "GET", true).await;
    origin.has_seen(1).await;
    let begun = Instant::now();
    client.begin(3).await;
    client.is_over().await;
    let took = begun.elapsed();
    assert!((HEAD_WITHIN - EARLY..HEAD_WITHIN + SLACK).contains(&took), "{took:?}");
    assert_eq!(origin.requests().len(), 1);
}

/// Nothing is left of a request that came whole, however it came, and its connection may rest.
#[tokio::test]
async fn a_connection_on_which_all_is_read_may_rest_for_longer_than_a_head() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nGET /a%20b HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        "POST /%00 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        for bytes in [request.len(), 10] {
            for piece in request.as_bytes().chunks(bytes) {
                assert!(client.send(piece).await);
            }
            client.answer().await;
            let ended = tokio::time::timeout(HEAD_WITHIN * 3 / 2, client.rest()).await;
            assert!(ended.is_err(), "{request}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended_at_the_deadline() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let begun = Instant::now();
    Raw::connect(gateway.http()).await.is_closed().await;
    assert!((HEAD_WITHIN - EARLY..HEAD_WITHIN + SLACK).contains(&begun.elapsed()));
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_up() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process("timeouts: { idle: 1s }")
        .start()
        .await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send("GET / HTTP/1.1\r\nhost: a\r\nkeep-alive: timeout=3600\r\n\r\n")
            .await
    );
    assert_eq!(client.answer().await.status, 200);
    let begun = Instant::now();
    client.is_closed().await;
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(1) + SLACK).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_head_may_be_slow_as_long_as_it_ends_in_time() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    for byte in "GET / HTTP/1.1\r\nhost: a\r\n\r\n".bytes() {
        assert!(client.send([byte]).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.status, 200);
}

/// Requests whose head is not taken, and with which status.
#[tokio::test]
async fn what_cannot_be_is_refused_and_never_reaches_a_server() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let many: String = (0..120).map(|n| format!("x-{n}: a\r\n")).collect();
    let large = format!("x-large: {}\r\n", "a".repeat(40 << 10));
    let long = format!("/{}", "a".repeat(9 << 10));
    let table: &[(&str, String, u16)] = &[
        (
            "too many headers",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
            431,
        ),
        (
            "headers too large",
            format!("GET / HTTP/1.1\r\nhost: a\r\n{large}\r\n"),
            431,
        ),
        (
            "a target too long",
            format!("GET {long} HTTP/1.1\r\nhost: a\r\n\r\n"),
            414,
        ),
        (
            "a query too long",
            format!("GET /?{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
            414,
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "twice the same host",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".to_owned(),
            400,
        ),
        ("an empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n".to_owned(), 400),
        (
            "a host with a user",
            "GET / HTTP/1.1\r\nhost: a@b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "a host with a slash",
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "a host with a space",
            "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "a host with a port that is none",
            "GET / HTTP/1.1\r\nhost: a:b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "another host in the target",
            "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(),
            400,
        ),
        (
            "a target that is no path",
            "GET a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            400,
        ),
        (
            "the whole server, for another method than OPTIONS",
            "GET * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            400,
        ),
        ("a trace", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405),
        (
            "a tunnel",
            "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n".to_owned(),
            405,
        ),
    ];
    for (what, request, status) in table {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(request).await, "{what}");
        let answer = client.answer().await;
        assert_eq!(answer.status, *status, "{what}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let ambiguous = [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/%2e%2e%2fadmin",
        "/..",
        "/../admin",
        "/a/../../admin",
        "/%2e%2e/admin",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a%",
        "/a%zz",
        "/a%c0%af",
        "/a%ff",
        "/..;/admin",
        "/.;/admin",
        "/;a=b/admin",
        "/a%09",
    ];
    for path in ambiguous {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await);
        assert_eq!(client.answer().await.status, 400, "{path}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

/// nginx is the judge: it logs what it reads out of the target that the gateway sends.
#[tokio::test]
async fn no_spelling_of_a_guarded_path_gets_past_its_rule() {
    let Some(nginx) = Nginx::start("location / { return 200 'open'; }", &[]) else {
        return;
    };
    let address = nginx.address;
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{address}] }} }}\n\
         routes:\n  \
         - {{ name: guarded, match: {{ path: /admin/** }}, chain: [respond: {{ status: 403 }}] }}\n  \
         - {{ name: rest, chain: [], upstream: app }}\n"
    ))
    .await;
    let spellings = [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/..//admin",
        "/%61dmin",
        "/%61%64min/x",
        "/x/%2e%2e/admin",
        "/%2e/admin",
        "/admin/../admin",
        "/admin?x",
        "/x/y/../../admin/z",
        "/admin//",
        "/admin/.",
        "http://a/admin",
    ];
    for target in spellings {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await);
        assert_eq!(client.answer().await.status, 403, "{target}");
    }
    for (target, read) in [
        ("/Admin", "/Admin"),
        ("/x/./y//z", "/x/y/z"),
        ("/%7ea/b?q=%2f//", "/~a/b?q=%2f//"),
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        assert_eq!(client.get(target).await.status, 200, "{target}");
        // nginx writes its log when the answer is on its way.
        let expected = format!("GET {read}");
        eventually("nginx has logged the request", PATIENCE, async || {
            (nginx.requests().last() == Some(&expected)).then_some(())
        })
        .await;
    }
    assert_eq!(nginx.requests().len(), 3);
}

/// Characters that no URL holds and many clients send: what comes of them does not depend on the rest of the path.
#[tokio::test]
async fn a_path_with_characters_beyond_a_url_is_one_path_however_it_is_written() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for character in ["<", ">", "`", "\"", "^", "{", "|", "}"] {
        let mut statuses = Vec::new();
        for path in [
            format!("/a{character}b"),
            format!("/x/../a{character}b"),
            format!("/%61{character}b?q"),
        ] {
            let mut client = Raw::connect(gateway.http()).await;
            assert!(client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await);
            statuses.push(client.answer().await.status);
        }
        assert!(
            matches!(statuses[..], [200, 200, 200] | [400, 400, 400]),
            "{character}: {statuses:?}"
        );
    }
}

#[tokio::test]
async fn options_for_the_whole_server_is_passed_on_as_it_is() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.last().target(), "*");
}

#[tokio::test]
async fn who_knows_beforehand_speaks_http2_in_plain_text() {
    let origin = Origin::saying("hello").await;
    let gateway = impatient(&origin).await;
    let knowing = builder().http2_prior_knowledge().build().unwrap();
    for _ in 0..3 {
        let answer = knowing.get(gateway.url("/")).send().await.unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    let line = gateway.access_lines(3).await.pop().unwrap();
    assert_eq!(
        (&line["protocol"], &line["scheme"]),
        (&"HTTP/2.0".into(), &"http".into())
    );

    // Whatever else begins like it is no HTTP/2, and comes through whole.
    for pieces in [
        ["P", "OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabcde"],
        ["PRI * HT", "TP/1.1\r\nhost: a\r\n\r\n"],
    ] {
        let mut client = Raw::connect(gateway.http()).await;
        for piece in pieces {
            assert!(client.send(piece).await);
        }
        let answer = client.answer().await;
        assert!(answer.head.starts_with("HTTP/1.1 "), "{}", answer.head);
    }
    assert_eq!(origin.requests()[3].body, b"abcde");

    let mut silent = Raw::connect(gateway.http()).await;
    assert!(silent.send("PRI * HTTP/2.0\r\n").await);
    silent.is_closed().await;
}

#[tokio::test]
async fn a_plain_listener_without_http2_speaks_none() {
    let origin = Origin::saying("hello").await;
    let listener = "listeners: [{ bind: 127.0.0.1:0, http2: false }]";
    let gateway = Setup::new(&origin.rules()).process(listener).start().await;
    let knowing = builder().http2_prior_knowledge().build().unwrap();
    assert!(knowing.get(gateway.url("/")).send().await.is_err());
    assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 200);
}

/// The rules that come with Tidegate: what guards the checkout guards it against every method and every spelling.
#[tokio::test]
async fn no_method_and_no_parameter_leads_around_the_guards_of_the_sample_rules() {
    let origin = Origin::saying("hello").await;
    let rules = include_str!("../../conf/rules/shop.yaml").replace("127.0.0.1:9000", &origin.address.to_string());
    let gateway = Gateway::start(&rules).await;
    let ask = async |method: &str, path: &str| {
        let mut client = Raw::connect(gateway.http()).await;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\naccept: text/html\r\n\r\n");
        assert!(client.send(head).await);
        client.answer().await
    };
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND"] {
        assert_eq!(ask(method, "/checkout/order").await.status, 405, "{method}");
    }
    for path in ["/checkout;a=1/order", "/checkout/order;a=1", "/%63heckout%3ba/order"] {
        let answer = ask("GET", path).await;
        assert!(
            answer.head.contains("tidegate-pass-concert="),
            "{path}: {}",
            answer.head
        );
    }
    let told: Vec<_> = origin
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(
        told,
        ["/checkout;a=1/order", "/checkout/order;a=1", "/checkout%3Ba/order"]
    );
}
