//! What the queue API and the guarded routes say in JSON: where a visitor stands, and why somebody is refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::price::{Price, TIDEGATE_WORK};
use super::replica::Lot;
use super::standing::{Notice, Standing, State};
use crate::base::clock::Timestamp;
use crate::base::exchange::Reply;
use crate::base::mix::mix;
use crate::base::name::Name;
use crate::queue::turn::Refusal;

/// When somebody who got no place is told to come again: so long, and up to as long again, so that those who were
/// refused together do not come again together.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// What a room as a whole may be doing: moving, held, before its opening, or gathering those whom it will shuffle.
pub const NOTICES: [&str; 4] = ["moving", "held", "opens", "lobby"];

/// What there is to say of a place that is gone.
pub const GONE: &str = "The place was given up, or nobody came when it was called. Join again for a new one.";

/// A standing, as the queue API tells it. The members stand in the order of their names, as those of a [`Map`] do.
#[derive(Serialize)]
struct Told<'s> {
    ahead: Option<u64>,
    as_of: Option<String>,
    behind: Option<u64>,
    eta_range_seconds: Option<[u64; 2]>,
    eta_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_lobby: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lobby: Option<ToldLot>,
    next_poll_ms: u64,
    notice: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_at: Option<Option<String>>,
    position: Option<u64>,
    room: &'s str,
    state: &'static str,
}

/// What a visitor of a shuffled lobby drew, and by what anyone can check it.
#[derive(Serialize)]
struct ToldLot {
    number: u64,
    rank: u64,
    seed: String,
    size: u64,
}

impl ToldLot {
    fn new(Lot { lobby, rank, draw }: Lot) -> Self {
        Self {
            number: lobby,
            rank,
            seed: draw.seed.to_string(),
            size: draw.size,
        }
    }
}

impl<'s> Told<'s> {
    fn new(room: &'s Name, standing: &Standing) -> Self {
        let [moving, held, opens, lobby] = NOTICES;
        let (notice, opens_at) = match standing.notice {
            Notice::Moving => (moving, None),
            Notice::Held => (held, None),
            Notice::OpensAt(at) => (opens, Some(iso(at))),
            Notice::Lobby { opens, .. } => (lobby, Some(iso(opens))),
        };
        let in_lobby = match (standing.state, standing.notice) {
            (State::Waiting, Notice::Lobby { size, .. }) => Some(size),
            _ => None,
        };
        // Nobody has a place before the lobby is shuffled: any number given here might grow.
        let placed = |count: u64| in_lobby.is_none().then_some(count);
        Self {
            ahead: placed(standing.ahead),
            as_of: iso(standing.as_of),
            behind: placed(standing.behind),
            eta_range_seconds: standing.eta_range.filter(|_| in_lobby.is_none()).map(rounded),
            eta_seconds: standing.eta.and_then(|eta| placed(whole_seconds(eta))),
            in_lobby,
            lobby: None,
            next_poll_ms: millis(standing.next_poll),
            notice,
            opens_at,
            position: placed(standing.ahead + 1),
            room: room.as_str(),
            state: standing.state.as_str(),
        }
    }
}

/// A standing, as members of a document that says more.
pub fn standing(room: &Name, standing: &Standing) -> Map<String, Value> {
    match serde_json::to_value(Told::new(room, standing)) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// A standing as a document of its own: the answer to every poll, so it is written without a tree of its members. With
/// what the visitor drew, of a shuffled lobby.
pub fn standing_alone(room: &Name, standing: &Standing, lot: Option<Lot>) -> String {
    let told = Told {
        lobby: lot.map(ToldLot::new),
        ..Told::new(room, standing)
    };
    serde_json::to_string(&told).unwrap_or_default()
}

/// A problem document (RFC 9457) with a standing as extension members.
pub fn problem(status: StatusCode, reason: &'static str, detail: &str, members: Map<String, Value>) -> Reply {
    let mut document = told(status, detail);
    document.extend(members);
    let body = Bytes::from(Value::Object(document).to_string());
    let mut reply = Reply::empty(status, reason)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.body = body;
    reply
}

/// What there is to say of a place that is gone, as a problem document.
pub fn gone() -> Map<String, Value> {
    told(StatusCode::GONE, GONE)
}

fn told(status: StatusCode, detail: &str) -> Map<String, Value> {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut document = Map::new();
    document.insert("type".to_owned(), json!("about:blank"));
    document.insert("title".to_owned(), json!(title));
    document.insert("status".to_owned(), json!(status.as_u16()));
    document.insert("detail".to_owned(), json!(detail));
    document
}

/// Why somebody got no place: the reason as a metric label, and a public sentence.
pub const fn refusal(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Closed => ("room_closed", "The queue is closed: nobody new is let in."),
        Refusal::Full => ("room_full", "The queue is full. Please try again later."),
        Refusal::Crowded => (
            "room_places_per_network",
            "Your network has as many places in this queue as it may. Keep the one you have, or try again later.",
        ),
        Refusal::NoRoom | Refusal::Off => (
            "room_busy",
            "There is no room at the moment. Open the page in a browser to get a place in the queue.",
        ),
    }
}

/// The type of the problem of a network that has all its places.
pub const CROWDED_TYPE: &str = "urn:tidegate:problem:places-per-network";

/// What a program is told whose network has `most` places.
pub fn crowded(room: &Name, most: u32) -> Reply {
    let (reason, detail) = refusal(Refusal::Crowded);
    let mut members = Map::new();
    members.insert("type".to_owned(), json!(CROWDED_TYPE));
    members.insert("room".to_owned(), json!(room.as_str()));
    members.insert("places_per_network".to_owned(), json!(most));
    problem(StatusCode::TOO_MANY_REQUESTS, reason, detail, members)
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

/// In whole seconds, and no narrower than it is.
fn rounded((low, high): (Duration, Duration)) -> [u64; 2] {
    [low.as_secs(), whole_seconds(high)]
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs_f64().ceil() as u64
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn iso(at: Timestamp) -> Option<String> {
    let micros = i64::try_from(at.as_micros()).ok()?;
    jiff::Timestamp::from_microsecond(micros).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::standing::State;

    #[test]
    fn a_standing_reads_the_same_alone_and_among_other_members() {
        let room: Name = "front".parse().unwrap();
        let at = Timestamp::from_micros(1_795_235_753_042_137);
        for (notice, eta) in [
            (Notice::Moving, None),
            (Notice::Held, Some(Duration::from_millis(1_500))),
            (Notice::OpensAt(at), None),
        ] {
            let told = Standing {
                state: State::Waiting,
                ahead: 41,
                behind: 7,
                eta,
                eta_range: eta.map(|eta| (eta / 2, eta * 2)),
                next_poll: Duration::from_millis(5_250),
                notice,
                since: None,
                as_of: at,
            };
            let members = Value::Object(standing(&room, &told));
            assert_eq!(standing_alone(&room, &told, None), members.to_string());
            assert_eq!(
                (&members["position"], &members["next_poll_ms"]),
                (&json!(42), &json!(5_250))
            );
            assert_eq!(members["eta_seconds"], json!(eta.map(|_| 2)));
            assert_eq!(members["eta_range_seconds"], json!(eta.map(|_| [0, 3])));
            let opens = matches!(notice, Notice::OpensAt(_)).then_some("2026-11-21T04:35:53.042137Z");
            assert_eq!(members.get("opens_at"), opens.map(|at| json!(at)).as_ref());
        }
    }
}
