//! TLS: whose certificate, which protocol, whose clients, and handshakes that are none.

use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::support::certificates::{Authority, Pair, connect};
use crate::support::client::{Raw, builder};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

/// Adds certificates, the first of which is the default.
fn with_certificates(origin: &Origin, pairs: &[&Pair], more: &str) -> Setup {
    let mut setup = Setup::new(&origin.rules());
    let mut list = String::new();
    for (number, pair) in pairs.iter().enumerate() {
        setup = setup.file(&format!("tls/{number}.pem"), &pair.cert);
        setup = setup.file(&format!("tls/{number}.key"), &pair.key);
        list.push_str(&format!("{{ cert: tls/{number}.pem, key: tls/{number}.key }}, "));
    }
    setup.process(&format!(
        "listeners: [{{ bind: 127.0.0.1:0, tls: {{ certificates: [{list}]{more} }} }}, {{ bind: 127.0.0.1:0 }}]"
    ))
}

/// The certificate that a client is shown who asks for this name.
async fn shown(gateway: &Gateway, config: ClientConfig, name: &str) -> std::io::Result<CertificateDer<'static>> {
    let stream = connect(config, gateway.listener("https"), name).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_asked_for() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let shop = authority.sign(&["shop.example.com", "localhost"]);
    let wildcard = authority.sign(&["*.example.com"]);
    let exact = authority.sign(&["api.example.com"]);
    let gateway = with_certificates(&origin, &[&shop, &wildcard, &exact], "")
        .start()
        .await;
    for (name, pair) in [
        ("shop.example.com", &shop),
        ("api.example.com", &exact),
        ("other.example.com", &wildcard),
        ("OTHER.example.com", &wildcard),
        ("localhost", &shop),
    ] {
        let shown = shown(&gateway, authority.client(None), name).await.unwrap();
        assert!(shown == pair.der(), "{name}");
    }
    let mut nameless = authority.client(None);
    nameless.enable_sni = false;
    assert!(
        shown(&gateway, nameless, "localhost").await.unwrap() == shop.der(),
        "without a name, the first"
    );
    for name in ["a.b.example.com", "example.com", "elsewhere.test"] {
        let error = shown(&gateway, authority.client(None), name).await.unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_as_the_client_likes() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let pair = authority.sign(&["shop.example.com"]);
    let gateway = with_certificates(&origin, &[&pair], "").start().await;
    let client = |http1: bool| {
        let root = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
        let builder = builder()
            .tls_certs_only([root])
            .resolve("shop.example.com", gateway.listener("https"));
        if http1 { builder.http1_only() } else { builder }.build().unwrap()
    };
    let url = format!(
        "https://shop.example.com:{}/path?query",
        gateway.listener("https").port()
    );
    for (http1, version, protocol) in [
        (false, reqwest::Version::HTTP_2, "HTTP/2.0"),
        (true, reqwest::Version::HTTP_11, "HTTP/1.1"),
    ] {
        let client = client(http1);
        for _ in 0..3 {
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            assert_eq!(answer.text().await.unwrap(), "hello");
        }
        let posted = client.post(&url).body(vec![b'a'; 100_000]).send().await.unwrap();
        assert_eq!(posted.status(), 200);
        let request = origin.last();
        assert_eq!((request.target(), request.body.len()), ("/path?query", 100_000));
        assert_eq!(request.value("x-forwarded-proto"), Some("https"));
        let host = request.value("host").unwrap();
        assert!(host.starts_with("shop.example.com"), "{host}");
        let count = origin.requests().len();
        let line = gateway.access_lines(count).await.pop().unwrap();
        assert_eq!(
            (&line["protocol"], &line["scheme"], &line["tls"]),
            (&protocol.into(), &"https".into(), &"TLSv1.3".into())
        );
        assert_eq!(line["host"], "shop.example.com");
    }
}

