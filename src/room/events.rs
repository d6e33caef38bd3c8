//! A visitor's standing as server-sent events: what to say, and when. It decides nothing about the queue and writes
//! nothing itself; whoever holds the connection looks once a second and sends what a look brings.
//!
//! A change of state or of notice is told with the next look. A mere move is told the less often the further back the
//! visitor stands, four times in what would be a poll interval, so that a crowd which follows its place costs a gateway
//! about as much as one that polls. The store is asked nothing: a stream gives signs of life as polls do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderName, HeaderValue};
use prometheus::IntGauge;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::poll::{POLL_MAX, POLLS_PER_ABANDON};
use super::standing::{Standing, State};
use super::{Room, document};
use crate::base::clock::Timestamp;
use crate::base::exchange::RoomPlace;
use crate::base::mix::mix;
use crate::telemetry::metrics::METRICS;

/// Streams of one gateway, unless the operator says otherwise.
pub const STREAMS_DEFAULT: usize = 10_000;

/// How long a stream lives, unless the operator says otherwise. The end is no fault: clients come again by themselves.
pub const LIFE_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// How often the holder of a stream looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After so long without an event comes a comment, so that nothing between takes the connection for dead.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(15);

/// A mere move is told so many times in a poll interval.
const MOVES_PER_POLL: u32 = 4;

/// When a client comes again after the end of a stream: so long, and up to [`RETRY_SPREAD_MS`] longer.
const RETRY_MS: u64 = 1_000;

/// Streams that end together are not to begin again together.
const RETRY_SPREAD_MS: u64 = 4_000;

/// When a client comes again that has been told the last there is to tell, should it come again at all.
const RETRY_TOLD_MS: u64 = 60_000;

/// A comment: it means nothing to a client, and shows everyone between that the stream lives.
const HEARTBEAT: &str = ":\n\n";

/// One visitor's stream.
pub struct Events {
    room: Arc<Room>,
    /// The visitor's number; none for one who holds a pass.
    number: Option<u64>,
    until: Timestamp,
    retry_ms: u64,
    /// What was told last, and when.
    told: Option<(Standing, Timestamp)>,
    /// When anything was last sent.
    said: Timestamp,
    /// When the last sign of life was given.
    alive: Option<Timestamp>,
    /// The visitor's ticket signed anew, to be set with the head.
    ticket: Option<HeaderValue>,
    _place: Place,
}

/// What a look brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing to send.
    Quiet,
    /// To be sent.
    Say(String),
    /// To be sent, and then the stream ends.
    Last(String),
    /// The stream ends.
    End,
}

/// A place among the streams of a gateway, shown in the gauge as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(room: &Room, permit: OwnedSemaphorePermit) -> Self {
        let gauge = METRICS.room_event_streams.with_label_values(&[room.name().as_str()]);
        gauge.inc();
        Self { gauge, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Events {
    /// A stream for the visitor with this number, or for one who is inside; it lives about `life` long.
    pub(super) fn new(room: Arc<Room>, number: Option<u64>, life: Duration, place: Place, now: Timestamp) -> Self {
        let seed = mix(number.unwrap_or(0) ^ now.as_micros());
        let spread = u32::try_from(seed % 501).unwrap_or(0);
        Self {
            room,
            number,
            until: now + life * (750 + spread) / 1_000,
            retry_ms: RETRY_MS + mix(seed) % RETRY_SPREAD_MS,
            told: None,
            said: now,
            alive: None,
            ticket: None,
            _place: place,
        }
    }

    /// The same, with a cookie for the head: who only ever follows a stream keeps a ticket that is worth something, too.
    pub(super) fn with(self, ticket: Option<HeaderValue>) -> Self {
        Self { ticket, ..self }
    }

    /// Whose place it is about, for the access log.
    pub fn place(&self) -> Option<RoomPlace> {
        self.number.map(|number| self.room.place(number))
    }

    /// The headers of the answer that carries it.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // A proxy in front that gathers answers would keep the events from the visitor.
            (
                HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        headers.extend(self.ticket.clone().map(|ticket| (SET_COOKIE, ticket)));
        headers
    }

    /// What there is to send now. To be asked every [`LOOK_EVERY`], beginning at once.
    pub fn look(&mut self, now: Timestamp) -> Look {
        if now >= self.until || self.room.retired.load(Ordering::Acquire) {
            return Look::End;
        }
        let waits_for = self.number.filter(|_| !self.room.is_open_to_all());
        let standing = match waits_for {
            None => self.room.arrived(State::Inside, now),
            Some(number) => match self.room.standing(number, now) {
                Some(standing) => standing,
                None => {
                    let gone = Value::Object(document::gone()).to_string();
                    return Look::Last(told_last("event: gone\n", &gone));
                }
            },
        };
        if standing.state == State::Inside {
            return Look::Last(told_last("", &self.data(&standing)));
        }
        self.give_sign(&standing, now);
        if self.is_news(&standing, now) {
            let event = self.event(&standing);
            (self.told, self.said) = (Some((standing, now)), now);
            return Look::Say(event);
        }
        if now.since(self.said) >= HEARTBEAT_AFTER {
            self.said = now;
            return Look::Say(HEARTBEAT.to_owned());
        }
        Look::Quiet
    }

    /// A stream is as good a sign of life as a poll, and given no more often.
    fn give_sign(&mut self, standing: &Standing, now: Timestamp) {
        let every = POLL_MAX.min(self.room.rule.load().terms.abandon_after / POLLS_PER_ABANDON);
        let due = self.alive.is_none_or(|alive| now.since(alive) >= every);
        if let Some(number) = self.number.filter(|_| due && standing.state == State::Waiting) {
            self.room.touch(number);
            self.alive = Some(now);
        }
    }

    fn is_news(&self, standing: &Standing, now: Timestamp) -> bool {
        let Some((told, at)) = &self.told else { return true };
        if (told.state, told.notice) != (standing.state, standing.notice) {
            return true;
        }
        let since = now.since(*at);
        let moved = (told.ahead, told.behind) != (standing.ahead, standing.behind);
        // What is expected changes all the time where nothing moves; that is news when there is no other.
        let expects = |standing: &Standing| standing.eta.map(|eta| eta.as_secs());
        moved && since >= standing.next_poll / MOVES_PER_POLL
            || expects(told) != expects(standing) && since >= HEARTBEAT_AFTER
    }

    fn data(&self, standing: &Standing) -> String {
        match self.number {
            Some(number) => self.room.document(number, standing),
            None => document::standing_alone(self.room.name(), standing, None),
        }
    }

    /// The first event says when to come again after the end.
    fn event(&self, standing: &Standing) -> String {
        let data = self.data(standing);
        match self.told {
            None => format!("retry: {}\ndata: {data}\n\n", self.retry_ms),
            Some(_) => format!("data: {data}\n\n"),
        }
    }
}

/// An event after which nothing will change any more.
fn told_last(kind: &str, data: &str) -> String {
    format!("retry: {RETRY_TOLD_MS}\n{kind}data: {data}\n\n")
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("room", self.room.name())
            .finish_non_exhaustive()
    }
}
