//! Accepts connections, learns whose they are, ends TLS, and hands streams to the proxy.
//!
//! Pingora's own listeners are not used: their TLS handshake may take a minute, their resumption cannot be set,
//! plain listeners have no hook before the first byte, and their shutdown waits out its whole grace period even
//! when nothing is left to do. Pingora documents this way for a custom accept loop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::drain::{Tracker, stopped};
use super::places::Places;
use super::proxy_header::{self, Client};
use crate::base::client_ip::Networks;
use crate::base::exchange::Scheme;
use crate::proxy::Gateway;
use crate::proxy::accept::Connection;
use crate::proxy::accept::stream::{Guarded, HeadBounds};
use crate::telemetry::metrics::METRICS;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4096;

/// Pause when the process is out of file descriptors: accepting again at once would only spin.
pub(super) const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// What a listener does with a connection.
#[derive(Clone)]
pub struct Listener {
    /// The proxies that may connect and whose PROXY header says for whom; none where clients connect themselves.
    pub proxies: Option<Arc<Networks>>,
    /// Ends TLS, where the listener does.
    pub tls: Option<TlsAcceptor>,
    /// Whether HTTP/2 is spoken in plain text to clients that begin with it.
    pub http2: bool,
    /// Deadline for the PROXY header, and again for the TLS handshake.
    pub handshake_within: Duration,
    /// Deadline and bound for the head of a request.
    pub head: HeadBounds,
    /// Open connections of this listener.
    pub open: IntGauge,
}

/// What all listeners of a worker share.
#[derive(Clone)]
pub struct Worker {
    /// The proxy.
    pub proxy: Arc<HttpProxy<Gateway>>,
    /// What the proxy serves, which is told of the end of every connection.
    pub gateway: Arc<Gateway>,
    /// Places for connections, over all listeners and workers.
    pub places: Arc<Places>,
    /// Counts what is still to be finished when the process stops.
    pub tracker: Tracker,
    /// Becomes true when the process stops.
    pub stop: watch::Receiver<bool>,
}

/// Binds one socket for each worker; the kernel spreads connections over them. An address that another process
/// listens on is refused, which `SO_REUSEPORT` alone would not do.
///
/// # Errors
/// As the operating system gives them: the address is in use, is not ours, or needs a privilege.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    drop(socket(address, false)?);
    let first = socket(address, workers > 1)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| socket(address, true));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until the process stops.
pub async fn accept(socket: TcpListener, listener: Listener, mut worker: Worker) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopped(&mut worker.stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => match worker.places.take() {
                Some(place) => {
                    tokio::spawn(connection(stream, peer, place, (listener.clone(), worker.clone())));
                }
                None => reject("connections"),
            },
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                sleep(PAUSE_AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

/// Serves one connection to its end. The place and the mark in the tracker are freed whatever way it ends.
async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
    (listener, mut worker): (Listener, Worker),
) {
    let _mark = worker.tracker.mark();
    let _open = Open::new(&listener.open);
    let fd = stream.as_raw_fd();
    // Answers are flushed when they are complete; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some((peer, unnamed)) = client(&mut stream, peer, &listener).await else {
        return reject("proxy_header");
    };
    let Ok(_counted) = worker.places.count(peer.ip()) else {
        return reject("connections_per_client");
    };
    let Some(acceptor) = &listener.tls else {
        let record = Arc::new(Connection::new(peer, Scheme::Http, None).unnamed(unnamed));
        let guarded = guarded(Guarded::new(stream, fd, Arc::clone(&record), false, listener.head));
        let Ok(mut stream) = guarded else {
            return;
        };
        if listener.http2 && !begins(&mut stream, &mut worker).await {
            return;
        }
        return serve(stream, &record, &worker).await;
    };
    match timeout(listener.handshake_within, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let h2 = session.alpn_protocol() == Some(b"h2");
            let version = session.protocol_version().and_then(|version| version.as_str());
            let version = version.map_or(
                "TLS",
                |version| if version == "TLSv1_3" { "TLSv1.3" } else { "TLSv1.2" },
            );
            let record = Arc::new(Connection::new(peer, Scheme::Https, Some(version)).unnamed(unnamed));
            if let Ok(stream) = guarded(Guarded::new(stream, fd, Arc::clone(&record), h2, listener.head)) {
                serve(stream, &record, &worker).await;
            }
        }
        Ok(Err(error)) => {
            log::debug!("a connection from {peer}: its TLS handshake failed: {error}");
            reject("tls_handshake");
        }
        Err(_) => {
            log::debug!("a connection from {peer}: its TLS handshake took too long");
            reject("tls_timeout");
        }
    }
}

