use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// A request with nothing unusual about it.
pub(in crate::telemetry::access_log) fn record() -> Record<'static> {
    Record {
        time: Timestamp::from_micros(1_795_235_753_042_137),
        id: "req-1",
        client_ip: IpAddr::from([192, 0, 2, 7]),
        method: "GET",
        scheme: Scheme::Https,
        host: "shop.example.com",
        path: b"/cart",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_sent: 512,
        request_bytes: 0,
        duration: Duration::from_micros(1_002_003),
        upstream: Some("shop"),
        upstream_address: Some("127.0.0.1:9000"),
        upstream_time: Some(Duration::from_micros(950)),
        route: Some("checkout"),
        reason: None,
        user_agent: Some(b"curl/8.5.0"),
        referer: Some(b"https://example.com/a?token=secret"),
        place: Some(("concert", 340)),
        limited: Some(("per-client", Key(0xdd4a_01f7 << 96))),
        tls_version: Some("TLSv1.3"),
    }
}

fn json(record: &Record<'_>) -> String {
    let mut line = Vec::new();
    render_json(&mut line, record);
    String::from_utf8(line).unwrap()
}

fn combined(record: &Record<'_>) -> String {
    let mut line = Vec::new();
    render_combined(&mut line, record);
    String::from_utf8(line).unwrap()
}

#[test]
fn a_request_in_json() {
    assert_eq!(
        json(&record()),
        "{\"time\":\"2026-11-21T04:35:53.042Z\",\"id\":\"req-1\",\"client_ip\":\"192.0.2.7\",\"method\":\"GET\",\
         \"scheme\":\"https\",\"host\":\"shop.example.com\",\"path\":\"/cart\",\"protocol\":\"HTTP/1.1\",\"status\":200,\
         \"bytes_sent\":512,\"request_bytes\":0,\"duration\":1.002003,\"route\":\"checkout\",\"upstream\":\"shop\",\
         \"upstream_address\":\"127.0.0.1:9000\",\"upstream_seconds\":0.000950,\"room\":\"concert\",\"room_number\":340,\"limit\":\"per-client\",\"limit_key\":\"dd4a01f7\",\"user_agent\":\"curl/8.5.0\",\
         \"referer\":\"https://example.com/a\",\"tls\":\"TLSv1.3\"}"
    );
}

#[test]
fn a_request_in_the_combined_format() {
    assert_eq!(
        combined(&record()),
        "192.0.2.7 - - [21/Nov/2026:04:35:53 +0000] \"GET /cart HTTP/1.1\" 200 512 \"https://example.com/a\" \"curl/8.5.0\""
    );
    let bare = Record {
        client_ip: "2001:db8::1".parse().unwrap(),
        status: 0,
        bytes_sent: 0,
        user_agent: None,
        referer: Some(b""),
        ..record()
    };
    assert_eq!(
        combined(&bare),
        "2001:db8::1 - - [21/Nov/2026:04:35:53 +0000] \"GET /cart HTTP/1.1\" 000 0 \"-\" \"-\""
    );
}

#[test]
fn a_query_is_never_logged() {
    let sent = Record {
        path: b"/reset?token=secret",
        ..record()
    };
    for line in [json(&sent), combined(&sent)] {
        assert!(line.contains("/reset") && !line.contains("secret"), "{line}");
    }
}

#[test]
fn what_could_fool_a_reader_is_escaped() {
    let hostile = "\"\\\u{1b}[31m\r\n\t\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}caf\u{e9}\u{ad00}";
    let agent = Record {
        user_agent: Some(hostile.as_bytes()),
        ..record()
    };
    let line = json(&agent);
    assert!(
        line.contains(
            "\\\"\\\\\\u001b[31m\\u000d\\u000a\\u0009\\u0085\\u2028\\u2029\\u202e\\u2066\\ufeff\\udb40\\udc41caf\u{e9}\u{ad00}"
        ),
        "{line}"
    );
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["user_agent"], hostile);
    let line = combined(&agent);
    assert!(line.contains("\\x22\\x5C\\x1B[31m\\x0D\\x0A\\x09\\xC2\\x85"), "{line}");
    assert!(line.is_ascii());
}

#[test]
fn bytes_that_are_not_utf8_are_marked() {
    let agent = Record {
        user_agent: Some(b"a\xff\xc3(b"),
        ..record()
    };
    assert!(json(&agent).contains("\"user_agent\":\"a\\ufffd\\ufffd(b\""));
}

#[test]
fn a_value_is_cut_where_it_gets_too_long() {
    let long = [b'a'; VALUE_BYTES_MAX + 1];
    let agent = Record {
        user_agent: Some(&long),
        ..record()
    };
    let value: Value = serde_json::from_str(&json(&agent)).unwrap();
    assert_eq!(value["user_agent"].as_str().map(str::len), Some(VALUE_BYTES_MAX));
}

#[test]
fn times_beyond_the_calendar_do_not_panic() {
    for micros in [0, 1, u64::MAX, i64::MAX as u64, 253_402_300_799_999_999] {
        let record = Record {
            time: Timestamp::from_micros(micros),
            duration: Duration::MAX,
            bytes_sent: u64::MAX,
            ..record()
        };
        let value: Value = serde_json::from_str(&json(&record)).unwrap();
        assert_eq!(value["bytes_sent"], u64::MAX);
        assert!(combined(&record).contains(" +0000] "));
    }
}

proptest! {
    #[test]
    fn any_record_is_one_line_that_parses(
        method in ".{0,20}",
        host in ".{0,20}",
        path in proptest::collection::vec(any::<u8>(), 0..60),
        agent in proptest::collection::vec(any::<u8>(), 0..60),
        referer in ".{0,30}",
        status in 0..1000_u16,
        bytes in any::<u64>(),
    ) {
        let record = Record {
            method: &method,
            host: &host,
            path: &path,
            user_agent: Some(&agent),
            referer: Some(referer.as_bytes()),
            status,
            bytes_sent: bytes,
            ..record()
        };
        let line = json(&record);
        let value: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value["method"].as_str(), Some(&*method));
        prop_assert_eq!(value["host"].as_str(), Some(&*host));
        prop_assert_eq!(value["bytes_sent"].as_u64(), Some(bytes));
        prop_assert!(!line.chars().any(is_hidden), "{}", line);

        let line = combined(&record);
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        // Two fields before, six quotes, and the status between: nothing a client sends adds a quote.
        prop_assert_eq!(line.matches('"').count(), 6, "{}", line);
    }
}
