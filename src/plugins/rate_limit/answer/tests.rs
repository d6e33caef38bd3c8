use proptest::prelude::*;

use super::*;

fn notice(name: &str, rate: &str) -> Notice {
    let key = KeyPart::Header("x-client".parse().unwrap());
    Notice::new(
        &name.parse().unwrap(),
        rate.parse().unwrap(),
        &[KeyPart::ClientIp, key],
        true,
    )
}

fn standing(notice: &Notice, remaining: u64, reset_ms: u64) -> Standing<'_> {
    let reset = Duration::from_millis(reset_ms);
    Standing {
        notice,
        remaining,
        reset,
    }
}

/// Every header that is announced, as `name: value`.
fn announced<'a>(policy: Option<&str>, standings: impl IntoIterator<Item = Standing<'a>>) -> Vec<String> {
    let mut effects = Effects::default();
    let policy = policy.map(|policy| HeaderValue::from_str(policy).unwrap());
    announce(&mut effects, policy.as_ref(), standings.into_iter());
    let show = |edit| match edit {
        HeaderEdit::Set(name, value) => format!("{name}: {}", value.to_str().unwrap()),
        HeaderEdit::Add(name, value) => format!("+{name}: {}", value.to_str().unwrap()),
        HeaderEdit::Remove(name) => format!("-{name}"),
    };
    effects.to_client.into_iter().map(show).collect()
}

#[test]
fn the_policy_lists_every_limit_with_its_window_in_whole_seconds() {
    let limits = [("per-client", "100/min"), ("burst", "20/1500ms"), ("tick", "3/100ms")];
    let limits = limits.map(|(name, rate)| (name.parse::<Name>().unwrap(), rate.parse::<Rate>().unwrap()));
    let value = policy(limits.iter().map(|(name, rate)| (name, *rate))).unwrap();
    assert_eq!(value, "\"per-client\";q=100;w=60, \"burst\";q=20;w=2, \"tick\";q=3;w=1");
    assert_eq!(policy(std::iter::empty()), None);
}

#[test]
fn one_limit_is_told_in_both_dialects() {
    let notice = notice("per-client", "100/min");
    let told = announced(Some("P"), [standing(&notice, 42, 17_001)]);
    let expected = [
        "+ratelimit-policy: P",
        "+ratelimit: \"per-client\";r=42;t=18",
        "x-ratelimit-limit: 100",
        "x-ratelimit-remaining: 42",
    ];
    assert_eq!(told, expected);
}

#[test]
fn of_several_limits_the_one_with_the_smallest_share_left_is_the_tightest() {
    let (minute, day) = (notice("minute", "100/min"), notice("day", "1000/day"));
    let told = announced(
        Some("P"),
        [standing(&minute, 60, 1_000), standing(&day, 500, 40_000_000)],
    );
    assert_eq!(told[1], "+ratelimit: \"minute\";r=60;t=1, \"day\";r=500;t=40000");
    assert_eq!(told[2..], ["x-ratelimit-limit: 1000", "x-ratelimit-remaining: 500"]);
    let told = announced(Some("P"), [standing(&minute, 0, 1_000), standing(&day, 0, 2_000)]);
    assert_eq!(told[2], "x-ratelimit-limit: 100", "of equals the first");
}

#[test]
fn a_bucket_is_told_by_what_it_holds() {
    let bucket = notice("bucket", "100/s").telling("500/5s".parse().unwrap(), false);
    let plain = notice("plain", "100/s");
    let told = announced(Some("P"), [standing(&bucket, 100, 1_000), standing(&plain, 50, 1_000)]);
    assert_eq!(told[2..], ["x-ratelimit-limit: 500", "x-ratelimit-remaining: 100"]);
}

#[test]
fn a_bucket_that_leaks_is_told_by_the_places_to_wait_in() {
    let leaky = notice("leaky", "5/s").telling("20/4s".parse().unwrap(), true);
    assert_eq!(leaky.places(0), (20, Duration::ZERO));
    assert_eq!(leaky.places(3), (17, Duration::from_millis(600)));
    assert_eq!(
        leaky.places(25),
        (0, Duration::from_secs(5)),
        "others came by another route"
    );
}

#[test]
fn where_no_limit_applied_only_the_policy_is_told_and_of_dry_runs_nothing() {
    assert_eq!(announced(Some("P"), []), ["+ratelimit-policy: P"]);
    assert!(announced(None, []).is_empty());
}

#[test]
fn the_longest_line_fits() {
    let longest = notice(&"n".repeat(NAME_BYTES_MAX), "1000000000000/400days");
    let all = [Standing {
        notice: &longest,
        remaining: u64::MAX,
        reset: Duration::MAX,
    }; LIMITS_MAX];
    let told = announced(Some("P"), all);
    assert_eq!(
        told[1]
            .matches(";r=18446744073709551615;t=18446744073709551615")
            .count(),
        LIMITS_MAX
    );
}

#[test]
fn a_refusal_says_which_limit_and_when_to_come_back() {
    let reply = notice("per-client", "100/min").refusal(19);
    assert_eq!((reply.status.as_u16(), reply.reason), (429, "rate_limited"));
    let header = |name: &str| {
        let found = reply.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.to_str().unwrap())
    };
    assert_eq!(header("retry-after"), Some("19"));
    assert_eq!(header("x-ratelimit-retry-after"), Some("19"));
    assert_eq!(header("content-type"), Some("application/problem+json"));
    assert_eq!(header("cache-control"), Some("no-store"));
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = serde_json::json!({
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "The limit `per-client` of 100/min is used up. The header Retry-After says when to try again.",
        "violated-policies": ["per-client"],
    });
    assert_eq!(body, expected);
}

#[test]
fn who_must_say_who_it_is_is_told_how() {
    let reply = notice("per-client", "100/min").missing_key();
    assert_eq!((reply.status.as_u16(), reply.reason), (400, "missing_key"));
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let detail = "The limit `per-client` counts by `header: x-client`, which this request lacks.";
    assert_eq!(body["detail"], detail);
}

#[test]
fn a_herd_is_spread_over_the_whole_surplus() {
    let told: std::collections::BTreeSet<u64> = (0..1_000)
        .map(|id| retry_seconds(Duration::from_secs(100), &format!("req-{id}")))
        .collect();
    assert_eq!(told, (100..=111).collect());
}

proptest! {
    #[test]
    fn nobody_is_asked_back_too_early_or_much_too_late(wait_ms in 0_u64..40_000_000_000, id in "[ -~]{0,40}") {
        let wait = Duration::from_millis(wait_ms);
        let told = retry_seconds(wait, &id);
        prop_assert!(told >= 1 && Duration::from_secs(told) >= wait);
        let base = wait_ms.div_ceil(1_000).max(1);
        prop_assert!(told <= base + (base / 10).min(60) + 1, "{told} for {wait:?}");
        prop_assert_eq!(told, retry_seconds(wait, &id));
    }

    #[test]
    fn a_number_is_written_as_it_is_read(number: u64) {
        let mut line = Line::new();
        line.push_number(number);
        prop_assert_eq!(std::str::from_utf8(line.as_bytes()), Ok(&*number.to_string()));
    }
}
