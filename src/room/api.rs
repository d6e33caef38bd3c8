//! The queue API: join, status, events, enter, leave, under one prefix on every public listener.
//!
//! A status costs the store nothing. Joins and enters wait for a turn of their room, which is at most a tick and the
//! store's deadline away. Errors are problem documents; nothing here may be cached.

mod allowance;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use self::allowance::Allowance;
use super::Room;
use super::cookie;
use super::document;
use super::events::{self, Events, Place};
use super::guard::Shown;
use super::page::price;
use super::registry::Rooms;
use super::standing::{Standing, State};
use crate::base::exchange::{Reply, Request};
use crate::base::mix::mix;
use crate::base::rate::Rate;
use crate::queue::ticket::{Claim, Kind};
use crate::queue::turn::{Entered, Join, Joined, Otherwise, Refusal, Stage};
use crate::store::rooms::RoomFault;

/// Where the API stands unless the operator says otherwise.
pub const PREFIX_DEFAULT: &str = "/queue";

/// Joins of one client network, unless the operator says otherwise. Behind one address of a carrier may be thousands of
/// honest visitors: this keeps one network from taking all of a gateway's time, and is no defence against many.
pub const JOINS_DEFAULT: Rate = per_second(300);

/// Other calls of one client network, unless the operator says otherwise.
pub const POLLS_DEFAULT: Rate = per_second(3_000);

const fn per_second(count: u64) -> Rate {
    Rate {
        count: NonZeroU64::MIN.saturating_add(count - 1),
        window: Duration::from_secs(1),
    }
}

/// Who asks too much is told to come again so much later than need be, in whole seconds, spread.
const LIMITED_SPREAD: u64 = 3;

/// Most rooms of which a request that names none is searched for a ticket.
const ROOMS_LOOKED_AT_MAX: usize = 16;

/// Reasons of its answers; of those that refuse also as metric labels.
const ANSWERED: &str = "queue_api";
const REFUSED: &str = "queue_api_refused";
const LIMITED: &str = "queue_api_limited";

/// Why somebody gets no stream of events.
const NO_STREAM: (&str, &str) = (
    "queue_events_full",
    "Too many follow their place by events at the moment. Ask for the status instead.",
);

/// The API over all rooms.
#[derive(Debug, Clone)]
pub struct QueueApi {
    prefix: String,
    rooms: Arc<Rooms>,
    /// Places for streams of events.
    streams: Arc<Semaphore>,
    stream_life: Duration,
    joins: Arc<Allowance>,
    polls: Arc<Allowance>,
}

/// What one gateway gives to those who use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Streams of events at once.
    pub streams: usize,
    /// How long a stream lives, give or take a quarter.
    pub stream_life: Duration,
    /// Joins of one client network.
    pub joins: Rate,
    /// Other calls of one client network.
    pub polls: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            streams: events::STREAMS_DEFAULT,
            stream_life: events::LIFE_DEFAULT,
            joins: JOINS_DEFAULT,
            polls: POLLS_DEFAULT,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Join,
    Status,
    Events,
    Enter,
    Leave,
}

/// By what a visitor is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// The pass of this number; of none where the room is open to all.
    Pass(Option<u64>),
    /// This ticket.
    Ticket(Claim),
}

impl Call {
    const fn allows(self) -> &'static str {
        match self {
            Self::Status => "GET, HEAD, OPTIONS",
            Self::Events => "GET, OPTIONS",
            Self::Join | Self::Enter | Self::Leave => "POST, OPTIONS",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Status => method == Method::GET || method == Method::HEAD,
            Self::Events => method == Method::GET,
            Self::Join | Self::Enter | Self::Leave => method == Method::POST,
        }
    }
}

