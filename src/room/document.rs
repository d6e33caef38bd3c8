//! What the queue API and the guarded routes say in JSON: where a visitor stands, and why somebody is refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::mix;
use super::price::{Price, TIDEGATE_WORK};
use super::standing::{Notice, Standing};
use crate::base::clock::Timestamp;
use crate::base::exchange::Reply;
use crate::base::name::Name;
use crate::queue::turn::Refusal;

/// When somebody who got no place is told to come again: so long, and up to as long again, so that those who were
/// refused together do not come again together.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// A standing, as the queue API tells it.
pub fn standing(room: &Name, standing: &Standing) -> Map<String, Value> {
    let position = standing.ahead + 1;
    let eta = standing.eta.map(|eta| eta.as_secs_f64().ceil() as u64);
    let (notice, opens_at) = match standing.notice {
        Notice::Moving => ("moving", None),
        Notice::Held => ("held", None),
        Notice::OpensAt(at) => ("opens", Some(iso(at))),
    };
    let mut document = Map::new();
    let mut set = |key: &str, value: Value| _ = document.insert(key.to_owned(), value);
    set("room", json!(room.as_str()));
    set("state", json!(standing.state.as_str()));
    set("position", json!(position));
    set("ahead", json!(standing.ahead));
    set("behind", json!(standing.behind));
    set("eta_seconds", json!(eta));
    set("next_poll_ms", json!(millis(standing.next_poll)));
    set("notice", json!(notice));
    if let Some(opens_at) = opens_at {
        set("opens_at", json!(opens_at));
    }
    set("as_of", json!(iso(standing.as_of)));
    document
}

/// A problem document (RFC 9457) with a standing as extension members.
pub fn problem(status: StatusCode, reason: &'static str, detail: &str, members: Map<String, Value>) -> Reply {
    let mut document = Map::new();
    let title = status.canonical_reason().unwrap_or("Error");
    document.insert("type".to_owned(), json!("about:blank"));
    document.insert("title".to_owned(), json!(title));
    document.insert("status".to_owned(), json!(status.as_u16()));
    document.insert("detail".to_owned(), json!(detail));
    document.extend(members);
    let body = Bytes::from(Value::Object(document).to_string());
    let mut reply = Reply::empty(status, reason)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.body = body;
    reply
}

/// Why somebody got no place: the reason as a metric label, and a public sentence.
pub const fn refusal(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Closed => ("room_closed", "The queue is closed: nobody new is let in."),
        Refusal::Full => ("room_full", "The queue is full. Please try again later."),
        Refusal::NoRoom | Refusal::Off => (
            "room_busy",
            "There is no room at the moment. Open the page in a browser to get a place in the queue.",
        ),
    }
}

/// Why somebody must pay first, as a metric label.
pub const CHALLENGED: &str = "room_challenged";

/// What a program must do before it gets a place.
pub fn challenge(room: &Name, price: &Price) -> Reply {
    let mut members = Map::new();
    members.insert("room".to_owned(), json!(room.as_str()));
    let challenge = json!({
        "algorithm": "sha-256",
        "bits": price.bits,
        "challenge": price.challenge,
        "good_for_ms": millis(price.good_for),
        "header": TIDEGATE_WORK.as_str(),
    });
    members.insert("challenge".to_owned(), challenge);
    let detail = "A new place has a price. Find a decimal number such that the SHA-256 of `CHALLENGE.NUMBER` starts with \
                  that many zero bits, and ask again with that text in the header.";
    problem(StatusCode::FORBIDDEN, CHALLENGED, detail, members)
}

/// Why somebody got no place although there may be one.
pub const STORE_FAULT: (&str, &str) = (
    "room_store_fault",
    "The queue cannot give out places at the moment. Please try again shortly.",
);

/// `Retry-After` for one who got no place, spread by `seed`.
pub fn retry_refused(seed: u64) -> HeaderValue {
    let base = REFUSED_RETRY.as_secs();
    HeaderValue::from(base + mix(seed) % (base + 1))
}

/// The same answer, to be asked for again when the visitor's next poll is due.
pub fn retry_after_poll(reply: Reply, standing: &Standing) -> Reply {
    let secs = standing.next_poll.as_secs_f64().ceil() as u64;
    reply.header(RETRY_AFTER, HeaderValue::from(secs.max(1)))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn iso(at: Timestamp) -> Option<String> {
    let micros = i64::try_from(at.as_micros()).ok()?;
    jiff::Timestamp::from_microsecond(micros).ok().map(|at| at.to_string())
}
