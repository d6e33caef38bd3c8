//! A rule file: upstreams, rooms and routes, applied within a second of being saved.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::address::{Host, Opening, Verb};
use super::admit::Admit;
use super::bypass::Bypass;
use super::eject::Eject;
use super::page::{Challenge, RoomPage};
use crate::base::key::KeySpec;
use crate::base::name::Name;
use crate::base::one_or_many::OneOrMany;
use crate::base::unit::{Percent, Span};
use crate::plugins::ChainStep;
use crate::queue::terms::{Mode, Order};
use crate::room::holder::Bind;
use crate::room::rule::{OnStoreFault, PASS_DEFAULT};
use crate::upstream::Release;

/// Rules. Names are unique across all rule files, and a route may use what another file defines.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The services behind the gateway, by name.
    pub upstreams: BTreeMap<Name, Upstream>,
    /// The waiting rooms, by name.
    pub rooms: BTreeMap<Name, Room>,
    /// Which requests go where, and through what. The most specific match takes a request, in whatever order routes
    /// are written.
    pub routes: Vec<Route>,
}

/// A service: servers that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The servers; at least one, at most 256. Plain HTTP/1.1 is spoken to them.
    pub servers: OneOrMany<Server>,
    /// Which server gets the next request. Default: round_robin.
    #[serde(default)]
    pub balance: Balance,
    /// How long a server may take.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    /// When a request is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// When a server is passed over, by what requests meet there. Default: on.
    #[serde(default)]
    pub eject: Eject,
    /// Requests that this gateway has under way there at once, from 1. Default: no bound.
    #[schemars(range(min = 1))]
    pub in_flight: Option<u32>,
    /// When a request stops counting towards `in_flight`. Default: upstream.
    #[serde(default)]
    pub release: Release,
}

/// A server, and how much of the load it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host and port.
    pub address: Host,
    /// Its share beside the others', 1 to 1,000.
    pub weight: u32,
}

/// A server in full.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ServerInFull {
    /// Host and port, as in `10.0.0.7:9000`.
    address: Host,
    /// Its share beside the others', 1 to 1,000. Default: 1.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 1_000))]
    weight: u32,
}

/// Which server gets the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in turn, by weight.
    #[default]
    RoundRobin,
}

/// Bounds on the time that a server may take. Every value is at least 1ms and at most 1 day.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeouts {
    /// To take a connection. Default: 1s.
    pub connect: Span,
    /// Between two pieces of the answer, the first included; while a body of more than 64KiB or without a length is sent,
    /// at least `timeouts: { request_body }` of the process. Through a WebSocket, or whatever else a connection was
    /// upgraded to: how long nothing may come from either side before the tunnel is closed. Default: 30s.
    pub read: Span,
    /// Between two pieces of the request that it takes. Default: 30s.
    pub write: Span,
    /// How long an idle connection is kept. How many are kept is bounded for all upstreams together. Default: 60s.
    pub idle: Span,
}

/// When a request is tried again, at another server if there is one.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries in all, the first included, 1 to 10. Default: 2.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// After which failures. Default: connect.
    pub on: OneOrMany<RetryOn>,
    /// Largest share of requests that may be retries, so that retries cannot bury a service. A request that got no
    /// connection and goes to another server, one that is in, does not count. Default: 10%.
    pub budget: Percent,
}

/// A failure after which a request may safely be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// No connection came about: the server has seen nothing of the request. Or an old connection was closed just as
    /// it was used, without an answer, and the method is one that may be repeated.
    Connect,
}

