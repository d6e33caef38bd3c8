//! The queue API: join, status, enter, leave, under one prefix on every public listener.
//!
//! A status costs the store nothing. Joins and enters wait for a turn of their room, which is at most a tick and the
//! store's deadline away. Errors are problem documents; nothing here may be cached.

use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::Room;
use super::cookie;
use super::document;
use super::guard::Shown;
use super::registry::Rooms;
use super::standing::{Standing, State};
use crate::base::exchange::{Reply, Request};
use crate::queue::ticket::Kind;
use crate::queue::turn::{Entered, Join, Joined, Otherwise, Refusal, Stage};
use crate::store::rooms::RoomFault;

/// Where the API stands unless the operator says otherwise.
pub const PREFIX_DEFAULT: &str = "/queue";

/// Reasons of its answers, as metric labels.
const ANSWERED: &str = "queue_api";
const REFUSED: &str = "queue_api_refused";

/// The API over all rooms.
#[derive(Debug, Clone)]
pub struct QueueApi {
    prefix: String,
    rooms: Arc<Rooms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Join,
    Status,
    Enter,
    Leave,
}

impl Call {
    const fn allows(self) -> &'static str {
        match self {
            Self::Status => "GET, HEAD, OPTIONS",
            Self::Join | Self::Enter | Self::Leave => "POST, OPTIONS",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Status => method == Method::GET || method == Method::HEAD,
            Self::Join | Self::Enter | Self::Leave => method == Method::POST,
        }
    }
}

impl QueueApi {
    /// The API under `prefix`, such as `/queue`.
    pub fn new(prefix: &str, rooms: Arc<Rooms>) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            rooms,
        }
    }

    /// Whether a path belongs to the API. Such a path is never routed.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for a path that the API covers. For HEAD the body is left out by whoever writes it.
    pub async fn answer(&self, request: &Request<'_>) -> Reply {
        let call = match request.path.strip_prefix(self.prefix.as_str()) {
            Some("/join") => Call::Join,
            Some("/status") => Call::Status,
            Some("/enter") => Call::Enter,
            Some("/leave") => Call::Leave,
            _ => return problem(StatusCode::NOT_FOUND, "There is no such call."),
        };
        let allow = HeaderValue::from_static(call.allows());
        if request.method == Method::OPTIONS {
            let reply = Reply::empty(StatusCode::NO_CONTENT, ANSWERED).header(ALLOW, allow);
            return reply.header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if !call.takes(request.method) {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "The call takes another method.").header(ALLOW, allow);
        }
        match self.room(call, request) {
            Ok((room, shown)) => room.answer(call, request, shown).await,
            Err(reply) => *reply,
        }
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
        let named = request.cookies().filter_map(|(name, _)| cookie::room_of_ticket(name));
        let rooms = named.filter_map(|name| self.rooms.get(name));
        let mut shown = rooms.map(|room| {
            let shown = room.shown(request);
            (room, shown)
        });
        let held = shown.find(|(_, shown)| *shown != Shown::Nothing);
        held.ok_or_else(|| Box::new(problem(StatusCode::NOT_FOUND, "The request holds no ticket.")))
    }
}

impl Room {
    async fn answer(&self, call: Call, request: &Request<'_>, shown: Shown) -> Reply {
        if call == Call::Leave {
            return self.answer_leave(request);
        }
        if self.is_open_to_all() || self.bypass(request).is_some() {
            return self.told(self.arrived(State::Inside, request.now), Vec::new());
        }
        if let Err(fault) = self.heard_of().await {
            return self.faulted(fault, request);
        }
        let answer = match call {
            Call::Join => self.answer_join(request).await,
            Call::Enter => self.answer_enter(request).await,
            Call::Status | Call::Leave => Ok(self.answer_status(request, shown)),
        };
        answer.unwrap_or_else(|fault| self.faulted(fault, request))
    }

    /// `shown` is the request's ticket, where it has been looked at; what else it was may have changed since.
    fn answer_status(&self, request: &Request<'_>, shown: Shown) -> Reply {
        let owner = self.rule().owner(request);
        if let Some(claim) = self.live_pass(request, owner) {
            let reply = self.told(self.arrived(State::Inside, request.now), Vec::new());
            return self.about(claim.number, reply);
        }
        let shown = match shown {
            Shown::Ticket(_) => shown,
            Shown::Old | Shown::Nothing => self.shown(request),
        };
        let claim = match shown {
            Shown::Ticket(claim) => claim,
            Shown::Old => return gone(),
            Shown::Nothing => return problem(StatusCode::NOT_FOUND, "The request holds no ticket."),
        };
        let Some(standing) = self.standing(claim.number, request.now) else {
            return self.about(claim.number, gone());
        };
        if standing.state == State::Waiting {
            self.touch(claim.number);
        }
        self.about(claim.number, self.told(standing, Vec::new()))
    }

    async fn answer_join(&self, request: &Request<'_>) -> Result<Reply, RoomFault> {
        let owner = self.rule().owner(request);
        if let Some(claim) = self.live_pass(request, owner) {
            let reply = self.told(self.arrived(State::Inside, request.now), Vec::new());
            return Ok(self.about(claim.number, reply));
        }
        // A ticket of a number that is inside, without its pass, is used up: it gets a new place.
        if let Shown::Ticket(claim) = self.shown(request)
            && let Some(standing) = self.standing(claim.number, request.now)
            && standing.state != State::Inside
        {
            self.touch(claim.number);
            return Ok(self.about(claim.number, self.told(standing, Vec::new())));
        }
        let joined = self
            .join(Join {
                owner,
                otherwise: Otherwise::Wait,
            })
            .await?;
        let (number, since, stage) = match joined {
            Joined::Place { number, since, stage } => (number, since, stage),
            Joined::Refused(Refusal::Off) => {
                return Ok(self.told(self.arrived(State::Inside, request.now), Vec::new()));
            }
            Joined::Refused(refusal) => return Ok(refused(document::refusal(refusal), request)),
        };
        let claim = self.claim(number, since, request);
        let mut cookies = vec![self.ticket_cookie(&claim, request.scheme)];
        let standing = match stage {
            Stage::Inside { until } => {
                cookies.push(self.pass_cookie(&claim, until, request));
                self.arrived(State::Inside, request.now)
            }
            Stage::Waiting | Stage::Called => {
                let standing = self.standing(number, request.now);
                standing.unwrap_or_else(|| self.arrived(State::Called, request.now))
            }
        };
        Ok(self.about(number, self.told(standing, cookies)))
    }

    async fn answer_enter(&self, request: &Request<'_>) -> Result<Reply, RoomFault> {
        let claim = match self.shown(request) {
            Shown::Ticket(claim) => claim,
            Shown::Old => return Ok(gone()),
            Shown::Nothing => return Ok(problem(StatusCode::NOT_FOUND, "The request holds no ticket.")),
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
        let owner = self.rule().owner(request);
        let ticket = match self.shown(request) {
            Shown::Ticket(claim) => Some(claim),
            Shown::Old | Shown::Nothing => None,
        };
        let pass = self.live_pass(request, owner);
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
        let body = document::standing_alone(self.name(), &standing);
        let reply = Reply::json(StatusCode::OK, ANSWERED, body);
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

fn gone() -> Reply {
    problem(
        StatusCode::GONE,
        "The place was given up, or nobody came when it was called. Join again for a new one.",
    )
}

fn refused((reason, detail): (&'static str, &str), request: &Request<'_>) -> Reply {
    let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, reason, detail);
    reply.header(RETRY_AFTER, document::retry_refused(request.now.as_micros()))
}
