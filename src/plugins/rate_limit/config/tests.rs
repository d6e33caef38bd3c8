use serde_json::{Value, json};

use super::*;

fn drafts(written: Value) -> Result<Vec<Draft>, Vec<Misfit>> {
    let config: Config = serde_json::from_value(written).unwrap();
    config.drafts(&KeySeed([1; 16]))
}

/// A limit by client address, with `more` written beside the rest.
fn limit(name: &str, more: Value) -> Value {
    let mut limit = json!({ "name": name, "key": ["client_ip"], "limit": "100/min" });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

/// The one fault of a list: where, as `0.key.1`, and what.
fn fault(written: Value) -> (String, String) {
    Misfit::sole(drafts(written).unwrap_err())
}

#[test]
fn what_is_not_written_has_its_default() {
    let drafts = drafts(json!([limit("a", json!({}))])).unwrap();
    let Draft {
        rule,
        extractor,
        missing,
        dry_run,
        ..
    } = &drafts[0];
    assert_eq!(
        (rule.tolerance, rule.on_fault, *dry_run),
        (0.0, OnStoreFault::Local, false)
    );
    assert_eq!(
        (rule.rate.count.get(), rule.rate.window),
        (100, Duration::from_secs(60))
    );
    assert!(!extractor.may_be_missing());
    assert_eq!(*missing, Missing::Reject);
}

#[test]
fn what_is_written_is_taken() {
    let more = json!({
        "key": ["client_ip", { "header": "X-Client" }], "tolerance": "5%", "algorithm": "sliding_window",
        "over": ["reject"], "on_store_fault": "deny", "dry_run": true, "missing": "together", "ipv6_prefix": 56,
    });
    let drafts = drafts(json!([limit("a", more)])).unwrap();
    let Draft {
        rule, missing, dry_run, ..
    } = &drafts[0];
    assert_eq!(
        (rule.tolerance, rule.on_fault, *dry_run),
        (0.05, OnStoreFault::Deny, true)
    );
    assert_eq!(*missing, Missing::Together);
}

#[test]
fn what_may_be_missing_needs_a_choice_of_three() {
    for part in [
        json!({ "header": "x-a" }),
        json!({ "cookie": "a" }),
        json!({ "query": "a" }),
    ] {
        let (path, message) = fault(json!([limit("a", json!({ "key": ["host", part] }))]));
        assert_eq!(path, "0.key");
        for choice in ["missing: skip", "missing: together", "missing: reject"] {
            assert!(message.contains(choice), "{message}");
        }
    }
    assert!(
        drafts(json!([limit("a", json!({ "missing": "skip" }))])).is_ok(),
        "moot, and allowed"
    );
}

#[test]
fn a_claim_needs_a_plugin_that_is_not_there() {
    let (path, message) = fault(json!([limit("a", json!({ "key": ["host", { "jwt": "sub" }] }))]));
    assert_eq!(path, "0.key.1");
    let expected = "needs the `jwt` plugin before it in the chain, which this version does not have";
    assert_eq!(message, expected);
}

#[test]
fn bounds_are_kept_and_named() {
    let of = |more| fault(json!([limit("a", json!({})), limit("b", more)]));
    let (path, message) = of(json!({ "limit": "5/50ms" }));
    assert_eq!(path, "1.limit");
    assert!(message.contains("between 100ms and 400 days"), "{message}");
    assert!(
        drafts(json!([
            limit("a", json!({ "limit": "5/100ms" })),
            limit("b", json!({ "limit": "5/400d" }))
        ]))
        .is_ok()
    );
    assert_eq!(of(json!({ "ipv6_prefix": 129 })).0, "1.ipv6_prefix");
    assert_eq!(of(json!({ "over": [] })).0, "1.over");
    assert_eq!(of(json!({ "except": ["::/0", "10.0.0.1/8"] })).0, "1.except.1");
    assert_eq!(of(json!({ "key": [] })).0, "1.key");
    assert_eq!(of(json!({ "name": "a" })).0, "1.name");
}

#[test]
fn a_cost_fits_into_what_may_come_at_once() {
    let bucket = |burst: u64| json!({ "limit": "1/s", "algorithm": "token_bucket", "burst": burst, "cost": 5 });
    assert!(drafts(json!([limit("a", bucket(5))])).is_ok());
    let (path, message) = fault(json!([limit("a", bucket(4))]));
    assert_eq!(path, "0.burst");
    assert!(
        message.contains("costs 5") && message.contains("a bucket of 4"),
        "{message}"
    );
    let (path, _) = fault(json!([limit("a", json!({ "limit": "4/s", "cost": 5 }))]));
    assert_eq!(path, "0.cost");
}

#[test]
fn every_fault_of_a_list_is_told_at_once() {
    let bad = json!({ "limit": "5/50ms", "ipv6_prefix": 200, "key": [{ "jwt": "sub" }] });
    let misfits = drafts(json!([limit("a", bad), limit("a", json!({ "over": [] }))])).unwrap_err();
    let count = misfits.len();
    assert_eq!(count, 5, "window, prefix, claim, name, over: {misfits:?}");
}

#[test]
fn a_step_has_at_least_one_limit_and_at_most_eight() {
    let many = |count: usize| Value::from_iter((0..count).map(|index| limit(&format!("l{index}"), json!({}))));
    assert_eq!(drafts(many(8)).unwrap().len(), 8);
    for count in [0, 9] {
        let (path, message) = fault(many(count));
        assert_eq!(path, "");
        assert!(message.contains("1 to 8 limits"), "{message}");
    }
}

#[test]
fn an_unknown_key_or_choice_is_refused() {
    for more in [
        json!({ "bursts": 5 }),
        json!({ "over": ["delay"] }),
        json!({ "algorithm": "leaky" }),
        json!({ "missing": "allow" }),
    ] {
        let written = json!([limit("a", more)]);
        assert!(serde_json::from_value::<Config>(written.clone()).is_err(), "{written}");
    }
}

#[test]
fn the_schema_describes_every_field() {
    let schema = schemars::schema_for!(LimitConfig);
    let fields = schema.get("properties").unwrap().as_object().unwrap();
    assert_eq!(fields.len(), 16);
    for (name, field) in fields {
        assert!(field.get("description").is_some(), "{name}");
    }
}
