//! How a room receives a request that may not simply go on: who need not come before it at all, and what those get
//! who must wait. One answer for every step of a chain that leads into a room.
//!
//! A browser (GET or HEAD that would rather have HTML) gets the waiting page, with the room's `status`. Any other
//! client gets 503 with `Retry-After` and a problem document that has the members of the queue API's status. Who cannot
//! be shown a page to wait on, and has no ticket, goes straight in or nowhere.

use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFRESH,
    RETRY_AFTER, SET_COOKIE, VARY,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::guard::{Given, Ruling, Shown};
use super::page::Sheet;
use super::price::Price;
use super::standing::Standing;
use super::{Room, document};
use crate::base::exchange::{Effects, HeaderEdit, Reply, Request};
use crate::base::negotiate::{Language, prefers_html};
use crate::queue::turn::{Otherwise, Refusal};

/// Why requests end here: the reason in the access log, and, where the status is one of refusal, as a metric label.
const WAITING: &str = "room_waiting";

impl Room {
    /// Whether the request is one that this room decides about: no CORS preflight, on no exempt path, the room is not
    /// open to all, and the request does not go around it. Those that go around are counted by this.
    pub fn concerns(&self, request: &Request<'_>) -> bool {
        if is_preflight(request) || self.rule().exempts(request.path) || self.is_open_to_all() {
            return false;
        }
        let bypass = self.bypass(request);
        bypass.into_iter().for_each(|by| self.meters.bypassed(by));
        bypass.is_none()
    }

    /// Lets the request through (none), or says what its client gets instead. May wait for a turn.
    pub async fn receive(&self, request: &Request<'_>, effects: &mut Effects) -> Option<Reply> {
        let ruling = self.admit(request, self.otherwise(request)).await;
        self.carry_out(ruling, request, effects)
    }

    /// What a ruling means for the client: none lets the request through.
    pub fn carry_out(&self, ruling: Ruling, request: &Request<'_>, effects: &mut Effects) -> Option<Reply> {
        let (reply, given) = match ruling {
            Ruling::Through(given) => (None, given),
            Ruling::Wait(standing, given) => (Some(self.wait_here(&standing, request)), given),
            Ruling::Challenge(price) => self.challenged(&price, request),
            Ruling::Refused(Refusal::Crowded) => (Some(self.crowded(request)), Given::default()),
            Ruling::Refused(refusal) => (
                Some(refused(document::refusal(refusal), Some(refusal), request)),
                Given::default(),
            ),
            Ruling::Fault => (Some(refused(document::STORE_FAULT, None, request)), Given::default()),
        };
        let Given { number, cookies } = given;
        effects.place = number.map(|number| self.place(number));
        effects
            .to_client
            .extend(cookies.into_iter().map(|cookie| HeaderEdit::Add(SET_COOKIE, cookie)));
        reply
    }

    fn otherwise(&self, request: &Request<'_>) -> Otherwise {
        if shows_pages(request) || matches!(self.shown(request), Shown::Ticket(_)) {
            Otherwise::Wait
        } else {
            Otherwise::Refuse
        }
    }

    fn wait_here(&self, standing: &Standing, request: &Request<'_>) -> Reply {
        if wants_page(request) {
            return self.waiting_page(standing, request);
        }
        let members = document::standing(self.name(), standing);
        let detail = "There is no room at the moment; this is where you stand in the queue.";
        let reply = document::problem(StatusCode::SERVICE_UNAVAILABLE, WAITING, detail, members);
        let reply = reply.keep(self.kept(standing));
        document::retry_after_poll(reply, standing)
    }

    /// Nobody of this network gets a place until one of its own is free: that is theirs to mend, so the status is a
    /// client's fault.
    pub(super) fn crowded(&self, request: &Request<'_>) -> Reply {
        self.meters.crowded();
        let retry = document::retry_refused(request.now.as_micros());
        if wants_page(request) {
            let (reason, detail) = document::refusal(Refusal::Crowded);
            return sentence(StatusCode::TOO_MANY_REQUESTS, reason, detail)
                .header(RETRY_AFTER, retry.clone())
                .header(REFRESH, retry);
        }
        let most = self.rule().places_per_network.unwrap_or_default();
        document::crowded(self.name(), most).header(RETRY_AFTER, retry)
    }

    /// A browser gets a page that pays by itself; a program gets the price.
    fn challenged(&self, price: &Price, request: &Request<'_>) -> (Option<Reply>, Given) {
        if !wants_page(request) {
            return (Some(document::challenge(self.name(), price)), Given::default());
        }
        let language = Language::negotiate(request.header(ACCEPT_LANGUAGE));
        let sheet = self.page().price(self.name(), language, price);
        let kept = price
            .again_in
            .map(|_| self.cookies.work(&price.challenge, price.good_for, request.scheme));
        let given = Given {
            number: None,
            cookies: kept.into_iter().collect(),
        };
        (Some(self.shown_page(document::CHALLENGED, sheet)), given)
    }

    fn waiting_page(&self, standing: &Standing, request: &Request<'_>) -> Reply {
        let page = self.page();
        let language = Language::negotiate(request.header(ACCEPT_LANGUAGE));
        self.shown_page(WAITING, page.render(self.name(), language, standing))
            .keep(self.kept(standing))
    }

    fn shown_page(&self, reason: &'static str, sheet: Sheet) -> Reply {
        Reply::with_body(self.rule().status, reason, "text/html; charset=utf-8", sheet.body)
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .header(VARY, HeaderValue::from_static("accept, accept-language, cookie"))
            .header(
                HeaderName::from_static("x-robots-tag"),
                HeaderValue::from_static("noindex"),
            )
            .header(CONTENT_SECURITY_POLICY, sheet.csp)
    }
}

/// A browser asks before it sends the real request; the answer is the upstream's to give, and costs it little.
fn is_preflight(request: &Request<'_>) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn shows_pages(request: &Request<'_>) -> bool {
    request.method == Method::GET || request.method == Method::HEAD
}

pub(super) fn wants_page(request: &Request<'_>) -> bool {
    shows_pages(request) && prefers_html(request.header(ACCEPT))
}

/// Nobody who is refused has a place to show a page about. A person gets the sentence, and a tab that tries again by
/// itself unless the queue is closed; a program gets the problem document.
fn refused((reason, detail): (&'static str, &str), why: Option<Refusal>, request: &Request<'_>) -> Reply {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let retry = document::retry_refused(request.now.as_micros());
    if !wants_page(request) {
        return Reply::problem(status, reason, detail).header(RETRY_AFTER, retry);
    }
    let reply = sentence(status, reason, detail).header(RETRY_AFTER, retry.clone());
    match why {
        Some(Refusal::Closed) => reply,
        _ => reply.header(REFRESH, retry),
    }
}

/// What a person reads who got no place.
fn sentence(status: StatusCode, reason: &'static str, detail: &str) -> Reply {
    Reply::with_body(status, reason, "text/plain; charset=utf-8", detail.to_owned())
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
