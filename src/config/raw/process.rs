//! The process file: what a change of needs a graceful restart.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::address::{Bind, Network, StoreUrl};
use crate::base::one_or_many::OneOrMany;
use crate::base::rate::Rate;
use crate::base::unit::{Size, Span};
use crate::room::{api, events};
use crate::telemetry::access_log::Format;

/// How one gateway runs: where it listens, whom it trusts, what it keeps, which rules it applies.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where operators connect: metrics, health, and the rooms.
    #[serde(default)]
    pub admin: Admin,
    /// The proxies in front of this gateway. Of what they say, the PROXY header, `X-Forwarded-For`, `X-Forwarded-Proto`
    /// and `X-Request-Id` are believed here; `Forwarded` and other `X-Forwarded-*` fields are not read, but passed on to
    /// servers, which get none of anybody else: so each proxy must set or delete `X-Forwarded-Host` and its like, or a
    /// client's own pass as its word. `X-Real-IP` is believed of nobody. Default: none.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// How long a client may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Largest request body, at most 1TiB; a route may lower or raise it with the `max_body` step. Default: 16MiB.
    #[serde(default = "max_body")]
    pub max_body: Size,
    /// Where shared counts and queues live. Default: `memory`, for one gateway by itself.
    #[serde(default)]
    pub store: Store,
    /// One line for each request.
    #[serde(default)]
    pub access_log: AccessLog,
    /// How the budgets of limits are drawn from the store.
    #[serde(default)]
    pub throttle: Throttle,
    /// The rule files: paths relative to this file, in whose last part `*` and `?` stand for any characters or one.
    pub rules: OneOrMany<String>,
    /// What the gateways of a fleet share and nobody else knows.
    #[serde(default)]
    pub secrets: Secrets,
    /// Bounds on what clients may open and send.
    #[serde(default)]
    pub limits: Limits,
    /// The queue API of the waiting rooms.
    #[serde(default)]
    pub queue: QueueApi,
    /// Worker threads, 1 to 1024. Default: one for each core.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<NonZeroUsize>,
}

/// An address on which clients are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address and port.
    pub bind: Bind,
    /// Ends TLS here. Default: plain text.
    pub tls: Option<Tls>,
    /// Speaks HTTP/2 too: by ALPN on TLS, with prior knowledge on plain text. Default: true.
    #[serde(default = "yes")]
    pub http2: bool,
    /// Every connection begins with a PROXY protocol header, version 1 or 2, which says who the client is. Only
    /// `trusted_proxies` may connect then; whoever else does is cut off. Default: false.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// Certificates, and whose certificates are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificates, chosen by SNI from the names in them; at least one. Reloaded when the files change.
    pub certificates: OneOrMany<Certificate>,
    /// A PEM file of authorities: clients must show a certificate of one of them. This guards the listener, not a host or a
    /// route: another listener serves the same routes without, and here any host is served, whichever name the handshake
    /// asked for. Default: clients show none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// A PEM file of the certificate chain, the leaf first.
    pub cert: PathBuf,
    /// A PEM file of the leaf's private key.
    pub key: PathBuf,
}

/// The operators' listener. Never public: whoever reaches it can open and close rooms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The address and port. Default: 127.0.0.1:9180.
    pub bind: Bind,
}

/// Bounds on the time that a client may take. Every value but `grace` is at least 1ms, and at most 1 day.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From the first byte of a request's head to its last; for the first request of a connection, from accepting it.
    /// Default: 10s.
    pub request_header: Span,
    /// Between two requests of a connection, in whole seconds and at least one. Default: 75s.
    pub idle: Span,
    /// Between two pieces of a request's body, however long the upstream's `read` is; then the answer is 408, and no
    /// server is blamed. Default: 60s.
    pub request_body: Span,
    /// Between two pieces of the answer that the client takes. Default: 60s.
    pub response_write: Span,
    /// For the PROXY header, and again for the TLS handshake. Default: 10s.
    pub tls_handshake: Span,
    /// At the end of the process: for so long everything goes on, and only `/readyz` answers 503, so that a load balancer
    /// that looks there has sent its clients elsewhere before connections are refused. 0s to 1 day. Default: 0s.
    pub grace: Span,
    /// After that: what is left to the requests under way. Default: 30s.
    pub drain: Span,
}

