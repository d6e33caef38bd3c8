//! The PROXY protocol: a proxy says for whom it connects, before TLS and HTTP, and nobody else does.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::certificates::Authority;
use crate::support::client::Raw;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually, soon};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

/// From 2001:db8::9, port 4711, with an extension of two bytes.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29\
                    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
                    \x12\x67\x01\xbb\x04\0\x02ab";

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A gateway that expects the header from 127.0.0.1 alone.
fn behind_a_proxy(origin: &Origin) -> Setup {
    Setup::new(&origin.rules())
        .process("listeners: [{ bind: 127.0.0.1:0, proxy_protocol: true }]")
        .process("trusted_proxies: [127.0.0.1]")
}

/// A connection from this address of the machine, on which `header` has been sent.
async fn connected(from: [u8; 4], to: SocketAddr, header: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = soon("a connection", socket.connect(to)).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

async fn refused(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_rejected_total{reason=\"proxy_header\"}").await
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_names() {
    let origin = Origin::saying("hello").await;
    let gateway = behind_a_proxy(&origin).start().await;
    for (number, (header, client)) in [(V1, "192.0.2.7"), (V2, "2001:db8::9"), (LOCAL, "127.0.0.1")]
        .into_iter()
        .enumerate()
    {
        let mut proxy = Raw::over(connected([127, 0, 0, 1], gateway.http(), header).await);
        for _ in 0..2 {
            assert_eq!(proxy.get("/").await.status, 200);
            assert_eq!(origin.last().value("x-forwarded-for"), Some(client));
        }
        let lines = gateway.access_lines(2 * number + 2).await;
        assert_eq!(lines.last().unwrap()["client_ip"], client);
    }
}

#[tokio::test]
async fn the_client_s_own_claims_are_not_believed_because_its_proxy_is() {
    let origin = Origin::saying("hello").await;
    let gateway = behind_a_proxy(&origin).start().await;
    let mut proxy = Raw::over(connected([127, 0, 0, 1], gateway.http(), V1).await);
    assert!(
        proxy
            .send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.0.0.1\r\n\r\n")
            .await
    );
    assert_eq!(proxy.answer().await.status, 200);
    assert_eq!(origin.last().value("x-forwarded-for"), Some("192.0.2.7"));
}

/// A proxy that passes on bytes says nothing in their headers, so it must be the client who does.
#[tokio::test]
async fn where_the_proxy_names_nobody_the_headers_name_nobody_either() {
    let origin = Origin::saying("hello").await;
    let gateway = behind_a_proxy(&origin).start().await;
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut proxy = Raw::over(connected([127, 0, 0, 1], gateway.http(), header).await);
        let claims = "x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil";
        assert!(
            proxy
                .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{claims}\r\n\r\n"))
                .await
        );
        assert_eq!(proxy.answer().await.status, 200);
        let told = origin.last();
        assert_eq!(told.value("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(told.value("x-forwarded-proto"), Some("http"));
        assert_eq!(told.value("x-forwarded-host"), Some("a"));
    }
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let origin = Origin::saying("hello").await;
    let authority = Authority::new();
    let pair = authority.sign(&["localhost"]);
    let listener = "listeners: [{ bind: 127.0.0.1:0, proxy_protocol: true, \
                    tls: { certificates: { cert: a.pem, key: a.key } } }]";
    let setup = Setup::new(&origin.rules())
        .file("a.pem", &pair.cert)
        .file("a.key", &pair.key);
    let setup = setup.process(listener).process("trusted_proxies: [127.0.0.1]");
    let gateway = setup.start().await;
    for (header, client) in [(V1, "192.0.2.7"), (V2, "2001:db8::9")] {
        let stream = connected([127, 0, 0, 1], gateway.listener("https"), header).await;
        let connector = TlsConnector::from(Arc::new(authority.client(None)));
        let handshake = connector.connect(ServerName::try_from("localhost").unwrap(), stream);
        let mut proxy = Raw::over(soon("a handshake", handshake).await.unwrap());
        assert_eq!(proxy.get("/").await.status, 200);
        let request = origin.last();
        assert_eq!(request.value("x-forwarded-for"), Some(client));
        assert_eq!(request.value("x-forwarded-proto"), Some("https"));
    }
}

#[tokio::test]
async fn who_is_no_trusted_proxy_or_sends_no_header_is_cut_off_and_counted() {
    let origin = Origin::saying("hello").await;
    let gateway = behind_a_proxy(&origin).start().await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice();
    let cases: [([u8; 4], &[u8]); 4] = [
        ([127, 0, 0, 9], V1),
        ([127, 0, 0, 9], b""),
        ([127, 0, 0, 1], b""),
        ([127, 0, 0, 1], b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n"),
    ];
    for (number, (from, header)) in cases.into_iter().enumerate() {
        let sent = [header, request].concat();
        Raw::over(connected(from, gateway.http(), &sent).await)
            .is_closed()
            .await;
        assert_eq!(refused(&gateway).await, number as f64 + 1.0);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_header_that_takes_too_long_is_not_waited_for() {
    let origin = Origin::saying("hello").await;
    let setup = behind_a_proxy(&origin).process("timeouts: { tls_handshake: 100ms }");
    let gateway = setup.start().await;
    Raw::over(connected([127, 0, 0, 1], gateway.http(), &V1[..20]).await)
        .is_closed()
        .await;
    assert_eq!(refused(&gateway).await, 1.0);
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_the_proxy_that_brings_it_any_number() {
    let origin = Origin::saying("hello").await;
    let crowded = "tidegate_rejected_total{reason=\"connections_per_client\"}";
    let setup = behind_a_proxy(&origin).process("limits: { connections_per_client: 2 }");
    let gateway = setup.start().await;
    let mut held = Vec::new();
    for header in [V1, V1, V2, LOCAL, LOCAL, LOCAL] {
        let mut client = Raw::over(connected([127, 0, 0, 1], gateway.http(), header).await);
        assert_eq!(client.get("/").await.status, 200);
        held.push(client);
    }
    Raw::over(connected([127, 0, 0, 1], gateway.http(), V1).await)
        .is_closed()
        .await;
    assert_eq!(gateway.metric(crowded).await, 1.0);
    drop(held.remove(0));
    eventually("the place is free again", PATIENCE, async || {
        let mut client = Raw::over(connected([127, 0, 0, 1], gateway.http(), V1).await);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.try_answer(true).await
    })
    .await;
}
