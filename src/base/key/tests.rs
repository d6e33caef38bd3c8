use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::base::clock::Timestamp;
use crate::base::exchange::Scheme;
use crate::base::misfit::Step;

const SEED: KeySeed = KeySeed([7; 16]);

fn request<'r>(headers: &'r HeaderMap, query: Option<&'r str>) -> Request<'r> {
    Request {
        came: Timestamp::from_secs(1),
        now: Timestamp::from_secs(1),
        id: "r-1",
        route: None,
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "shop.example.com",
        path: "/checkout",
        query,
        headers,
        client_ip: [192, 0, 2, 1].into(),
    }
}

fn parts(written: serde_json::Value) -> Vec<KeyPart> {
    serde_json::from_value(written).unwrap()
}

fn extractor(written: serde_json::Value) -> KeyExtractor {
    KeyExtractor::new(&parts(written), 64, &SEED).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn by_address(prefix: u8, address: &str) -> Key {
    let none = HeaderMap::new();
    let request = Request {
        client_ip: address.parse().unwrap(),
        ..request(&none, None)
    };
    KeyExtractor::new(&[KeyPart::ClientIp], prefix, &SEED)
        .unwrap()
        .extract(&request)
        .unwrap()
}

fn by_query(query: &str) -> Option<Key> {
    extractor(serde_json::json!([{ "query": "q" }])).extract(&request(&HeaderMap::new(), Some(query)))
}

proptest! {
    #[test]
    fn different_values_are_different_keys(one in "[a-c]{1,4}", two in "[a-c]{1,4}", three in "[a-c]{1,4}", four in "[a-c]{1,4}") {
        let both = extractor(serde_json::json!([{ "header": "x-one" }, { "header": "x-two" }]));
        let first = headers(&[("x-one", &one), ("x-two", &two)]);
        let second = headers(&[("x-one", &three), ("x-two", &four)]);
        let same = both.extract(&request(&first, None)) == both.extract(&request(&second, None));
        prop_assert_eq!(same, (one, two) == (three, four));
    }

    #[test]
    fn a_query_value_counts_as_what_it_decodes_to(value in "[ -~]{1,12}") {
        let spelled: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let plain: String = value.bytes().map(|byte| match byte {
            b'%' | b'+' | b'&' => format!("%{byte:02X}"),
            other => (other as char).to_string(),
        }).collect();
        prop_assert_eq!(by_query(&format!("q={spelled}")), by_query(&format!("a=b&q={plain}")));
    }
}

#[test]
fn where_one_part_ends_and_the_next_begins_matters() {
    let both = extractor(serde_json::json!([{ "header": "x-one" }, { "cookie": "two" }]));
    let (first, second) = (
        headers(&[("x-one", "ab"), ("cookie", "two=c")]),
        headers(&[("x-one", "a"), ("cookie", "two=bc")]),
    );
    assert_ne!(
        both.extract(&request(&first, None)),
        both.extract(&request(&second, None))
    );
}

#[test]
fn one_value_in_two_places_is_two_keys() {
    let sent = headers(&[("x-one", "v"), ("x-two", "v"), ("cookie", "x-one=v")]);
    let request = request(&sent, Some("x-one=v"));
    let kinds = [
        serde_json::json!([{ "header": "x-one" }]),
        serde_json::json!([{ "header": "x-two" }]),
        serde_json::json!([{ "cookie": "x-one" }]),
        serde_json::json!([{ "query": "x-one" }]),
        serde_json::json!(["host"]),
        serde_json::json!(["path"]),
        serde_json::json!(["route"]),
        serde_json::json!(["client_ip"]),
        serde_json::json!(["client_ip", { "header": "x-one" }]),
    ];
    let mut keys: Vec<Key> = kinds
        .into_iter()
        .map(|kind| extractor(kind).extract(&request).unwrap())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 9);
}

