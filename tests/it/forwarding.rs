//! What a server is told of a request, and what a client is told of an answer.

use crate::support::client::{Raw, builder, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Gate, Origin, Step, answer, send};

/// What a client claims that is not for it to say.
const CLAIMS: &str = "x-forwarded-for: 192.0.2.66\r\nforwarded: for=192.0.2.66\r\nx-real-ip: 192.0.2.66\r\n\
                      x-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-request-id: mine-1\r\n";

async fn ask_with_claims(gateway: &Gateway) -> String {
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send(format!("GET / HTTP/1.1\r\nhost: Shop.example.com:80\r\n{CLAIMS}\r\n"))
            .await
    );
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    answer.value("x-request-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_stranger_cannot_say_who_asks() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let id = ask_with_claims(&gateway).await;
    let request = origin.last();
    assert_eq!(request.value("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(
        request.value("forwarded"),
        Some("for=127.0.0.1;proto=http;host=\"shop.example.com:80\"")
    );
    assert_eq!(request.value("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.value("x-forwarded-proto"), Some("http"));
    assert_eq!(request.value("x-forwarded-host"), Some("shop.example.com:80"));
    assert_eq!(request.value("x-request-id"), Some(id.as_str()));
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(gateway.access_lines(1).await[0]["client_ip"], "127.0.0.1");
}

/// Where headers become variables (CGI, WSGI, PHP), `X_Forwarded_For` and `X-Forwarded-For` are one.
#[tokio::test]
async fn a_stranger_cannot_say_it_with_underscores_either() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    let claims = CLAIMS.replace('-', "_").replace("mine_1", "mine-1");
    let mixed = "X-Forwarded_For: 192.0.2.66\r\nx_own_header: 1\r\n";
    assert!(
        client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{claims}{mixed}\r\n"))
            .await
    );
    assert_eq!(client.answer().await.status, 200);
    let request = origin.last();
    let claimed = ["192.0.2.66", "mine-1", "evil", "https"];
    assert!(
        !claimed.iter().any(|claim| request.head.contains(claim)),
        "{}",
        request.head
    );
    assert_eq!(
        request.value("x_own_header"),
        Some("1"),
        "what names nobody is not ours to drop"
    );
}

/// Clients of HTTP/2 send each cookie as a field of its own (RFC 9113, section 8.2.3), and most servers of HTTP/1.1
/// read one line.
#[tokio::test]
async fn cookies_that_came_apart_reach_the_server_in_one_line() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let client = builder().http2_prior_knowledge().build().unwrap();
    let cookies = ["a=1", "b=2; c=3", "d=4"];
    let request = cookies.iter().fold(client.get(gateway.url("/")), |request, cookie| {
        request.header("cookie", *cookie)
    });
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(origin.last().values("cookie"), ["a=1; b=2; c=3; d=4"]);
}

/// Cookies of rooms hold for the whole host, and so come with requests of every route.
#[tokio::test]
async fn tickets_and_passes_reach_no_server_on_whatever_route_and_by_whatever_version_of_http() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let modern = builder().http2_prior_knowledge().build().unwrap();
    let sent = ["a=1", "tidegate-pass-hall=x; b=2", "__Host-tidegate-ticket-hall=y"];
    for (client, lines) in [
        (plain(), vec![sent.join("; ")]),
        (modern, sent.map(str::to_owned).to_vec()),
    ] {
        let request = client.get(gateway.url("/")).header("tidegate-work", "z");
        let request = lines
            .iter()
            .fold(request, |request, line| request.header("cookie", line));
        assert_eq!(request.send().await.unwrap().status(), 200);
        let told = origin.last();
        assert_eq!(told.values("cookie"), ["a=1; b=2"]);
        assert!(!told.head.to_ascii_lowercase().contains("tidegate-"), "{}", told.head);
    }
    let alone = plain().get(gateway.url("/")).header("cookie", "tidegate-pass-hall=x");
    assert_eq!(alone.send().await.unwrap().status(), 200);
    assert_eq!(origin.last().value("cookie"), None);
}

