//! What a client is told of its limits: the headers of draft-ietf-httpapi-ratelimit-headers, their older cousins,
//! and the two refusals. Whatever can be written before a request comes is written when the plan is built.

use std::hash::Hasher;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use siphasher::sip::SipHasher13;

use super::LIMITS_MAX;
use crate::base::digits::{DIGITS_MAX, decimal};
use crate::base::exchange::{Effects, HeaderEdit, Reply};
use crate::base::key::KeyPart;
use crate::base::name::{NAME_BYTES_MAX, Name};
use crate::base::rate::Rate;
use crate::limiter::ratio;

/// What can be said of a limit before a request comes.
#[derive(Debug)]
pub(super) struct Notice {
    /// The head of its item in `RateLimit`, up to the number.
    item: Box<str>,
    /// How much there is at most, and in how long all of it again.
    pub(super) told: Rate,
    /// What there is are places to wait in.
    pub(super) leaks: bool,
    /// `X-Ratelimit-Limit`.
    limit: HeaderValue,
    refusal: Bytes,
    missing_key: Box<str>,
}

/// What a limit has to say about one request.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) notice: &'a Notice,
    pub(super) remaining: u64,
    /// Until there is more again.
    pub(super) reset: Duration,
}

impl Notice {
    /// Where the limit is not `announced`, its refusals do not say which limit it is nor what it allows.
    pub(super) fn new(name: &Name, rate: Rate, parts: &[KeyPart], announced: bool) -> Self {
        let lackable = parts.iter().filter(|part| part.may_be_missing());
        let lackable: Vec<String> = lackable.map(|part| format!("`{part}`")).collect();
        let lackable = lackable.join(" and ");
        let counts = if announced {
            format!("The limit `{name}` counts")
        } else {
            "Requests are counted".to_owned()
        };
        Self {
            item: format!("\"{name}\";r=").into(),
            told: rate,
            leaks: false,
            limit: HeaderValue::from(rate.count.get()),
            refusal: refusal_body(announced.then_some((name, rate))).into(),
            missing_key: format!("{counts} by {lackable}, which this request lacks or says in two ways.").into(),
        }
    }

    /// The same, where what clients are told is not the rate.
    pub(super) fn telling(self, told: Rate, leaks: bool) -> Self {
        Self {
            told,
            leaks,
            limit: HeaderValue::from(told.count.get()),
            ..self
        }
    }

    /// How many more may wait where so many are `held`, and until when none are.
    pub(super) fn places(&self, held: u64) -> (u64, Duration) {
        let Rate { count, window } = self.told;
        let empty_in = ratio::ceil(held, window.as_micros() as u64, count.get());
        (count.get().saturating_sub(held), Duration::from_micros(empty_in))
    }

    /// 429, and when to come back.
    pub(super) fn refusal(&self, seconds: u64) -> Reply {
        let problem = "application/problem+json";
        Reply::with_body(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            problem,
            self.refusal.clone(),
        )
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .header(RETRY_AFTER, HeaderValue::from(seconds))
        .header(X_RATELIMIT_RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 503, where requests are refused for as long as nobody can tell what they used. That is for no client to know.
    pub(super) fn denied() -> Reply {
        let detail = "It cannot be told now whether this request is within its limits. Try again in a moment.";
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "store_fault", detail)
            .header(RETRY_AFTER, HeaderValue::from(RETRY_DENIED.as_secs()))
    }

    /// 400, for a request that must say who it is and does not.
    pub(super) fn missing_key(&self) -> Reply {
        Reply::problem(StatusCode::BAD_REQUEST, "missing_key", &self.missing_key)
    }
}

fn refusal_body(told: Option<(&Name, Rate)>) -> String {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let what = told.map_or("Too many requests came.".to_owned(), |(name, rate)| {
        format!("The limit `{name}` of {rate} is used up.")
    });
    let mut body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": format!("{what} The header Retry-After says when to try again."),
    });
    if let Some((name, _)) = told {
        body["violated-policies"] = serde_json::json!([name.as_str()]);
    }
    body.to_string()
}

