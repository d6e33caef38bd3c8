//! A client's connection as Pingora reads and writes it, with the guards that Pingora lacks: a deadline and a
//! bound for the head of a request, from its first byte to its last. (Pingora's own timer starts anew with every
//! byte, so a client that drips one a minute is never ended.) The wait for the next request is bounded here too, by one
//! timer a connection; Pingora's would be one more for each request.

mod gathering;
mod heads;
mod idle;
mod linger;

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep};

use self::gathering::Gathering;
use self::heads::Heads;
use self::idle::Idle;
use self::linger::Linger;
use super::{Connection, Phase};
use crate::base::exchange::Scheme;
use crate::proxy::tally::MALFORMED;
use crate::telemetry::metrics::METRICS;

/// What may arrive in one read beyond the head: the beginning of a body.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most that is read to see whether a connection begins so: a usual head comes whole.
const FIRST_READ_BYTES: usize = 4096;

/// How long and how large the head of a request may be, and how long it may be waited for.
#[derive(Debug, Clone, Copy)]
pub struct HeadBounds {
    /// How long a connection may be idle between two requests.
    pub idle: Duration,
    /// From its first byte (of a connection's first request: from accepting it) to its last.
    pub within: Duration,
    /// In bytes.
    pub bytes: usize,
}

/// A connection under guard.
pub struct Guarded<S> {
    stream: Gathering<S>,
    connection: Arc<Connection>,
    bounds: HeadBounds,
    head_bytes: usize,
    /// Of HTTP/2.
    heads: Heads,
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Idle,
    linger: Option<Linger>,
    /// Read already, and still to be given to the reader.
    ahead: Vec<u8>,
    digests: Digests,
}

/// What Pingora asks a stream about itself.
struct Digests {
    fd: RawFd,
    alpn: Option<ALPN>,
    ssl: Option<Arc<SslDigest>>,
    socket: Arc<SocketDigest>,
    owner: Arc<ProxyDigest>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Puts a connection under guard. `fd` is its socket's, `h2` whether it speaks HTTP/2.
    ///
    /// # Errors
    /// When Pingora cannot build the empty head that carries the connection's record.
    pub fn new(
        stream: S,
        fd: RawFd,
        connection: Arc<Connection>,
        h2: bool,
        bounds: HeadBounds,
    ) -> pingora::Result<Self> {
        let socket = SocketDigest::from_raw_fd(fd);
        // An error would mean that the cell is filled, and it is new.
        let _filled = socket.peer_addr.set(Some(SocketAddr::Inet(connection.peer)));
        let tls = connection.scheme == Scheme::Https;
        let digests = Digests {
            fd,
            alpn: tls.then_some(if h2 { ALPN::H2 } else { ALPN::H1 }),
            ssl: connection
                .tls_version
                .map(|version| Arc::new(SslDigest::new("", version, None, None, Vec::new()))),
            socket: Arc::new(socket),
            owner: Arc::new(ProxyDigest::new(
                Box::new(ResponseHeader::build(200, None)?),
                Some(Box::new(Arc::clone(&connection))),
            )),
        };
        let stream = Gathering::new(stream);
        Ok(Self {
            stream,
            connection,
            bounds,
            head_bytes: 0,
            heads: Heads::behind(PREFACE.len()),
            deadline: None,
            idle: Idle::new(bounds.idle),
            linger: None,
            ahead: Vec::new(),
            digests,
        })
    }