/// Where counts and queues live that gateways share.
#[expect(clippy::large_enum_variant, reason = "a process has one")]
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// In this process: for one gateway. Counts and queues end with it.
    #[default]
    Memory,
    /// In Redis or Valkey: for a fleet, which shares limits and waiting rooms. Rooms need `secrets.tickets`, the same at
    /// every gateway.
    Redis(Redis),
}

/// Redis 7 or Valkey. Gateways of one fleet need the same `prefix`, the same `secrets.hashes` (or none) and the same
/// `throttle.partitions`: only then do they mean the same by a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS, `redis+unix:///path` for a socket, with
    /// `?protocol=resp3` for RESP3. One server, or several sentinels or servers of a cluster.
    pub urls: OneOrMany<StoreUrl>,
    /// How the servers belong together. Default: standalone.
    #[serde(default)]
    pub topology: Topology,
    /// The name under which sentinels know the server; with `topology: sentinel` only, where it must be given.
    pub master_name: Option<String>,
    /// The user to log in as. Default: the one in the URL, except behind sentinels, where that is the sentinels' user.
    pub user: Option<String>,
    /// The password, in a file. Default: the one in the URL, except behind sentinels, where that is the sentinels'.
    pub password: Option<PasswordFile>,
    /// A PEM file of authorities, one of which must have signed the servers' certificates. Default: those that this
    /// machine trusts.
    pub ca: Option<PathBuf>,
    /// A PEM file of the certificate chain, the leaf first, that servers are shown which ask for one, as Redis does with TLS
    /// unless told otherwise; together with `key`. Default: none is shown. A new one takes a restart.
    pub cert: Option<PathBuf>,
    /// A PEM file of the leaf's private key.
    pub key: Option<PathBuf>,
    /// What the names of all keys begin with: letters, digits, `-`, `_`, `.` and `:`, at most 64. Default: tidegate.
    #[serde(default = "store_prefix")]
    pub prefix: String,
    /// Longest wait for an answer, 1ms to 10s. Default: 100ms.
    #[serde(default = "store_timeout")]
    pub timeout: Span,
}

/// A file with a password that only this process may read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordFile {
    /// The password alone; white space around it is not part of it. Read at the start: to change it, let Redis know the
    /// new one beside the old (`ACL SETUSER` takes several), restart the gateways with it, and take the old one away.
    pub file: PathBuf,
}

/// How the servers of a store belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// One server.
    #[default]
    Standalone,
    /// One server out of several, named by sentinels.
    Sentinel,
    /// Several servers, each with a share of the keys.
    Cluster,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where the lines go. Default: stdout.
    pub to: LogTarget,
    /// What a line looks like. Default: json.
    pub format: Format,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    /// The standard output.
    #[default]
    Stdout,
    /// The standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// The end of this file.
    File(PathBuf),
}

/// Budgets in front of the store. The defaults suit 10,000 requests/s and a million clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// Between two turns of the sync with the store, 1ms to 10s. Default: 50ms.
    pub pace: Span,
    /// Keys with an exact budget of their own, for each limit, 1 to 10,000,000. Default: 100000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub hot_keys: usize,
    /// Slots in each row of the sketch of all other keys, 1,024 to 16,777,216. Default: 262144.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub cold_slots: usize,
    /// Parts into which a limit's keys are split, 1 to 1,024; the same in the whole fleet. Default: 16.
    #[schemars(range(min = 1, max = 1_024))]
    pub partitions: usize,
}