/// Whose connection it is, and whether its proxy leaves that open; none when it should have said so and did not. A
/// stranger's word is not even read: who may name any client there is would pass every rule that looks at addresses.
async fn client(stream: &mut TcpStream, peer: SocketAddr, listener: &Listener) -> Option<(SocketAddr, bool)> {
    let Some(proxies) = &listener.proxies else {
        return Some((peer, false));
    };
    if !proxies.contain(peer.ip()) {
        log::debug!("a connection from {peer}, which is no trusted proxy");
        return None;
    }
    match timeout(listener.handshake_within, proxy_header::read(stream)).await {
        Ok(Ok(Client::At(client))) => Some((client, false)),
        Ok(Ok(Client::Peer)) => Some((peer, true)),
        Ok(Err(error)) => {
            log::debug!("a connection from {peer}: {error}");
            None
        }
        Err(_) => {
            log::debug!("a connection from {peer}: its PROXY header took too long");
            None
        }
    }
}

fn guarded<S>(stream: pingora::Result<Guarded<S>>) -> pingora::Result<Guarded<S>> {
    stream.inspect_err(|error| log::error!("a connection could not be set up: {error}"))
}

/// Waits for a connection's first bytes; `false` when none come in time, or before the process stops.
async fn begins(stream: &mut Guarded<TcpStream>, worker: &mut Worker) -> bool {
    tokio::select! {
        biased;
        heard = stream.hear_preface() => heard.is_ok(),
        () = stopped(&mut worker.stop) => false,
    }
}

async fn serve<S>(stream: Guarded<S>, record: &Connection, worker: &Worker)
where
    Guarded<S>: pingora::protocols::IO + 'static,
{
    drop(worker.proxy.process_new(Box::new(stream), &worker.stop).await);
    worker.gateway.closed(record);
}

fn reject(reason: &'static str) {
    METRICS.rejected_total.with_label_values(&[reason]).inc();
}

/// Shows a connection in the gauge as long as it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn listener(proxies: Option<&str>) -> Listener {
        let networks = |network: &str| Arc::new(Networks::new([network.parse().unwrap()]));
        Listener {
            proxies: proxies.map(networks),
            tls: None,
            http2: true,
            handshake_within: Duration::from_secs(10),
            head: HeadBounds {
                idle: Duration::from_secs(60),
                within: Duration::from_secs(10),
                bytes: 1024,
            },
            open: METRICS.connections.with_label_values(&["test"]),
        }
    }

    const HEADER: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";

    /// Whose connection is taken to be one that begins with `sent`, and what is left to be read of it.
    async fn taken(proxies: Option<&str>, sent: &str) -> (String, String) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (mut stream, peer) = socket.accept().await.unwrap();
        far.write_all(sent.as_bytes()).await.unwrap();
        let client = client(&mut stream, peer, &listener(proxies)).await;
        drop(far);
        let mut left = String::new();
        stream.read_to_string(&mut left).await.unwrap();
        let whose = match client {
            None => "nobody's".to_owned(),
            Some((client, true)) if client == peer => "somebody's behind the peer".to_owned(),
            Some((client, _)) if client == peer => "the peer's".to_owned(),
            Some((client, _)) => client.to_string(),
        };
        (whose, left)
    }

    #[tokio::test]
    async fn a_trusted_proxy_says_for_whom_it_connects() {
        let sent = format!("{HEADER}GET /");
        let (whose, left) = taken(Some("127.0.0.0/8"), &sent).await;
        assert_eq!((whose.as_str(), left.as_str()), ("192.0.2.7:4711", "GET /"));
        let (whose, left) = taken(Some("127.0.0.0/8"), "PROXY UNKNOWN\r\nGET /").await;
        assert_eq!((whose.as_str(), left.as_str()), ("somebody's behind the peer", "GET /"));
        let (whose, _) = taken(Some("127.0.0.0/8"), "GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(whose, "nobody's");
    }

    #[tokio::test]
    async fn a_stranger_is_not_believed() {
        let sent = format!("{HEADER}GET /");
        let (whose, left) = taken(Some("10.0.0.0/8"), &sent).await;
        assert_eq!((whose.as_str(), left), ("nobody's", sent.clone()));
        let (whose, left) = taken(None, &sent).await;
        assert_eq!((whose.as_str(), left), ("the peer's", sent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_says_nothing_is_not_waited_for_longer_than_its_deadline() {
        let (whose, _) = taken(Some("127.0.0.0/8"), &HEADER[..20]).await;
        assert_eq!(whose, "nobody's");
    }
}