impl QueueApi {
    /// The API under `prefix`, such as `/queue`.
    pub fn new(prefix: &str, rooms: Arc<Rooms>, bounds: Bounds) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            rooms,
            streams: Arc::new(Semaphore::new(bounds.streams)),
            stream_life: bounds.stream_life,
            joins: Arc::new(Allowance::new(bounds.joins)),
            polls: Arc::new(Allowance::new(bounds.polls)),
        }
    }

    /// Whether a path belongs to the API, which is there while there are rooms. Such a path is never routed.
    pub fn covers(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.prefix.as_str());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && !self.rooms.are_none()
    }

    /// The stream that a request asks for, or why it cannot have one; none when it asks for something else.
    pub async fn subscribe(&self, request: &Request<'_>) -> Option<Result<Events, Reply>> {
        let asked = self.call(request) == Some(Call::Events) && Call::Events.takes(request.method);
        if !asked {
            return None;
        }
        if let Err(reply) = self.allow(Call::Events, request) {
            return Some(Err(*reply));
        }
        Some(match self.room(Call::Events, request) {
            Ok((room, shown)) => self.stream(room, request, shown).await,
            Err(reply) => Err(*reply),
        })
    }

    async fn stream(&self, room: Arc<Room>, request: &Request<'_>, shown: Shown) -> Result<Events, Reply> {
        let holds = room.holds(request, shown).await?;
        let (number, ticket) = match holds {
            Holds::Pass(_) => (None, None),
            Holds::Ticket(claim) => (Some(claim.number), room.freshened(&claim, request)),
        };
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            return Err(refused(NO_STREAM, request));
        };
        let place = Place::new(&room, permit);
        Ok(Events::new(room, number, self.stream_life, place, request.now).with(ticket))
    }

    fn call(&self, request: &Request<'_>) -> Option<Call> {
        Some(match request.path.strip_prefix(self.prefix.as_str())? {
            "/join" => Call::Join,
            "/status" => Call::Status,
            "/events" => Call::Events,
            "/enter" => Call::Enter,
            "/leave" => Call::Leave,
            _ => return None,
        })
    }

    /// Answers a request for a path that the API covers, unless it asks for a stream ([`Self::subscribe`]). For HEAD
    /// the body is left out by whoever writes it.
    pub async fn answer(&self, request: &Request<'_>) -> Reply {
        if request.path.strip_prefix(self.prefix.as_str()) == Some(price::SOLVER_PATH) {
            return price::solver();
        }
        let Some(call) = self.call(request) else {
            return problem(StatusCode::NOT_FOUND, "There is no such call.");
        };
        let allow = HeaderValue::from_static(call.allows());
        if request.method == Method::OPTIONS {
            let reply = Reply::empty(StatusCode::NO_CONTENT, ANSWERED).header(ALLOW, allow);
            return reply.header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if !call.takes(request.method) {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "The call takes another method.").header(ALLOW, allow);
        }
        match self.allow(call, request).and_then(|()| self.room(call, request)) {
            Ok((room, shown)) => room.answer(call, request, shown).await,
            Err(reply) => *reply,
        }
    }

    /// Before anything is looked up or verified: whether the client's network may ask this now.
    fn allow(&self, call: Call, request: &Request<'_>) -> Result<(), Box<Reply>> {
        let allowance = if call == Call::Join { &self.joins } else { &self.polls };
        let taken = allowance.take(request.client_ip, request.now);
        taken.map_err(|wait| {
            let spread = mix(request.now.as_micros()) % (LIMITED_SPREAD + 1);
            let secs = wait.as_secs() + 1 + spread;
            let detail = "There are too many requests from this network. Please ask less often.";
            let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, LIMITED, detail);
            Box::new(reply.header(RETRY_AFTER, HeaderValue::from(secs)))
        })
    }

    /// The room that is asked for by name, or else the first that the request holds a genuine ticket of, with that
    /// ticket: its signature need not be checked again.
    fn room(&self, call: Call, request: &Request<'_>) -> Result<(Arc<Room>, Shown), Box<Reply>> {
        if let Some(name) = request.query_value("room") {
            let unknown = || Box::new(problem(StatusCode::NOT_FOUND, "There is no room of that name."));
            return self
                .rooms
                .get(name)
                .map(|room| (room, Shown::Nothing))
                .ok_or_else(unknown);
        }
        if call == Call::Join {
            return Err(Box::new(problem(
                StatusCode::BAD_REQUEST,
                "Say which room: `join?room=NAME`.",
            )));
        }
        let mut shown = self.named_by_cookies(request).into_iter().map(|room| {
            let shown = room.shown(request);
            (room, shown)
        });
        let held = shown.find(|(_, shown)| *shown != Shown::Nothing);
        held.ok_or_else(|| Box::new(problem(StatusCode::NOT_FOUND, "The request holds no ticket.")))
    }

    /// The rooms that cookies are called after, each once: to look for a ticket of a room is to read all cookies.
    pub(super) fn named_by_cookies(&self, request: &Request<'_>) -> Vec<Arc<Room>> {
        let mut rooms: Vec<Arc<Room>> = Vec::new();
        for (name, _) in request.cookies() {
            let named = cookie::room_of_ticket(name, request.scheme).and_then(|name| self.rooms.get(name));
            let new = named.filter(|named| !rooms.iter().any(|room| Arc::ptr_eq(room, named)));
            rooms.extend(new);
            if rooms.len() == ROOMS_LOOKED_AT_MAX {
                break;
            }
        }
        rooms
    }
}