/// What the gateways of a fleet share and nobody else knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// What signs tickets and passes: one key a line, 64 hex digits each; the first signs, all verify. Needs `hashes`
    /// beside it. Default: a key of this process's own, so that a restart empties its rooms.
    pub tickets: Option<SecretFile>,
    /// What clients' values are hashed with before they are counted, stored or written on a ticket: one line of 64 hex
    /// digits. It is not rotated with the keys of tickets: another one starts all counts afresh, and bound tickets and
    /// places by `one_place_per` are then somebody else's. Default: with the memory store, one of this process's own;
    /// with Redis, one that everybody can read.
    pub hashes: Option<SecretFile>,
}

/// A file that only this process may read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Its path. Empty lines in it are skipped, and lines that begin with `#`.
    pub file: PathBuf,
}

/// Bounds on what clients may open and send.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open client connections of all listeners together, 1 to 10,000,000. Default: 100000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: usize,
    /// Of these, most of one client (an IPv4 address, an IPv6 /64), 1 to 1,000,000; what comes beyond is closed at once.
    /// Proxies that are trusted are not counted, and with a PROXY header the client is whom it names. Mind that a whole
    /// office may stand behind one address, and that a browser opens up to six connections. Default: as many as there are.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client: Option<usize>,
    /// All headers of a request together, 1KiB to 1MiB. Default: 32KiB.
    pub header_bytes: Size,
    /// Headers of a request, 1 to 1,000. Default: 100.
    #[schemars(range(min = 1, max = 1_000))]
    pub headers: usize,
    /// The target of a request: its path and query, 256B to 64KiB. Default: 8KiB.
    pub request_line: Size,
    /// Least that must come of a request's body in a second, 1B to 1GiB. A body that lies more than 10s behind that rate
    /// (`timeouts: { request_body }` where that is shorter) is answered 408, and no server is blamed; what goes through a
    /// tunnel is none. Default: 1KiB.
    pub body_per_second: Size,
}

/// The queue API, which stands on every listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueApi {
    /// The path under which it stands: `/` and a segment, or several, of letters, digits, `-`, `_`, `.` and `~`.
    /// Default: /queue.
    pub prefix: String,
    /// Joins of one client network (an IPv4 address, an IPv6 /64) at this gateway, as in `300/s`; a day is the longest
    /// window. Default: 300/s.
    pub joins: Rate,
    /// All other calls of one client network, counted so too. Default: 3000/s.
    pub polls: Rate,
    /// The streams of those who follow their place as server-sent events.
    pub events: QueueEvents,
}

/// Streams of server-sent events. Each is a connection that stays open.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueEvents {
    /// Most at once, 0 to 1,000,000; whoever comes then is sent back to asking for the status. Default: 10000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub streams: usize,
    /// How long one lives, give or take a quarter, 1s to 1 day; clients come again by themselves. Default: 5m.
    pub life: Span,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            bind: Bind(([127, 0, 0, 1], 9180).into()),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_header: seconds(10),
            idle: seconds(75),
            request_body: seconds(60),
            response_write: seconds(60),
            tls_handshake: seconds(10),
            grace: seconds(0),
            drain: seconds(30),
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            pace: Span(Duration::from_millis(50)),
            hot_keys: 100_000,
            cold_slots: 262_144,
            partitions: 16,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_client: None,
            header_bytes: Size(32 << 10),
            headers: 100,
            request_line: Size(8 << 10),
            body_per_second: Size(1 << 10),
        }
    }
}

impl Default for QueueApi {
    fn default() -> Self {
        Self {
            prefix: api::PREFIX_DEFAULT.to_owned(),
            joins: api::JOINS_DEFAULT,
            polls: api::POLLS_DEFAULT,
            events: QueueEvents::default(),
        }
    }
}

impl Default for QueueEvents {
    fn default() -> Self {
        Self {
            streams: events::STREAMS_DEFAULT,
            life: Span(events::LIFE_DEFAULT),
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn max_body() -> Size {
    Size(16 << 20)
}

fn store_prefix() -> String {
    crate::store::redis::PREFIX.to_owned()
}

fn store_timeout() -> Span {
    Span(Duration::from_millis(100))
}

fn yes() -> bool {
    true
}
