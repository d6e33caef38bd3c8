//! Floor 7: the life of a request. The only `impl ProxyHttp`, and each of its phases is one call into one verb.
//!
//! | phase of Pingora | verb | what happens |
//! |---|---|---|
//! | `new_ctx`, `early_request_filter` | [`accept`] | the plan is pinned; who asks, under which id; deadlines are set |
//! | `request_filter` | [`dispatch`] | host and path are made canonical; the route is found |
//! | `request_filter` | [`filter`] | the route's chain decides: go on, answer, or hold |
//! | `upstream_peer`, `fail_to_connect`, `upstream_request_filter` | [`forward`] | a server is chosen; headers for it |
//! | `error_while_proxy` | [`forward`] | whether it may be sent again |
//! | `response_filter` | [`filter`] | the chain sees the upstream's answer, the last step first |
//! | `response_filter`, `fail_to_proxy` | [`respond`] | answers and error pages are written |
//! | `logging` | [`tally`] | one log line, one set of metrics |
//! | `logging` | [`respond`], [`accept`] | what is left of the request is read; the connection rests, or ends |
//!
//! A request without an answer from the chain goes to its route's upstream. Guards (a place in flight) live in
//! [`Ctx`] and are freed when it is dropped, on every path.

pub mod accept;
mod dispatch;
mod fields;
mod filter;
mod forward;
pub mod respond;
mod tally;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::accept::request_id::{RequestId, RequestIds};
use self::accept::{Connection, Host, Underway};
use self::dispatch::Answer;
use self::filter::Pace;
use crate::base::client_ip::Networks;
use crate::base::clock::{Clock, Timestamp, WallClock};
use crate::base::exchange::Effects;
use crate::plan::{Plan, Route};
use crate::room::api::QueueApi;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::route_meter::RouteMeter;
use crate::upstream::in_flight::Permit;
use crate::upstream::{Chosen, Upstream};

/// Bounds and deadlines of the process that hold for every request.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Largest request body in bytes, unless a route says otherwise.
    pub max_body: u64,
    /// Largest head of a request in bytes: names and values of its headers.
    pub header_bytes: usize,
    /// Most header fields of a request.
    pub headers: usize,
    /// Longest request target in bytes.
    pub request_line: usize,
    /// Least rate of a request's body, in bytes a second.
    pub body_per_second: u64,
    /// Longest wait between two reads of a request's body.
    pub request_body: Duration,
    /// Longest wait for the client to take a piece of the answer.
    pub response_write: Duration,
}

/// What all requests share. Every worker has a copy: what must be one is behind a pointer.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The plan that new requests come under.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Answers visitors who ask about their place.
    pub queue_api: QueueApi,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The time of day, for the access log.
    pub wall: Arc<WallClock>,
    /// Whose forwarding headers are believed.
    pub trusted: Arc<Networks>,
    /// Bounds and deadlines.
    pub bounds: Bounds,
    /// One line a request; none when the operator wants none.
    pub access_log: Option<AccessLog>,
    /// Gives out request ids.
    pub ids: Arc<RequestIds>,
    /// Counts what no route took.
    pub unrouted: Arc<RouteMeter>,
    /// The process stops: every answer is the last of its connection.
    pub stopping: Arc<AtomicBool>,
}

impl Gateway {
    /// A connection is over. To be told of every one: what came on it and could not be read as a request is logged.
    pub fn closed(&self, connection: &Connection) {
        tally::refused(self, connection);
    }
}

/// What is known of one request; filled from the first phase to the last.
#[derive(Debug)]
pub struct Ctx {
    plan: Arc<Plan>,
    started: Timestamp,
    id: RequestId,
    connection: Option<Arc<Connection>>,
    /// Counts this request on its connection until it is over.
    underway: Option<Underway>,
    client_ip: IpAddr,
    /// The peer may say who the client is.
    trusted_peer: bool,
    /// The host; none before it has been looked at, or when there is none that can be.
    host: Option<Arc<Host>>,
    /// The path in its canonical spelling, where the client's differs.
    path: Option<Box<str>>,
    route: Option<Arc<Route>>,
    effects: Effects,
    /// Why the gateway itself ended the request.
    reason: Option<&'static str>,
    body_bytes: u64,
    pace: Pace,
    tried: Vec<Chosen>,
    chosen_at: Option<Timestamp>,
    upstream_took: Option<Duration>,
    /// How long the answer took to begin, where its end says nothing about the gateway.
    began_after: Option<Duration>,
    permit: Option<Permit>,
    /// An answer of the gateway's own has been written to its end.
    answered: bool,
}