impl Room {
    async fn answer(&self, call: Call, request: &Request<'_>, shown: Shown) -> Reply {
        match call {
            Call::Leave => return self.answer_leave(request),
            Call::Status | Call::Events => return self.answer_status(request, shown).await,
            Call::Join | Call::Enter => {}
        }
        if self.is_open_to_all() || self.bypass(request).is_some() {
            return self.told(self.arrived(State::Inside, request.now), Vec::new());
        }
        if let Err(fault) = self.heard_of().await {
            return self.faulted(fault, request);
        }
        let answer = if call == Call::Enter {
            self.answer_enter(request).await
        } else {
            self.answer_join(request).await
        };
        answer.unwrap_or_else(|fault| self.faulted(fault, request))
    }

    /// To poll early brings nothing and costs nothing but the answer: it is no sign of life.
    async fn answer_status(&self, request: &Request<'_>, shown: Shown) -> Reply {
        let claim = match self.holds(request, shown).await {
            Ok(Holds::Pass(number)) => {
                let reply = self.told(self.arrived(State::Inside, request.now), Vec::new());
                return match number {
                    Some(number) => self.about(number, reply),
                    None => reply,
                };
            }
            Ok(Holds::Ticket(claim)) => claim,
            Err(reply) => return reply,
        };
        let number = claim.number;
        let Some(standing) = self.standing(number, request.now) else {
            return self.about(number, gone());
        };
        if standing.state == State::Waiting {
            if self.due.is_early(number, standing.next_poll, request.now) {
                self.meters.polled_early();
            } else {
                self.touch(number);
            }
        }
        let body = self.document(number, &standing);
        let mut reply = Reply::json(StatusCode::OK, ANSWERED, body).keep(self.kept(&standing));
        if standing.state == State::Waiting
            && let Some(cookie) = self.freshened(&claim, request)
        {
            reply = reply.header(SET_COOKIE, cookie);
        }
        self.about(number, reply)
    }

    /// All there is to say of a number's place.
    pub(super) fn document(&self, number: u64, standing: &Standing) -> String {
        document::standing_alone(self.name(), standing, self.lot(number))
    }