/// A waiting room, which guards the routes whose chains have a `waiting_room` step of its name.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// What it lets through. At least one of `visitors` and `admit`.
    pub capacity: Capacity,
    /// Before this moment everyone waits; written with its offset, as in `2026-12-01T20:00:00+09:00`. Default: open.
    pub open: Option<Opening>,
    /// Who is called next; `shuffle` needs `open`. Default: arrival.
    #[serde(default)]
    pub order: Order,
    /// Without a sign of life for so long, a visitor gives up the place; 30s to 1 day. Default: 5m.
    #[serde(default = "abandon_after")]
    pub abandon_after: Span,
    /// A called visitor who does not come within this gives up the slot; 1s to 1 day. Default: 2m.
    #[serde(default = "claim_within")]
    pub claim_within: Span,
    /// Who gets one place only: a second join gives back the first ticket. Default: anyone may join again.
    pub one_place_per: Option<KeySpec>,
    /// Most places, waiting or inside, of one client network: an IPv4 address, or the /64 of an IPv6 one; 1 to 1,000,000.
    /// Behind one address may be a whole company or a carrier's customers. Default: no bound.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_places_per_network: Option<u32>,
    /// From where a ticket or a pass may be shown; `key` needs `one_place_per`. From elsewhere it counts as none.
    /// Default: none.
    #[serde(default)]
    pub bind: Bind,
    /// Who passes without a place. Default: nobody.
    pub bypass: Option<Bypass>,
    /// The waiting page. Default: the built-in one.
    pub page: Option<RoomPage>,
    /// What a new place costs. Default: nothing.
    pub challenge: Option<Challenge>,
    /// The status of the waiting page: 200, 202, 429 or 503. Default: 200.
    #[serde(default = "status")]
    pub status: u16,
    /// Paths of guarded routes that are not queued, starting with `/`; `/**` at the end takes everything below.
    #[serde(default)]
    pub exempt: OneOrMany<String>,
    /// What becomes of newcomers while the store is away. Default: hold.
    #[serde(default)]
    pub on_store_fault: OnStoreFault,
    /// Longest queue, 1 to 100,000,000; who comes then is turned away. Default: 1000000.
    #[serde(default = "max_waiting")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_waiting: u64,
    /// Between two looks at who is next, 10ms to 10s. Default: 200ms.
    #[serde(default = "tick")]
    pub tick: Span,
    /// Who decides whether visitors wait. Default: auto.
    #[serde(default)]
    pub mode: Mode,
    /// How long a waiting visitor's connection is kept for the next poll, 0s to 1h; it is closed at once where that poll is
    /// due later. A kept connection costs memory, a new one a TLS handshake. Default: 5s.
    #[serde(default = "keepalive")]
    pub keepalive: Span,
}

/// What a room lets through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Visitors called or inside at once, 1 to 1,000,000,000,000. Default: no bound.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub visitors: Option<u64>,
    /// Visitors called in so much time, as in `1000/s`; or `{ min: 50/s, max: 500/s, upstream: shop }`, between which
    /// the health of that upstream decides. Default: no bound.
    pub admit: Option<Admit>,
    /// How long a visitor stays inside after the last request that used the pass; 1s to 7 days. Default: 10m.
    #[serde(default = "pass")]
    pub pass: Span,
}

/// Requests of one kind, what they pass, and where they go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: Name,
    /// Which requests it takes. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What they pass, in this order; may be empty. Stages may not go backwards: access, admission, transform.
    pub chain: Vec<ChainStep>,
    /// The upstream that answers. May be left out if the chain ends with `respond` or `redirect`; what such a redirect
    /// lets pass gets 404.
    pub upstream: Option<Name>,
}

/// Which requests a route takes: those that fit every key written here. It guards nothing: what does not fit goes on to
/// the next route that takes it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Hosts: `shop.example.com`, or `*.shop.example.com` for all below it. Default: every host.
    pub hosts: OneOrMany<String>,
    /// A path: `/exact`, `/users/{id}/orders`, `~ regex` or `/prefix/**`, in the order in which they are tried. In a
    /// segment of the request's path, what follows a `;` is not compared. Default: every path.
    pub path: Option<String>,
    /// Methods, in capitals. Requests with others go to another route, past this one's chain; to refuse them, write the
    /// `methods` step into the chain. Default: every method.
    pub methods: OneOrMany<Verb>,
    /// Headers with the values they must have.
    pub headers: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;

        impl<'de> Visitor<'de> for TextOrMap {
            type Value = Server;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host and port, or a map of `address` and `weight`")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Server, D::Error> {
                let ServerInFull { address, weight } = ServerInFull::deserialize(inner)?;
                Ok(Server { address, weight })
            }
        }

        deserializer.deserialize_newtype_struct("$tidegate::Shorthand:address", TextOrMap)
    }
}

impl JsonSchema for Server {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Server".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, in_full) = (
            generator.subschema_for::<Host>(),
            generator.subschema_for::<ServerInFull>(),
        );
        schemars::json_schema!({ "description": "A server.", "anyOf": [address, in_full] })
    }
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: seconds(1),
            read: seconds(30),
            write: seconds(30),
            idle: seconds(60),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: OneOrMany(vec![RetryOn::Connect]),
            budget: Percent(0.1),
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn weight() -> u32 {
    1
}

fn abandon_after() -> Span {
    seconds(300)
}

fn claim_within() -> Span {
    seconds(120)
}

fn status() -> u16 {
    200
}

fn max_waiting() -> u64 {
    1_000_000
}

fn keepalive() -> Span {
    Span(crate::room::rule::KEEPALIVE_DEFAULT)
}

fn tick() -> Span {
    Span(Duration::from_millis(200))
}

fn pass() -> Span {
    Span(PASS_DEFAULT)
}