impl Ctx {
    fn path<'a>(&'a self, head: &'a RequestHeader) -> &'a str {
        self.path.as_deref().unwrap_or_else(|| head.uri.path())
    }

    fn host<'a>(&'a self, head: &'a RequestHeader) -> &'a str {
        match &self.host {
            Some(host) => host.as_str(),
            None => dispatch::written_host(head).unwrap_or(""),
        }
    }

    /// Where the request goes unless it is answered before.
    fn upstream(&self) -> Option<&Upstream> {
        self.route.as_ref()?.upstream.as_deref()
    }

    fn meter<'a>(&'a self, gateway: &'a Gateway) -> &'a RouteMeter {
        self.route.as_ref().map_or(&gateway.unrouted, |route| &route.meter)
    }

    fn max_body(&self, gateway: &Gateway) -> u64 {
        self.effects.max_body.unwrap_or(gateway.bounds.max_body)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        accept::context(self)
    }

    /// Pingora adds a compression module to every request unless told otherwise; nothing here compresses.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<()> {
        accept::begin(self, session, ctx);
        Ok(())
    }

    /// `true` tells Pingora that the answer has been written.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<bool> {
        let answer = match dispatch::route(self, session, ctx).await {
            Some(Answer::Events(events)) => {
                return respond::events::write(self, session, ctx, events).await.map(|()| true);
            }
            Some(Answer::Reply(reply)) => Some(reply),
            None => filter::run(self, session, ctx).await,
        };
        match answer {
            Some(reply) => respond::write(self, session, ctx, reply).await.map(|()| true),
            None => {
                forward::settle(session);
                Ok(false)
            }
        }
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_last: bool,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        filter::body(self, session, (body.as_ref(), is_last), ctx)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<Box<HttpPeer>> {
        forward::peer(self, session, ctx)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        error: Box<pingora::Error>,
    ) -> Box<pingora::Error> {
        forward::not_connected(self, ctx, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<pingora::Error>,
        ctx: &mut Ctx,
        was_kept: bool,
    ) -> Box<pingora::Error> {
        forward::broken_off(self, session, ctx, error, was_kept)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        forward::head(session, head, ctx)
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        forward::ends_once(head)?;
        forward::answered(self, head, ctx);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora::Result<Option<Duration>> {
        forward::passed_on(end, ctx);
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        respond::prepare(self, session, head);
        filter::answered(session, head, ctx);
        respond::edit(session, head, ctx)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &pingora::Error, ctx: &mut Ctx) -> FailToProxy {
        respond::failure(self, session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&pingora::Error>, ctx: &mut Ctx) {
        tally::record(self, session, error, ctx);
        if ctx.answered && error.is_none() {
            respond::part(session).await;
        }
        accept::end(session, ctx, error.is_some()).await;
    }

    /// The access log and the metrics tell of every failed request; one more line each would be a log flood in
    /// just the hour when nobody needs it.
    fn suppress_error_log(&self, _: &Session, _: &Ctx, error: &pingora::Error) -> bool {
        respond::is_routine(error)
    }

    /// The same for an attempt that is made again: it is counted, once for each that Pingora would have told of.
    fn suppress_proxy_warn_log(&self, _: &Session, ctx: &Ctx, _: &pingora::Error, why: ProxyWarnLogContext) -> bool {
        if why == ProxyWarnLogContext::UpstreamRetry {
            tally::retried(ctx);
        }
        true
    }

    fn request_summary(&self, session: &Session, ctx: &Ctx) -> String {
        tally::summary(session, ctx)
    }
}

/// The status under which a request is counted that got no answer: its client went away (nginx's code).
fn client_closed() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}