#[tokio::test]
async fn what_a_chain_says_of_cookies_counts_more_than_what_is_taken_out() {
    let sent = "a=1; tidegate-pass-hall=x";
    for (change, expected) in [
        ("set: { cookie: own=1, tidegate-zone: blue }", vec!["own=1"]),
        ("add: { cookie: own=1, tidegate-zone: blue }", vec!["a=1", "own=1"]),
        ("remove: [cookie], set: { tidegate-zone: blue }", vec![]),
    ] {
        let origin = Origin::saying("hello").await;
        let rules = origin.rules_with("", &format!("[request_headers: {{ {change} }}]"));
        let gateway = Gateway::start(&rules).await;
        let request = plain().get(gateway.url("/")).header("cookie", sent);
        let request = request.header("tidegate-zone", "red");
        assert_eq!(request.send().await.unwrap().status(), 200);
        let told = origin.last();
        assert_eq!(told.values("cookie"), expected, "{change}");
        assert_eq!(told.values("tidegate-zone"), ["blue"], "{change}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_says_who_asks() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process("trusted_proxies: [127.0.0.1]")
        .start()
        .await;
    let id = ask_with_claims(&gateway).await;
    let request = origin.last();
    assert_eq!(request.value("x-forwarded-for"), Some("192.0.2.66, 127.0.0.1"));
    assert_eq!(
        request.value("forwarded"),
        Some("for=192.0.2.66, for=127.0.0.1;proto=http;host=\"shop.example.com:80\"")
    );
    assert_eq!(request.value("x-forwarded-proto"), Some("https"));
    assert_eq!(request.value("x-forwarded-host"), Some("evil"));
    assert_eq!((id.as_str(), request.value("x-request-id")), ("mine-1", Some("mine-1")));
    let line = &gateway.access_lines(1).await[0];
    assert_eq!(
        (&line["client_ip"], &line["id"]),
        (&"192.0.2.66".into(), &"mine-1".into())
    );
}

/// Where TLS ends before the gateway, a redirect to TLS would go round for ever if it looked at its own connection.
#[tokio::test]
async fn a_trusted_proxy_says_how_the_client_is_connected_and_a_stranger_does_not() {
    let origin = Origin::saying("hello").await;
    let rules = origin.rules_with("", "[redirect: { to: \"https://{host}{path}{query}\" }]");
    for (process, said, status) in [
        ("trusted_proxies: [127.0.0.1]", "https", 200),
        ("trusted_proxies: [127.0.0.1]", "http", 308),
        ("trusted_proxies: [127.0.0.1]", "HTTPS", 200),
        ("trusted_proxies: [127.0.0.1]", "https,https", 200),
        ("trusted_proxies: [127.0.0.1]", "https, http", 200),
        ("trusted_proxies: [127.0.0.1]", "http, https", 308),
        ("trusted_proxies: [127.0.0.1]", "ftp", 308),
        ("trusted_proxies: [192.0.2.1]", "https", 308),
    ] {
        let gateway = Setup::new(&rules).process(process).start().await;
        let asked = plain().get(gateway.url("/")).header("x-forwarded-proto", said);
        assert_eq!(asked.send().await.unwrap().status(), status, "{process}, {said}");
        if status == 200 {
            assert_eq!(origin.last().value("x-forwarded-proto"), Some("https"), "{said}");
        }
    }
}

/// A balancer that adds to `X-Forwarded-For` may hand on whatever else its client sends.
#[tokio::test]
async fn the_real_ip_is_the_clients_through_a_trusted_proxy_too() {
    let origin = Origin::saying("hello").await;
    let trusting = Setup::new(&origin.rules()).process("trusted_proxies: [127.0.0.1]");
    let gateway = trusting.start().await;
    let asked = plain().get(gateway.url("/")).header("x-real-ip", "192.0.2.66");
    let asked = asked
        .header("x-forwarded-for", "198.51.100.7")
        .header("x-forwarded-port", "443");
    assert_eq!(asked.send().await.unwrap().status(), 200);
    assert_eq!(origin.last().value("x-real-ip"), Some("198.51.100.7"));
    assert_eq!(
        origin.last().value("x-forwarded-port"),
        Some("443"),
        "a trusted proxy may say so"
    );
}

#[tokio::test]
async fn nothing_that_only_proxies_say_is_passed_on_from_a_stranger() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    let names = [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x_forwarded_ssl",
    ];
    let asked = plain().get(gateway.url("/"));
    let asked = names.iter().fold(asked, |asked, name| asked.header(*name, "evil"));
    assert_eq!(asked.send().await.unwrap().status(), 200);
    let head = origin.last().head;
    assert!(!head.contains("evil"), "{head}");
}

#[tokio::test]
async fn of_a_chain_of_proxies_the_last_stranger_is_the_client() {
    let origin = Origin::saying("hello").await;
    let gateway = Setup::new(&origin.rules())
        .process("trusted_proxies: [127.0.0.1, 10.0.0.0/8]")
        .start()
        .await;
    for (chain, client) in [
        ("192.0.2.1, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("192.0.2.1, nonsense, 10.1.2.3", "10.1.2.3"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("", "127.0.0.1"),
        // The proxy added its address to a line that the stranger had begun with what is no text.
        ("\u{e9}, 192.0.2.1", "192.0.2.1"),
    ] {
        let asked = plain()
            .get(gateway.url("/"))
            .header("x-forwarded-for", chain)
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), 200);
        let count = origin.requests().len();
        let line = gateway.access_lines(count).await.pop().unwrap();
        assert_eq!(line["client_ip"], client, "{chain:?}");
    }
}