    /// By what the visitor is in the queue, or the answer to one who is not. `shown` is the request's ticket, where it
    /// has been looked at; what else it was may have changed since.
    async fn holds(&self, request: &Request<'_>, shown: Shown) -> Result<Holds, Reply> {
        if self.is_open_to_all() || self.bypass(request).is_some() {
            return Ok(Holds::Pass(None));
        }
        if let Err(fault) = self.heard_of().await {
            return if self.is_open_to_all() {
                Ok(Holds::Pass(None))
            } else {
                Err(self.faulted(fault, request))
            };
        }
        if let Some(claim) = self.live_pass(request) {
            return Ok(Holds::Pass(Some(claim.number)));
        }
        let shown = match shown {
            Shown::Ticket(_) => shown,
            Shown::Old | Shown::Nothing => self.shown(request),
        };
        if let Shown::Ticket(claim) = &shown
            && let Err(fault) = self.catch_up_with(claim).await
        {
            return Err(self.faulted(fault, request));
        }
        match shown {
            Shown::Ticket(claim) if self.standing(claim.number, request.now).is_some() => Ok(Holds::Ticket(claim)),
            Shown::Ticket(claim) => Err(self.about(claim.number, gone())),
            Shown::Old | Shown::Nothing => match self.regain(request).await {
                Ok(Some((claim, Stage::Inside { .. }))) => Ok(Holds::Pass(Some(claim.number))),
                Ok(Some((claim, Stage::Waiting | Stage::Called))) => Ok(Holds::Ticket(claim)),
                Ok(None) => Err(no_ticket(shown)),
                Err(fault) => Err(self.faulted(fault, request)),
            },
        }
    }

    async fn answer_join(&self, request: &Request<'_>) -> Result<Reply, RoomFault> {
        let rule = self.rule();
        let (owner, share) = (rule.owner(request), rule.share(request));
        if let Some(claim) = self.live_pass(request) {
            let reply = self.told(self.arrived(State::Inside, request.now), Vec::new());
            return Ok(self.about(claim.number, reply));
        }
        // A ticket of a number that is inside, without its pass, is used up: it gets a new place.
        let shown = self.shown(request);
        if let Shown::Ticket(claim) = &shown {
            self.catch_up_with(claim).await?;
        }
        if let Shown::Ticket(claim) = shown
            && let Some(standing) = self.standing(claim.number, request.now)
            && standing.state != State::Inside
        {
            self.touch(claim.number);
            return Ok(self.about(claim.number, self.told(standing, Vec::new())));
        }
        if let Some((claim, stage)) = self.regain(request).await? {
            return Ok(self.given_now(&claim, stage, request));
        }
        if let Some(price) = self.price(request, false) {
            return Ok(document::challenge(self.name(), &price));
        }
        let joined = self
            .join(Join {
                owner,
                otherwise: Otherwise::Wait,
                share,
            })
            .await?;
        let (number, since, stage) = match joined {
            Joined::Place { number, since, stage } => (number, since, stage),
            Joined::Refused(Refusal::Off) => {
                return Ok(self.told(self.arrived(State::Inside, request.now), Vec::new()));
            }
            Joined::Refused(Refusal::Crowded) => return Ok(self.crowded(request)),
            Joined::Refused(refusal) => return Ok(refused(document::refusal(refusal), request)),
        };
        let claim = self.claim(number, since, request);
        Ok(self.given_now(&claim, stage, request))
    }

    /// Tells of a place that was given just now, with the slips that it is held by.
    fn given_now(&self, claim: &Claim, stage: Stage, request: &Request<'_>) -> Reply {
        let mut cookies = vec![self.ticket_cookie(claim, request.scheme)];
        let standing = match stage {
            Stage::Inside { until } => {
                cookies.push(self.pass_cookie(claim, until, request));
                self.arrived(State::Inside, request.now)
            }
            Stage::Waiting | Stage::Called => {
                let standing = self.standing(claim.number, request.now);
                standing.unwrap_or_else(|| self.arrived(State::Called, request.now))
            }
        };
        self.about(claim.number, self.told(standing, cookies))
    }