#[test]
fn an_ipv6_client_counts_by_its_network() {
    assert_eq!(
        by_address(64, "2001:db8:1:2:aaaa::1"),
        by_address(64, "2001:db8:1:2:bbbb::2")
    );
    assert_ne!(by_address(64, "2001:db8:1:2::1"), by_address(64, "2001:db8:1:3::1"));
    assert_ne!(by_address(128, "2001:db8::1"), by_address(128, "2001:db8::2"));
    assert_eq!(by_address(64, "::ffff:192.0.2.1"), by_address(64, "192.0.2.1"));
    assert_ne!(by_address(64, "192.0.2.1"), by_address(64, "192.0.2.2"));
}

#[test]
fn a_request_that_lacks_a_part_has_no_key_and_an_empty_value_is_none() {
    let none = HeaderMap::new();
    let empty = headers(&[("x-client", ""), ("cookie", "c=")]);
    for part in [
        serde_json::json!({ "header": "x-client" }),
        serde_json::json!({ "cookie": "c" }),
        serde_json::json!({ "query": "q" }),
    ] {
        let extractor = extractor(serde_json::json!(["client_ip", part]));
        assert_eq!(extractor.extract(&request(&none, None)), None, "{part}");
        assert_eq!(extractor.extract(&request(&empty, Some("q=&p=1"))), None, "{part}");
        assert!(extractor.may_be_missing());
    }
    assert!(!extractor(serde_json::json!(["client_ip", "route", "host", "path"])).may_be_missing());
}

#[test]
fn those_who_lack_a_part_share_a_key_that_nobody_else_has() {
    let extractor = extractor(serde_json::json!([{ "header": "x-client" }]));
    let sent = headers(&[("x-client", "a")]);
    assert_ne!(
        Some(extractor.of_the_missing()),
        extractor.extract(&request(&sent, None))
    );
    assert_eq!(extractor.of_the_missing(), extractor.clone().of_the_missing());
}

#[test]
fn a_parameter_is_found_however_its_name_is_spelled() {
    assert_eq!(by_query("%71=abc"), by_query("q=a%62c"));
    assert_eq!(by_query("q=a+b"), by_query("q=a%20b"));
    assert_ne!(by_query("q=a%2"), by_query("q=a%25"));
    assert_eq!(by_query("r=1&qq=2"), None);
}

#[test]
fn a_header_that_is_not_text_still_counts() {
    let mut sent = HeaderMap::new();
    sent.insert("x-client", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert!(
        extractor(serde_json::json!([{ "header": "X-Client" }]))
            .extract(&request(&sent, None))
            .is_some()
    );
    sent.insert(COOKIE, HeaderValue::from_static("a=1; c=2"));
    assert!(
        extractor(serde_json::json!([{ "cookie": "c" }]))
            .extract(&request(&sent, None))
            .is_some()
    );
}

#[test]
fn another_seed_is_another_key() {
    let none = HeaderMap::new();
    let other = KeyExtractor::new(&[KeyPart::Host], 64, &KeySeed([8; 16])).unwrap();
    let this = extractor(serde_json::json!(["host"]));
    assert_ne!(
        this.extract(&request(&none, None)),
        other.extract(&request(&none, None))
    );
    assert_eq!(format!("{SEED:?}"), "KeySeed");
}

#[test]
fn a_key_that_cannot_be_told_is_refused_where_it_stands() {
    let fault = |written| KeyExtractor::new(&parts(written), 64, &SEED).unwrap_err();
    let jwt = fault(serde_json::json!(["client_ip", { "jwt": "sub" }]));
    assert_eq!(jwt.path, [Step::Index(1)]);
    assert!(
        jwt.message.contains("needs the `jwt` plugin before it in the chain"),
        "{jwt}"
    );
    assert!(fault(serde_json::json!([])).message.contains("1 to 8 parts"));
    assert!(
        fault(serde_json::json!(["host", "path", "host"]))
            .message
            .contains("twice")
    );
    assert!(
        fault(serde_json::json!([{ "cookie": "a=b" }]))
            .message
            .contains("names nothing")
    );
    assert!(
        fault(serde_json::json!([{ "query": "" }]))
            .message
            .contains("names nothing")
    );
    let bad = serde_json::from_value::<Vec<KeyPart>>(serde_json::json!([{ "header": "x client:" }])).unwrap_err();
    assert!(bad.to_string().contains("is not a header's name"), "{bad}");
}
