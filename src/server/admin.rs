//! The operator's listener: metrics, health, the limits, and the rooms. It stands on its own address, loopback by default,
//! and nothing of it is reachable through a public listener.

mod orders;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH};
use http::{HeaderValue, Method, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::tls::Certificates;
use crate::base::clock::Clock;
use crate::base::exchange::Reply;
use crate::base::name::Name;
use crate::proxy::accept::Connection;
use crate::room::Room;
use crate::room::registry::{Rooms, find};
use crate::telemetry::metrics::METRICS;
use crate::telemetry::process;
use crate::throttle::Throttles;

/// How long a connection may be idle between two requests: several times as long as scrapers pause.
const IDLE: Duration = Duration::from_secs(300);

/// From the head of a question to the last byte of its answer, whoever is slow. Scrapers give up after ten seconds.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Whether the process takes requests.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// Says whether it does.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the operator can see and order.
pub struct Admin {
    /// The limits, and whether their store answers.
    pub throttles: Arc<Throttles>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The time of day, for the age of certificates.
    pub clock: Arc<dyn Clock>,
    /// For their expiry.
    pub certificates: Vec<Arc<Certificates>>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
}

#[async_trait]
impl HttpServerApp for Admin {
    /// Not Pingora's own way to answer, which waits for a client that takes nothing for as long as that does: places here
    /// are few, and one of them is for `/healthz`.
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The stream has a deadline of its own for a head. A client that is gone has nothing to be told.
        if !session.read_request().await.is_ok_and(|is_there| is_there) {
            return None;
        }
        let is_stopping = *shutdown.borrow();
        session.set_keepalive((!is_stopping).then_some(IDLE.as_secs()));
        match timeout(ANSWERED_WITHIN, self.serve(session)).await {
            Ok(served) => served
                .inspect_err(|error| log::debug!("the operator's listener: {error}"))
                .ok()?,
            Err(_) => {
                log::warn!("the operator's listener: an answer was not taken within {ANSWERED_WITHIN:?}");
                None
            }
        }
    }
}

impl Admin {
    async fn serve(&self, mut session: ServerSession) -> pingora::Result<Option<ReusedHttpStream>> {
        let connection = Connection::of(session.digest());
        connection.iter().for_each(|connection| connection.work());
        let reply = match self.answer(&mut session).await {
            Ok(reply) | Err(reply) => reply,
        };
        connection.iter().for_each(|connection| connection.rest());
        session.write_response_header(Box::new(head(&reply)?)).await?;
        if session.req_header().method != Method::HEAD && !reply.body.is_empty() {
            session.write_response_body(reply.body, true).await?;
        }
        let kept = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await?;
        Ok(stream.map(|stream| ReusedHttpStream::from_reusable_stream(stream, kept)))
    }

    async fn answer(&self, session: &mut ServerSession) -> Result<Reply, Reply> {
        let method = session.req_header().method.clone();
        let path = session.req_header().uri.path().to_owned();
        let reading = method == Method::GET || method == Method::HEAD;
        match path.as_str() {
            "/metrics" if reading => Ok(self.metrics()),
            "/healthz" if reading => Ok(text(StatusCode::OK, "ok\n")),
            "/readyz" if reading => Ok(self.ready()),
            "/limits" if reading => Ok(json(&self.throttles.view())),
            "/rooms" if reading => Ok(self.rooms()),
            "/metrics" | "/healthz" | "/readyz" | "/limits" | "/rooms" => Err(not_allowed("GET, HEAD")),
            _ => match path.strip_prefix("/rooms/") {
                Some(name) if reading => Ok(json(&self.room(name)?.snapshot())),
                Some(name) if method == Method::POST => orders::carry_out(&*self.room(name)?, session).await,
                Some(_) => Err(not_allowed("GET, HEAD, POST")),
                None => Err(problem(
                    StatusCode::NOT_FOUND,
                    "Known here: /metrics, /healthz, /readyz, /limits, /rooms, /rooms/NAME.",
                )),
            },
        }
    }

    fn metrics(&self) -> Reply {
        for certificates in &self.certificates {
            certificates.show_expiry(self.clock.now());
        }
        self.rooms.show();
        process::show();
        Reply::with_body(
            StatusCode::OK,
            "admin",
            "text/plain; version=0.0.4; charset=utf-8",
            METRICS.render(),
        )
    }

    fn ready(&self) -> Reply {
        if !self.readiness.is_ready() {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n")
        } else if self.throttles.is_cut_off() {
            // Requests are served, as each limit says for this case: to take the gateway out would not help anyone.
            text(StatusCode::OK, "ready, degraded: the store does not answer\n")
        } else {
            text(StatusCode::OK, "ready\n")
        }
    }

    fn rooms(&self) -> Reply {
        let mut rooms: Vec<_> = self.rooms.all().values().map(|room| room.snapshot()).collect();
        rooms.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        json(&rooms)
    }

    fn room(&self, name: &str) -> Result<Arc<Room>, Reply> {
        let unknown = |why: String| problem(StatusCode::NOT_FOUND, &why);
        let name: Name = name.parse().map_err(unknown)?;
        find(&self.rooms.all(), &name).map_err(|misfit| unknown(format!("{}.", misfit.message)))
    }
}

fn json(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec_pretty(value) {
        Ok(body) => Reply::json(StatusCode::OK, "admin", body),
        Err(error) => {
            log::error!("an answer for the operator could not be written: {error}");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written.")
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    Reply::with_body(status, "admin", "text/plain; charset=utf-8", body)
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn problem(status: StatusCode, detail: &str) -> Reply {
    Reply::problem(status, "admin", detail)
}

fn not_allowed(methods: &'static str) -> Reply {
    problem(StatusCode::METHOD_NOT_ALLOWED, "This is asked with another method.")
        .header(ALLOW, HeaderValue::from_static(methods))
}

fn head(reply: &Reply) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 1))?;
    head.insert_header(CONTENT_LENGTH, reply.body.len())?;
    for (name, value) in &reply.headers {
        head.append_header(name, value)?;
    }
    Ok(head)
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
