//! `waiting_room`: lets visitors with a pass through and sends everyone else to the queue of a room.
//!
//! ```yaml
//! chain:
//!   - waiting_room: { room: concert }
//! ```
//!
//! * A visitor with a good pass goes through: no store call, no waiting; one HMAC per request.
//! * A visitor without one goes straight in while there is room, in the same request.
//! * Else a browser (GET or HEAD that would rather have HTML) gets the waiting page, with the room's `status`
//!   (200 unless it says otherwise). Any other client gets 503 with `Retry-After` and a problem document that has
//!   the members of the queue API's status: a client that is no browser must not take a place in a queue for the
//!   resource it asked for, so the page's status is not for it.
//! * A method other than GET or HEAD, without a ticket, goes straight in or nowhere: its sender cannot be shown a
//!   page to wait on, so a place would be taken that nobody comes for.
//! * CORS preflights and the room's `exempt` paths go through. Tickets, passes and `Tidegate-*` headers that the
//!   client sent never reach the upstream.
//! * An upstream that answers with `Tidegate-Pass: end` ends the visit: the place inside is the next visitor's, and
//!   the pass is worth nothing from then on. The header does not reach the client, whose cookie is cleared.
//! * Store away: those inside go on, those waiting keep seeing their place; newcomers follow the room's
//!   `on_store_fault`.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFRESH,
    RETRY_AFTER, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, HeaderEdit, Reply, Request};
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::negotiate::{Language, prefers_html};
use crate::queue::turn::{Otherwise, Refusal};
use crate::room::guard::{Ruling, Shown};
use crate::room::standing::Standing;
use crate::room::{Room, cookie, document};

/// Why requests end here, as a metric label.
const WAITING: &str = "room_waiting";

/// How alike a room's name must be to be suggested: 0 to 1.
const ALIKE_MIN: f64 = 0.7;

/// As written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The room, by its name under `rooms:`.
    room: Name,
}

/// As run.
#[derive(Debug)]
pub struct Compiled {
    room: Arc<Room>,
}

impl Config {
    pub(super) fn build(self, env: &Env<'_>) -> Result<Compiled, Vec<Misfit>> {
        let Self { room } = self;
        let room = find(env.rooms, &room).map_err(|misfit| vec![misfit.under("room")])?;
        Ok(Compiled { room })
    }
}

fn find(rooms: &HashMap<Name, Arc<Room>>, name: &Name) -> Result<Arc<Room>, Misfit> {
    if let Some(room) = rooms.get(name) {
        return Ok(Arc::clone(room));
    }
    let likeness = |known: &&Name| strsim::jaro_winkler(known.as_str(), name.as_str());
    let nearest = rooms.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(Misfit::new(
        match nearest.filter(|nearest| likeness(nearest) >= ALIKE_MIN) {
            Some(nearest) => format!("there is no room `{name}`; did you mean `{nearest}`?"),
            None => format!("there is no room `{name}`: describe it under `rooms`"),
        },
    ))
}

impl Plugin for Compiled {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        effects.to_upstream.extend(cookie::stripped(request.headers));
        if is_preflight(request) || self.room.rule().exempts(request.path) || self.room.is_open_to_all() {
            return Verdict::Continue;
        }
        match self.room.pass(request) {
            Some(ruling) => self.verdict(ruling, request, effects),
            None => Verdict::Hold(Box::pin(async move {
                let ruling = self.room.admit(request, self.otherwise(request)).await;
                self.verdict(ruling, request, effects)
            })),
        }
    }

    fn answer(&self, request: &Request<'_>, headers: &HeaderMap, effects: &mut Effects) {
        self.room.heed(request, headers, &mut effects.to_client);
    }
}

impl Compiled {
    fn otherwise(&self, request: &Request<'_>) -> Otherwise {
        let shows_pages = request.method == Method::GET || request.method == Method::HEAD;
        if shows_pages || matches!(self.room.shown(request), Shown::Ticket(_)) {
            Otherwise::Wait
        } else {
            Otherwise::Refuse
        }
    }

    fn verdict<'a>(&self, ruling: Ruling, request: &Request<'_>, effects: &mut Effects) -> Verdict<'a> {
        let (reply, cookies) = match ruling {
            Ruling::Through(cookies) => (None, cookies),
            Ruling::Wait(standing, cookies) => (Some(self.wait(&standing, request)), cookies),
            Ruling::Refused(refusal) => (
                Some(refused(document::refusal(refusal), Some(refusal), request)),
                Vec::new(),
            ),
            Ruling::Fault(_) => (Some(refused(document::STORE_FAULT, None, request)), Vec::new()),
        };
        effects
            .to_client
            .extend(cookies.into_iter().map(|cookie| HeaderEdit::Add(SET_COOKIE, cookie)));
        reply.map_or(Verdict::Continue, |reply| Verdict::Reply(Box::new(reply)))
    }

    fn wait(&self, standing: &Standing, request: &Request<'_>) -> Reply {
        if wants_page(request) {
            return self.page(standing, request);
        }
        let members = document::standing(self.room.name(), standing);
        let detail = "There is no room at the moment; this is where you stand in the queue.";
        let reply = document::problem(StatusCode::SERVICE_UNAVAILABLE, WAITING, detail, members);
        document::retry_after_poll(reply, standing)
    }

    fn page(&self, standing: &Standing, request: &Request<'_>) -> Reply {
        let page = self.room.page();
        let language = Language::negotiate(request.header(ACCEPT_LANGUAGE));
        let body = page.render(self.room.name(), language, standing);
        Reply::with_body(self.room.rule().status, WAITING, "text/html; charset=utf-8", body)
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .header(VARY, HeaderValue::from_static("accept, accept-language, cookie"))
            .header(
                HeaderName::from_static("x-robots-tag"),
                HeaderValue::from_static("noindex"),
            )
            .header(CONTENT_SECURITY_POLICY, page.csp().clone())
    }
}

/// A browser asks before it sends the real request; the answer is the upstream's to give, and costs it little.
fn is_preflight(request: &Request<'_>) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn wants_page(request: &Request<'_>) -> bool {
    let shows_pages = request.method == Method::GET || request.method == Method::HEAD;
    shows_pages && prefers_html(request.header(ACCEPT))
}

/// Nobody who is refused has a place to show a page about. A person gets the sentence, and a tab that tries again by
/// itself unless the queue is closed; a program gets the problem document.
fn refused((reason, detail): (&'static str, &str), why: Option<Refusal>, request: &Request<'_>) -> Reply {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let retry = document::retry_refused(request.now.as_micros());
    if !wants_page(request) {
        return Reply::problem(status, reason, detail).header(RETRY_AFTER, retry);
    }
    let reply = Reply::with_body(status, reason, "text/plain; charset=utf-8", detail.to_owned())
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .header(RETRY_AFTER, retry.clone());
    match why {
        Some(Refusal::Closed) => reply,
        _ => reply.header(REFRESH, retry),
    }
}

#[cfg(test)]
mod tests;