#[tokio::test]
async fn a_listener_without_http2_offers_none() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let pair = authority.sign(&["localhost"]);
    let setup = Setup::new(&origin.rules())
        .file("a.pem", &pair.cert)
        .file("a.key", &pair.key);
    let listener =
        "listeners: [{ bind: 127.0.0.1:0, http2: false, tls: { certificates: { cert: a.pem, key: a.key } } }]";
    let gateway = setup.process(listener).start().await;
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = connect(config, gateway.listener("https"), "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(Raw::over(stream).get("/").await.status, 200);
}

#[tokio::test]
async fn where_clients_must_show_a_certificate_only_those_with_one_get_in() {
    let origin = Origin::saying("hello").await;
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.sign(&["localhost"]);
    let setup = with_certificates(&origin, &[&pair], ", client_ca: clients.pem").file("clients.pem", &authority.pem);
    let gateway = setup.start().await;
    let get = async |own: Option<&Pair>| {
        // With TLS 1.3 a client learns only after its own handshake that it is not welcome.
        let stream = connect(authority.client(own), gateway.listener("https"), "localhost")
            .await
            .ok()?;
        let mut client = Raw::over(stream);
        client.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        client.try_answer(true).await
    };
    assert!(get(None).await.is_none());
    assert!(get(Some(&other.sign(&["client"]))).await.is_none());
    assert!(origin.requests().is_empty());
    assert_eq!(get(Some(&authority.sign(&["client"]))).await.unwrap().status, 200);
    eventually("the refusals are counted", PATIENCE, async || {
        (gateway
            .metric("tidegate_rejected_total{reason=\"tls_handshake\"}")
            .await
            == 2.0)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn new_certificates_are_used_as_soon_as_they_are_there_and_broken_ones_never() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let (before, after) = (authority.sign(&["localhost"]), authority.sign(&["localhost"]));
    let gateway = with_certificates(&origin, &[&before], "").start().await;
    let current = async || shown(&gateway, authority.client(None), "localhost").await.unwrap();
    let mut kept = Raw::over(
        connect(authority.client(None), gateway.listener("https"), "localhost")
            .await
            .unwrap(),
    );
    assert!(current().await == before.der());
    let file = |name: &str| gateway.dir().join("tls").join(name);
    std::fs::write(file("0.pem"), &after.cert).unwrap();
    gateway.says("certificates stay as they are").await;
    assert!(
        current().await == before.der(),
        "a certificate without its key is not used"
    );
    std::fs::write(file("0.key"), &after.key).unwrap();
    eventually("the new certificate is shown", PATIENCE, async || {
        (current().await == after.der()).then_some(())
    })
    .await;
    assert_eq!(
        kept.get("/").await.status,
        200,
        "connections that stand are not disturbed"
    );
    assert!(!gateway.log.all().join("\n").contains("PRIVATE KEY"));
}

/// A greeting of TLS 1.1, whole and well-formed.
fn old_hello() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_handshake_that_is_none_harms_nobody() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let pair = authority.sign(&["localhost"]);
    let gateway = with_certificates(&origin, &[&pair], "")
        .process("timeouts: { tls_handshake: 500ms }")
        .start()
        .await;
    let greetings: [(&str, Vec<u8>); 5] = [
        ("TLS 1.1", old_hello()),
        ("plain text", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("noise", (0..=255).rev().collect()),
        (
            "a record longer than any",
            [&[22, 3, 1, 255, 255][..], &[0; 5000]].concat(),
        ),
        ("half a greeting", old_hello()[..20].to_vec()),
    ];
    for (what, greeting) in greetings {
        let begun = Instant::now();
        let mut client = Raw::connect(gateway.listener("https")).await;
        client.send(&greeting).await;
        let rest = client.rest().await;
        assert!(
            rest.is_empty() || rest[0] == 21,
            "{what}: an alert or nothing, and not {rest:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
    }
    let stream = connect(authority.client(None), gateway.listener("https"), "localhost")
        .await
        .unwrap();
    assert_eq!(Raw::over(stream).get("/").await.status, 200);
    assert_eq!(origin.requests().len(), 1);
}
