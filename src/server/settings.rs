//! What the process file comes to: listeners, bounds and deadlines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::listen::Listener;
use crate::base::client_ip::Networks;
use crate::proxy::accept::stream::HeadBounds;
use crate::telemetry::metrics::METRICS;

/// Settings of a process. They change with a restart only.
#[derive(Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listeners: Vec<ListenerSettings>,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// Threads that serve requests.
    pub workers: usize,
    /// Most client connections at once.
    pub connections: usize,
    /// Most of one client, but for those who are trusted to connect for others.
    pub connections_per_client: Option<usize>,
    /// Who connects for others.
    pub trusted: Arc<Networks>,
    /// Deadline for a PROXY header, and again for a TLS handshake.
    pub handshake_within: Duration,
    /// Deadline and bound for the head of a request.
    pub head: HeadBounds,
    /// How long everything goes on once the process was asked to stop.
    pub grace: Duration,
    /// How long requests may take to finish after that.
    pub drain: Duration,
}

/// One address that clients connect to.
#[derive(Debug)]
pub struct ListenerSettings {
    /// The address.
    pub bind: SocketAddr,
    /// The proxies whose PROXY header is awaited; none where clients connect themselves.
    pub proxies: Option<Arc<Networks>>,
    /// Its TLS settings; none for plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether it speaks HTTP/2 to clients that begin with it; with TLS, its settings say so.
    pub http2: bool,
}

impl Settings {
    /// What accepting on a listener takes.
    pub(super) fn listener(&self, listener: &ListenerSettings) -> Listener {
        Listener {
            proxies: listener.proxies.clone(),
            tls: listener.tls.clone().map(TlsAcceptor::from),
            http2: listener.http2,
            handshake_within: self.handshake_within,
            head: self.head,
            open: METRICS.connections.with_label_values(&[listener.bind.to_string()]),
        }
    }
}