#[tokio::test]
async fn headers_for_one_hop_stay_on_it() {
    let origin = Origin::scripted(|_| {
        send(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive, x-inner\r\nx-inner: 1\r\n\
             keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nx-outer: 1\r\n\r\n",
        )
    })
    .await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(
        client
            .send(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                 proxy-connection: keep-alive\r\nproxy-authorization: Basic YTpi\r\nte: trailers\r\nx-end: 1\r\n\r\n"
            )
            .await
    );
    let answer = client.answer().await;
    let request = origin.last();
    for name in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
    ] {
        assert_eq!(
            request.value(name),
            None,
            "{name} reached the server:\n{}",
            request.head
        );
    }
    assert_eq!(request.value("x-end"), Some("1"));
    for name in ["x-inner", "proxy-connection"] {
        assert_eq!(answer.value(name), None, "{name} reached the client:\n{}", answer.head);
    }
    assert_eq!(answer.value("x-outer"), Some("1"));
}

#[tokio::test]
async fn connections_to_a_server_are_used_again() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&origin.rules()).await;
    for _ in 0..20 {
        assert_eq!(Raw::connect(gateway.http()).await.get("/").await.status, 200);
    }
    assert_eq!((origin.requests().len(), origin.connections()), (20, 1));
}

#[tokio::test]
async fn the_chain_changes_headers_both_ways() {
    let origin = Origin::scripted(|_| answer("200 OK", &["server: secret", "x-powered-by: secret"], "")).await;
    let chain = "[request_headers: { set: { x-real: \"{client_ip}\", x-route: \"{route}\" }, remove: [x-debug] }, \
                 response_headers: { remove: [server, x-powered-by], set: { x-frame-options: DENY } }]";
    let gateway = Gateway::start(&origin.rules_with("", chain)).await;
    let answer = plain()
        .get(gateway.url("/"))
        .header("x-debug", "1")
        .header("x-real", "forged")
        .send()
        .await
        .unwrap();
    assert_eq!((header(&answer, "server"), header(&answer, "x-powered-by")), ("", ""));
    assert_eq!(header(&answer, "x-frame-options"), "DENY");
    let request = origin.last();
    assert_eq!(
        (request.value("x-real"), request.value("x-route")),
        (Some("127.0.0.1"), Some("all"))
    );
    assert_eq!(request.value("x-debug"), None);
}

