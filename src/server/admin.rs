//! The operator's listener: metrics, health, the limits, and the rooms. It stands on its own address, loopback by default,
//! and nothing of it is reachable through a public listener.

mod orders;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL};
use http::{HeaderValue, Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

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
    /// For the age of certificates.
    pub clock: Arc<dyn Clock>,
    /// For their expiry.
    pub certificates: Vec<Arc<Certificates>>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let connection = Connection::of(session.digest());
        connection.iter().for_each(|connection| connection.work());
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(IDLE.as_secs()));
        }
        let reply = match self.answer(session).await {
            Ok(reply) | Err(reply) => reply,
        };
        connection.iter().for_each(|connection| connection.rest());
        to_http(reply, session.req_header().method == Method::HEAD)
    }
}

impl Admin {
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

fn to_http(reply: Reply, head_only: bool) -> Response<Vec<u8>> {
    let mut response = Response::new(if head_only { Vec::new() } else { reply.body.to_vec() });
    *response.status_mut() = reply.status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value);
    }
    response
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
