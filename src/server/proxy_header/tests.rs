use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

fn at(address: &str) -> Client {
    Client::At(address.parse().unwrap())
}

/// What a header of version 1 alone says.
fn line(text: &str) -> Result<Client, Malformed> {
    let (end, client) = parse(text.as_bytes())?.expect("a whole header");
    assert_eq!(end, text.len(), "{text:?}");
    Ok(client)
}

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, body].concat()
}

fn addresses(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let bytes = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    [bytes(source), bytes(destination), ports].concat()
}

#[test]
fn a_line_names_the_client() {
    let v4 = line("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n");
    assert_eq!(v4, Ok(at("192.0.2.7:56324")));
    let v6 = line("PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n");
    assert_eq!(v6, Ok(at("[2001:db8::7]:65535")));
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let mapped = line(&format!("PROXY TCP6 ::ffff:192.0.2.7 {longest} 1 1\r\n"));
    assert_eq!(mapped, Ok(at("[::ffff:192.0.2.7]:1")));
    for unknown in [
        "PROXY UNKNOWN\r\n".to_owned(),
        "PROXY UNKNOWN whatever 1 2\r\n".to_owned(),
        format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n"),
    ] {
        assert_eq!(line(&unknown), Ok(Client::Peer), "{unknown}");
    }
}

#[test]
fn a_line_that_is_not_as_the_protocol_has_it_is_refused() {
    for wrong in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1  443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 1 1\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 1 1\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 1\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 1\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 1\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.\u{661} 198.51.100.1 1 1\r\n",
    ] {
        assert_eq!(parse(wrong.as_bytes()), Err(Malformed::Line), "{wrong:?}");
    }
    for wrong in ["proxy TCP4 ", "GET / HTTP/1.1\r\n", "\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let expected = if wrong == "\r\n\r\n" {
            Ok(None)
        } else {
            Err(Malformed::NoHeader)
        };
        assert_eq!(parse(wrong.as_bytes()), expected, "{wrong:?}");
    }
}

#[test]
fn a_line_ends_within_its_bound() {
    let unknown = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(line(&unknown(V1_BYTES_MAX)), Ok(Client::Peer));
    assert_eq!(parse(unknown(V1_BYTES_MAX + 1).as_bytes()), Err(Malformed::Line));
    assert_eq!(
        parse(&unknown(V1_BYTES_MAX + 9).as_bytes()[..V1_BYTES_MAX - 1]),
        Ok(None)
    );
    assert_eq!(
        parse(&unknown(V1_BYTES_MAX + 9).as_bytes()[..V1_BYTES_MAX]),
        Err(Malformed::Line)
    );
}

#[test]
fn only_tcp_and_the_proxy_itself_may_speak_version_2() {
    let body = [0; V2_BODY_BYTES_MAX];
    let said = |command, family| parse(&v2(command, family, &body)).map(|parsed| parsed.unwrap().1);
    for family in 0..=u8::MAX {
        assert_eq!(
            said(0x20, family),
            Ok(Client::Peer),
            "what a LOCAL header says is skipped"
        );
        let expected = match family {
            0x00 => Ok(Client::Peer),
            0x11 => Ok(at("0.0.0.0:0")),
            0x21 => Ok(at("[::]:0")),
            // Datagrams, sockets of Unix, and what does not exist.
            _ => Err(Malformed::Kind),
        };
        assert_eq!(said(0x21, family), expected, "{family:#x}");
    }
    for command in (0..=u8::MAX).filter(|command| ![0x20, 0x21].contains(command)) {
        assert_eq!(said(command, 0x11), Err(Malformed::Kind), "{command:#x}");
    }
}

#[test]
fn addresses_that_are_cut_short_and_bodies_that_are_too_long_are_refused_at_once() {
    for (family, least) in [(0x00, 0), (0x11, 12), (0x21, 36)] {
        for length in 0..V2_BODY_BYTES_MAX + 10 {
            let head = &v2(0x21, family, &vec![0; length])[..V2_HEAD_BYTES];
            let fits = (least..=V2_BODY_BYTES_MAX).contains(&length);
            assert_eq!(parse(head).is_ok(), fits, "{family:#x} with {length}");
        }
    }
    let huge = [V2_SIGNATURE, &[0x20, 0, 0xff, 0xff]].concat();
    assert_eq!(parse(&huge), Err(Malformed::Length));
}

fn socket_addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    let v6 = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    prop_oneof![v4, v6]
}