#[tokio::test]
async fn an_answer_is_passed_on_while_the_server_still_makes_it() {
    let gate = Gate::closed();
    let opened = gate.clone();
    let origin = Origin::scripted(move |_| {
        let mut script = send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        script.push(Step::Wait(opened.clone()));
        script.extend(send("6\r\nsecond\r\n0\r\n\r\n"));
        script
    })
    .await;
    let gateway = Gateway::start(&origin.rules()).await;
    let mut client = Raw::connect(gateway.http()).await;
    assert!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    assert!(client.head().await.unwrap().contains(" 200 "));
    assert_eq!(client.chunk().await.unwrap(), b"first");
    gate.open();
    assert_eq!(client.chunk().await.unwrap(), b"second");
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn routes_are_chosen_by_host_path_method_and_header() {
    let origin = Origin::saying("hello").await;
    let route = |name: &str, matches: &str| {
        format!(
            "  - {{ name: {name}, match: {{ {matches} }}, \
             chain: [response_headers: {{ set: {{ x-route: \"{{route}}\" }} }}], upstream: app }}\n"
        )
    };
    let routes = [
        route("host", "hosts: [shop.example.com]"),
        route("below", "hosts: [\"*.example.com\"]"),
        route("segment", "path: \"/users/{id}/orders\""),
        route("post", "path: \"/users/{id}/orders\", methods: [POST]"),
        route("beta", "headers: { x-beta: \"1\" }"),
        route("regex", "path: '~ \\.php$'"),
    ]
    .concat();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ servers: [{}] }} }}\nroutes:\n{routes}",
        origin.address
    ))
    .await;
    let table = [
        ("GET / HTTP/1.1\r\nhost: SHOP.example.com:8080\r\n", Some("host")),
        ("GET / HTTP/1.1\r\nhost: a.b.example.com.\r\n", Some("below")),
        (
            "GET http://shop.example.com/ HTTP/1.1\r\nhost: shop.example.com\r\n",
            Some("host"),
        ),
        ("GET /users/7/orders HTTP/1.1\r\nhost: a\r\n", Some("segment")),
        (
            "POST /users/7/orders HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n",
            Some("post"),
        ),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-beta: 1\r\n", Some("beta")),
        ("GET /x.php HTTP/1.1\r\nhost: a\r\n", Some("regex")),
        ("GET / HTTP/1.1\r\nhost: a\r\n", None),
    ];
    for (request, route) in table {
        let mut client = Raw::connect(gateway.http()).await;
        assert!(client.send(format!("{request}\r\n")).await);
        let answer = client.answer().await;
        assert_eq!(answer.value("x-route"), route, "{request}");
        assert_eq!(answer.status, if route.is_some() { 200 } else { 404 }, "{request}");
    }
}

#[tokio::test]
async fn a_server_is_asked_for_the_path_that_the_chain_made_of_the_clients() {
    let origin = Origin::saying("hello").await;
    let rules = origin.rules_with("", "[rewrite: { prefix: /api, to: /v2 }]");
    let gateway = Gateway::start(&rules).await;
    for (asked, sent) in [
        ("/api/users?page=2&q=a%20b", "/v2/users?page=2&q=a%20b"),
        ("/api/./a//b/%7Ec", "/v2/a/b/~c"),
        ("/api", "/v2"),
    ] {
        assert_eq!(plain().get(gateway.url(asked)).send().await.unwrap().status(), 200);
        let request = origin.last();
        assert_eq!(
            (request.target(), request.value("x-forwarded-prefix")),
            (sent, Some("/api"))
        );
    }
    assert_eq!(gateway.access_lines(3).await[2]["path"], "/api");
}