/// The value of `RateLimit-Policy` for these limits, in their order; none when there are none.
///
/// The draft knows whole seconds only, so a window is rounded up: a client that believes it asks too little.
pub(super) fn policy<'a>(limits: impl Iterator<Item = (&'a Name, Rate)>) -> Option<HeaderValue> {
    let items = limits.map(|(name, rate)| format!("\"{name}\";q={};w={}", rate.count, whole_seconds(rate.window)));
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return None;
    }
    HeaderValue::try_from(items.join(", ")).ok()
}

/// Adds to the answer what `standings` say; nothing at all where there is no policy.
///
/// The two lists are added, so that several steps of a chain can each say theirs; the two single numbers are of this
/// step's tightest limit, the one with the smallest share left.
pub(super) fn announce<'a>(
    effects: &mut Effects,
    policy: Option<&HeaderValue>,
    standings: impl Iterator<Item = Standing<'a>>,
) {
    let Some(policy) = policy else { return };
    effects.to_client.reserve(FIELDS);
    effects
        .to_client
        .push(HeaderEdit::Add(RATELIMIT_POLICY, policy.clone()));
    let mut line = Line::new();
    let mut tightest: Option<Standing<'a>> = None;
    for standing in standings {
        line.push_item(&standing);
        if tightest.is_none_or(|other| standing.is_tighter_than(&other)) {
            tightest = Some(standing);
        }
    }
    let Some(tightest) = tightest else { return };
    if let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) {
        effects.to_client.push(HeaderEdit::Add(RATELIMIT, value));
    }
    let remaining = HeaderValue::from(tightest.remaining);
    effects
        .to_client
        .push(HeaderEdit::Set(X_RATELIMIT_LIMIT, tightest.notice.limit.clone()));
    effects
        .to_client
        .push(HeaderEdit::Set(X_RATELIMIT_REMAINING, remaining));
}

impl Standing<'_> {
    /// The shares are compared crosswise, in integers: `a/b < c/d` is `ad < cb`.
    fn is_tighter_than(&self, other: &Self) -> bool {
        let this = u128::from(self.remaining) * u128::from(other.notice.told.count.get());
        this < u128::from(other.remaining) * u128::from(self.notice.told.count.get())
    }
}

/// When to come back that is refused because the store is away.
const RETRY_DENIED: Duration = Duration::from_secs(2);

/// Most seconds by which clients that were refused together are spread. A crowd needs no more, and who waits for the
/// next month should not wait into its first day.
const SPREAD_MAX: u64 = 60;

/// How many seconds a client is told to wait, at least 1: `wait` rounded up, and up to a tenth (at most a minute) and one
/// second more.
///
/// The surplus comes from the request's id, so clients that were refused together do not come back together. It is
/// never negative, so nobody is asked back too early.
pub(super) fn retry_seconds(wait: Duration, request_id: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(request_id.as_bytes());
    let base = whole_seconds(wait);
    let choices = (base / 10).min(SPREAD_MAX) + 2;
    base.saturating_add(hasher.finish() % choices)
}

/// Rounded up, and at least 1.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).max(1)
}

/// A line of items, written without the heap.
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: usize,
}

/// Separator, quoted name, `;r=`, `;t=` and two numbers.
const ITEM_BYTES_MAX: usize = 2 + NAME_BYTES_MAX + 2 + 3 + 3 + 2 * DIGITS_MAX;
const LINE_BYTES_MAX: usize = LIMITS_MAX * ITEM_BYTES_MAX;

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES_MAX],
            len: 0,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push_item(&mut self, standing: &Standing<'_>) {
        if self.len > 0 {
            self.push(b", ");
        }
        self.push(standing.notice.item.as_bytes());
        self.push_number(standing.remaining);
        self.push(b";t=");
        self.push_number(whole_seconds(standing.reset));
    }

    fn push(&mut self, text: &[u8]) {
        if let Some(free) = self.bytes.get_mut(self.len..self.len + text.len()) {
            free.copy_from_slice(text);
            self.len += text.len();
        }
    }

    fn push_number(&mut self, number: u64) {
        self.push(decimal(number, 1, &mut [0; DIGITS_MAX]));
    }
}

/// How many of these an answer may have.
const FIELDS: usize = 4;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RETRY_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-retry-after");

#[cfg(test)]
mod tests;
