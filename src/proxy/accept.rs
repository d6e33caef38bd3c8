//! The first verb: a request is in. Pins the plan, learns who asks, and sets every deadline that Pingora leaves
//! open. Decides nothing.

mod host;
pub mod request_id;
pub mod stream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use pingora::protocols::Digest;
use pingora_proxy::Session;

pub(super) use self::host::Host;
use self::request_id::RequestId;
use super::filter::Pace;
use super::respond::DRAIN_WITHIN;
use super::{Ctx, Gateway};
use crate::base::client_ip::client_ip;
use crate::base::exchange::{Effects, Scheme};
use crate::routing::host::HostFault;

/// Shortest rest of a connection of HTTP/2: an answer takes a moment to be sent, and a browser often asks again at once.
const REST_MIN: Duration = Duration::from_secs(1);

/// What is known of a client's connection.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Whether it is encrypted.
    pub scheme: Scheme,
    /// The protocol version agreed in the TLS handshake, as `TLSv1.3`.
    pub tls_version: Option<&'static str>,
    /// Its proxy has not said for whom it is.
    unnamed: bool,
    /// The peer as an upstream is told of it, written once for all requests.
    pub(super) told: ToldPeer,
    /// The host that was asked last: a client rarely asks one connection for several.
    host: Mutex<Option<Arc<Host>>>,
    phase: AtomicU8,
    /// Bytes that have been read and belong to no request that is over; of HTTP/1 alone.
    unclaimed: AtomicU64,
    /// Requests that are not over.
    underway: AtomicU32,
    /// How long it may rest behind the last answer, in milliseconds; 0: as long as any.
    kept_ms: AtomicU32,
    /// The status of an answer to what never became a request; 0: there was none.
    refused: AtomicU16,
}

/// A request that is not over, as its connection counts it.
#[derive(Debug)]
pub(super) struct Underway(Arc<Connection>);