    async fn answer_enter(&self, request: &Request<'_>) -> Result<Reply, RoomFault> {
        let claim = match self.shown(request) {
            Shown::Ticket(claim) => claim,
            shown @ (Shown::Old | Shown::Nothing) => match self.regain(request).await? {
                Some((claim, Stage::Waiting | Stage::Called)) => claim,
                Some((claim, inside)) => return Ok(self.given_now(&claim, inside, request)),
                None => return Ok(no_ticket(shown)),
            },
        };
        let reply = match self.enter(claim.number).await? {
            Entered::Now { until } => {
                let cookies = vec![self.pass_cookie(&claim, until, request)];
                self.told(self.arrived(State::Inside, request.now), cookies)
            }
            Entered::Already { .. } => {
                let inside = document::standing(self.name(), &self.arrived(State::Inside, request.now));
                conflict("The ticket has been used: its pass was given.", inside)
            }
            Entered::NotYet => {
                self.touch(claim.number);
                let standing = self.standing(claim.number, request.now);
                let members = standing.map(|standing| document::standing(self.name(), &standing));
                conflict("It is not this ticket's turn yet.", members.unwrap_or_default())
            }
            Entered::Gone => gone(),
        };
        Ok(self.about(claim.number, reply))
    }

    /// Whatever the request holds is given back; a request that holds nothing has nothing to give back.
    fn answer_leave(&self, request: &Request<'_>) -> Reply {
        let ticket = match self.shown(request) {
            Shown::Ticket(claim) => Some(claim),
            Shown::Old | Shown::Nothing => None,
        };
        let pass = self.live_pass(request);
        for claim in pass.iter().chain(&ticket) {
            self.leave(claim.number);
        }
        let mut reply = Reply::empty(StatusCode::NO_CONTENT, ANSWERED);
        reply.place = pass.or(ticket).map(|claim| self.place(claim.number));
        let forgotten = [Kind::Ticket, Kind::Pass].map(|kind| self.cookies.forget(kind, request.scheme));
        let reply = forgotten
            .into_iter()
            .fold(reply, |reply, cookie| reply.header(SET_COOKIE, cookie));
        reply.header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// The same answer, logged with the number that it is about.
    fn about(&self, number: u64, mut reply: Reply) -> Reply {
        reply.place = Some(self.place(number));
        reply
    }

    fn told(&self, standing: Standing, cookies: Vec<HeaderValue>) -> Reply {
        let body = document::standing_alone(self.name(), &standing, None);
        let reply = Reply::json(StatusCode::OK, ANSWERED, body).keep(self.kept(&standing));
        cookies
            .into_iter()
            .fold(reply, |reply, cookie| reply.header(SET_COOKIE, cookie))
    }

    fn faulted(&self, fault: RoomFault, request: &Request<'_>) -> Reply {
        log::debug!("room {}: {fault}", self.name());
        if self.is_open_to_all() {
            return self.told(self.arrived(State::Inside, request.now), Vec::new());
        }
        refused(document::STORE_FAULT, request)
    }
}

fn problem(status: StatusCode, detail: &str) -> Reply {
    Reply::problem(status, REFUSED, detail)
}

fn conflict(detail: &str, members: Map<String, Value>) -> Reply {
    document::problem(StatusCode::CONFLICT, REFUSED, detail, members)
}

/// To one who shows no ticket of this life.
fn no_ticket(shown: Shown) -> Reply {
    match shown {
        Shown::Old | Shown::Ticket(_) => gone(),
        Shown::Nothing => problem(StatusCode::NOT_FOUND, "The request holds no ticket."),
    }
}

fn gone() -> Reply {
    problem(StatusCode::GONE, document::GONE)
}

fn refused((reason, detail): (&'static str, &str), request: &Request<'_>) -> Reply {
    let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, reason, detail);
    reply.header(RETRY_AFTER, document::retry_refused(request.now.as_micros()))
}