/// A header, and whom it names.
fn header() -> impl Strategy<Value = (Vec<u8>, Client)> {
    let text = |(source, destination): (SocketAddr, SocketAddr)| {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let line = format!(
            "PROXY {family} {from} {to} {} {}\r\n",
            source.port(),
            destination.port()
        );
        (line.into_bytes(), Client::At(source))
    };
    let extensions = || proptest::collection::vec(any::<u8>(), 0..=V2_BODY_BYTES_MAX - 36);
    let binary = |((source, destination), extensions): ((SocketAddr, SocketAddr), Vec<u8>)| {
        let family = if source.is_ipv4() { TCP4 } else { TCP6 };
        let body = [addresses(source, destination), extensions].concat();
        (v2(PROXY, family, &body), Client::At(source))
    };
    let local = |(family, extensions): (u8, Vec<u8>)| (v2(LOCAL, family, &extensions), Client::Peer);
    prop_oneof![
        socket_addresses().prop_map(text),
        "PROXY UNKNOWN( [ -~]{0,80})?\r\n".prop_map(|line| (line.into_bytes(), Client::Peer)),
        (socket_addresses(), extensions()).prop_map(binary),
        (any::<u8>(), extensions()).prop_map(local),
    ]
}

proptest! {
    #[test]
    fn a_header_ends_where_it_ends_whatever_follows(
        (header, client) in header(),
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let all = [header.as_slice(), &rest].concat();
        prop_assert_eq!(parse(&all), Ok(Some((header.len(), client))));
        for cut in 0..header.len() {
            prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
        }
    }

    #[test]
    fn no_bytes_panic_or_are_taken_beyond_the_end(
        start in prop_oneof![Just(Vec::new()), Just(V1_START.to_vec()), Just(V2_SIGNATURE.to_vec())],
        rest in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        let bytes = [start, rest].concat();
        match parse(&bytes) {
            Ok(Some((end, client))) => {
                prop_assert!(end <= bytes.len());
                prop_assert_eq!(parse(&bytes[..end]), Ok(Some((end, client))));
                prop_assert_eq!(parse(&bytes[..end - 1]), Ok(None));
            }
            Ok(None) => prop_assert!(bytes.len() < V2_HEAD_BYTES + V2_BODY_BYTES_MAX, "read for ever"),
            Err(_) => {}
        }
    }

    #[test]
    fn one_wrong_byte_neither_panics_nor_lengthens_a_header(
        (mut header, _) in header(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let at = at.index(header.len());
        header[at] = byte;
        if let Ok(Some((end, _))) = parse(&header) {
            prop_assert!(end <= header.len());
        }
    }
}

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    (client, accepted.unwrap().0)
}

#[tokio::test]
async fn what_follows_the_header_stays_on_the_connection() {
    let named = addresses("192.0.2.7:4711".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    for (header, expected) in [
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec(),
            at("192.0.2.7:4711"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Client::Peer),
        (v2(0x21, 0x11, &named), at("192.0.2.7:4711")),
        (v2(0x21, 0x11, &[named, vec![7; 500]].concat()), at("192.0.2.7:4711")),
        (v2(0x20, 0, &[]), Client::Peer),
    ] {
        let (mut client, mut accepted) = connection().await;
        client.write_all(&[header.as_slice(), b"GET /"].concat()).await.unwrap();
        drop(client);
        assert_eq!(read(&mut accepted).await.unwrap(), expected);
        let mut rest = Vec::new();
        accepted.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"GET /");
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let header = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
    for cut in 1..header.len() {
        let (mut client, mut accepted) = connection().await;
        client.write_all(&header[..cut]).await.unwrap();
        accepted.readable().await.unwrap();
        let mut reading = pin!(read(&mut accepted));
        let early = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
        assert!(early.is_pending(), "cut at {cut}");
        client.write_all(&header[cut..]).await.unwrap();
        assert_eq!(reading.await.unwrap(), at("[2001:db8::7]:4711"));
    }
}

#[tokio::test]
async fn a_connection_that_ends_or_begins_otherwise_is_an_error() {
    for (sent, expected) in [
        (b"".as_slice(), io::ErrorKind::UnexpectedEof),
        (b"PROXY TCP4 192.0.2.7", io::ErrorKind::UnexpectedEof),
        (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
        (b"PROXY TCP4 here there 1 2\r\n", io::ErrorKind::InvalidData),
    ] {
        let (mut client, mut accepted) = connection().await;
        client.write_all(sent).await.unwrap();
        drop(client);
        assert_eq!(read(&mut accepted).await.unwrap_err().kind(), expected);
    }
}