impl Underway {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        connection.underway.fetch_add(1, Ordering::Relaxed);
        connection.kept_ms.store(0, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.underway.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A peer in the words of the headers that name it.
#[derive(Debug)]
pub(super) struct ToldPeer {
    /// The item of `X-Forwarded-For`.
    pub(super) address: String,
    /// The same as a whole value.
    pub(super) value: HeaderValue,
    /// The hop of `Forwarded` (RFC 7239), up to the host and behind its opening quote.
    pub(super) hop: String,
}

impl ToldPeer {
    pub(super) fn new(peer: IpAddr, scheme: Scheme) -> Self {
        let address = peer.to_string();
        let scheme = scheme.as_str();
        Self {
            value: HeaderValue::from_str(&address).unwrap_or_else(|_| HeaderValue::from_static("")),
            hop: match peer {
                IpAddr::V4(_) => format!("for={address};proto={scheme};host=\""),
                IpAddr::V6(_) => format!("for=\"[{address}]\";proto={scheme};host=\""),
            },
            address,
        }
    }
}

/// What the next bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The head of a request; it has a deadline and a bound.
    Head,
    /// A request's body, or nothing while it is answered.
    Request,
    /// Nothing: the connection is kept for a next request.
    Idle,
    /// The rest of a head that began to arrive before the request in front of it was over.
    RestOfHead,
    /// Frames of HTTP/2, which has limits of its own.
    Frames,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(peer: SocketAddr, scheme: Scheme, tls_version: Option<&'static str>) -> Self {
        Self {
            peer,
            scheme,
            tls_version,
            unnamed: false,
            told: ToldPeer::new(peer.ip().to_canonical(), scheme),
            host: Mutex::new(None),
            phase: AtomicU8::new(Phase::Head as u8),
            unclaimed: AtomicU64::new(0),
            underway: AtomicU32::new(0),
            kept_ms: AtomicU32::new(0),
            refused: AtomicU16::new(0),
        }
    }

    /// The same, where its proxy did not say for whom it is: whoever it is has no say in that.
    pub fn unnamed(self, unnamed: bool) -> Self {
        Self { unnamed, ..self }
    }

    /// What there is to know of a host that a request has `written`.
    pub(super) fn host(&self, written: &str) -> Result<Arc<Host>, HostFault> {
        let mut last = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = last.as_ref().filter(|host| host.is_written(written)) {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(Host::new(written, &self.told)?);
        *last = Some(Arc::clone(&host));
        Ok(host)
    }

    /// Behind the answer that is about to be written it may rest for so long, and no longer.
    pub(super) fn keep(&self, rest: Duration) {
        let rest = u32::try_from(rest.max(REST_MIN).as_millis()).unwrap_or(u32::MAX);
        self.kept_ms.store(rest, Ordering::Relaxed);
    }

    /// How long it may rest, where the last answer said so.
    fn kept(&self) -> Option<Duration> {
        let kept = self.kept_ms.load(Ordering::Relaxed);
        (kept > 0).then(|| Duration::from_millis(kept.into()))
    }

    /// Whether no request is under way.
    fn rests(&self) -> bool {
        self.underway.load(Ordering::Relaxed) == 0
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Head,
            1 => Phase::Request,
            2 => Phase::Idle,
            3 => Phase::RestOfHead,
            _ => Phase::Frames,
        }
    }

    fn enter(&self, phase: Phase) {
        if self.phase() != Phase::Frames {
            self.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// A request has been read; what comes now belongs to it.
    pub fn work(&self) {
        self.enter(Phase::Request);
    }

    /// The connection waits for its next request.
    pub fn rest(&self) {
        self.enter(Phase::Idle);
    }

    /// A request of so many bytes is over. What has been read beyond it began the next head, which Pingora keeps.
    fn rest_behind(&self, bytes: u64) {
        let unclaimed = self.unclaimed.load(Ordering::Relaxed).saturating_sub(bytes);
        self.unclaimed.store(unclaimed, Ordering::Relaxed);
        self.enter(if unclaimed > 0 { Phase::RestOfHead } else { Phase::Idle });
    }

    /// So many bytes have been read.
    fn note_read(&self, bytes: usize) {
        self.unclaimed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What never became a request is answered, and with this status.
    fn refuse(&self, status: StatusCode) {
        self.enter(Phase::Request);
        self.refused.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The status with which what never became a request was answered.
    pub(super) fn refused(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refused.load(Ordering::Relaxed)).ok()
    }

    /// The record that [`stream::Guarded`] carries where Pingora has room for the owner's data.
    pub fn of(digest: Option<&Digest>) -> Option<Arc<Self>> {
        let proxy = digest?.proxy_digest.as_ref()?;
        proxy.user_data.as_ref()?.downcast_ref::<Arc<Self>>().map(Arc::clone)
    }
}

/// A context that knows the plan and the time, before anything of the request has been looked at.
pub(super) fn context(gateway: &Gateway) -> Ctx {
    Ctx {
        plan: gateway.plan.load_full(),
        started: gateway.clock.now(),
        id: RequestId::default(),
        connection: None,
        underway: None,
        client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        trusted_peer: false,
        host: None,
        path: None,
        route: None,
        effects: Effects::default(),
        reason: None,
        body_bytes: 0,
        pace: Pace::default(),
        tried: Vec::new(),
        chosen_at: None,
        upstream_took: None,
        began_after: None,
        permit: None,
        answered: false,
    }
}

/// Learns who asks and bounds how long each part of the exchange may take.
pub(super) fn begin(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx) {
    let connection = connection(session);
    connection.work();
    ctx.trusted_peer = !connection.unnamed && gateway.trusted.contain(connection.peer.ip());
    let headers = &session.req_header().headers;
    ctx.client_ip = if ctx.trusted_peer {
        client_ip(
            connection.peer.ip(),
            values(headers, "x-forwarded-for"),
            &gateway.trusted,
        )
    } else {
        connection.peer.ip().to_canonical()
    };
    let given = ctx.trusted_peer.then(|| headers.get("x-request-id")).flatten();
    ctx.id = given.and_then(RequestId::given).unwrap_or_else(|| gateway.ids.next());
    ctx.underway = Some(Underway::new(Arc::clone(&connection)));
    ctx.connection = Some(connection);
    deadlines(gateway, session);
}

/// The request is over. Once it has been read to its end the connection waits for the next. One on which the gateway has
/// answered a failure is closed here: Pingora would drop it, and with it what is left of the request, and a client that
/// is still sending could lose the answer to a reset.
pub(super) async fn end(session: &mut Session, ctx: &Ctx, failed: bool) {
    let downstream = session.as_downstream_mut();
    if let Some(connection) = ctx.connection.as_ref().filter(|_| downstream.is_body_done()) {
        // One with a body in chunks is not kept, so this is all that its request has taken.
        let head = downstream
            .as_http1()
            .map_or(0, |session| session.get_headers_raw_bytes().len());
        connection.rest_behind((head + downstream.body_bytes_read()) as u64);
    }
    if failed && ctx.answered && !downstream.is_http2() {
        downstream.shutdown().await;
    }
}

/// Pingora keeps an HTTP/1.1 connection for ever once a request has been parsed, or for as long as the client's
/// own `Keep-Alive` header asks. `None` means that the client wants it closed, and stays; zero sets no timer, since
/// [`stream::Guarded`] has one that serves all requests of a connection.
///
/// Chunks are read loosely: Pingora takes a bare line feed in an extension, no digit for a zero, a trailer without a
/// colon. A proxy in front that is strict, or loose in another way, may see another end than is seen here. So a
/// connection ends with the first body in chunks, and nothing that hides behind it is read as a request.
fn deadlines(gateway: &Gateway, session: &mut Session) {
    let bounds = &gateway.bounds;
    let head = session.req_header();
    let (is_old, is_chunked) = (
        head.version == Version::HTTP_10,
        head.headers.contains_key(TRANSFER_ENCODING),
    );
    if is_old {
        session.req_header_mut().remove_header(&EXPECT);
    }
    let downstream = session.as_downstream_mut();
    if downstream.get_keepalive().is_some() {
        downstream.set_keepalive((!is_chunked).then_some(0));
    }
    // It knows no answer before the answer, and expects none (RFC 9110, sections 10.1.1 and 15.2).
    downstream.set_ignore_info_resp(is_old);
    // A client may send its next request before it has this answer; unless told so, Pingora forgets that request.
    downstream.set_pipelining_enabled(true);
    downstream.set_read_timeout(Some(bounds.request_body));
    downstream.set_write_timeout(Some(bounds.response_write));
    downstream.set_total_drain_timeout(Some(bounds.request_body.min(DRAIN_WITHIN)));
}

/// The values of a header, in order.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// The connection's record.
fn connection(session: &Session) -> Arc<Connection> {
    Connection::of(session.as_downstream().digest())
        .unwrap_or_else(|| Arc::new(Connection::new((Ipv4Addr::UNSPECIFIED, 0).into(), Scheme::Http, None)))
}