    /// Looks how a connection in plain text begins. A client that knows beforehand that HTTP/2 is spoken here begins with
    /// its preface; then it is spoken.
    ///
    /// # Errors
    /// When the client is gone, or takes too long.
    pub async fn hear_preface(&mut self) -> io::Result<()> {
        let mut first = Vec::with_capacity(FIRST_READ_BYTES);
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            if self.read_buf(&mut first).await? == 0 {
                break;
            }
        }
        if first.starts_with(PREFACE) {
            self.digests.alpn = Some(ALPN::H2);
            self.connection.enter(Phase::Frames);
            self.deadline = None;
            self.heads.note(&first);
        }
        self.ahead = first;
        Ok(())
    }

    /// Counts what was read, and notices where a request begins.
    fn note_read(&mut self, bytes: usize) -> io::Result<()> {
        self.connection.note_read(bytes);
        match self.connection.phase() {
            Phase::Idle | Phase::RestOfHead if bytes > 0 => self.begin_head(bytes),
            Phase::Head => self.head_bytes += bytes,
            Phase::Frames => {
                self.deadline = None;
                return Ok(());
            }
            Phase::Idle | Phase::RestOfHead | Phase::Request => return Ok(()),
        }
        if self.digests.alpn == Some(ALPN::H2) && self.head_bytes >= PREFACE.len() {
            self.connection.enter(Phase::Frames);
            self.deadline = None;
        }
        if self.head_bytes > self.bounds.bytes + READ_AHEAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of the request is too large",
            ));
        }
        Ok(())
    }

    fn begin_head(&mut self, bytes: usize) {
        self.connection.enter(Phase::Head);
        self.head_bytes = bytes;
        self.deadline = None;
        self.idle.end();
    }

    /// An answer to a head that never became a request is Pingora's own: it could not read it, or will not take it
    /// (`CONNECT`), and no other part hears of that. One that came together with the request before it is missed.
    fn note_write(&self, answer: &[u8]) {
        if self.connection.phase() == Phase::Head && self.digests.alpn != Some(ALPN::H2) {
            self.connection
                .refuse(status(answer).unwrap_or(StatusCode::BAD_REQUEST));
            METRICS.rejected_total.with_label_values(&[MALFORMED]).inc();
        }
    }

    /// Sends what is gathered of an answer before its client is listened to: Pingora does that when the server has
    /// nothing more to pass on, and a slow server's first words must not wait for its last.
    fn send_gathered(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.stream.is_empty() {
            return Ok(());
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready once a connection of HTTP/2 has rested for as long as it may. Pingora has one bound for all of them, and none
    /// that an answer could set.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(rest) = self.connection.kept() {
            let rest = rest.min(self.bounds.idle);
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(rest)));
            ready!(deadline.as_mut().poll(cx));
            self.deadline = None;
            if self.connection.rests() {
                return Poll::Ready(());
            }
        }
        self.deadline = None;
        Poll::Pending
    }

    /// Ready with an error once the head has taken too long. Armed only when a head is not there in one piece.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let within = self.bounds.within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(too_slow())
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the head of the request took too long")
}

/// The status in the first line of an answer of HTTP/1.1.
fn status(answer: &[u8]) -> Option<StatusCode> {
    let digits = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    StatusCode::from_bytes(digits).ok()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.send_gathered(cx)?;
        if !this.ahead.is_empty() {
            let rest = this.ahead.split_off(buf.remaining().min(this.ahead.len()));
            buf.put_slice(&std::mem::replace(&mut this.ahead, rest));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let read = &buf.filled()[before..];
                if this.digests.alpn == Some(ALPN::H2) {
                    this.heads.note(read);
                }
                Poll::Ready(this.note_read(read.len()))
            }
            Poll::Pending => match this.connection.phase() {
                Phase::Head => this.poll_deadline(cx).map(Err),
                Phase::RestOfHead => {
                    this.begin_head(0);
                    this.poll_deadline(cx).map(Err)
                }
                // To the reader it is as if the client had closed a connection that it has no use for.
                Phase::Idle => this.idle.poll_over(this.connection.kept(), cx).map(Ok),
                Phase::Frames => match this.heads.poll_over(this.bounds.within, cx) {
                    Poll::Ready(()) => Poll::Ready(Err(too_slow())),
                    Poll::Pending => this.poll_rest(cx).map(Ok),
                },
                Phase::Request => Poll::Pending,
            },
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_write(buf);
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        // In any other phase nothing is left unread.
        if this.connection.phase() == Phase::Request {
            let linger = this.linger.get_or_insert_with(Linger::new);
            ready!(linger.poll_over(&mut this.stream, cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Shutdown for Guarded<S> {
    async fn shutdown(&mut self) {
        // The client may be gone already, and there is nobody left to tell.
        let _gone = self.stream.shutdown().await;
    }
}

impl<S> UniqueID for Guarded<S> {
    fn id(&self) -> RawFd {
        self.digests.fd
    }
}

impl<S> Ssl for Guarded<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.ssl.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.digests.alpn.clone()
    }
}

impl<S> GetTimingDigest for Guarded<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Guarded<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digests.owner))
    }
}

impl<S> GetSocketDigest for Guarded<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digests.socket))
    }
}

impl<S> Peek for Guarded<S> {}

impl<S> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
